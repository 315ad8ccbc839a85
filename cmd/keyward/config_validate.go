package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os/user"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

var (
	logLevels  = []string{"trace", "debug", "info", "warn", "error"}
	logFormats = []string{"json", "console"}
)

// validate checks every setting and reports all that is wrong. It opens no file and no socket; names of users and groups are looked up.
func (c *Config) validate(k Known, p *problems) {
	f := c.flags
	f.VisitAll(func(flag *pflag.Flag) {
		if flag.Value.String() == "" && flag.DefValue != "" && flag.Annotations["empty"] == nil && !(flag.Name == "store" && c.StoreFile != "") {
			p.addf("%s: must not be empty; leave it out for the default %s", f.at(flag.Name), f.defaultText(flag))
		}
	})
	c.storage.validate(f, p)
	c.checkSockets(p)
	c.checkOutage(p)
	c.checkAddresses(k, p)
	c.checkUpstreams(k, p)
	c.checkIntercept(k, p)
	c.checkNumbers(p)
	c.checkWebhooks(k, p)
	c.checkGoogle(p)
	c.checkCollector(p)
	if len(c.Callers) > 0 {
		_, err := caller.Compile(c.Callers, k.Providers, nil)
		var found problems
		found.add(err)
		for _, e := range found {
			p.addf("%s: %w", c.Config, e)
		}
	}
	p.add(f.oneOf("log-level", c.LogLevel, logLevels...))
	p.add(f.oneOf("log-format", c.LogFormat, append([]string{""}, logFormats...)...))
}

func (f *flags) oneOf(name, value string, words ...string) error {
	if slices.Contains(words, value) {
		return nil
	}
	words = slices.DeleteFunc(words, func(s string) bool { return s == "" })
	return fmt.Errorf("%s %q: must be one of %s", f.at(name), value, strings.Join(words, ", "))
}

// maxSocketPath is what fits into the kernel's sockaddr_un beside its closing zero.
const maxSocketPath = 107

func (c *Config) checkOutage(p *problems) {
	for _, org := range c.StrictOrg {
		if !store.IsOrg(org) {
			p.addf("%s: must be an org id: a letter or digit, then up to 63 letters, digits or . _ -", c.flags.at("strict-org"))
		}
	}
	if c.LastGood == "" {
		return
	}
	if strings.HasPrefix(c.Store.Reveal(), "sqlite:") {
		p.addf("%s: is for PostgreSQL; an SQLite store is on this machine as it is", c.flags.at("last-known-good"))
	}
	if c.MaxStale <= 0 {
		p.addf("%s: its rows are used for --max-stale, which is %s", c.flags.at("last-known-good"), c.MaxStale)
	}
}

func (c *Config) checkSockets(p *problems) {
	for _, s := range []struct{ name, path string }{{"socket", c.Socket}, {"admin-socket", c.AdminSocket}} {
		at := c.flags.at(s.name)
		if !c.isSet(s.name) && c.isSet("run-dir") {
			at = c.flags.at("run-dir")
		}
		switch {
		case len(s.path) > maxSocketPath:
			p.addf("%s: the path of the socket, %s, has %d bytes, and a socket's may have %d; choose a shorter one", at, s.path, len(s.path), maxSocketPath)
		case strings.HasPrefix(s.path, "@"):
			p.addf("%s %q: an abstract socket has no owner and no mode; give a path", at, s.path)
		}
	}
	if c.Socket == c.AdminSocket {
		p.addf("%s and %s: callers and the admin API need a socket each", c.flags.at("socket"), c.flags.at("admin-socket"))
	}
	if c.Socket == "" && c.Listen == "" && len(c.Listeners) == 0 {
		p.addf("%s and %s: both are off, so no caller can connect; leave one out for its default", c.flags.at("socket"), c.flags.at("listen"))
	}
	c.SocketGID = -1
	if c.SocketGroup == "" {
		return
	}
	gid := c.SocketGroup
	if g, err := user.LookupGroup(c.SocketGroup); err == nil {
		gid = g.Gid
	}
	n, err := strconv.ParseUint(gid, 10, 31)
	if err != nil {
		p.addf("%s %q: no such group; create it, or give its number", c.flags.at("socket-group"), c.SocketGroup)
		return
	}
	c.SocketGID = int(n)
}

