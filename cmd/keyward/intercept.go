package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyward/keyward/ca"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/proxy"
)

// interceptedHosts are those that the local CA vouches for: all that callers reach of any of the providers.
func interceptedHosts(all []*provider.Provider) []string {
	var hosts []string
	for _, p := range all {
		hosts = append(hosts, p.Hosts...)
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// openCA reads the local CA, makes one if there is none, and lays out what apps are to trust. Nil: nothing is intercepted.
func (s *sidecarProcess) openCA() (*proxy.Interception, error) {
	c := s.c
	if !c.Intercept {
		return nil, nil
	}
	if err := privateFolder(c.DataDir); err != nil {
		return nil, fmt.Errorf("data folder: %w", err)
	}
	a, err := ca.Load(c.DataDir)
	if errors.Is(err, fs.ErrNotExist) {
		if a, err = ca.Generate(interceptedHosts(c.providers()), time.Now()); err == nil {
			err = a.Save(c.DataDir)
		}
		s.log.Info().Str("file", filepath.Join(c.DataDir, ca.KeyFile)).Msg("made a local CA; apps are told to trust it by the variables of keyward ca env")
	}
	if err != nil {
		return nil, err
	}
	s.leaves = ca.NewLeaves(a, nil)
	if err := s.publishCA(); err != nil {
		return nil, err
	}
	return &proxy.Interception{Certificate: s.leaves.For, Passthrough: withPort(c.InterceptPassthru)}, nil
}

// publishCA writes what apps read, and says what is wrong with the CA.
func (s *sidecarProcess) publishCA() error {
	const soon = 60 * 24 * time.Hour
	a := s.leaves.Authority()
	if missing := a.Uncovered(interceptedHosts(s.c.providers())); len(missing) > 0 {
		s.log.Warn().Strs("hosts", missing).Msg("the local CA was made before these hosts were known, and CONNECT to them is refused: run keyward ca rotate (with --host for those of providers: in the file), and start the apps again")
	}
	if end := a.Root().NotAfter; time.Until(end) < soon {
		s.log.Warn().Time("not_after", end).Msg("the local CA ends soon: run keyward ca rotate, and start the apps again")
	}
	if err := privateFolder(s.c.RunDir); err != nil {
		return fmt.Errorf("run folder: %w", err)
	}
	return a.Publish(s.c.RunDir, ca.SystemRoots())
}

// watchCA takes over a CA that keyward ca rotate has made. One that is not good changes nothing.
func (s *sidecarProcess) watchCA(ctx context.Context) {
	if s.leaves == nil {
		return
	}
	path := filepath.Join(s.c.DataDir, ca.KeyFile)
	var seen fingerprint // none yet: a change since the start is found by the first look
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := fingerprintOf(path)
		if now == seen {
			continue
		}
		seen = now
		a, err := ca.Load(filepath.Dir(path))
		if err != nil {
			s.log.Error().Err(err).Msg("the local CA's file is not good; the CA from before stays")
			continue
		}
		if a.Root().Equal(s.leaves.Authority().Root()) {
			continue
		}
		s.leaves.SetAuthority(a)
		if err := s.publishCA(); err != nil {
			s.log.Error().Err(err).Msg("what apps are to trust could not be written")
		}
		s.log.Info().Str("ca", a.Root().Subject.CommonName).Msg("a new local CA is in force; apps read it when they are started again")
	}
}

// withPort adds the port of HTTPS where none is named.
func withPort(hosts []string) []string {
	out := make([]string, len(hosts))
	for i, h := range hosts {
		if out[i] = strings.ToLower(h); !strings.Contains(h, ":") {
			out[i] = net.JoinHostPort(out[i], "443")
		}
	}
	return out
}

// passthroughHost is a name of two labels or more, or all that is below one.
var passthroughHost = regexp.MustCompile(`^(\*\.)?[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$`)

func (c *Config) checkIntercept(k Known, p *problems) {
	at := c.flags.at("intercept-passthrough")
	if len(c.InterceptPassthru) > 0 && !c.Intercept {
		p.addf("%s: is nothing without --intercept", at)
		return
	}
	for i, authority := range withPort(c.InterceptPassthru) {
		host, port, err := net.SplitHostPort(authority)
		n, portErr := strconv.ParseUint(port, 10, 16)
		below, wild := strings.CutPrefix(host, "*")
		taken := slices.IndexFunc(k.Hosts, func(h string) bool { return h == host || wild && strings.HasSuffix(h, below) })
		switch {
		case err != nil, portErr != nil, n == 0, strconv.FormatUint(n, 10) != port, net.ParseIP(host) != nil, !passthroughHost.MatchString(host):
			p.addf("%s %q: must be a name, as files.example, files.example:8443 or *.files.example", at, c.InterceptPassthru[i])
		case taken >= 0 && !wild:
			p.addf("%s %q: is a provider's host, which is intercepted; leave it out", at, c.InterceptPassthru[i])
		case taken >= 0:
			p.addf("%s %q: takes in %s, a provider's host, which is intercepted; name the hosts one by one", at, c.InterceptPassthru[i], k.Hosts[taken])
		}
	}
}
