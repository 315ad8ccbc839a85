package proxy

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
	"encoding/base64"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
	"github.com/rs/zerolog"
)

// rows is a store.Reader in memory. Its contract is the store's: rows are shared and never changed.
type rows struct {
	mu          sync.Mutex
	credentials map[store.Ref]*store.Credential
	assistants  map[string]*store.Assistant
	tokens      map[[32]byte]*store.Token
	err         error                     // what every look-up returns, if set
	says        func(hash [32]byte) error // what the look-up of a token returns instead, if it is set and that is an error
}

func (r *rows) Credential(_ context.Context, ref store.Ref) (*store.Credential, bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return nil, false, r.err
	}
	if c := r.credentials[ref]; c != nil {
		return c, true, nil
	}
	return nil, false, store.ErrNotFound
}

func (r *rows) Assistant(_ context.Context, id string) (*store.Assistant, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return nil, r.err
	}
	if a := r.assistants[id]; a != nil {
		return a, nil
	}
	return nil, store.ErrNotFound
}

func (r *rows) Token(_ context.Context, hash [32]byte) (*store.Token, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return nil, r.err
	}
	if r.says != nil {
		if err := r.says(hash); err != nil {
			return nil, err
		}
	}
	if t := r.tokens[hash]; t != nil {
		return t, nil
	}
	return nil, store.ErrNotFound
}

// credentials of the test's orgs, as JSON.
const (
	acmeSID    = "AC11111111111111111111111111111111"
	globexSID  = "AC22222222222222222222222222222222"
	acmeTwilio = `{"account_sid":"` + acmeSID + `","auth_token":"0000000000000000000000000000acme","from_number":"+15550009","whatsapp_number":"+15550008","subaccounts":["AC33333333333333333333333333333333"]}`
)

var acmeBasic = "Basic " + base64.StdEncoding.EncodeToString([]byte(acmeSID+":0000000000000000000000000000acme"))

var credentialsOf = map[string]map[string]string{
	"acme": {
		"twilio":          acmeTwilio,
		"vapi":            `{"api_key":"vapi-private-acme-0001","public_key":"vapi-public-acme-0001"}`,
		"resend":          `{"api_key":"re_acme_0123456789"}`,
		"elevenlabs":      `{"api_key":"sk_acme_0123456789abcdef"}`,
		"google_calendar": `{"client_id":"client-acme","client_secret":"client-secret-acme","refresh_token":"refresh-acme-1"}`,
	},
	"globex": {
		"twilio":     `{"account_sid":"` + globexSID + `","auth_token":"000000000000000000000000000globex"}`,
		"vapi":       `{"api_key":"vapi-private-globex-01"}`,
		"resend":     `{"api_key":"re_globex_0123456789"}`,
		"elevenlabs": `{"api_key":"sk_globex_0123456789abcd","region":"eu"}`,
	},
}

// A world is a proxy with everything around it: orgs, a provider, callers on a unix socket and on TCP.
type world struct {
	t      testing.TB
	p      *Proxy
	rows   *rows
	keys   *seal.Keyring
	logs   *lockedBuffer
	socket string
	tcp    string
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newWorld starts a proxy whose every provider host is at to. change adjusts the options before the start.
func newWorld(t testing.TB, to string, change ...func(*Options)) *world {
	t.Helper()
	w := &world{t: t, keys: seal.Generate(), logs: &lockedBuffer{}, rows: &rows{
		credentials: map[store.Ref]*store.Credential{}, assistants: map[string]*store.Assistant{}, tokens: map[[32]byte]*store.Token{},
	}}
	for org, byProvider := range credentialsOf {
		for name, text := range byProvider {
			w.set(org, name, text, 1)
		}
	}
	w.rows.assistants["asst_1"] = &store.Assistant{ID: "asst_1", Org: "acme"}
	w.rows.assistants["asst_2"] = &store.Assistant{ID: "asst_2", Org: "globex"}
	o := Options{
		Store: w.rows, Keys: w.keys, Rules: caller.SelfOnly(uint32(os.Geteuid())), Log: zerolog.New(w.logs),
		Upstreams: map[string]*url.URL{}, Limits: Limits{FirstByteTimeout: 15 * time.Second, IdleTimeout: 10 * time.Second},
	}
	if to != "" {
		u, err := url.Parse(to)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range provider.All {
			for _, h := range append(v.Hosts, v.OwnHosts...) {
				o.Upstreams[h] = u
			}
		}
		o.Roots = testRoots()
	}
	for _, fn := range change {
		fn(&o)
	}
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	w.p = p
	w.socket = filepath.Join(t.TempDir(), "s")
	w.serve("unix", w.socket, &Listener{})
	w.tcp = w.serve("tcp", "127.0.0.1:0", &Listener{})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = p.Shutdown(ctx)
		p.Close()
	})
	return w
}

