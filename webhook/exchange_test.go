package webhook

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// Where an answer ends is where the next one begins, which is another message's: whatever leaves that open costs the connection.
func TestWhereAnAnswerEnds(t *testing.T) {
	const next = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext"
	for name, c := range map[string]struct {
		answer, text string
		status       int
		bad          error // nil: none
		kept         bool
	}{
		"length":                     {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", 200, nil, true},
		"no body":                    {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", 200, nil, true},
		"204":                        {"HTTP/1.1 204 No Content\r\n\r\n", "", 204, nil, true},
		"304 with a length":          {"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "", 304, nil, true},
		"chunks":                     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n", "ok", 200, nil, true},
		"chunks and trailers":        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n2\r\nok\r\n0\r\nX: y\r\nZ: z\r\n\r\n", "ok", 200, nil, true},
		"until the end":              {"HTTP/1.1 200 OK\r\n\r\nok", "ok", 200, nil, false},
		"asks to close":              {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "ok", 200, nil, false},
		"HTTP/1.0":                   {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", 200, nil, false},
		"shorter than it says":       {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok", "ok", 200, io.ErrUnexpectedEOF, false},
		"chunks without an end":      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "ok", 200, io.ErrUnexpectedEOF, false},
		"trailers without an end":    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX: y\r\n", "ok", 200, io.ErrUnexpectedEOF, false},
		"endless trailers":           {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n" + strings.Repeat("X: y\r\n", maxAppHead), "ok", 200, errLongHead, false},
		"a chunk of no length":       {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nx\r\n", "ok", 200, errMalformed, false},
		"nothing":                    {"", "", 0, io.EOF, false},
		"half a head":                {"HTTP/1.1 200 OK\r\nContent-Le", "", 0, io.EOF, false},
		"two lengths":                {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 4\r\n\r\nokok", "", 0, errMalformed, false},
		"no number":                  {"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", "", 0, errMalformed, false},
		"another transfer encoding":  {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\nok", "", 0, errMalformed, false},
		"no status":                  {"HTTP/1.1 abc OK\r\n\r\nok", "", 0, errMalformed, false},
		"status 000":                 {"HTTP/1.1 000 OK\r\nContent-Length: 2\r\n\r\nok", "", 0, errMalformed, false},
		"status 099":                 {"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok", "", 0, errMalformed, false},
		"no reason":                  {"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", "ok", 200, nil, true},
		"empty lines before it":      {"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", 200, nil, true},
		"another protocol, no end":   {"SSH-2.0-OpenSSH\r\n", "", 0, errMalformed, false},
		"another protocol":           {"SSH-2.0-OpenSSH\r\n\r\n", "", 0, errMalformed, false},
		"bare LF":                    {"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "ok", 200, nil, true},
		"bare LF before CR LF":       {"HTTP/1.1 200 OK\r\nContent-Length: 2\n\r\nok", "ok", 200, nil, true},
		"bare LF behind CR LF":       {"HTTP/1.1 200 OK\nContent-Length: 2\r\n\nok", "ok", 200, nil, true},
		"bare LF within the head":    {"HTTP/1.1 200 OK\nX: y\nContent-Length: 2\r\n\r\nok", "ok", 200, nil, true},
		"bare LF and a whole head":   {"HTTP/1.1 200 OK\nContent-Length: 6\n\nok\r\n\r\n", "ok\r\n\r\n", 200, nil, true},
		"bare LF, body like a head":  {"HTTP/1.1 200 OK\nContent-Length: 13\n\na: b\n\r\n\r\nokok", "a: b\n\r\n\r\nokok", 200, nil, true},
		"bare LF, and in the body":   {"HTTP/1.1 200 OK\nContent-Length: 6\n\r\no\n\nk\n\n", "o\n\nk\n\n", 200, nil, true},
		"bare LF in an interim one":  {"HTTP/1.1 103 X\n\nHTTP/1.1 200 OK\nContent-Length: 2\n\nok", "ok", 200, nil, true},
		"bare LF in a long head":     {"HTTP/1.1 200 OK\nX: " + strings.Repeat("x", 32<<10) + "\n" + strings.Repeat("X: y\n", 3000) + "Content-Length: 2\n\nok", "ok", 200, nil, true},
		"bare LF and no head":        {"SSH-2.0-OpenSSH\n\n", "", 0, errMalformed, false},
		"a head of 32 kB":            {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 32<<10) + "\r\nContent-Length: 2\r\n\r\nok", "ok", 200, nil, true},
		"a head of many small lines": {"HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 3000) + "Content-Length: 2\r\n\r\nok", "ok", 200, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newRawApp(t, func(a *rawApp, conn net.Conn, r *bufio.Reader) {
				answer := c.answer
				if a.requests.Load() > 0 {
					answer = next
				}
				for a.reads(r) {
					_, _ = io.WriteString(conn, answer)
					if answer == c.answer && !c.kept {
						return
					}
					answer = next
				}
			})
			status, text, err := a.post(t.Context(), []byte("{}"))
			if status != c.status || text != c.text || !errors.Is(err, c.bad) {
				t.Errorf("%d %q %v, want %d %q %v", status, text, err, c.status, c.text, c.bad)
			}
			a.answers(t, "next")
			if n := a.connections.Load(); (n == 1) != c.kept {
				t.Errorf("%d connections for two requests", n)
			}
		})
	}
}

// However a head is cut into pieces, and whatever ends its lines, its body is the same, also one that looks like a head's end.
func TestAHeadInPieces(t *testing.T) {
	const body = "o\n\r\n\r\nk\n\n"
	for _, head := range []string{"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "HTTP/1.1 200 OK\nContent-Length: 9\n\n", "HTTP/1.1 200 OK\nContent-Length: 9\n\r\n"} {
		for _, size := range []int{1, 2, 3, 5, 7, 17} {
			a := newRawApp(t, func(a *rawApp, c net.Conn, r *bufio.Reader) {
				for a.reads(r) {
					for left := head + body; left != ""; left = left[min(size, len(left)):] {
						_, _ = io.WriteString(c, left[:min(size, len(left))])
						time.Sleep(time.Millisecond)
					}
				}
			})
			for range 2 {
				got, err := a.ask(t.Context(), a.question("POST", nil, time.Now().Add(30*time.Second)))
				if err != nil {
					t.Fatal(err)
				}
				if text, err := io.ReadAll(got); err != nil || string(text) != body {
					t.Errorf("%q in pieces of %d: %q %v", head, size, text, err)
				}
			}
			if n := a.connections.Load(); n != 1 {
				t.Errorf("%d connections", n)
			}
		}
	}
}

// The heads of answers are read into memory that is used again.
func TestAnAnswerHasNothingOfTheLastOne(t *testing.T) {
	w := newWorld(t)
	w.app.answers(func(rw http.ResponseWriter, _ *http.Request) {
		for name, value := range map[string]string{"Content-Type": "text/x", "Content-Encoding": "x", "Server": "x", "Set-Cookie": "a=b", "X-A": "b"} {
			rw.Header().Set(name, value)
		}
		_, _ = io.WriteString(rw, "a longer one")
	})
	if s := w.post("/webhooks/vapi/acme", request("tool-calls", ""), acmeSecret); s.header.Get("X-A") == "" || s.header.Get("Set-Cookie") == "" || s.header.Get("Server") != "x" {
		t.Fatalf("%v", s.header)
	}
	w.app.answers(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header()["Content-Type"], rw.Header()["Date"] = nil, nil
		_, _ = io.WriteString(rw, "short")
	})
	s := w.post("/webhooks/vapi/acme", request("tool-calls", `,"n":1`), acmeSecret)
	for name := range s.header {
		if name != "Keyward-Request-Id" && name != "Content-Length" && name != "Date" {
			t.Errorf("%s: %s, which the app did not say", name, s.header.Get(name))
		}
	}
	if s.body != "short" {
		t.Errorf("%q", s.body)
	}
}

// Nor are bodies, whose memory is used again too, ever mixed up: not those of messages that are cut, refused or waited for in vain either.
func TestBodiesAreNotMixedUp(t *testing.T) {
	app := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if len(body)%5 == 0 {
			panic(http.ErrAbortHandler)
		}
		if len(body)%7 == 0 {
			rw.WriteHeader(http.StatusTeapot)
		}
		_, _ = rw.Write(body)
	}))
	defer app.Close()
	w := newWorld(t, func(o *Options) { o.Routes = []Route{{Target: app.URL}} })
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := range 40 {
				body := request("tool-calls", fmt.Sprintf(`,"n":"%d %d %s"`, worker, i, strings.Repeat(string(rune('a'+worker)), i*i*worker)))
				switch s := w.post("/webhooks/vapi/acme", body, acmeSecret); {
				case s.status != 502 && s.body != body:
					t.Errorf("%d: sent %.80q, and the app got %.80q", s.status, body, s.body)
				case (s.status == 502) != (len(body)%5 == 0):
					t.Errorf("%d for a body of %d bytes", s.status, len(body))
				}
				if i%8 == 0 {
					_ = w.post("/webhooks/vapi/acme", body[:len(body)-1]+" ", acmeSecret) // no JSON: the app has it all the same
					_ = w.post("/webhooks/vapi", body, "X-Vapi-Secret: wrong")
				}
			}
		})
	}
	all.Wait()
}