func (c *Config) checkAddresses(k Known, p *problems) {
	taken := map[string]string{}
	check := func(at, address string) {
		host, port, err := net.SplitHostPort(address)
		n, portErr := strconv.ParseUint(port, 10, 16)
		switch {
		case err != nil || portErr != nil:
			p.addf("%s %q: must be an address and a port from 0 to 65535, as 127.0.0.1:7450", at, address)
		case !isLoopback(host) && !c.AllowRemote:
			p.addf("%s %q: other machines can reach it; use 127.0.0.1, or add --allow-remote if they shall", at, address)
		case n != 0 && taken[address] != "":
			p.addf("%s %q: is the address of %s too", at, address, taken[address])
		default:
			taken[address] = at
		}
	}
	for _, l := range []struct{ name, address string }{{"listen", c.Listen}, {"webhook-listen", c.WebhookListen}, {"admin-listen", c.AdminListen}} {
		if l.address != "" {
			check(c.flags.at(l.name), l.address)
		}
	}
	for i, l := range c.Listeners {
		at := fmt.Sprintf("%s: listeners[%d].", c.Config, i)
		check(at+"address", l.Address)
		if l.Upstream != "" && !slices.Contains(k.Hosts, l.Upstream) {
			p.addf("%supstream %q: no provider's host; %s", at, l.Upstream, suggest(l.Upstream, k.Hosts, "", "GET /api/providers lists them"))
		}
		if l.Org != "" && !orgID.MatchString(l.Org) {
			p.addf("%sorg %q: is no org id", at, l.Org)
		}
	}
}

var orgID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// isLoopback says whether only this machine can reach the address. No name but localhost is looked up: it might mean another machine
// tomorrow.
func isLoopback(host string) bool {
	return host == "localhost" || net.ParseIP(host).IsLoopback()
}

func (c *Config) checkUpstreams(k Known, p *problems) {
	at := c.flags.at("upstream")
	c.Upstreams = make(map[string]*url.URL, len(c.Upstream))
	for _, s := range c.Upstream {
		host, target, _ := strings.Cut(s, "=")
		host = strings.ToLower(host)
		u, err := parseUpstream(target)
		switch {
		case !slices.Contains(k.Hosts, host) && !slices.Contains(k.OwnHosts, host):
			p.addf("%s %q: no host that Keyward calls; %s", at, host, suggest(host, slices.Concat(k.Hosts, k.OwnHosts), "", "it is HOST=URL with a provider's host"))
		case err != nil:
			p.addf("%s %s: %w", at, host, err)
		case c.Upstreams[host] != nil:
			p.addf("%s %s: is given twice", at, host)
		default:
			c.Upstreams[host] = u
		}
	}
}

// parseUpstream reads where an upstream is. Its errors do not quote the URL, which may hold a password.
func parseUpstream(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("must be a URL, as https://staging.example or http://127.0.0.1:9001")
	case u.User != nil:
		return nil, errors.New("the URL must not hold a user or password; the org's credential goes in")
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return nil, errors.New("the URL must end after its host and port; the path is the request's")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return nil, errors.New("plain http would show credentials to the network; use https, or a loopback address")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, errors.New("the URL's port must be from 1 to 65535")
		}
	}
	u.Path = ""
	return u, nil
}

func (c *Config) checkNumbers(p *problems) {
	f := c.flags
	least := func(name string, value, least int64) {
		if value < least {
			p.addf("%s %s: must be at least %d", f.at(name), f.Lookup(name).Value, least)
		}
	}
	least("cache-size", int64(c.CacheSize), 1)
	least("max-conns", int64(c.MaxConns), 1)
	least("webhook-attempts", int64(c.WebhookAttempts), 1)
	least("webhook-max-body", int64(c.WebhookMaxBody), 1)
	if c.MaxHead < 1<<10 || c.MaxHead > 1<<20 {
		p.addf("%s %s: must be from 1KiB to 1MiB", f.at("max-head"), &c.MaxHead)
	}
	f.VisitAll(func(flag *pflag.Flag) {
		if flag.Value.Type() != "duration" {
			return
		}
		d, _ := f.GetDuration(flag.Name) // it is one
		zero := slices.Contains([]string{"max-stale", "drain-timeout", "min-drain", "verify-every"}, flag.Name)
		if d < 0 || d == 0 && !zero {
			p.addf("%s %s: must be more than 0s", f.at(flag.Name), flag.Value)
		}
	})
	if c.VerifyEvery > 0 && c.VerifyEvery < time.Second {
		p.addf("%s %s: must be 0s, or at least 1s", f.at("verify-every"), c.VerifyEvery)
	}
	if c.MinDrain > c.DrainTimeout {
		p.addf("%s %s: must not be longer than %s, %s", f.at("min-drain"), c.MinDrain, "--drain-timeout", c.DrainTimeout)
	}
	if c.WebhookBackoffMax < c.WebhookBackoff {
		p.addf("%s %s: must not be shorter than --webhook-backoff, %s", f.at("webhook-backoff-max"), c.WebhookBackoffMax, c.WebhookBackoff)
	}
}

