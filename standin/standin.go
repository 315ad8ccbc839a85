// Package standin answers in the place of the providers, on loopback, for a first try and for tests.
//
// A stand-in does three things that a mock usually does not: it verifies the credential of each request and answers as the provider
// does when it is wrong; it gives answers in the provider's own shape, errors, pages, streams and WebSockets included; and it keeps
// each request as it arrived, header names in their order and case, so that a test compares the whole request as text.
//
// One port serves all hosts, by the Host header:
//
//	s := standin.New(standin.Options{})
//	s.Expect(standin.Sample("acme")...)
//	hosts, err := s.Start() // "api.twilio.com" → "http://127.0.0.1:41234"
//
// The first five providers have stand-ins of their own. For all others there is a common one, made of what the provider's file says
// (common.go): it takes the credential that would be injected, answers probes as the provider does, and echoes WebSockets.
//
// What it answers follows the providers' public specifications and documented errors. Its credentials are made up.
package standin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyward/keyward/provider"
)

// Names of the providers that have a stand-in of their own, as in Credential.Provider and Handler.
const (
	Twilio         = "twilio"
	Vapi           = "vapi"
	Resend         = "resend"
	ElevenLabs     = "elevenlabs"
	GoogleCalendar = "google_calendar"
)

// LabelHeader is the answer's header that names the Label of the credential which authenticated the request.
const LabelHeader = "Standin-Credential"

// Options of a Set. The zero value is good.
type Options struct {
	Providers     provider.Set     // all that there are; nil: provider.All
	Hosts         []string         // hosts in Start's map beyond the usual ones; any host of the providers is answered anyway
	Keep          int              // how many requests are kept, the newest; 0: 1000, negative: none
	KeepBody      int              // how many bytes of each body are kept; 0: 1 MiB
	Pause         time.Duration    // between the pieces of a streamed answer; 0: 20 ms, negative: none
	TokenLife     time.Duration    // of Google's access tokens; 0: 3599 s
	Grants        []string         // the scopes that people consent to, whatever they are asked for; nil: those that they are asked for
	RotateRefresh bool             // Google's token endpoint answers with a new refresh token and the old one ends
	Now           func() time.Time // the clock of token ends and timestamps; nil: time.Now
}

// A Set is the stand-ins of all providers. It is safe for concurrent use.
type Set struct {
	opt      Options
	usual    []string                // the hosts of Start's map
	handlers map[string]http.Handler // :: provider
	hosts    map[string]string       // :: host → provider
	accounts accounts
	google   tokens
	kept     kept
	faults   faults

	mu      sync.Mutex
	ca      *authority
	servers []*http.Server
	url     string // of the first listener
	closed  bool
	done    sync.WaitGroup  // servers and requests
	ctx     context.Context // of WebSockets, which no server knows
	cancel  context.CancelFunc
}

// New makes stand-ins that accept no credential yet and listen nowhere yet.
func New(o Options) *Set {
	if o.Keep == 0 {
		o.Keep = 1000
	}
	if o.KeepBody == 0 {
		o.KeepBody = 1 << 20
	}
	if o.Pause == 0 {
		o.Pause = 20 * time.Millisecond
	}
	if o.TokenLife == 0 {
		o.TokenLife = 3599 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Set{opt: o}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.kept.limit = o.Keep
	s.handlers = map[string]http.Handler{
		Twilio:         s.twilio(),
		Vapi:           s.vapi(),
		Resend:         s.resend(),
		ElevenLabs:     s.elevenlabs(),
		GoogleCalendar: s.googleCalendar(),
	}
	s.hosts = map[string]string{}
	for _, p := range o.Providers.Or() {
		if s.handlers[p.Name] == nil {
			s.handlers[p.Name] = s.common(p)
		}
		for _, h := range slices.Concat(p.Hosts, p.OwnHosts) {
			if len(p.Hosts) < manyHosts || slices.Contains(twilioHosts, h) {
				s.usual = append(s.usual, h)
			}
			s.hosts[h] = p.Name
		}
	}
	return s
}

// manyHosts is how many a provider has whose hosts are not all in Start's map. Only Twilio has as many: one for each product, region and edge.
const manyHosts = 20

var twilioHosts = []string{"api.twilio.com", "verify.twilio.com", "oauth.twilio.com"}

// Start listens on a free loopback port, in plain HTTP, and says for each host where it is answered.
func (s *Set) Start() (map[string]string, error) { return s.listen("http") }

// StartTLS is Start with TLS, by a certificate for 127.0.0.1, localhost and the hosts' own names, signed by the authority of CAPEM.
func (s *Set) StartTLS() (map[string]string, error) { return s.listen("https") }

// URL is where the first listener answers every host; empty before Start.
func (s *Set) URL() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.url
}