// serve adds a listener and returns its address.
func (w *world) serve(network, address string, l *Listener) string {
	w.t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		w.t.Fatal(err)
	}
	l.Listener = ln
	go func() {
		if err := w.p.Serve(l); err != nil {
			w.t.Errorf("serving %s: %v", address, err)
		}
	}()
	return ln.Addr().String()
}

// set seals a credential, as version v.
func (w *world) set(org, name, text string, v int64) {
	w.t.Helper()
	prov := provider.Named(name)
	values, problems := prov.Parse([]byte(text))
	if len(problems) > 0 {
		w.t.Fatalf("%s of %s: %v", name, org, problems)
	}
	c := &store.Credential{Ref: store.Ref{Org: org, Provider: name}, Version: v, SealedVersion: v, Active: true}
	c.Sealed = w.keys.Seal(nil, values.Encode(nil), c.AppendContext(nil))
	w.rows.mu.Lock()
	defer w.rows.mu.Unlock()
	w.rows.credentials[c.Ref] = c
}

// token adds a caller token.
func (w *world) token(t store.Token) string {
	text, hash := caller.NewToken()
	t.Hash = hash
	if t.Orgs == nil {
		t.Orgs = []string{"*"}
	}
	if t.Providers == nil {
		t.Providers = []string{"*"}
	}
	w.rows.mu.Lock()
	defer w.rows.mu.Unlock()
	w.rows.tokens[hash] = &t
	return text
}

// callers puts rules in force.
func (w *world) callers(specs ...caller.Spec) {
	w.t.Helper()
	var known []string
	for _, v := range provider.All {
		known = append(known, v.Name)
	}
	rules, err := caller.Compile(specs, known, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.p.SetRules(rules)
}

// dial connects to the proxy: "unix" or "tcp".
func (w *world) dial(network string) net.Conn {
	w.t.Helper()
	address := w.tcp
	if network == "unix" {
		address = w.socket
	}
	c, err := net.Dial(network, address)
	if err != nil {
		w.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	w.t.Cleanup(func() { _ = c.Close() })
	return c
}

// raw sends bytes over the network and reads one answer.
func (w *world) raw(network, request string) *http.Response {
	w.t.Helper()
	resp, err := w.tryRaw(network, request)
	if err != nil {
		w.t.Fatalf("%v\nrequest:\n%s", err, request)
	}
	return resp
}

func (w *world) tryRaw(network, request string) (*http.Response, error) {
	c := w.dial(network)
	defer func() { _ = c.Close() }()
	if _, err := io.WriteString(c, request); err != nil {
		return nil, err
	}
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}

// client is an HTTP client over the unix socket or TCP, to which the URL's host is only the Host header.
func (w *world) client(network string) *http.Client {
	address := w.tcp
	if network == "unix" {
		address = w.socket
	}
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}, MaxIdleConnsPerHost: 100}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// A peer is a provider made of bytes: it keeps each request as it arrived and answers what it is told.
type peer struct {
	t       testing.TB
	url     string
	mu      sync.Mutex
	got     []string // heads and bodies, whole
	conns   int
	answer  func(n int, request string) string // of the n-th request, from 0; "" closes the connection
	handler func(c net.Conn, br *bufio.Reader, head string)
}

const okAnswer = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"

// newPeer starts one, with TLS or without.
func newPeer(t testing.TB, secure bool) *peer {
	t.Helper()
	p := &peer{t: t, answer: func(int, string) string { return okAnswer }}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.url = "http://" + l.Addr().String()
	if secure {
		l = tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{testCertificate()}})
		p.url = "https://" + l.Addr().String()
	}
	var conns sync.WaitGroup
	open := map[net.Conn]bool{}
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		for c := range open {
			_ = c.Close()
		}
		p.mu.Unlock()
		conns.Wait()
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.mu.Lock()
			p.conns++
			open[c] = true
			p.mu.Unlock()
			conns.Go(func() {
				defer func() { _ = c.Close() }()
				p.serve(c)
			})
		}
	}()
	return p
}

