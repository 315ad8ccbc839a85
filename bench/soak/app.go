package soak

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/keyward/keyward/internal/freeport"
)

// An app takes the webhooks. It keeps a ledger: what was acknowledged to the sender as stored must come.
type app struct {
	address string
	release func()

	mu        sync.Mutex
	server    *http.Server
	acked     map[string]time.Time // :: call id → when, of those that have not come yet
	came      map[string]int       // :: call id → how often
	taken     int                  // acknowledged in all
	twice     int
	strangers int // requests that no sidecar verified
}

func newApp() (*app, error) {
	address, release, err := freeport.Take() // and not port 0: it comes back there after having been down
	if err != nil {
		return nil, err
	}
	a := &app{address: address, release: release, acked: map[string]time.Time{}, came: map[string]int{}}
	if err := a.up(); err != nil {
		release()
		return nil, err
	}
	return a, nil
}

func (a *app) url() string { return "http://" + a.address + "/hooks" }

func (a *app) serve(l net.Listener) {
	s := &http.Server{Handler: a, ReadHeaderTimeout: time.Minute}
	a.mu.Lock()
	a.server = s
	a.mu.Unlock()
	go func() { _ = s.Serve(l) }()
}

// down ends it with all its connections; up starts it at the same address.
func (a *app) down() error {
	a.mu.Lock()
	s := a.server
	a.mu.Unlock()
	return s.Close()
}

func (a *app) up() error {
	l, err := net.Listen("tcp", a.address)
	if err != nil {
		return err
	}
	a.serve(l)
	return nil
}

func (a *app) close() error { defer a.release(); return a.down() }

// A hook is what the senders send, as far as the app reads it.
type hook struct {
	Message struct {
		Type string `json:"type"`
		Call struct {
			ID string `json:"id"`
		} `json:"call"`
	} `json:"message"`
}

func (a *app) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var h hook
	err = json.Unmarshal(b, &h)
	a.mu.Lock()
	if err != nil || r.Header.Get("Keyward-Verified") != "true" || r.Header.Get("Keyward-Org") == "" {
		a.strangers++
	}
	id := h.Message.Call.ID
	if h.Message.Type != syncType {
		if a.came[id]++; a.came[id] > 1 {
			a.twice++
		}
		delete(a.acked, id)
	}
	a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]string{"for": id, "org": r.Header.Get("Keyward-Org")})
}

// acknowledged notes that a sender was told that a webhook is stored.
func (a *app) acknowledged(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.taken++
	if a.came[id] == 0 {
		a.acked[id] = time.Now()
	}
}

// settle waits until everything that was acknowledged has come.
func (a *app) settle(ctx context.Context, most time.Duration) {
	for until := time.Now().Add(most); time.Now().Before(until) && a.missing() > 0; {
		if sleep(ctx, 100*time.Millisecond) != nil {
			return
		}
	}
}

func (a *app) missing() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.acked)
}