func TestAppOverTLS(t *testing.T) {
	requests := 0
	app := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		body, _ := io.ReadAll(r.Body)
		_, _ = io.WriteString(w, r.TLS.ServerName+" "+string(body))
	}))
	defer app.Close()
	roots := x509.NewCertPool()
	roots.AddCert(app.Certificate())
	to, err := parseTarget("https://" + app.Listener.Addr().String() + "/hooks")
	if err != nil {
		t.Fatal(err)
	}
	l := newTargets().to(to).(*lane)
	defer l.close()
	ask := func() (string, error) {
		a, err := l.ask(t.Context(), &question{method: "POST", to: to, lines: func(lineWriter) {}, body: []byte("{}"), until: time.Now().Add(time.Minute)})
		if err != nil {
			return "", err
		}
		defer func() { _ = a.Close() }()
		b, err := io.ReadAll(a)
		return string(b), err
	}
	var unknown *tls.CertificateVerificationError
	if _, err := ask(); !errors.As(err, &unknown) || requests != 0 {
		t.Fatalf("an app that proves nothing: %v", err)
	}
	l.tls.RootCAs = roots
	l.tls.ServerName = "example.com" // which httptest's certificate has
	for range 5 {
		if got, err := ask(); err != nil || got != "example.com {}" {
			t.Fatalf("%q %v", got, err)
		}
	}
	if n := len(l.idle); n != 1 {
		t.Errorf("%d connections are kept", n)
	}
	l.tls.ServerName = "other.test"
	l.close()
	if _, err := ask(); !errors.As(err, &unknown) {
		t.Errorf("another's certificate: %v", err)
	}
}

