package keysource

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// A fault is what a fake does instead of its work.
type fault int

const (
	well fault = iota
	denied
	disabled
	noSuchKey
	throttled
	broken // an error of its own
	cut    // the connection ends in the middle of the answer
	nonsense
)

// A fake is a key management service in this process. It holds its callers to the service's own rules, and does not forgive.
type fake struct {
	t      *testing.T
	server *httptest.Server
	source string // without keyset=

	mu    sync.Mutex
	fault fault
	after int // how many calls it is well before
	times int // how many more calls it is faulty then; -1: all
	calls int
	last  string // the last request's body
	other bool   // it has another key than the one that wrapped

	// answer does the work, or the fault, and says what is wrong with the request.
	answer func(f *fake, w http.ResponseWriter, r *http.Request, body []byte, now fault) error
}

func newFake(t *testing.T, answer func(f *fake, w http.ResponseWriter, r *http.Request, body []byte, now fault) error) *fake {
	f := &fake{t: t, answer: answer}
	f.server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.server.Close)
	return f
}

func (f *fake) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		f.t.Errorf("reading a request: %v", err)
	}
	if r.URL.Path == "/token" { // Google's, which is none of the service's calls
		if err := f.answer(f, w, r, body, well); err != nil {
			f.t.Errorf("a wrong request for a token: %v", err)
		}
		return
	}
	f.mu.Lock()
	now := f.fault
	switch {
	case f.after > 0:
		f.after--
		now = well
	case f.times == 0:
		now = well
	case f.times > 0:
		f.times--
	}
	f.calls++
	f.last = string(body)
	f.mu.Unlock()
	switch now {
	case cut:
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte("{"))
		panic(http.ErrAbortHandler)
	case nonsense:
		_, _ = io.WriteString(w, "<html>welcome</html>")
		return
	}
	if err := f.answer(f, w, r, body, now); err != nil {
		f.t.Errorf("a wrong request: %v", err)
		w.WriteHeader(http.StatusTeapot)
	}
}

// is makes it faulty for so many calls; -1: for all.
func (f *fake) is(what fault, times int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault, f.after, f.times, f.calls = what, 0, times, 0
}

// isAfter makes it faulty from a later call on.
func (f *fake) isAfter(calls int, what fault) {
	f.is(what, -1)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.after = calls
}

func (f *fake) called() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

// encrypt is the services' cipher: good enough to see which key, and for what, something was encrypted.
func (f *fake) encrypt(plain, context []byte) []byte {
	return fmt.Appendf(nil, "sealed %s %x %x", f.key(), context, plain)
}

func (f *fake) decrypt(sealed, context []byte) (plain []byte, ok bool) {
	rest, ok := strings.CutPrefix(string(sealed), fmt.Sprintf("sealed %s %x ", f.key(), context))
	if !ok {
		return nil, false
	}
	_, err := fmt.Sscanf(rest, "%x", &plain)
	return plain, err == nil
}

func (f *fake) key() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.other {
		return "other"
	}
	return "first"
}

func (f *fake) changeKey() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.other = true
}

// fakes are all services, each behind a source of its own.
func fakes(t *testing.T, test func(t *testing.T, f *fake)) {
	t.Helper()
	for name, make := range map[string]func(*testing.T) *fake{"awskms": fakeAWS, "gcpkms": fakeGCP, "hcvault": fakeVault} {
		t.Run(name, func(t *testing.T) { test(t, make(t)) })
	}
}

func reply(w http.ResponseWriter, status int, v any) error {
	w.WriteHeader(status)
	return json.NewEncoder(w).Encode(v)
}

func unbase64(s string) []byte {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil
	}
	return b
}
