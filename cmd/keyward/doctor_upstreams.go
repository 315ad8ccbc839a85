package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/proxy"
)

// A reachOutcome is how far a connection came: why not further, and how to mend that. Empty: all the way.
type reachOutcome struct{ why, mend string }

// checkUpstreams connects to every host of every provider, or to what stands in its place, and verifies its certificate. No request is
// sent: no credential has a part in this.
func (d *doctor) checkUpstreams(ctx context.Context) []finding {
	if d.skipUpstreams {
		return []finding{ok("upstreams", "not asked: --skip-upstreams")}
	}
	roots, err := d.c.roots()
	if err != nil {
		return []finding{fail("upstreams", err.Error(), "correct --upstream-ca: a file of PEM certificates")}
	}
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	var mu sync.Mutex
	outcomes := map[string]reachOutcome{} // :: host
	var asked sync.WaitGroup
	for _, p := range d.c.providers() {
		for _, host := range d.hostsOf(p) {
			asked.Go(func() {
				o := reachUpstream(ctx, host, p.Custom, d.c.Upstreams[host], roots)
				mu.Lock()
				defer mu.Unlock()
				outcomes[host] = o
			})
		}
	}
	asked.Wait()
	all := []finding{}
	for _, p := range d.c.providers() {
		all = append(all, providerFindings(p, d.hostsOf(p), outcomes)...)
	}
	return all
}

// hostsOf are the hosts of a provider that are worth asking: one that has a thousand, for each product in each region at each edge, is asked
// at its usual one, and at those that --upstream replaces.
func (d *doctor) hostsOf(p *provider.Provider) []string {
	const many = 8
	usual := p.DefaultHost(provider.Secret{})
	hosts := []string{usual}
	for _, host := range p.Hosts {
		if host != usual && (len(p.Hosts) <= many || d.c.Upstreams[host] != nil) {
			hosts = append(hosts, host)
		}
	}
	return append(hosts, p.OwnHosts...)
}

// providerFindings are one for the hosts that are well and one for each reason why others are not. A provider whose usual host is well may
// yet lack those of other regions, which is no failure.
func providerFindings(p *provider.Provider, hosts []string, outcomes map[string]reachOutcome) (all []finding) {
	name := "upstream " + p.Name
	usual := p.DefaultHost(provider.Secret{})
	why := map[reachOutcome][]string{}
	var reasons []reachOutcome
	for _, host := range hosts {
		o := outcomes[host]
		if why[o] == nil {
			reasons = append(reasons, o)
		}
		why[o] = append(why[o], host)
	}
	for _, o := range reasons {
		hosts := why[o]
		switch {
		case o == reachOutcome{}:
			all = append(all, ok(name, "%s reached, certificate verified", few(hosts)))
		case slices.Contains(hosts, usual) || slices.ContainsFunc(p.OwnHosts, func(h string) bool { return slices.Contains(hosts, h) }):
			all = append(all, fail(name, few(hosts)+": "+o.why, o.mend))
		default:
			all = append(all, warn(name, few(hosts)+": "+o.why, o.mend+"; nothing, if no org uses that host"))
		}
	}
	return all
}

// few names some hosts.
func few(hosts []string) string {
	const most = 3
	if len(hosts) <= most {
		return strings.Join(hosts, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(hosts[:most], ", "), len(hosts)-most)
}

// reachUpstream looks the name up, connects, and shakes hands. instead is what --upstream says, or nil.
func reachUpstream(ctx context.Context, host string, public bool, instead *url.URL, roots *x509.CertPool) reachOutcome {
	u := &url.URL{Scheme: "https", Host: host}
	dialer := &net.Dialer{}
	if public && instead == nil {
		dialer.Control = proxy.PublicOnly
	}
	at := ""
	if instead != nil {
		u, at = instead, instead.Scheme+"://"+instead.Host+": "
	}
	o := reachAddress(ctx, dialer, u, roots)
	if o.why != "" {
		o.why = at + o.why
		if instead != nil && !strings.Contains(o.mend, "--upstream") {
			o.mend = "correct --upstream, or start what is meant to be there"
		}
	}
	return o
}

func reachAddress(ctx context.Context, dialer *net.Dialer, u *url.URL, roots *x509.CertPool) reachOutcome {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), port))
	if err != nil {
		return explainDial(err)
	}
	defer conn.Close()
	if u.Scheme != "https" {
		return reachOutcome{}
	}
	client := tls.Client(conn, &tls.Config{ServerName: u.Hostname(), RootCAs: roots, MinVersion: tls.VersionTLS12})
	if err := client.HandshakeContext(ctx); err != nil {
		return explainTLS(err)
	}
	return reachOutcome{}
}

