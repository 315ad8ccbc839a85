// Package e2e has tests alone: they use the console as a person does, in a real Chromium, against the built program with stand-ins in the
// providers' place. It is a module of its own, so that what drives the browser is no part of what builds the program.
package e2e
