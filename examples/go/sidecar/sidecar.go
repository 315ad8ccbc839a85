// Package sidecar is how every example finds Keyward: its unix socket, or its TCP port and a caller token.
package sidecar

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"os"
	"strings"
)

// Token is what an SDK gets as its API key: the caller's token. On the socket the kernel says who calls, and any text will do.
func Token() string { return cmp.Or(os.Getenv("KEYWARD_TOKEN"), "unused") }

// Client sends whatever goes to a provider to the sidecar instead, for the org in KEYWARD_ORG. The Host header says which provider.
func Client() *http.Client {
	network, address := "tcp", strings.TrimPrefix(cmp.Or(os.Getenv("KEYWARD_URL"), "http://127.0.0.1:7450"), "http://")
	if socket := os.Getenv("KEYWARD_SOCKET"); socket != "" {
		network, address = "unix", socket
	}
	return &http.Client{
		Transport: transport{&http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		}}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type transport struct{ *http.Transport }

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme = "http" // to the sidecar; from there on it is TLS
	r.Header.Set("Keyward-Org", os.Getenv("KEYWARD_ORG"))
	return t.Transport.RoundTrip(r)
}
