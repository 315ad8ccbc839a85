package peer

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// haproxy with one thread and http-reuse always: any idle connection serves any caller.
type haproxy struct {
	path    string
	process *process
}

func (h *haproxy) Name() string { return HAProxy }

func (h *haproxy) PIDs() []int { return h.process.all() }

func (h *haproxy) Stop() error { return h.process.stop() }

func (h *haproxy) Start(ctx context.Context, u Upstream) (Endpoint, error) {
	dir, err := u.folder(HAProxy)
	if err != nil {
		return Endpoint{}, err
	}
	text, err := haproxyConfig(u, dir)
	if err != nil {
		return Endpoint{}, err
	}
	file, socket := filepath.Join(dir, "conf"), filepath.Join(dir, "sock")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return Endpoint{}, fmt.Errorf("writing HAProxy's configuration: %w", err)
	}
	cmd := exec.Command(h.path, "-db", "-f", file) // in the foreground, one process
	if h.process, err = launch(ctx, HAProxy, cmd, socket, u.Value, 0); err != nil {
		return Endpoint{}, err
	}
	return Endpoint{Network: "unix", Address: socket}, nil
}

// haproxyConfig is its configuration. Idle connections are kept (pool-purge-delay), as nginx's and Keyward's are; resuming TLS sessions is on
// unless no-ssl-reuse says otherwise.
func haproxyConfig(u Upstream, dir string) (string, error) {
	if err := u.quotable(`"\$%`); err != nil {
		return "", fmt.Errorf("configuring HAProxy: %w", err)
	}
	return strings.NewReplacer("{dir}", dir, "{address}", u.Address, "{host}", u.Host, "{ca}", u.CAFile, "{name}", u.Name, "{value}", u.Value).Replace(`global
	nbthread 1
	maxconn 2000
defaults
	mode http
	timeout connect 10s
	timeout client 1h
	timeout server 1h
	timeout http-keep-alive 1h
frontend callers
	bind "unix@{dir}/sock" mode 600
	default_backend provider
backend provider
	http-reuse always
	http-request set-header Host "{host}"
	http-request set-header {name} "{value}"
	server provider {address} ssl verify required ca-file "{ca}" sni str({host}) verifyhost {host} alpn http/1.1 ssl-min-ver TLSv1.3 pool-max-conn -1 pool-purge-delay 1h
`), nil
}
