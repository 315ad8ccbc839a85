// Package torture holds tests that attack the built program from both sides: as hostile callers over its unix socket and over TCP, and as
// hostile providers behind it. All of them speak raw bytes, since no HTTP library would send what an attacker does.
//
// Each test fills one row of a table, printed at the end: the bar, the figure that was measured, and whether it holds. The short form
// runs with all other tests, on machines that do other things too, and so holds no time against the program; KEYWARD_TORTURE=1 runs the long
// one, which does, and -args -n=N -seed=S sets how much and which.
package torture
