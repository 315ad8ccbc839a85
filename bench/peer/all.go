package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Names of the peers.
const (
	Direct       = "direct"
	Relay        = "relay"
	Nginx        = "nginx"
	HAProxy      = "haproxy"
	ReverseProxy = "reverseproxy"
	Keyward      = "keyward"
)

// All are the peers of this machine, and what is missing, each with the reason. Without its binary Keyward is missing too.
func All(keywardBinary string) (peers []Peer, missing []string) {
	peers = []Peer{&direct{}, relay(), reverseProxy()}
	if path, ok := installed("nginx"); ok {
		peers = append(peers, &nginx{path: path})
	} else {
		missing = append(missing, "nginx: not installed")
	}
	if path, ok := installed("haproxy"); ok {
		peers = append(peers, &haproxy{path: path})
	} else {
		missing = append(missing, "haproxy: not installed")
	}
	if _, err := os.Stat(keywardBinary); err == nil {
		peers = append(peers, &sidecar{binary: keywardBinary})
	} else {
		missing = append(missing, fmt.Sprintf("keyward: no program at %q: make build", keywardBinary))
	}
	return peers, missing
}

// direct is no proxy: the caller's own TLS, and the credential in the caller's hands.
type direct struct{}

func (*direct) Name() string { return Direct }

func (*direct) PIDs() []int { return nil }

func (*direct) Stop() error { return nil }

func (*direct) Start(_ context.Context, u Upstream) (Endpoint, error) {
	c, err := u.client()
	if err != nil {
		return Endpoint{}, err
	}
	return Endpoint{Network: "tcp", Address: u.Address, TLS: c, Header: u.Name + ": " + u.Value + "\r\n"}, nil
}

// client is how Go peers connect: TLS 1.3, verified, sessions resumed.
func (u Upstream) client() (*tls.Config, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(u.CA) {
		return nil, errors.New("reading the provider's certificate: no PEM in it")
	}
	return &tls.Config{
		RootCAs: roots, ServerName: u.Host, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}, ClientSessionCache: tls.NewLRUClientSessionCache(64),
	}, nil
}

// folder makes the peer's own folder.
func (u Upstream) folder(name string) (string, error) {
	dir := filepath.Join(u.Dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", fmt.Errorf("making the folder of %s: %w", name, err)
	}
	return dir, nil
}

// quotable refuses what would end a quoted word of a configuration, or mean something in it.
func (u Upstream) quotable(special string) error {
	for _, part := range [][2]string{{"address", u.Address}, {"host", u.Host}, {"certificate's path", u.CAFile}, {"header's name", u.Name}, {"header's value", u.Value}, {"folder", u.Dir}} {
		if part[1] == "" || strings.ContainsAny(part[1], special+"\r\n\x00") {
			return fmt.Errorf("the %s is empty or has one of %s or the end of a line in it, which no configuration can hold", part[0], special)
		}
	}
	return nil
}