func (c *Config) checkWebhooks(k Known, p *problems) {
	f := c.flags
	if c.WebhookTarget != "" {
		if err := checkTarget(c.WebhookTarget); err != nil {
			p.addf("%s: %w", f.at("webhook-target"), err)
		}
	}
	if c.PublicURL != "" {
		u, err := url.Parse(c.PublicURL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			p.addf("%s: must be a URL without user, query and fragment, as https://hooks.example", f.at("public-url"))
		}
	}
	for i := range c.Webhooks {
		w := &c.Webhooks[i]
		at := fmt.Sprintf("%s: webhooks[%d].", c.Config, i)
		switch {
		case w.Provider != "" && !slices.Contains(k.Providers, w.Provider):
			p.addf("%sprovider %q: must be one of %s", at, w.Provider, strings.Join(k.Providers, ", "))
		case slices.ContainsFunc(c.custom, func(p *provider.Provider) bool { return p.Name == w.Provider }):
			p.addf("%sprovider %q: is one of providers:, which send no webhooks that could be verified", at, w.Provider)
		}
		if w.Org != "" && !orgID.MatchString(w.Org) {
			p.addf("%sorg %q: is no org id", at, w.Org)
		}
		if err := checkTarget(w.Target); err != nil {
			p.addf("%starget: %w", at, err)
		}
		if !slices.Contains([]string{"", "durable", "sync"}, w.Mode) {
			p.addf("%smode %q: must be durable or sync", at, w.Mode)
		}
	}
}

// checkTarget checks where webhooks go. Its errors do not quote the target, which may hold a password.
func checkTarget(s string) error {
	if rest, ok := strings.CutPrefix(s, "unix:"); ok {
		socket, path, ok := strings.Cut(rest, ":")
		if !ok || !strings.HasPrefix(socket, "/") || !strings.HasPrefix(path, "/") {
			return errors.New("must be unix:/SOCKET:/PATH, both beginning with /")
		}
		if len(socket) > maxSocketPath {
			return fmt.Errorf("the path of the socket has %d bytes, and a socket's may have %d", len(socket), maxSocketPath)
		}
		return nil
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return errors.New("must be a URL, as http://127.0.0.1:3000/hooks, or unix:/run/app.sock:/hooks")
	case u.User != nil:
		return errors.New("the URL must not hold a user or password")
	}
	return nil
}

// checkCollector checks where telemetry goes. The URL is not quoted: it may hold a password.
func (c *Config) checkCollector(p *problems) {
	at := c.flags.at("otlp-endpoint")
	if c.OTLPEndpoint == "" {
		if c.isSet("trace-ratio") && c.TraceRatio > 0 {
			p.addf("%s: is nothing without --otlp-endpoint, which traces are sent to", c.flags.at("trace-ratio"))
		}
		return
	}
	u, err := url.Parse(c.OTLPEndpoint)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		p.addf("%s: must be a URL, as http://127.0.0.1:4318 or https://collector.example; /v1/traces and /v1/metrics are added to it", at)
	case u.User != nil:
		p.addf("%s: the URL must not hold a user or password; headers come from OTEL_EXPORTER_OTLP_HEADERS", at)
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		p.addf("%s: the URL must not have a query or fragment; /v1/traces and /v1/metrics are added to it", at)
	case u.Scheme == "http" && !isLoopback(u.Hostname()) && !c.AllowRemote:
		p.addf("%s: plain http would show orgs and paths to the network; use https, a loopback address, or --allow-remote if the network may see them", at)
	}
}

// checkGoogle checks what consents are asked for with. The secret is not quoted.
func (c *Config) checkGoogle(p *problems) {
	f := c.flags
	secret := c.GoogleClientSecret != ""
	switch at := f.at("google-client-secret"); {
	case secret && f.from["google-client-secret"].source == fromCommandLine:
		p.addf("%s: every user of this machine sees it on the command line; put it into KEYWARD_GOOGLE_CLIENT_SECRET, the file of --google-client-secret-file or the configuration file", at)
	case secret && c.GoogleClientID == "":
		p.addf("%s: is nothing without --google-client-id", at)
	case !secret && c.GoogleClientID != "":
		p.addf("%s: is nothing without its secret, by --google-client-secret-file", f.at("google-client-id"))
	case strings.ContainsAny(c.GoogleClientSecret.Reveal(), " \t\r\n"):
		p.addf("%s: has white space in it; copy it anew", at)
	}
	for _, one := range []struct{ name, url string }{{"google-redirect-url", c.GoogleRedirectURL}, {"google-return-url", c.GoogleReturnURL}} {
		if one.url == "" {
			continue
		}
		u, err := url.Parse(one.url)
		if err != nil || u.Host == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(u.Hostname())) {
			p.addf("%s %q: must be a URL as https://app.example/…, without user and fragment; plain http only to loopback", f.at(one.name), one.url)
		}
	}
}