// A corked conn holds what is written to it, once it is on.
type corked struct {
	net.Conn
	on   bool
	held []byte
}

func (c *corked) Write(b []byte) (int, error) {
	if !c.on {
		return c.Conn.Write(b)
	}
	c.held = append(c.held, b...)
	return len(b), nil
}

// Of what an app sends in one piece TLS takes more from the socket than it gives: what nobody asked for is not the next answer there either.
func TestNobodyGetsWhatWasNotAskedForOverTLS(t *testing.T) {
	made := httptest.NewTLSServer(http.NotFoundHandler())
	certificates, roots := made.TLS.Certificates, x509.NewCertPool()
	roots.AddCert(made.Certificate())
	made.Close()
	for name, more := range map[string][2]string{
		"an answer too many": {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret"},
		"204 with a body":    {"HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\n", "{}"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newRawApp(t, func(a *rawApp, c net.Conn, _ *bufio.Reader) {
				cork := &corked{Conn: c}
				over := tls.Server(cork, &tls.Config{Certificates: certificates})
				if over.Handshake() != nil {
					return
				}
				r := bufio.NewReader(over)
				cork.on = true
				for a.reads(r) {
					for _, part := range more {
						_, _ = io.WriteString(over, part)
					}
					_, _ = c.Write(cork.held)
					cork.held = nil
				}
			})
			a.tls = &tls.Config{RootCAs: roots, ServerName: "example.com"}
			for range 5 {
				status, text, err := a.post(t.Context(), []byte("{}"))
				if err != nil || status == 200 && text != "ok" || status == 204 && text != "" {
					t.Fatalf("%d %q %v", status, text, err)
				}
				time.Sleep(20 * time.Millisecond)
			}
		})
	}
}

// A question that comes too late costs no connection.
func TestTooLateIsNotAsked(t *testing.T) {
	a := newRawApp(t, keeps)
	a.answers(t, "ok")
	if _, err := a.ask(t.Context(), a.question("POST", nil, time.Now())); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
	a.answers(t, "ok")
	if n := a.connections.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// A panic while a long question is being written is its caller's, who has a guard against it, and costs one connection.
func TestAPanicInALongQuestionIsTheCallers(t *testing.T) {
	a := newRawApp(t, keeps)
	a.answers(t, "ok")
	q := a.question("POST", make([]byte, 2*shortBody), time.Now().Add(time.Minute))
	q.lines = func(lineWriter) { panic("lines") }
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		_, _ = a.ask(t.Context(), q)
	}()
	if a.last() != nil {
		t.Error("a connection is kept on which half a question was written")
	}
	a.answers(t, "ok")
}

// A stumblingMemory panics once, when it is told that a message was not answered.
type stumblingMemory struct {
	freshMemory
	once *sync.Once
}

func (m stumblingMemory) Unclaim(context.Context, string, time.Time) error {
	m.once.Do(func() { panic("unclaim") })
	return nil
}

// A panic while an answer is under way costs the message, and leaves the app no connection open.
func TestAPanicLeavesNoConnectionOpen(t *testing.T) {
	left := make(chan struct{})
	app := newRawApp(t, func(a *rawApp, c net.Conn, r *bufio.Reader) {
		a.reads(r)
		_, _ = io.WriteString(c, "HTTP/1.1 500 X\r\nContent-Length: 3000000\r\n\r\n"+strings.Repeat("x", 2*maxWhole)) // more than is waited for
		_, _ = io.Copy(io.Discard, r)
		close(left)
	})
	w := newWorld(t, func(o *Options) {
		o.Memory, o.Routes = stumblingMemory{once: &sync.Once{}}, []Route{{Target: "http://" + app.address}}
	})
	w.refuses(w.post("/webhooks/vapi/acme", request("tool-calls", ""), acmeSecret), 500, "internal_error")
	select {
	case <-left:
	case <-time.After(30 * time.Second):
		t.Error("the app's connection stays open")
	}
}
