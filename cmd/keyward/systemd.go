package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// What a service manager is told (sd_notify(3)). Without one, nobody is.
const (
	daemonReady    = daemon.SdNotifyReady + "\nSTATUS=serving"
	daemonStopping = daemon.SdNotifyStopping + "\nSTATUS=draining"
)

// daemonReloading begins a reload. The time is for Type=notify-reload, which tells the answer to its own SIGHUP from an earlier one by it.
func daemonReloading() string {
	return daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec() + "STATUS=reading the configuration anew"
}

func notify(state string) { _, _ = daemon.SdNotify(false, state) }

// A beat is a listener of the data path that the watchdog asks.
type beat struct {
	name string
	addr net.Addr
	full func() bool // who connects waits for another to leave: no answer then says nothing
}

// newPulse is the target of the watchdog's requests, which nobody else can guess.
func newPulse() string { return "/keyward/pulse/" + rand.Text() }

// watchdog tells the service manager that the sidecar lives (WatchdogSec=), at twice the pace that it asks for. A process that runs is no
// proof: each time every listener is asked as a caller would ask it, so that accepting, reading a head and answering all have to work. The
// store and the providers take no part: a restart would not bring them back.
func (s *sidecarProcess) watchdog(ctx context.Context) {
	limit, err := daemon.SdWatchdogEnabled(false)
	switch {
	case err != nil:
		s.log.Warn().Err(err).Msg("the service manager's watchdog setting cannot be read; it is told nothing")
		return
	case limit == 0:
		return
	}
	tick := time.NewTicker(limit / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := s.alive(ctx, limit/2); err != nil {
			s.log.Error().Err(err).Msg("a listener does not answer: the service manager is not told that the sidecar lives, and will restart it")
			continue
		}
		notify(daemon.SdNotifyWatchdog)
	}
}

// alive asks all listeners at once. While the sidecar drains they are shut on purpose, and --drain-timeout is the limit.
func (s *sidecarProcess) alive(ctx context.Context, most time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	answers := make(chan error, len(s.beats))
	for _, b := range s.beats {
		s.owned.Go(func() {
			err := b.ask(ctx, s.pulse)
			if err != nil && (b.full() || s.checkDraining(ctx) != nil) {
				err = nil
			}
			answers <- err
		})
	}
	var all error
	for range s.beats {
		all = errors.Join(all, <-answers)
	}
	return all
}

// ask wants an answer of this very process: another one that shares the socket (its predecessor, in a hand-over) may take the connection,
// and then it asks again.
func (b beat) ask(ctx context.Context, pulse string) error {
	for {
		status, err := b.once(ctx, pulse)
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", b.name, err)
		case status == http.StatusNoContent:
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: another process answers", b.name)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (b beat) once(ctx context.Context, pulse string) (status int, err error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, b.addr.Network(), b.addr.String())
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	if until, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(until)
	}
	if _, err := io.WriteString(c, "GET "+pulse+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}
