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

// A copy that comes while the app is being asked waits for what becomes of the first.
func TestCopyWaitsForTheFirst(t *testing.T) {
	for _, c := range []struct {
		name, code    string
		first, second int
	}{
		{"of which the app takes the first", "replayed", 200, 409},
		{"of which the app refuses the first", "", 503, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			asked, more := make(chan struct{}, 2), make(chan int)
			w.app.answers(func(rw http.ResponseWriter, _ *http.Request) {
				asked <- struct{}{}
				rw.WriteHeader(<-more)
			})
			send := func() chan sent {
				got := make(chan sent, 1)
				go func() { got <- w.post("/webhooks/vapi/acme", request("tool-calls", ""), acmeSecret) }()
				return got
			}
			first := send()
			<-asked
			second := send()
			select {
			case s := <-second:
				t.Fatalf("answered before the first: %d", s.status)
			case <-asked:
				t.Fatal("the app was asked twice")
			case <-time.After(100 * time.Millisecond):
			}
			more <- c.first
			if s := <-first; s.status != c.first {
				t.Errorf("the first: %d", s.status)
			}
			if c.second == 200 {
				more <- 200
			}
			if s := <-second; s.status != c.second || s.header.Get("Keyward-Error") != c.code {
				t.Errorf("the second: %d %s", s.status, s.body)
			}
		})
	}
}

// What another sidecar had under way when it was killed is welcome again when its claim has run out.
func TestClaimOfADeadSidecar(t *testing.T) {
	db := openStore(t, stores["postgres"](t))
	w := newWorld(t, func(o *Options) { o.Memory = db })
	body := request("tool-calls", "")
	c := &call{source: sources[1], org: "acme"}
	key := c.seenKey(mac(algorithms["sha256"], []byte("vapi body"), []byte(body)))
	if found, err := db.ClaimSeen(t.Context(), key); err != nil || found != store.Fresh {
		t.Fatal(found, err)
	}
	began := time.Now()
	w.asks(w.post("/webhooks/vapi/acme", body, acmeSecret))
	if took := time.Since(began); took < store.ClaimLease/2 || took > store.ClaimLease+10*time.Second {
		t.Errorf("it took %s", took)
	}
	w.refuses(w.post("/webhooks/vapi/acme", body, acmeSecret), 409, "replayed")
}

// A call that takes longer than the lease keeps its claim, in all sidecars.
func TestLongAnswerKeepsItsClaim(t *testing.T) {
	url := stores["postgres"](t)
	a, b := openStore(t, url), openStore(t, url)
	one, two := newWorld(t, func(o *Options) { o.Memory = a }), newWorld(t, func(o *Options) { o.Memory = b })
	asked, more := make(chan struct{}), make(chan struct{})
	one.app.answers(func(http.ResponseWriter, *http.Request) { close(asked); <-more })
	body := request("tool-calls", "")
	first, second := make(chan sent, 1), make(chan sent, 1)
	go func() { first <- one.post("/webhooks/vapi/acme", body, acmeSecret) }()
	<-asked
	go func() { second <- two.post("/webhooks/vapi/acme", body, acmeSecret) }()
	select {
	case s := <-second:
		t.Errorf("the copy was answered with %d while the first was under way", s.status)
	case <-time.After(store.ClaimLease + time.Second):
	}
	close(more)
	if s := <-first; s.status != 200 {
		t.Errorf("the first: %d", s.status)
	}
	two.refuses(<-second, 409, "replayed")
	if two.app.count() != 0 {
		t.Error("the app was asked by both")
	}
}

// With the store gone after the app was asked, its answer goes back all the same, copies are known here, and the store is told later.
func TestAnswerWhileTheStoreIsDown(t *testing.T) {
	w := newWorld(t)
	w.app.answers(func(http.ResponseWriter, *http.Request) { w.setDown(true) })
	body := request("tool-calls", "")
	if s := w.post("/webhooks/vapi/acme", body, acmeSecret); s.status != 200 {
		t.Fatalf("%d %s", s.status, s.body)
	}
	w.app.answers(nil)
	w.refuses(w.post("/webhooks/vapi/acme", body, acmeSecret), 409, "replayed")
	w.setDown(false)
	w.refuses(w.post("/webhooks/vapi/acme", body, acmeSecret), 409, "replayed")
	eventually(t, "the store was told", func() bool {
		w.s.claims.mu.Lock()
		defer w.s.claims.mu.Unlock()
		return len(w.s.claims.owing) == 0
	})
	w.refuses(w.post("/webhooks/vapi/acme", body, acmeSecret), 409, "replayed")
	if w.app.count() != 1 {
		t.Errorf("the app was asked %d times", w.app.count())
	}
}

