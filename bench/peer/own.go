package peer

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"

	"github.com/keyward/keyward/bench/role"
)

// An own peer is written in Go and lives here: this binary once more, in a process whose CPU and memory can be read.
type own struct {
	name    string
	process *process
}

// :: name → serves callers from the listener, connecting to the provider as the configuration says
var served = map[string]func(u Upstream, c *tls.Config, l net.Listener) error{Relay: serveRelay, ReverseProxy: serveReverseProxy}

func init() {
	for name, serve := range served {
		role.Register(name, func([]string) error { return serveOwn(serve, os.Stdin) })
	}
}

func relay() *own { return &own{name: Relay} }

func reverseProxy() *own { return &own{name: ReverseProxy} }

func (o *own) Name() string { return o.name }

func (o *own) PIDs() []int { return o.process.all() }

func (o *own) Stop() error { return o.process.stop() }

func (o *own) Start(ctx context.Context, u Upstream) (Endpoint, error) {
	dir, err := u.folder(o.name)
	if err != nil {
		return Endpoint{}, err
	}
	u.Dir = dir
	cmd, err := role.Command(o.name)
	if err != nil {
		return Endpoint{}, fmt.Errorf("starting %s: %w", o.name, err)
	}
	told, err := json.Marshal(u) // by standard input: arguments and the environment are read by others
	if err != nil {
		return Endpoint{}, fmt.Errorf("starting %s: %w", o.name, err)
	}
	cmd.Stdin = bytes.NewReader(told)
	socket := filepath.Join(dir, "sock")
	if o.process, err = launch(ctx, o.name, cmd, socket, u.Value, 0); err != nil {
		return Endpoint{}, err
	}
	return Endpoint{Network: "unix", Address: socket}, nil
}

// serveOwn is the other process's side.
func serveOwn(serve func(Upstream, *tls.Config, net.Listener) error, in io.Reader) error {
	var u Upstream
	if err := json.NewDecoder(in).Decode(&u); err != nil {
		return fmt.Errorf("reading what to forward to: %w", err)
	}
	c, err := u.client() // before it listens, which says that it came up
	if err != nil {
		return err
	}
	l, err := net.Listen("unix", filepath.Join(u.Dir, "sock"))
	if err != nil {
		return err
	}
	return errors.Join(serve(u, c, l), l.Close())
}
