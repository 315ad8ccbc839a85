package webhook

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
)

// queueKeys are those of all queues of these tests, in every process that is started again and again.
var queueKeys = func() *seal.Keyring {
	const name = "KEYWARD_TEST_QUEUE_KEY"
	_ = os.Setenv(name, strings.Repeat("07", 32))
	keys, err := seal.Load("env:" + name)
	if err != nil {
		panic(err)
	}
	return keys
}()

// keyset is a keyring of keys that are all zeros but for their number, each with its state.
func keyset(t testing.TB, states map[byte]string) *seal.Keyring {
	t.Helper()
	var all []string
	for n, state := range states {
		key := bytes.Repeat([]byte{0}, 32)
		key[0] = n
		all = append(all, fmt.Sprintf(`{"id":"k%d","key":"%s","state":%q}`, n, base64.StdEncoding.EncodeToString(key), state))
	}
	path := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(path, []byte(`{"version":1,"keys":[`+strings.Join(all, ",")+`]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := seal.Load("file:" + path)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

const tellTale = "tenant-secret-0123456789"

// secretive is a delivery with a secret in each of its parts.
func secretive(target string) *store.Delivery {
	return &store.Delivery{
		Org: "acme", Provider: "vapi", Type: "end-of-call-report", Target: target, Method: "POST", Path: "/webhooks/vapi", RawQuery: "q=" + tellTale,
		Header: []byte("X-Signature: " + tellTale + "\r\nKeyward-Org: acme\r\n"), Body: []byte(`{"x":"` + tellTale + `"}`),
	}
}

// arrived checks that the app got what secretive sent.
func arrived(t *testing.T, a *taker) {
	t.Helper()
	eventually(t, "delivered", func() bool { return len(a.all()) > 0 })
	got := a.all()[0]
	if got.body != `{"x":"`+tellTale+`"}` || got.uri != "/hooks?q="+tellTale || got.header.Get("X-Signature") != tellTale || got.header.Get("Keyward-Org") != "acme" {
		t.Errorf("the app got %+v", got)
	}
}

// The store never holds what was sent, and the app gets it as it was.
func TestWhatWaitsIsSealed(t *testing.T) {
	for name, url := range stores {
		t.Run(name, func(t *testing.T) {
			db := openStore(t, url(t))
			a := newTaker(t, func(taken, int) int { return 200 })
			q := NewQueue(QueueOptions{Store: db, Keys: queueKeys})
			d := secretive(a.url)
			if duplicate, err := q.Accept(t.Context(), d); duplicate || err != nil || string(d.Body) != `{"x":"`+tellTale+`"}` {
				t.Fatal(duplicate, err)
			}
			leased := stored(t, db, a.url)
			if leased.KeyID != queueKeys.PrimaryID() || leased.RawQuery != "" {
				t.Errorf("key %q, query %q", leased.KeyID, leased.RawQuery)
			}
			for _, b := range [][]byte{leased.Header, leased.Body} {
				if bytes.Contains(b, []byte(tellTale)) || bytes.Contains(b, []byte("Keyward-Org")) {
					t.Errorf("it stands in the store: %q", b)
				}
			}
			listed, err := db.Delivery(t.Context(), d.ID)
			if err != nil || listed.BodySize != int64(len(d.Body)) {
				t.Errorf("listed with %d bytes of %d, %v", listed.BodySize, len(d.Body), err)
			}
			runQueue(t, db)
			arrived(t, a)
		})
	}
}

// peek looks at what is stored of the only delivery, and gives it back.
func stored(t *testing.T, db *store.DB, target string) *store.Delivery {
	t.Helper()
	leased, err := db.LeaseDeliveries(t.Context(), "a test", target, 10, time.Minute)
	if err != nil || len(leased) != 1 {
		t.Fatalf("%d leased, %v", len(leased), err)
	}
	if err := db.FinishDelivery(t.Context(), "a test", leased[0], store.Outcome{}); err != nil {
		t.Fatal(err)
	}
	return leased[0]
}

// What was stored before there was sealing is delivered, and is sealed first if it still waits.
func TestUnsealedRowsAreDelivered(t *testing.T) {
	for name, url := range stores {
		t.Run(name, func(t *testing.T) {
			db := openStore(t, url(t))
			a := newTaker(t, func(taken, int) int { return 200 })
			if _, err := db.AcceptDelivery(t.Context(), secretive(a.url)); err != nil {
				t.Fatal(err)
			}
			runQueue(t, db)
			arrived(t, a)
		})
	}
}

// Rotation: what an old key has sealed, and what none has, is sealed by the new one; what no key opens stays, and is counted.
func TestReseal(t *testing.T) {
	old, both, next := keyset(t, map[byte]string{1: "primary"}), keyset(t, map[byte]string{1: "retiring", 2: "primary"}), keyset(t, map[byte]string{2: "primary"})
	for name, url := range stores {
		t.Run(name, func(t *testing.T) {
			db := openStore(t, url(t))
			a := newTaker(t, func(taken, int) int { return 200 })
			for range 3 {
				accepts(t, db, sealed(old, secretive(a.url)))
			}
			accepts(t, db, secretive(a.url))
			accepts(t, db, sealed(next, secretive(a.url)))
			accepts(t, db, sealed(keyset(t, map[byte]string{9: "primary"}), secretive(a.url)))
			counts(t, db, map[string]int64{"": 1, "k1": 3, "k2": 1, "k9": 1})

			n, err := Reseal(t.Context(), db, both)
			if err != nil || n != 4 {
				t.Errorf("sealed %d anew, %v; want 4", n, err)
			}
			counts(t, db, map[string]int64{"k2": 5, "k9": 1})
			if n, err := Reseal(t.Context(), db, both); n != 0 || err != nil {
				t.Errorf("and again %d, %v", n, err)
			}
			runQueue(t, db, func(o *QueueOptions) { o.Keys = next })
			eventually(t, "delivered", func() bool { return len(a.all()) == 5 })
			arrived(t, a)
		})
	}
}

func accepts(t *testing.T, db *store.DB, d *store.Delivery) {
	t.Helper()
	if duplicate, err := db.AcceptDelivery(t.Context(), d); duplicate || err != nil {
		t.Fatal(duplicate, err)
	}
}

func counts(t *testing.T, db *store.DB, want map[string]int64) {
	t.Helper()
	got, err := db.DeliveryKeys(t.Context())
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("%v, %v; want %v", got, err, want)
	}
}

// A sidecar seals anew at its start what a retiring key holds, so that the key can go; one in which the key does not retire does not.
func TestQueueReseals(t *testing.T) {
	db := openStore(t, stores["sqlite"](t))
	down := newTaker(t, func(taken, int) int { return 500 })
	accepts(t, db, sealed(keyset(t, map[byte]string{1: "primary"}), secretive(down.url)))
	q := runQueue(t, db, func(o *QueueOptions) { o.Keys = keyset(t, map[byte]string{1: "primary", 2: "active"}) })
	eventually(t, "tried", func() bool { return len(down.all()) > 0 })
	counts(t, db, map[string]int64{"k1": 1})
	_ = q.Shutdown(t.Context())
	runQueue(t, db, func(o *QueueOptions) { o.Keys = keyset(t, map[byte]string{1: "retiring", 2: "primary"}) })
	eventually(t, "sealed anew", func() bool {
		got, err := db.DeliveryKeys(t.Context())
		return err == nil && got["k2"] == 1 && got["k1"] == 0
	})
}

// A key that is missing costs no attempt, and nothing is lost: who has it delivers.
func TestMissingKey(t *testing.T) {
	db := openStore(t, stores["sqlite"](t))
	a := newTaker(t, func(taken, int) int { return 200 })
	d := secretive(a.url)
	accepts(t, db, sealed(queueKeys, d))
	q := runQueue(t, db, func(o *QueueOptions) { o.Keys, o.Attempts = keyset(t, map[byte]string{1: "primary"}), 1 })
	eventually(t, "looked at", func() bool { return state(t, db, d.ID).LastError != "" })
	got := state(t, db, d.ID)
	if want := fmt.Sprintf("sealed by the key %q, which is not in the keyring", queueKeys.PrimaryID()); got.State != store.Pending || got.Attempts != 0 || got.LastError != want {
		t.Errorf("it is %s after %d attempts: %s", got.State, got.Attempts, got.LastError)
	}
	_ = q.Shutdown(t.Context())
	if err := db.Redeliver(t.Context(), by, d.ID, ""); err != nil { // now, and not in half a minute
		t.Fatal(err)
	}
	runQueue(t, db)
	arrived(t, a)
}

// The attack: rows of the store are exchanged with each other by whoever can write to it. None is delivered as another one, and none in part.
func TestMovedRowsDoNotOpen(t *testing.T) {
	mine, theirs := secretive("x"), secretive("x")
	theirs.Org = "globex"
	for name, move := range map[string]func(to, from *store.Delivery){
		"another org":         func(to, from *store.Delivery) { to.Header, to.Body = from.Header, from.Body },
		"another body":        func(to, from *store.Delivery) { to.Body = from.Body },
		"another head":        func(to, from *store.Delivery) { to.Header = from.Header },
		"head as body":        func(to, _ *store.Delivery) { to.Body = to.Header },
		"body as head":        func(to, _ *store.Delivery) { to.Header = to.Body },
		"another id":          func(to, from *store.Delivery) { to.ID = from.ID },
		"an org of their own": func(to, from *store.Delivery) { to.Org = from.Org },
		"another provider":    func(to, _ *store.Delivery) { to.Provider = "twilio" },
		"a bit":               func(to, _ *store.Delivery) { to.Body[len(to.Body)-1] ^= 1 },
		"nothing left":        func(to, _ *store.Delivery) { to.Header, to.Body = nil, nil },
	} {
		t.Run(name, func(t *testing.T) {
			to, from := sealed(queueKeys, mine), sealed(queueKeys, theirs)
			move(to, from)
			if err := opened(queueKeys, to); err == nil || bytes.Contains(to.Body, []byte(tellTale)) && bytes.Contains(to.Header, []byte(tellTale)) {
				t.Errorf("opened as %+v, %v", to, err)
			}
		})
	}
	if d := sealed(queueKeys, mine); opened(queueKeys, d) != nil || string(d.Header) != string(mine.Header) || d.RawQuery != mine.RawQuery || string(d.Body) != string(mine.Body) {
		t.Errorf("untouched, it became %+v", d)
	}
}

// One that is damaged is dead at once, is kept, and does not hold up its group.
func TestDamagedRowIsDead(t *testing.T) {
	db := openStore(t, stores["sqlite"](t))
	a := newTaker(t, func(taken, int) int { return 200 })
	first, second := secretive(a.url), secretive(a.url)
	first.Group, second.Group = "g", "g"
	bad := sealed(queueKeys, first)
	bad.Body[len(bad.Body)-1] ^= 1
	accepts(t, db, bad)
	accepts(t, db, sealed(queueKeys, second))
	runQueue(t, db)
	arrived(t, a)
	if got := state(t, db, first.ID); got.State != store.Dead || got.LastError != errOpen.Error() {
		t.Errorf("it is %s: %s", got.State, got.LastError)
	}
}

// Empty parts are parts.
func TestEmptyDeliveryIsSealed(t *testing.T) {
	d := &store.Delivery{Org: "acme", Provider: "google_calendar"}
	s := sealed(queueKeys, d)
	if s.ID == "" || s.ID != d.ID || len(s.Header) == 0 || len(s.Body) == 0 {
		t.Errorf("sealed as %+v", s)
	}
	if err := opened(queueKeys, s); err != nil || len(s.Header) != 0 || len(s.Body) != 0 || s.RawQuery != "" {
		t.Errorf("opened as %+v, %v", s, err)
	}
}

func BenchmarkSealed(b *testing.B) {
	for name, size := range map[string]int{"4KiB": 4 << 10, "1MiB": 1 << 20} {
		b.Run(name, func(b *testing.B) {
			d := secretive("x")
			d.Header = bytes.Repeat([]byte("X-Header: some value of it\r\n"), 20)
			d.Body = bytes.Repeat([]byte("x"), size)
			b.ReportAllocs()
			for b.Loop() {
				if err := opened(queueKeys, sealed(queueKeys, d)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
