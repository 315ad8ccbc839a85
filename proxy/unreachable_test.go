package proxy

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestReasonsForNoAnswer: what cannot be made to happen here is told by its error, as the library wraps it.
func TestReasonsForNoAnswer(t *testing.T) {
	is := func(code, reason string, err error) {
		t.Helper()
		if r := refusalFor(err); r.code != code || r.reason != reason {
			t.Errorf("%v: %s %s, want %s %s", err, r.code, r.reason, code, reason)
		}
	}
	dial := func(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }
	sys := func(e syscall.Errno) error { return dial(os.NewSyscallError("connect", e)) }
	shake := func(err error) error { return &tlsError{err} }
	is("upstream_unreachable", "name_not_found", dial(&net.DNSError{Err: "no such host", Name: "db.internal", IsNotFound: true}))
	is("upstream_unreachable", "name_lookup", dial(&net.DNSError{Err: "server misbehaving", Server: "10.0.0.2:53"}))
	is("upstream_timeout", "name_lookup", dial(&net.DNSError{Err: "i/o timeout", Server: "10.0.0.2:53", IsTimeout: true}))
	is("upstream_timeout", "connecting", dial(os.ErrDeadlineExceeded))
	is("upstream_timeout", "connecting", sys(syscall.ETIMEDOUT))
	is("upstream_timeout", "waiting_for_connection", errNoTurn)
	is("upstream_timeout", "handshake", shake(os.ErrDeadlineExceeded))
	is("upstream_unreachable", "connection_refused", sys(syscall.ECONNREFUSED))
	is("upstream_unreachable", "no_route", sys(syscall.EHOSTUNREACH))
	is("upstream_unreachable", "no_route", sys(syscall.ENETUNREACH))
	is("upstream_unreachable", "not_permitted", sys(syscall.EPERM))
	is("upstream_unreachable", "no_resources", sys(syscall.EMFILE))
	is("upstream_unreachable", "no_resources", sys(syscall.EADDRNOTAVAIL))
	is("upstream_unreachable", "connection_reset", sys(syscall.ECONNRESET))
	is("upstream_unreachable", "private_address", dial(PublicOnly("tcp", "10.0.0.1:443", nil)))
	is("upstream_unreachable", "other", errors.New("whatever"))
	is("upstream_tls", "certificate_time", shake(x509.CertificateInvalidError{Reason: x509.Expired}))
	is("upstream_tls", "certificate_invalid", shake(x509.CertificateInvalidError{Reason: x509.IncompatibleUsage}))
	is("upstream_tls", "no_roots", shake(x509.SystemRootsError{}))
	is("upstream_tls", "handshake_closed", shake(fmt.Errorf("read: %w", io.ErrUnexpectedEOF)))
	is("upstream_tls", "handshake_closed", shake(os.NewSyscallError("read", syscall.ECONNRESET)))
	is("upstream_tls", "other", shake(errors.New("whatever")))
	if r := refusalOfAnswer(os.NewSyscallError("read", syscall.ECONNRESET)); r.reason != "connection_reset" {
		t.Errorf("cut off: %s", r.reason)
	}
}

// TestReasonsAreWrittenDown: each once, in fixed words, and all of them in docs/outbound.md.
func TestReasonsAreWrittenDown(t *testing.T) {
	docs, err := os.ReadFile("../docs/outbound.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, r := range reasoned {
		if key := r.code + " " + r.reason; seen[key] || r.reason == "" {
			t.Errorf("%q stands twice, or says nothing", key)
		} else {
			seen[key] = true
		}
		if row := fmt.Sprintf("| `%s` | `%s` | %s |\n", r.code, r.reason, r.detail); !strings.Contains(string(docs), row) {
			t.Errorf("docs/outbound.md has no row %s", row)
		}
	}
	if n := strings.Count(string(docs), "\n| `upstream_"); n != len(reasoned) {
		t.Errorf("docs/outbound.md has %d reasons, the program %d", n, len(reasoned))
	}
}
