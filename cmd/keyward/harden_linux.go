package main

import (
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// harden makes the process give away as little as the kernel allows: no core dump, neither by a crash nor, without saying so twice, by
// root; no tracing by other processes of the same user. What cannot be had on this kernel is told, not fatal.
func harden() (missing []string) {
	try := func(what string, err error) {
		if err != nil {
			missing = append(missing, "hardening the process, "+what+": "+err.Error())
		}
	}
	// Before the process stops being dumpable: its /proc files belong to root afterwards. No kind of memory goes into a core, which
	// gcore honours as well (core(5)).
	try("core filter", os.WriteFile("/proc/self/coredump_filter", []byte("0"), 0))
	try("core limit", unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}))
	try("not dumpable", unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0))
	return missing
}

// The main goroutine begins on the process's first thread, and keeps that thread to itself. What a parent has asked of this process by
// PR_SET_PDEATHSIG is that thread's, and startAnew's exec from another thread would lose it. And the kernel prefers it for the signals
// that are sent to a process (SIGHUP, a terminal's): no request runs on it, so that its registers, which are saved then, hold none of
// their secrets (runtimeSettings).
func init() { runtime.LockOSThread() }

// runtimeSettings are those that the Go runtime reads at its start, and only there (GODEBUG).
var runtimeSettings = []string{
	// The collector overwrites what it frees. Secrets that pass through libraries (a request body of the admin API, a parsed token) leave
	// copies that nobody can name; this way they last until the next collection and no longer.
	"clobberfree=1",
	// The runtime sends its threads no signals to interrupt code that calls nothing; it waits for the next call. For a signal, the kernel
	// writes all registers to memory of that thread's, where they stay until its next signal, perhaps for ever: and vector registers
	// hold what was copied last. No code of ours can overwrite them there, so there must be none.
	"asyncpreemptoff=1",
}

// withRuntimeSettings is GODEBUG with the settings that it does not name; what it says of one stands. complete: it names all.
func withRuntimeSettings(godebug string) (with string, complete bool) {
	var all []string
	if godebug != "" {
		all = strings.Split(godebug, ",")
	}
	named := len(all)
	for _, setting := range runtimeSettings {
		name, _, _ := strings.Cut(setting, "=")
		if !slices.ContainsFunc(all, func(s string) bool { return strings.HasPrefix(s, name+"=") }) {
			all = append(all, setting)
		}
	}
	return strings.Join(all, ","), len(all) == named
}

// startAnew has the runtime leave no secrets behind: unless it was built with runtimeSettings the program starts itself again with them,
// once, in the same process. Either way it gives up gaining privileges.
func startAnew() error {
	if builtWith == strings.Join(runtimeSettings, ",") && giveUpPrivileges() == nil {
		return nil
	}
	with, complete := withRuntimeSettings(os.Getenv("GODEBUG"))
	if given, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); complete && err == nil && given == 1 {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := os.Setenv("GODEBUG", with); err != nil {
		return err
	}
	// A thread's own setting, which the one thread that is left after exec, and all that it makes, inherit.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return syscall.Exec(self, os.Args, os.Environ())
}

// builtWith are the runtime's settings that the linker gave the program (tools/build.sh): those of GODEBUG come on top of them. What has
// been started need not be started anew then, which takes as long as all else of a start.
var builtWith string

// giveUpPrivileges has all threads that there are, and those that they make, gain none any more. With cgo that cannot be done.
func giveUpPrivileges() error {
	if _, _, e := syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); e != 0 {
		return e
	}
	return nil
}
