// Package provider is the fast stand-in that benchmarks send to: TLS 1.3 with ECDSA P-256, few system calls, answers formatted beforehand. It
// checks the injected credential of every request and answers 401 without it, so that no peer can be fast by leaving the work out.
//
// A request names its org in X-Bench-Org (a peer with one static header: "acme"), and must bring that org's key, KeyOf(org), as a bearer token
// or, under /v1/, as xi-api-key. A key may carry a generation, "KEY.7"; Revoke ends the generations up to one of an org.
//
// What it answers depends on the path: see routes. It may delay every Nth answer (Options.DelayEvery), and stall as a whole (Provider.Stall),
// which is what the generator's own tests need.
package provider

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Options of a stand-in.
type Options struct {
	// Plain serves without TLS.
	Plain bool
	// DelayEvery and Delay hold back each Nth answer; 0: none.
	DelayEvery int64
	Delay      time.Duration
	// AnswerBytes is how long the usual answer's body is; 0: 500.
	AnswerBytes int
	// Open asks for no credential: the stand-in is the app that webhooks go to.
	Open bool
}

// Stats are counted from the start.
type Stats struct {
	Conns        int64 // accepted
	Requests     int64
	Unauthorized int64
}

// A Provider is one that runs.
type Provider struct {
	o       Options
	l       net.Listener
	ca      []byte
	answer  []byte
	conns   atomic.Int64
	reqs    atomic.Int64
	refused atomic.Int64
	stall   atomic.Int64 // unix ns until which answers are held
	slow    atomic.Int64 // until which each is late by slowBy
	reset   atomic.Int64 // until which each resetEvery-th connection is reset in place of an answer

	mu      sync.Mutex
	revoked map[string]int64 // :: org → last generation that is over
	open    map[net.Conn]bool
	closed  bool
	running sync.WaitGroup
	any     atomic.Bool // something was revoked
}

var keyStart, keyEnd = []byte("re_bench_"), []byte("_0123456789abcdef")

// KeyOf is the key that an org's requests must bring.
func KeyOf(org string) string { return string(keyStart) + org + string(keyEnd) }

// Start listens on a port of loopback.
func Start(o Options) (*Provider, error) {
	if o.AnswerBytes == 0 {
		o.AnswerBytes = 500
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Provider{o: o, l: l, revoked: map[string]int64{}, open: map[net.Conn]bool{}}
	p.answer = usualAnswer(o.AnswerBytes)
	if !o.Plain {
		cert, ca, err := makeCertificate()
		if err != nil {
			_ = l.Close()
			return nil, err
		}
		p.ca = ca
		p.l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}})
	}
	p.running.Go(p.accept)
	return p, nil
}

// Address is HOST:PORT.
func (p *Provider) Address() string { return p.l.Addr().String() }

// CA is the certificate to trust, in PEM; nil without TLS.
func (p *Provider) CA() []byte { return p.ca }

// Stats counts.
func (p *Provider) Stats() Stats {
	return Stats{Conns: p.conns.Load(), Requests: p.reqs.Load(), Unauthorized: p.refused.Load()}
}

// Stall holds every answer until d from now.
func (p *Provider) Stall(d time.Duration) { p.stall.Store(time.Now().Add(d).UnixNano()) }

// What Slow and Reset do.
const (
	slowBy     = 400 * time.Millisecond
	resetEvery = 3
)

// Slow holds each answer back for a moment, for d from now.
func (p *Provider) Slow(d time.Duration) { p.slow.Store(time.Now().Add(d).UnixNano()) }

// Reset resets some connections in place of an answer, or in the middle of a stream, for d from now.
func (p *Provider) Reset(d time.Duration) { p.reset.Store(time.Now().Add(d).UnixNano()) }

// resets says whether that befalls the nth request.
func (p *Provider) resets(n int64) bool {
	until := p.reset.Load()
	return until > 0 && n%resetEvery == 0 && time.Now().UnixNano() < until
}

// Revoke refuses the org's keys up to that generation from now on.
func (p *Provider) Revoke(org string, generation int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.revoked[org] = max(p.revoked[org], generation)
	p.any.Store(true)
}

// Close ends all connections and waits.
func (p *Provider) Close() error {
	err := p.l.Close()
	p.mu.Lock()
	p.closed = true
	for c := range p.open {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.running.Wait()
	return err
}

func (p *Provider) accept() {
	for {
		c, err := p.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(time.Millisecond) // out of descriptors: a peer that opens many is to be measured, not to end the run
			continue
		}
		p.conns.Add(1)
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			_ = c.Close()
			return
		}
		p.open[c] = true
		p.mu.Unlock()
		p.running.Go(func() {
			p.serve(c)
			p.mu.Lock()
			delete(p.open, c)
			p.mu.Unlock()
			_ = c.Close()
		})
	}
}

func (p *Provider) serve(c net.Conn) {
	x := &exchange{p: p, c: c, r: bufio.NewReaderSize(c, 16<<10)}
	for x.one() == nil { // one request after the other, until the connection ends
	}
}

// allowed checks the credential.
func (p *Provider) allowed(org, key []byte) bool {
	if p.o.Open {
		return true
	}
	rest, ok := bytes.CutPrefix(key, keyStart)
	rest, ok2 := bytes.CutPrefix(rest, org)
	rest, ok3 := bytes.CutPrefix(rest, keyEnd)
	if !ok || !ok2 || !ok3 {
		return false
	}
	generation := int64(0)
	if len(rest) > 0 {
		if rest[0] != '.' {
			return false
		}
		for _, d := range rest[1:] {
			if d < '0' || d > '9' {
				return false
			}
			generation = generation*10 + int64(d-'0')
		}
	}
	if !p.any.Load() {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	last, over := p.revoked[string(org)]
	return !over || generation > last
}

// hold waits for what this answer has to wait for.
func (p *Provider) hold(n int64) {
	if p.o.DelayEvery > 0 && n%p.o.DelayEvery == 0 {
		time.Sleep(p.o.Delay)
	}
	if until := p.slow.Load(); until > 0 && time.Now().UnixNano() < until {
		time.Sleep(slowBy)
	}
	if until := p.stall.Load(); until > 0 {
		if d := until - time.Now().UnixNano(); d > 0 {
			time.Sleep(time.Duration(d))
		}
	}
}
