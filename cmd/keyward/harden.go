package main

import (
	"os"
	"runtime"
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

// The main goroutine begins on the process's first thread. It stays there for startAnew: what a parent has asked of this process by
// PR_SET_PDEATHSIG is that thread's, and exec from another thread would lose it.
func init() { runtime.LockOSThread() }

// startAnew has the garbage collector overwrite what it frees. Secrets that pass through libraries (a request body of the admin
// API, a parsed token) leave copies that nobody can name; this way they last until the next collection and no longer. The runtime
// reads the setting at its start only, so the program starts itself again, once, in the same process; it gives up gaining privileges on
// the way.
func startAnew() error {
	const setting = "clobberfree=1"
	old := os.Getenv("GODEBUG")
	if strings.Contains(old, "clobberfree=") {
		runtime.UnlockOSThread()
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if old != "" {
		old += ","
	}
	if err := os.Setenv("GODEBUG", old+setting); err != nil {
		return err
	}
	// A thread's own setting, which the one thread that is left after exec, and all that it makes, inherit.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return syscall.Exec(self, os.Args, os.Environ())
}
