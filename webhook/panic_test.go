package webhook

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/store"
)

// A brokenMemory panics in whatever is broken.
type brokenMemory struct {
	claim, renew, confirm, unclaim func()
}

func (m brokenMemory) ClaimSeen(context.Context, string) (store.Claim, error) {
	m.claim()
	return store.Fresh, nil
}

func (m brokenMemory) RenewClaims(context.Context, []string) error { m.renew(); return nil }

func (m brokenMemory) ConfirmSeen(context.Context, string, time.Time) (bool, error) {
	m.confirm()
	return false, nil
}

func (m brokenMemory) Unclaim(context.Context, string, time.Time) error { m.unclaim(); return nil }

const secretOfAPanic = "secret-of-the-tenant"

func breaks() { panic(secretOfAPanic) }

func works() {}

// Whatever panics, and however often, the process lives, and the panic's value is in no log.
func TestTheProcessOutlivesAMemoryThatPanics(t *testing.T) {
	for name, c := range map[string]struct {
		memory       brokenMemory
		typ, answer  string
		status       int // 0: the answer is cut
		panics, sent int64
	}{
		"what the app refused":        {brokenMemory{works, works, works, breaks}, "tool-calls", "HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n", 500, 1, 1},
		"what the app did not answer": {brokenMemory{works, works, works, breaks}, "tool-calls", "", 500, 1, 1},
		"an answer":                   {brokenMemory{works, works, breaks, breaks}, "tool-calls", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 500, 2, 1},
		"a message":                   {brokenMemory{breaks, works, works, breaks}, "tool-calls", "", 500, 1, 0},
		"audio":                       {brokenMemory{works, works, breaks, breaks}, "voice-request", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nPCM", 0, 2, 1},
		"audio of unknown length":     {brokenMemory{works, works, breaks, breaks}, "voice-request", "HTTP/1.1 200 OK\r\n\r\nPCM", 0, 2, 1},
		"audio that is cut":           {brokenMemory{works, works, works, breaks}, "voice-request", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nPCM", 0, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			app := newRawApp(t, func(a *rawApp, conn net.Conn, r *bufio.Reader) {
				a.reads(r)
				_, _ = io.WriteString(conn, c.answer)
			})
			w := newWorld(t, func(o *Options) { o.Memory, o.Routes = c.memory, []Route{{Target: "http://" + app.address}} })
			if c.status != 0 {
				w.refuses(w.post("/webhooks/vapi/acme", request(c.typ, ""), acmeSecret), c.status, "internal_error")
			} else if text, err := w.whole(request(c.typ, "")); err == nil {
				t.Errorf("a whole answer: %q", text)
			}
			eventually(t, "it is in the log and the numbers", func() bool {
				return w.s.Stats().Panics.Load() == c.panics && strings.Contains(w.log.String(), `"message":"webhook"`)
			})
			if text := w.log.String(); strings.Contains(text, secretOfAPanic) || strings.Count(text, `"type":"string"`) != int(c.panics) {
				t.Errorf("the log quotes a panic's value, or does not say that there was one:\n%s", text)
			}
			if n := app.requests.Load(); n != c.sent {
				t.Errorf("the app got %d requests", n)
			}
			if w.s.claims.mu.Lock(); len(w.s.claims.held) != 0 {
				t.Error("the message is held for ever")
			}
			w.s.claims.mu.Unlock()
		})
	}
}

// whole posts a message of acme's, and returns its answer's body, or why there is no whole one.
func (w *world) whole(body string) (string, error) {
	w.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	_, _ = io.WriteString(c, "POST /webhooks/vapi/acme HTTP/1.1\r\nHost: x\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\n"+acmeSecret+"\r\n\r\n"+body)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// What is done beside the messages goes on too.
func TestClaimsAreKeptBesidePanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		renewals, told := 0, 0
		m := brokenMemory{works, func() { renewals++; breaks() }, func() { told++; breaks() }, works}
		c := newClaims(m, zerolog.Nop())
		if _, err := c.take(t.Context(), "held", time.Now().Add(time.Minute), time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		c.owing["owed"] = &claim{key: "owed", until: time.Now().Add(time.Minute)}
		ctx, end := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { c.keep(ctx); close(done) }()
		time.Sleep(2 * store.ClaimLease)
		end()
		<-done
		if renewals < 7 || told < 10 {
			t.Errorf("%d renewals, told %d times", renewals, told)
		}
	})
}
