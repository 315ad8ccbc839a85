// Package bench measures what Keyward costs against the same work without it.
package bench

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Roles of the test binary: it starts itself again as the provider and as the peer, so that each has a process whose CPU can be read.
const roleVariable = "BENCH_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(roleVariable) {
	case "provider":
		runProvider()
	case "reverseproxy":
		runReverseProxy()
	default:
		os.Exit(m.Run())
	}
}

const (
	wantKey = "Bearer re_bench_0123456789"
	callers = 16
)

// BenchmarkHit sends the same requests (200 B in, 500 B out, 16 callers on a unix socket, TLS to the provider) through keyward and
// through Go's httputil.ReverseProxy with a tuned transport and a fixed header. Beside the time per request it reports the CPU of the
// proxy's process per request, user and system, which is far steadier than latency on a shared machine.
func BenchmarkHit(b *testing.B) {
	dir := b.TempDir()
	bin := filepath.Join(dir, "keyward")
	if out, err := exec.Command("go", "build", "-o", bin, "../cmd/keyward").CombinedOutput(); err != nil {
		b.Fatalf("building keyward: %v\n%s", err, out)
	}
	ca := filepath.Join(dir, "ca.pem")
	provider := startRole(b, "provider", "BENCH_CA="+ca)
	b.Run("keyward", func(b *testing.B) { benchProxy(b, startKeyward(b, bin, dir, ca, provider.address)) })
	b.Run("keyward-quiet", func(b *testing.B) {
		benchProxy(b, startKeyward(b, bin, dir, ca, provider.address, "--log-level", "error"))
	})
	b.Run("reverseproxy", func(b *testing.B) {
		benchProxy(b, startRole(b, "reverseproxy", "BENCH_CA="+ca, "BENCH_UPSTREAM="+provider.address, "BENCH_SOCKET="+filepath.Join(b.TempDir(), "s")))
	})
}

// A process is a child and where it answers.
type process struct {
	cmd     *exec.Cmd
	address string // host:port, or a socket's path
}

func startRole(b *testing.B, role string, env ...string) *process {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), roleVariable+"="+role), env...)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatalf("starting %s: %v", role, err)
	}
	return &process{cmd, strings.TrimSpace(line)}
}

func startKeyward(b *testing.B, bin, dir, ca, upstream string, more ...string) *process {
	b.Helper()
	run := b.TempDir()
	if err := os.Chmod(run, 0o700); err != nil {
		b.Fatal(err)
	}
	args := append([]string{
		"serve", "--data-dir", filepath.Join(run, "data"), "--run-dir", run, "--listen", "", "--webhook-listen", "", "--admin-listen", "",
		"--upstream", "api.resend.com=https://" + upstream, "--upstream-ca", ca,
	}, more...)
	cmd := exec.Command(bin, args...)
	log, err := os.Create(filepath.Join(run, "log"))
	if err != nil {
		b.Fatal(err)
	}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); _ = log.Close() })
	must := func(stdin string, args ...string) {
		c := exec.Command(bin, args...)
		c.Stdin = strings.NewReader(stdin)
		if out, err := c.CombinedOutput(); err != nil {
			b.Fatalf("keyward %v: %v\n%s", args, err, out)
		}
	}
	must("", "wait", "--run-dir", run, "--max", "10s")
	must(`{"api_key":"`+strings.TrimPrefix(wantKey, "Bearer ")+`"}`, "credentials", "set", "--run-dir", run, "--org", "acme", "--provider", "resend")
	return &process{cmd, filepath.Join(run, "caller.sock")}
}

func benchProxy(b *testing.B, p *process) {
	body := strings.Repeat("x", 60)
	request := []byte("POST /emails HTTP/1.1\r\nHost: api.resend.com\r\nKeyward-Org: acme\r\nUser-Agent: bench/1.0\r\nContent-Type: application/json\r\nContent-Length: " +
		strconv.Itoa(len(body)) + "\r\n\r\n" + body)
	do := func(c net.Conn, buf []byte) error {
		if _, err := c.Write(request); err != nil {
			return err
		}
		for n := 0; ; {
			m, err := c.Read(buf[n:])
			if err != nil {
				return err
			}
			n += m
			if bytes.HasSuffix(buf[:n], answerEnd) {
				if !bytes.HasPrefix(buf, []byte("HTTP/1.1 200")) {
					return fmt.Errorf("answer %.300s", buf[:n])
				}
				return nil
			}
		}
	}
	var conns []net.Conn
	for range callers {
		c, err := net.Dial("unix", p.address)
		if err != nil {
			b.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		conns = append(conns, c)
	}
	var warm sync.WaitGroup
	for _, c := range conns {
		warm.Go(func() {
			for range 20 {
				if err := do(c, make([]byte, 8192)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	warm.Wait()
	before := cpuOf(b, p.cmd.Process.Pid)
	b.ResetTimer()
	var all sync.WaitGroup
	for i, c := range conns {
		n := b.N / callers
		if i < b.N%callers {
			n++
		}
		all.Go(func() {
			buf := make([]byte, 8192)
			for range n {
				if err := do(c, buf); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.StopTimer()
	used := cpuOf(b, p.cmd.Process.Pid) - before
	b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-µs/op")
}

// cpuOf is the CPU time of a process, user and system (proc(5): fields 14 and 15 of stat, in ticks of 10 ms).
func cpuOf(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks int64
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

var answerEnd = []byte("the end.")

// runProvider answers over TLS 1.3 with 500 bytes to whoever brings the credential, and 401 to everybody else.
func runProvider() {
	cert, caPEM := makeCertificate()
	if err := os.WriteFile(os.Getenv("BENCH_CA"), caPEM, 0o600); err != nil {
		panic(err)
	}
	body := append(bytes.Repeat([]byte("x"), 500-len(answerEnd)), answerEnd...)
	serve(listen("tcp", "127.0.0.1:0", cert), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if r.Header.Get("Authorization") != wantKey {
			w.WriteHeader(http.StatusUnauthorized)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	}))
}

// runReverseProxy is the peer: what one writes in an afternoon.
func runReverseProxy() {
	pemBytes, err := os.ReadFile(os.Getenv("BENCH_CA"))
	if err != nil {
		panic(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pemBytes)
	to := &url.URL{Scheme: "https", Host: os.Getenv("BENCH_UPSTREAM")}
	p := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Header.Del("Keyward-Org")
			r.Out.Header.Set("Authorization", wantKey)
		},
		Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: roots},
			MaxIdleConns:        256,
			MaxIdleConnsPerHost: 256,
			ForceAttemptHTTP2:   false,
			DisableCompression:  true,
		},
	}
	serve(listen("unix", os.Getenv("BENCH_SOCKET"), tls.Certificate{}), p)
}

func listen(network, address string, cert tls.Certificate) net.Listener {
	l, err := net.Listen(network, address)
	if err != nil {
		panic(err)
	}
	fmt.Println(l.Addr())
	if cert.Certificate != nil {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13})
	}
	return l
}

func serve(l net.Listener, h http.Handler) {
	srv := &http.Server{Handler: h, BaseContext: func(net.Listener) context.Context { return context.Background() }}
	panic(srv.Serve(l))
}

func makeCertificate() (tls.Certificate, []byte) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}
