package provider

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/keyward/keyward/bench/role"
)

const roleName = "provider"

func init() {
	role.Register(roleName, func([]string) error { return serveProcess(os.Stdin, os.Stdout) })
}

// A Process is a stand-in in a process of its own: it is told what to do, a line of JSON each, and ends when its standard input does.
type Process struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
	mu  sync.Mutex

	address string
	ca      []byte
}

type order struct {
	Do         string        `json:"do"`
	Options    *Options      `json:"options,omitempty"`
	Org        string        `json:"org,omitempty"`
	Generation int64         `json:"generation,omitempty"`
	For        time.Duration `json:"for,omitempty"`
}

type told struct {
	Address string `json:"address,omitempty"`
	CA      []byte `json:"ca,omitempty"`
	Stats   Stats  `json:"stats"`
	Error   string `json:"error,omitempty"`
}

// Launch starts a stand-in in a process of its own.
func Launch(o Options) (*Process, error) {
	cmd, err := role.Command(roleName)
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the provider: %w", err)
	}
	p := &Process{cmd: cmd, in: in, out: bufio.NewReader(out)}
	t, err := p.order(order{Do: "start", Options: &o})
	if err != nil {
		_ = p.Close()
		return nil, fmt.Errorf("starting the provider: %w", err)
	}
	p.address, p.ca = t.Address, t.CA
	return p, nil
}

// Address is HOST:PORT.
func (p *Process) Address() string { return p.address }

// CA is the certificate to trust, in PEM.
func (p *Process) CA() []byte { return p.ca }

// PID is the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Stats counts from the start.
func (p *Process) Stats() (Stats, error) {
	t, err := p.order(order{Do: "stats"})
	return t.Stats, err
}

// Stall holds every answer until d from now.
func (p *Process) Stall(d time.Duration) error {
	_, err := p.order(order{Do: "stall", For: d})
	return err
}

// Slow holds each answer back for a moment, for d from now.
func (p *Process) Slow(d time.Duration) error {
	_, err := p.order(order{Do: "slow", For: d})
	return err
}

// Reset resets some connections in place of an answer, or in the middle of a stream, for d from now.
func (p *Process) Reset(d time.Duration) error {
	_, err := p.order(order{Do: "reset", For: d})
	return err
}

// Revoke refuses the org's keys up to that generation from now on.
func (p *Process) Revoke(org string, generation int64) error {
	_, err := p.order(order{Do: "revoke", Org: org, Generation: generation})
	return err
}

// Close ends the process.
func (p *Process) Close() error {
	_ = p.in.Close()
	done := make(chan error, 1)
	go func() { done <- p.cmd.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(5 * time.Second):
		_ = p.cmd.Process.Kill()
		return <-done
	}
}

func (p *Process) order(o order) (told, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var t told
	if err := json.NewEncoder(p.in).Encode(o); err != nil {
		return t, fmt.Errorf("telling the provider: %w", err)
	}
	line, err := p.out.ReadBytes('\n')
	if err != nil {
		return t, fmt.Errorf("hearing from the provider: %w", err)
	}
	if err := json.Unmarshal(line, &t); err != nil {
		return t, fmt.Errorf("hearing from the provider: %w", err)
	}
	if t.Error != "" {
		return t, errors.New(t.Error)
	}
	return t, nil
}

func serveProcess(in io.Reader, out io.Writer) error {
	var p *Provider
	answers := json.NewEncoder(out)
	for orders := json.NewDecoder(in); ; {
		var o order
		if err := orders.Decode(&o); err != nil {
			return nil // whoever started it has gone
		}
		var t told
		switch o.Do {
		case "start":
			started, err := Start(*o.Options)
			if err != nil {
				t.Error = err.Error()
				break
			}
			p = started
			t.Address, t.CA = p.Address(), p.CA()
		case "stats":
			t.Stats = p.Stats()
		case "stall":
			p.Stall(o.For)
		case "slow":
			p.Slow(o.For)
		case "reset":
			p.Reset(o.For)
		case "revoke":
			p.Revoke(o.Org, o.Generation)
		default:
			t.Error = fmt.Sprintf("no order %q", o.Do)
		}
		if err := answers.Encode(t); err != nil {
			return err
		}
	}
}
