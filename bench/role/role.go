// Package role lets one binary be several processes: the harness starts itself again as the provider, as the app and as the peers that
// are written in Go, so that each has a process whose CPU and memory can be read.
package role

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

const variable = "KEYWARD_BENCH_ROLE"

// :: name → what the process does
var roles = map[string]func(args []string) error{}

// Register names what the binary does when it is started by Command. It is called from init or before Dispatch.
func Register(name string, run func(args []string) error) { roles[name] = run }

// Dispatch runs the role that this process was started for and exits; in the first process it does nothing. It is the first call of main
// and of TestMain.
func Dispatch() {
	if name := os.Getenv(variable); name != "" {
		os.Exit(play(name)) //nolint:forbidigo // it stands for main
	}
}

func play(name string) int {
	run := roles[name]
	if run == nil {
		fmt.Fprintf(os.Stderr, "no role %q in this binary\n", name)
		return 2
	}
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		return 1
	}
	return 0
}

// Command is this binary as the named role. It ends with the process that started it, however that ends.
func Command(name string, args ...string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), variable+"="+name)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd, nil
}