func (p *peer) serve(c net.Conn) {
	br := bufio.NewReader(c)
	for {
		head, err := readHead(br)
		if err != nil {
			return
		}
		if p.handler != nil {
			p.handler(c, br, head)
			return
		}
		body, err := readBodyOf(br, head)
		if err != nil {
			return
		}
		p.mu.Lock()
		n := len(p.got)
		p.got = append(p.got, head+body)
		p.mu.Unlock()
		a := p.answer(n, head+body)
		if a == "" {
			return
		}
		if _, err := io.WriteString(c, a); err != nil {
			return
		}
	}
}

// last is the newest request as it arrived.
func (p *peer) last() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.got) == 0 {
		return ""
	}
	return p.got[len(p.got)-1]
}

func (p *peer) count() (requests, conns int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.got), p.conns
}

func readHead(br *bufio.Reader) (string, error) {
	var b strings.Builder
	for {
		line, err := br.ReadString('\n')
		if err != nil {
			return "", err
		}
		b.WriteString(line)
		if line == "\r\n" {
			return b.String(), nil
		}
	}
}

func readBodyOf(br *bufio.Reader, head string) (string, error) {
	r, err := http.ReadRequest(bufio.NewReader(io.MultiReader(strings.NewReader(head), br)))
	if err != nil {
		return "", fmt.Errorf("reading what the proxy sent: %w", err)
	}
	if r.ContentLength >= 0 {
		b := make([]byte, r.ContentLength)
		// The head's reader has buffered what follows; read from it.
		_, err = io.ReadFull(r.Body, b)
		return string(b), err
	}
	b, err := io.ReadAll(r.Body)
	return string(b), err
}

// headerOf is a header's value in a request as it arrived; all of them joined by "|", so that two are seen.
func headerOf(request, name string) string {
	head, _, _ := strings.Cut(request, "\r\n\r\n")
	var values []string
	for _, line := range strings.Split(head, "\r\n")[1:] {
		n, v, _ := strings.Cut(line, ":")
		if strings.EqualFold(n, name) {
			values = append(values, strings.TrimSpace(v))
		}
	}
	return strings.Join(values, "|")
}

func requestLine(request string) string {
	line, _, _ := strings.Cut(request, "\r\n")
	return line
}

var testTLS = sync.OnceValues(func() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	tpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
})

func testCertificate() tls.Certificate {
	c, err := testTLS()
	if err != nil {
		panic(err)
	}
	return c
}

func testRoots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(testCertificate().Leaf)
	return pool
}

// problemCode is the code of an answer of Keyward's own, from its header.
func problemCode(r *http.Response) string { return r.Header.Get("Keyward-Error") }

func bodyOf(r *http.Response) string {
	b, _ := io.ReadAll(r.Body)
	return string(b)
}
