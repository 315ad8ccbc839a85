package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// Why there is no answer from an upstream, in words that all stand here: what the resolver, the kernel or TLS say of it may hold names and
// addresses of the network within, and bytes of whoever answered.
var (
	refuseNoName      = because(refuseUnreachable, "name_not_found", "the upstream's name is not known to this machine's DNS")
	refuseLookup      = because(refuseUnreachable, "name_lookup", "the upstream's name could not be looked up: no DNS server gave an answer")
	refuseNobody      = because(refuseUnreachable, "connection_refused", "the connection to the upstream was refused: nobody listens there, or a firewall says so")
	refuseNoRoute     = because(refuseUnreachable, "no_route", "this machine has no route to the upstream")
	refuseNotLetOut   = because(refuseUnreachable, "not_permitted", "this machine does not let the connection to the upstream out: a firewall or a sandbox")
	refuseNoResources = because(refuseUnreachable, "no_resources", "this machine has no descriptor, port or memory left for a connection to the upstream")
	refuseClosed      = because(refuseUnreachable, "connection_closed", "the upstream closed the connection without an answer")
	refuseReset       = because(refuseUnreachable, "connection_reset", "the upstream, or what stands between, reset the connection without an answer")
	refuseMoved       = because(refuseUnreachable, "upstream_changed", "the upstream of this credential has changed meanwhile")
	refuseNoToken     = because(refuseUnreachable, "no_token", "the provider's token endpoint gave no token")

	refuseIssuer     = because(refuseTLS, "certificate_issuer", "the upstream's certificate is signed by nobody who is trusted here")
	refuseNoRoots    = because(refuseTLS, "no_roots", "this machine trusts no certificates at all")
	refuseOtherName  = because(refuseTLS, "certificate_name", "the upstream's certificate is another host's")
	refuseNotNow     = because(refuseTLS, "certificate_time", "the upstream's certificate is not valid at this time: compare the clocks")
	refuseBadCert    = because(refuseTLS, "certificate_invalid", "the upstream's certificate is not valid for a server")
	refuseNotTLS     = because(refuseTLS, "no_tls", "what answers in the upstream's place does not speak TLS")
	refuseAlert      = because(refuseTLS, "handshake_refused", "the upstream refused the TLS handshake")
	refuseCutInShake = because(refuseTLS, "handshake_closed", "the upstream closed the connection during the TLS handshake")

	refuseSlowLookup  = because(refuseTimeout, "name_lookup", "looking up the upstream's name took too long")
	refuseSlowConnect = because(refuseTimeout, "connecting", "the upstream did not take the connection in time")
	refuseSlowTLS     = because(refuseTimeout, "handshake", "the upstream did not finish the TLS handshake in time")
	refuseNoTurn      = because(refuseTimeout, "waiting_for_connection", "as many connections to the upstream are being made as may be, and none came about in time")
)

// because is a refusal of the same code, for a reason that is known.
func because(r *refusal, reason, detail string) *refusal {
	known := *r
	known.reason, known.detail = reason, detail
	reasoned = append(reasoned, &known)
	return &known
}

// reasoned are all that have a reason, in the order of docs/outbound.md. It is complete when the program begins.
var reasoned = []*refusal{refusePrivate, refuseUnreachable, refuseTLS, refuseTimeout}

// refusalFor says what a failed connection to an upstream looks like to the caller.
func refusalFor(err error) *refusal {
	var te *tlsError
	var dns *net.DNSError
	late, named := isTimeout(err), errors.As(err, &dns)
	switch {
	case IsPrivate(err):
		return refusePrivate
	case errors.Is(err, errNoTurn):
		return refuseNoTurn
	case errors.As(err, &te) && late:
		return refuseSlowTLS
	case errors.As(err, &te):
		return refusalOfHandshake(te.error)
	case named && late:
		return refuseSlowLookup
	case named && dns.IsNotFound:
		return refuseNoName
	case named:
		return refuseLookup
	case late:
		return refuseSlowConnect
	case isOneOf(err, syscall.ECONNREFUSED):
		return refuseNobody
	case isOneOf(err, syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.EHOSTDOWN, syscall.EAFNOSUPPORT):
		return refuseNoRoute
	case isOneOf(err, syscall.EPERM, syscall.EACCES):
		return refuseNotLetOut
	case isOneOf(err, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.EADDRNOTAVAIL):
		return refuseNoResources
	}
	return refusalOfEnd(err)
}

// refusalOfHandshake says the same of TLS.
func refusalOfHandshake(err error) *refusal {
	var (
		issuer  x509.UnknownAuthorityError
		roots   x509.SystemRootsError
		name    x509.HostnameError
		invalid x509.CertificateInvalidError
		record  tls.RecordHeaderError
		cert    *tls.CertificateVerificationError
		op      *net.OpError
	)
	switch {
	case errors.As(err, &issuer):
		return refuseIssuer
	case errors.As(err, &roots):
		return refuseNoRoots
	case errors.As(err, &name):
		return refuseOtherName
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return refuseNotNow
	case errors.As(err, &invalid), errors.As(err, &cert):
		return refuseBadCert
	case errors.As(err, &record):
		return refuseNotTLS
	case errors.As(err, &op) && op.Op == "remote error": // crypto/tls's word for an alert
		return refuseAlert
	case isEnd(err), isOneOf(err, syscall.ECONNRESET, syscall.EPIPE):
		return refuseCutInShake
	}
	return refuseTLS
}

// refusalOfEnd says how a connection ended that no answer came over.
func refusalOfEnd(err error) *refusal {
	switch {
	case isEnd(err):
		return refuseClosed
	case isOneOf(err, syscall.ECONNRESET, syscall.EPIPE):
		return refuseReset
	}
	return refuseUnreachable
}

func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func isOneOf(err error, of ...syscall.Errno) bool {
	for _, e := range of {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func isTimeout(err error) bool {
	var ne interface{ Timeout() bool }
	return errors.As(err, &ne) && ne.Timeout() || errors.Is(err, os.ErrDeadlineExceeded)
}