func (s *Set) listen(scheme string) (map[string]string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for stand-ins: %w", err)
	}
	url := scheme + "://" + l.Addr().String()
	hosts := map[string]string{}
	for _, h := range append(s.usual, s.opt.Hosts...) {
		hosts[h] = url
	}
	if scheme == "https" {
		if l, err = s.withTLS(l); err != nil {
			return nil, err
		}
	}
	srv := &http.Server{
		Handler:           s,
		ConnContext:       withRecorder,
		ReadHeaderTimeout: time.Minute,

		DisableGeneralOptionsHandler: true,
		ErrorLog:                     log.New(io.Discard, "", 0),
	}
	s.mu.Lock()
	s.servers = append(s.servers, srv)
	if s.url == "" {
		s.url = url
	}
	s.mu.Unlock()
	s.done.Go(func() { _ = srv.Serve(recordingListener{l}) })
	return hosts, nil
}

// Close ends all listeners, connections and requests. A Set is not started again.
func (s *Set) Close() error {
	s.mu.Lock()
	servers := s.servers
	s.servers, s.closed = nil, true
	s.mu.Unlock()
	s.cancel()
	var errs []error
	for _, srv := range servers {
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		if srv.Shutdown(ctx) != nil {
			errs = append(errs, srv.Close())
		}
		cancel()
	}
	s.done.Wait()
	return errors.Join(errs...)
}

// ServeHTTP answers for the provider that the Host header names. A host of nobody's is the stand-in itself: /requests shows what it kept.
func (s *Set) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if p := s.providerOf(hostOf(r)); p != "" {
		s.serve(w, r, p)
		return
	}
	if r.URL.Path == consentPath && isLoopback(hostOf(r)) { // a browser that was sent here
		s.serve(w, r, GoogleCalendar)
		return
	}
	_ = headOf(r) // so that the next request on the connection finds its own
	if r.URL.Path == "/requests" && isLoopback(hostOf(r)) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		for _, q := range s.Requests() {
			_, _ = fmt.Fprintf(w, "%s\n\n", q)
		}
		return
	}
	http.Error(w, "no provider has the host "+r.Host, http.StatusNotFound)
}

// Handler answers for one provider, whatever the Host header says. Behind another server than the Set's own, the kept requests have
// their header names in canonical form and sorted, because only the Set's connections know better.
func (s *Set) Handler(provider string) http.Handler {
	if s.handlers[provider] == nil {
		panic("standin: no provider " + provider)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(w, r, provider) })
}

// serve keeps the request, does what a fault says, or lets the provider answer.
func (s *Set) serve(w http.ResponseWriter, r *http.Request, provider string) {
	if !s.enter() {
		hangUp(w, false)
		return
	}
	defer s.done.Done()
	if r.Header.Get("Upgrade") != "" {
		w.Header().Set("Connection", "close") // should it be refused: recordingConn does not know what follows
	}
	k := s.keep(r, provider)
	defer k.finish()
	r.Body = &keptBody{ReadCloser: r.Body, kept: k, limit: s.opt.KeepBody}
	r = r.WithContext(context.WithValue(r.Context(), keptKey{}, k))
	w = &labelled{ResponseWriter: w, kept: k}
	if f := s.faults.take(r, provider); f != nil {
		if done := s.fail(w, r, provider, f); done {
			return
		}
	}
	s.handlers[provider].ServeHTTP(w, r)
}

// enter says whether the Set still answers, and then is waited for.
func (s *Set) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.done.Add(1)
	return true
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func hostOf(r *http.Request) string {
	host := strings.ToLower(r.Host)
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return host
}

func (s *Set) providerOf(host string) string {
	if p := s.hosts[host]; p != "" {
		return p
	}
	under := func(domain string) bool { return strings.HasSuffix(host, "."+domain) }
	switch {
	case under("twilio.com"):
		return Twilio
	case under("vapi.ai"):
		return Vapi
	case under("resend.com"):
		return Resend
	case under("elevenlabs.io"):
		return ElevenLabs
	case under("googleapis.com"), host == "accounts.google.com":
		return GoogleCalendar
	}
	return ""
}
