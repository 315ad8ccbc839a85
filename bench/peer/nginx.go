package peer

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// nginx with one worker: what its documentation of ngx_http_upstream_module says about keep-alive, and nothing that it would only do for
// somebody else (logs, compression).
type nginx struct {
	path    string
	process *process
}

func (n *nginx) Name() string { return Nginx }

func (n *nginx) PIDs() []int { return n.process.all() }

func (n *nginx) Stop() error { return n.process.stop() }

func (n *nginx) Start(ctx context.Context, u Upstream) (Endpoint, error) {
	dir, err := u.folder(Nginx)
	if err != nil {
		return Endpoint{}, err
	}
	text, err := nginxConfig(u, dir)
	if err != nil {
		return Endpoint{}, err
	}
	file, socket := filepath.Join(dir, "conf"), filepath.Join(dir, "sock")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return Endpoint{}, fmt.Errorf("writing nginx's configuration: %w", err)
	}
	cmd := exec.Command(n.path, "-p", dir, "-e", "stderr", "-c", file)
	if n.process, err = launch(ctx, Nginx, cmd, socket, u.Value, 1); err != nil {
		return Endpoint{}, err
	}
	return Endpoint{Network: "unix", Address: socket}, nil
}

// nginxConfig is its configuration, with everything that it writes in dir, so that it needs no privilege.
func nginxConfig(u Upstream, dir string) (string, error) {
	if err := u.quotable(`"\$`); err != nil {
		return "", fmt.Errorf("configuring nginx: %w", err)
	}
	user := ""
	if os.Getuid() == 0 {
		user = "user root;" // as every other peer; another user could not get at the folder
	}
	return strings.NewReplacer("{dir}", dir, "{user}", user, "{address}", u.Address, "{host}", u.Host, "{ca}", u.CAFile, "{name}", u.Name, "{value}", u.Value).Replace(`daemon off;
{user}
worker_processes 1;
pid {dir}/pid;
error_log stderr warn;
events {
	worker_connections 4096;
}
http {
	access_log off;
	server_tokens off;
	client_body_temp_path {dir}/body;
	proxy_temp_path {dir}/proxy;
	fastcgi_temp_path {dir}/fastcgi;
	uwsgi_temp_path {dir}/uwsgi;
	scgi_temp_path {dir}/scgi;
	keepalive_timeout 1h;
	keepalive_requests 1000000000;
	upstream provider {
		server {address};
		keepalive 256;
		keepalive_timeout 1h;
		keepalive_requests 1000000000;
	}
	server {
		listen unix:{dir}/sock;
		client_max_body_size 0;
		location / {
			proxy_pass https://provider;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Host "{host}";
			proxy_set_header "{name}" "{value}";
			proxy_ssl_protocols TLSv1.3;
			proxy_ssl_server_name on;
			proxy_ssl_name "{host}";
			proxy_ssl_verify on;
			proxy_ssl_verify_depth 2;
			proxy_ssl_trusted_certificate "{ca}";
			proxy_ssl_session_reuse on;
		}
	}
}
`), nil
}