// What is still owed to the store when the sidecar ends is told to it then.
func TestAnswerIsRememberedAtTheEnd(t *testing.T) {
	db := openStore(t, stores["sqlite"](t))
	m := &forgetful{DB: db, down: true}
	c := newClaims(m, zerolog.Nop())
	one, err := c.take(t.Context(), "key", time.Now().Add(time.Minute), time.Now().Add(time.Minute))
	if err != nil || c.confirm(one) {
		t.Fatal(err)
	}
	m.down = false
	ended, end := context.WithCancel(t.Context())
	end()
	c.keep(ended)
	if found, err := db.ClaimSeen(t.Context(), "key"); err != nil || found != store.Seen {
		t.Errorf("%d %v", found, err)
	}
}

// Claims are renewed in time also while the store takes its time over what it missed.
func TestClaimsAreRenewedWhileTheStoreIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := &slow{}
		c := newClaims(m, zerolog.Nop())
		if _, err := c.take(t.Context(), "held", time.Now().Add(time.Minute), time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			key := strconv.Itoa(i)
			c.owing[key] = &claim{key: key, until: time.Now().Add(time.Minute)}
		}
		ctx, end := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { c.keep(ctx); close(done) }()
		last := time.Now()
		time.Sleep(8 * time.Second)
		end()
		<-done
		for _, at := range m.renewals {
			if at.Sub(last) > store.ClaimLease/2 {
				t.Errorf("%v between two renewals", at.Sub(last))
			}
			last = at
		}
		if len(m.renewals) < 8 || m.told < 8 {
			t.Errorf("%d renewals, %d confirmed", len(m.renewals), m.told)
		}
	})
}

// A slow memory takes nearly a second for each key.
type slow struct {
	renewals []time.Time
	told     int
}

func (m *slow) ClaimSeen(context.Context, string) (store.Claim, error) { return store.Fresh, nil }

func (m *slow) Unclaim(context.Context, string, time.Time) error { return nil }

func (m *slow) RenewClaims(context.Context, []string) error {
	m.renewals = append(m.renewals, time.Now())
	return nil
}

func (m *slow) ConfirmSeen(context.Context, string, time.Time) (bool, error) {
	time.Sleep(900 * time.Millisecond)
	m.told++
	return false, nil
}

type forgetful struct {
	*store.DB
	down   bool
	before func() // it is told
}

func (f *forgetful) ConfirmSeen(ctx context.Context, key string, until time.Time) (bool, error) {
	if f.down {
		return false, store.ErrUnavailable
	}
	if f.before != nil {
		f.before()
	}
	return f.DB.ConfirmSeen(ctx, key, until)
}

// Two sidecars hand over on SQLite, and both have asked the app: one of them answers.
func TestTwoThatAnsweredTheSame(t *testing.T) {
	url := stores["sqlite"](t)
	one := newWorld(t, func(o *Options) { o.Memory = openStore(t, url) })
	two := newWorld(t, func(o *Options) { o.Memory = openStore(t, url) })
	body := request("tool-calls", "")
	one.app.answers(func(http.ResponseWriter, *http.Request) {
		two.asks(two.post("/webhooks/vapi/acme", body, acmeSecret))
	})
	one.refuses(one.post("/webhooks/vapi/acme", body, acmeSecret), 409, "replayed")
}

