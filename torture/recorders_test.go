package torture

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/freeport"
)

// A seen request is what an upstream understood of the bytes that it got.
type seen struct {
	Method, Target, Body string
	Header               http.Header
}

// A recorder is an upstream whose HTTP parser is somebody's real one. It answers every request with what it understood of it.
type recorder struct {
	name    string
	address string
	mu      sync.Mutex
	seen    []seen
	// refused counts what the upstream's own parser did not take for a request; nil: it shows in the answer alone.
	refused func() int
}

// take is what was seen since it was last asked. It waits for what is still on its way here: answered requests were seen.
func (r *recorder) take(answered int) []seen {
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); time.Sleep(time.Millisecond) {
		r.mu.Lock()
		if n := len(r.seen); n >= answered {
			s := r.seen
			r.seen = nil
			r.mu.Unlock()
			return s
		}
		r.mu.Unlock()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.seen
	r.seen = nil
	return s
}

func (r *recorder) record(s seen) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = append(r.seen, s)
}

// answerOf is the body that tells whose answer this is.
func answerOf(s seen) string { return "answer to " + s.Method + " " + s.Target }

// netHTTP is Go's own server.
func netHTTP(t *testing.T) *recorder {
	t.Helper()
	r := &recorder{name: "net/http"}
	r.address = r.serve(t)
	return r
}

// serve starts Go's server, which records for r.
func (r *recorder) serve(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadTimeout: time.Minute, WriteTimeout: time.Minute, IdleTimeout: 2 * time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return // cut off: never a whole request, so that no server acts on it
		}
		h := req.Header.Clone()
		h.Set("Host", req.Host)
		for name := range req.Trailer {
			h.Set("Trailer-"+name, "seen")
		}
		s := seen{Method: req.Method, Target: req.RequestURI, Body: string(body), Header: h}
		r.record(s)
		_, _ = io.WriteString(w, answerOf(s))
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return l.Addr().String()
}

// behind puts a program in front of Go's server: its parser decides what reaches that.
func behind(t *testing.T, name, program, config string, args func(config string) []string) *recorder {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + program) // not in everybody's PATH
	}
	if err != nil {
		leftOut(t, "hostile heads into "+name, program+" is not installed (Debian: apt-get install "+program+")")
	}
	r := &recorder{name: name, address: freeport.New(t)}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "access.log")
	config = strings.NewReplacer("ADDRESS", r.address, "BACKEND", r.serve(t), "DIR", dir, "LOG", log).Replace(config)
	file := filepath.Join(dir, "conf")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	runProgram(t, r, path, log, args(file)...)
	return r
}

// runProgram starts a program that listens on r's address. What it prints goes to the log file, where "400" or "BADREQ" is a request
// that its parser refused.
func runProgram(t *testing.T, r *recorder, path, log string, args ...string) {
	t.Helper()
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	r.refused = func() int {
		b, _ := os.ReadFile(log)
		return strings.Count(string(b), "refused-by-parser") + strings.Count(string(b), "BADREQ")
	}
	for until := time.Now().Add(time.Minute); time.Now().Before(until); time.Sleep(25 * time.Millisecond) {
		if c, err := net.Dial("tcp", r.address); err == nil {
			_ = c.Close()
			time.Sleep(50 * time.Millisecond)
			return
		}
	}
	b, _ := os.ReadFile(log)
	t.Fatalf("%s never listened:\n%s", path, b)
}

const nginxConfig = `daemon off;
master_process off;
pid DIR/pid;
error_log stderr error;
events { worker_connections 512; }
http {
	log_format refused '$verdict "$request"';
	map "$status $request" $verdict {
		"400 POST /v HTTP/1.1" cut-off;
		~^400 refused-by-parser;
		default passed;
	}
	access_log LOG refused;
	client_body_temp_path DIR/body;
	proxy_temp_path DIR/proxy;
	fastcgi_temp_path DIR/fastcgi;
	uwsgi_temp_path DIR/uwsgi;
	scgi_temp_path DIR/scgi;
	keepalive_requests 100000;
	large_client_header_buffers 8 64k;
	client_header_buffer_size 64k;
	client_max_body_size 0;
	underscores_in_headers on;
	ignore_invalid_headers off;
	merge_slashes off;
	upstream go { server BACKEND; keepalive 16; }
	server {
		listen ADDRESS;
		location / {
			proxy_pass http://go;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Host $http_host;
		}
	}
}
`