func explainDial(err error) reachOutcome {
	var dns *net.DNSError
	var timeout net.Error
	switch {
	case proxy.IsPrivate(err):
		return reachOutcome{"the name resolves to an address of this machine or of a private network, where no credential is sent", "see who answers for the name; if it is meant, --upstream HOST=URL"}
	case errors.As(err, &dns) && dns.IsNotFound:
		return reachOutcome{"the name is not known", "see /etc/resolv.conf, and that this machine may ask names of the internet; or --skip-upstreams"}
	case errors.As(err, &dns):
		return reachOutcome{"the name could not be looked up", "see /etc/resolv.conf and whether its servers answer; or --skip-upstreams"}
	case errors.Is(err, syscall.ECONNREFUSED):
		return reachOutcome{"nobody listens there", "see what stands between: a firewall, a rule for traffic that goes out; or --skip-upstreams"}
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return reachOutcome{"no answer", "let traffic out to it: a firewall, a security group, a NetworkPolicy; or --skip-upstreams"}
	}
	return reachOutcome{plainNetError(err).Error(), "see whether this machine has a route to it; or --skip-upstreams"}
}

func explainTLS(err error) reachOutcome {
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var roots x509.SystemRootsError
	switch {
	case errors.As(err, &authority):
		return reachOutcome{"its certificate is signed by nobody who is trusted here", "install ca-certificates; for a stand-in or an inspecting proxy, --upstream-ca FILE with its CA"}
	case errors.As(err, &roots):
		return reachOutcome{"this machine trusts no certificates at all", "install ca-certificates, or --upstream-ca FILE"}
	case errors.As(err, &name):
		return reachOutcome{"its certificate is another host's", "see who answers in its place: DNS, a proxy; for a stand-in, name in --upstream the host of its certificate"}
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return reachOutcome{"its certificate is not valid at this time", "set this machine's clock, or have the certificate renewed; for a stand-in see --upstream-ca"}
	case errors.As(err, &invalid):
		return reachOutcome{"its certificate is not valid: " + err.Error(), "have it replaced; for a stand-in see --upstream-ca"}
	case errors.Is(err, context.DeadlineExceeded):
		return reachOutcome{"it was reached and does not speak TLS in time", "see what stands between; or --skip-upstreams"}
	}
	return reachOutcome{"no TLS: " + plainNetError(err).Error(), "see who answers there: for a stand-in without TLS, http:// to loopback in --upstream"}
}

// checkTargets connects to where webhooks and telemetry go.
func (d *doctor) checkTargets(ctx context.Context) []finding {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	all := []finding{}
	var seen []string
	for _, r := range d.c.webhookRoutes() {
		if d.c.WebhookListen != "" && !slices.Contains(seen, r.Target) {
			seen = append(seen, r.Target)
			all = append(all, targetFinding(ctx, "webhook target", r.Target, "start the app, or correct --webhook-target; durable webhooks wait for it meanwhile"))
		}
	}
	if d.c.WebhookListen != "" && len(seen) == 0 {
		all = append(all, ok("webhook target", "none: webhooks that come are answered 503 no_target"))
	}
	if d.c.OTLPEndpoint != "" {
		all = append(all, targetFinding(ctx, "otlp endpoint", d.c.OTLPEndpoint, "start the collector, or correct --otlp-endpoint; requests go on without it"))
	}
	return all
}

// targetFinding connects and sends nothing. What is shown of a URL is where it leads, not its path, which may hold a token.
func targetFinding(ctx context.Context, name, target, mend string) finding {
	network, address, shown := "tcp", "", ""
	if rest, is := strings.CutPrefix(target, "unix:"); is {
		socket, _, _ := strings.Cut(rest, ":")
		network, address, shown = "unix", socket, "unix:"+socket
	} else {
		u, err := url.Parse(target)
		if err != nil || u.Host == "" { // the configuration was checked
			return fail(name, "is no URL", mend)
		}
		port := u.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
		}
		address, shown = net.JoinHostPort(u.Hostname(), port), u.Scheme+"://"+u.Host
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return fail(name, shown+": "+plainDial(err), mend)
	}
	_ = conn.Close()
	return ok(name, "%s is reached", shown)
}

func plainDial(err error) string {
	if network := (*net.OpError)(nil); errors.As(err, &network) && network.Net == "unix" {
		return plainNetError(err).Error()
	}
	return explainDial(err).why
}
