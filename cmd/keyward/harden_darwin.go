package main

import (
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// harden makes the process give away as little as this kernel allows: no core dump, and no debugger.
func harden() (missing []string) {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		missing = append(missing, "hardening the process, core limit: "+err.Error())
	}
	if err := unix.PtraceDenyAttach(); err != nil {
		missing = append(missing, "hardening the process, no debugger: "+err.Error())
	}
	return missing
}

// startAnew has the garbage collector overwrite what it frees, as on Linux (harden_linux.go says why). Privileges cannot be given up here.
func startAnew() error {
	const setting = "clobberfree=1"
	old := os.Getenv("GODEBUG")
	if strings.Contains(builtWith+","+old, "clobberfree=") {
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
	return syscall.Exec(self, os.Args, os.Environ())
}

// builtWith are the runtime's settings that the linker gave the program (tools/build.sh).
var builtWith string