func nginx(t *testing.T) *recorder {
	t.Helper()
	return behind(t, "nginx", "nginx", nginxConfig, func(config string) []string { return []string{"-e", "stderr", "-c", config} })
}

const haproxyConfig = `global
	log stdout format raw local0
	maxconn 500
	tune.bufsize 65536
	tune.http.maxhdr 200
defaults
	mode http
	log global
	option httplog
	timeout connect 5s
	timeout client 30s
	timeout server 30s
frontend in
	bind ADDRESS
	default_backend go
backend go
	server go BACKEND
`

func haproxy(t *testing.T) *recorder {
	t.Helper()
	return behind(t, "HAProxy", "haproxy", haproxyConfig, func(config string) []string { return []string{"-db", "-f", config} })
}

// nodeServer answers by itself and posts what it saw as a line on its output.
const nodeServer = `
const http = require('http');
const server = http.createServer({maxHeaderSize: 65536}, (req, res) => {
  const parts = [];
  req.on('data', (d) => parts.push(d));
  req.on('end', () => {
    const header = {};
    for (let i = 0; i < req.rawHeaders.length; i += 2) (header[req.rawHeaders[i]] ||= []).push(req.rawHeaders[i + 1]);
    for (const name of Object.keys(req.trailers)) header['Trailer-' + name] = ['seen'];
    const seen = {Method: req.method, Target: req.url, Body: Buffer.concat(parts).toString('latin1'), Header: header};
    process.stdout.write(JSON.stringify(seen) + '\n', () => res.end('answer to ' + req.method + ' ' + req.url));
  });
  req.on('error', () => {});
});
server.on('clientError', (err, socket) => {
  // The end of the connection within a body is no request at all.
  if (err.code !== 'ECONNRESET' && err.code !== 'HPE_INVALID_EOF_STATE') process.stdout.write(JSON.stringify({Method: 'refused-by-parser'}) + '\n');
  if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n');
});
server.keepAliveTimeout = 60000;
const [host, port] = process.argv[2].split(':');
server.listen(Number(port), host, () => process.stdout.write('"listening"\n'));
`

func node(t *testing.T) *recorder {
	t.Helper()
	path, err := exec.LookPath("node")
	if err != nil {
		leftOut(t, "hostile heads into node", "node is not installed (Debian: apt-get install nodejs)")
	}
	r := &recorder{name: "node", address: freeport.New(t)}
	script := filepath.Join(t.TempDir(), "server.js")
	if err := os.WriteFile(script, []byte(nodeServer), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, path, script, r.address)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	listening, ended := make(chan struct{}), make(chan struct{})
	refused := 0
	go func() {
		defer close(ended)
		lines := bufio.NewScanner(out)
		lines.Buffer(nil, 1<<20)
		if lines.Scan() {
			close(listening)
		}
		for lines.Scan() {
			var raw struct {
				Method, Target, Body string
				Header               map[string][]string
			}
			if json.Unmarshal(lines.Bytes(), &raw) != nil {
				continue
			}
			if raw.Method == "refused-by-parser" {
				r.mu.Lock()
				refused++
				r.mu.Unlock()
				continue
			}
			h := http.Header{}
			for name, values := range raw.Header {
				for _, v := range values {
					h.Add(name, v)
				}
			}
			r.record(seen{Method: raw.Method, Target: raw.Target, Body: fromLatin1(raw.Body), Header: h})
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
		_ = cmd.Wait()
	})
	select {
	case <-listening:
	case <-time.After(time.Minute):
		t.Fatal("node never listened")
	}
	r.refused = func() int {
		r.mu.Lock()
		defer r.mu.Unlock()
		return refused
	}
	return r
}

func fromLatin1(s string) string {
	b := make([]byte, 0, len(s))
	for _, c := range s {
		b = append(b, byte(c))
	}
	return string(b)
}

func (s seen) String() string { return fmt.Sprintf("%s %s %q", s.Method, s.Target, s.Body) }