// Audio is remembered before its last bytes go, so that who has them all can have them from no copy; and not if they do not all come.
func TestAudioIsRememberedBeforeItsEnd(t *testing.T) {
	for name, length := range map[string]string{"chunked": "", "of known length": "8"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			more := make(chan struct{})
			w.app.answers(func(rw http.ResponseWriter, _ *http.Request) {
				if length != "" {
					rw.Header().Set("Content-Length", length)
				}
				_, _ = io.WriteString(rw, "PCM1")
				_ = http.NewResponseController(rw).Flush()
				<-more
				_, _ = io.WriteString(rw, "PCM2")
			})
			body := request("voice-request", "")
			c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			_, _ = io.WriteString(c, "POST /webhooks/vapi/acme HTTP/1.1\r\nHost: x\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\n"+acmeSecret+"\r\n\r\n"+body)
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			first := make([]byte, 4)
			if _, err := io.ReadFull(resp.Body, first); err != nil {
				t.Fatal(err)
			}
			close(more)
			if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "PCM2" {
				t.Fatalf("%q %v", rest, err)
			}
			w.refuses(w.post("/webhooks/vapi/acme", body, acmeSecret), 409, "replayed")
		})
	}
}

// That there is no audio is an answer too, of which no copy is asked about.
func TestAudioOfNoLengthIsRemembered(t *testing.T) {
	for name, answer := range map[string]string{
		"204":       "HTTP/1.1 204 No Content\r\n\r\n",
		"length":    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"chunked":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"until end": "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			app := newRawApp(t, func(a *rawApp, c net.Conn, r *bufio.Reader) {
				a.reads(r)
				_, _ = io.WriteString(c, answer)
			})
			w := newWorld(t, func(o *Options) { o.Routes = []Route{{Target: "http://" + app.address}} })
			body := request("voice-request", "")
			if s := w.post("/webhooks/vapi/acme", body, acmeSecret); s.status > 204 || s.body != "" {
				t.Fatalf("%d %q", s.status, s.body)
			}
			w.refuses(w.post("/webhooks/vapi/acme", body, acmeSecret), 409, "replayed")
		})
	}
}

// Audio that another sidecar has answered meanwhile is cut, and what that one has written down stays.
func TestAudioThatAnotherAnswered(t *testing.T) {
	url := stores["sqlite"](t)
	db := openStore(t, url)
	w := newWorld(t, func(o *Options) { o.Memory = db })
	until := time.Now().Add(time.Minute).Truncate(time.Microsecond) // of a signature's time: the same in every sidecar
	mine, err := w.s.claims.take(t.Context(), "key", until, time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if twice, err := openStore(t, url).ConfirmSeen(t.Context(), "key", until); twice || err != nil {
		t.Fatal(twice, err)
	}
	if !w.s.claims.confirm(mine) {
		t.Fatal("it was not known as one that was answered")
	}
	w.s.claims.give(mine) // as the end of a cut answer does
	if found, err := db.ClaimSeen(t.Context(), "key"); found != store.Seen || err != nil {
		t.Errorf("a copy would be answered again: %d %v", found, err)
	}
}

// A message whose answer was cut while the store was being told of it is welcome again.
func TestGivenUpWhileTheStoreIsTold(t *testing.T) {
	db := openStore(t, stores["sqlite"](t))
	m := &forgetful{DB: db, down: true}
	c := newClaims(m, zerolog.Nop())
	one, err := c.take(t.Context(), "key", time.Now().Add(time.Minute), time.Now().Add(time.Minute))
	if err != nil || c.confirm(one) {
		t.Fatal(err)
	}
	m.down = false
	m.before = func() { c.give(one) }
	c.pay(t.Context())
	if found, err := db.ClaimSeen(t.Context(), "key"); found != store.Fresh || err != nil {
		t.Errorf("its next try would be a copy: %d %v", found, err)
	}
}

// While the sidecar ends nobody can say what becomes of the first: its copy is not called one that was answered.
func TestCopyAtTheEnd(t *testing.T) {
	c := newClaims(openStore(t, stores["sqlite"](t)), zerolog.Nop())
	if one, err := c.take(t.Context(), "key", time.Now().Add(time.Minute), time.Now().Add(time.Minute)); one == nil || err != nil {
		t.Fatal(err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if two, err := c.take(ended, "key", time.Now().Add(time.Minute), time.Now().Add(time.Minute)); two != nil || err == nil {
		t.Errorf("%v %v", two, err)
	}
}
