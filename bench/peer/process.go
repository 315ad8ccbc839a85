package peer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	readyIn = time.Minute // a loaded machine starts a process in seconds
	endsIn  = 5 * time.Second
)

// A process is a peer's: the program itself and what it forks, in a process group of its own.
type process struct {
	name   string
	cmd    *exec.Cmd
	said   string // file of what it prints: a pipe would have the harness work while it measures
	ended  chan struct{}
	secret string // kept out of errors
	pids   []int
	once   sync.Once
}

// launch starts cmd and waits until it accepts connections on the unix socket and has so many children.
func launch(ctx context.Context, name string, cmd *exec.Cmd, socket, secret string, children int) (*process, error) {
	p := &process{name: name, cmd: cmd, said: filepath.Join(filepath.Dir(socket), "said"), ended: make(chan struct{}), secret: secret}
	out, err := os.OpenFile(p.said, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	defer func() { _ = out.Close() }() // the process has its own
	cmd.Stdout, cmd.Stderr = out, out
	// The peer ends with the harness, however that ends; more exactly with the thread that started it, and here no goroutine ends its thread
	// (it would by returning while locked to it). SIGTERM rather than SIGKILL: a master passes it on to its workers.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	go func() { _ = cmd.Wait(); close(p.ended) }()
	if err := p.ready(ctx, socket, children); err != nil {
		return nil, errors.Join(fmt.Errorf("starting %s: %w", name, err), p.stop())
	}
	return p, nil
}

// ready polls: there is no other sign that all peers give.
func (p *process) ready(ctx context.Context, socket string, children int) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyIn, fmt.Errorf("it did not listen on %q within %v", socket, readyIn))
	defer cancel()
	for {
		c, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
		if err == nil {
			_ = c.Close()
			if p.pids = family(p.cmd.Process.Pid); len(p.pids) > children {
				return nil
			}
		}
		select {
		case <-p.ended:
			return fmt.Errorf("it ended (%v) and said: %s", p.cmd.ProcessState, p.words())
		case <-ctx.Done():
			_ = p.stop()
			return fmt.Errorf("%w; it said: %s", context.Cause(ctx), p.words())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// words are the last that the process printed.
func (p *process) words() string {
	all, _ := os.ReadFile(p.said)
	said := strings.TrimSpace(string(all))
	if p.secret != "" {
		said = strings.ReplaceAll(said, p.secret, "[credential]")
	}
	if len(said) > 2000 {
		said = "…" + said[len(said)-2000:]
	}
	if said == "" {
		return "nothing"
	}
	return said
}

// stop asks, then insists, and takes along what the process left.
func (p *process) stop() error {
	if p == nil {
		return nil
	}
	p.once.Do(func() {
		group := -p.cmd.Process.Pid
		_ = syscall.Kill(group, syscall.SIGTERM)
		select {
		case <-p.ended:
		case <-time.After(endsIn): // it waits for its callers
		}
		_ = syscall.Kill(group, syscall.SIGKILL) // no such process: nothing was left
		<-p.ended
	})
	return nil
}

// family is a process and its children.
func family(pid int) []int {
	all := []int{pid}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// pid (name) state ppid …; the name may hold anything, parentheses too
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			if child, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
				all = append(all, child)
			}
		}
	}
	return all
}

// installed finds a program; the folders of daemons are not in every user's PATH.
func installed(name string) (string, bool) {
	for _, try := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
		if path, err := exec.LookPath(try); err == nil {
			return path, true
		}
	}
	return "", false
}

// all are the PIDs; a process that was not started has none.
func (p *process) all() []int {
	if p == nil {
		return nil
	}
	return p.pids
}
