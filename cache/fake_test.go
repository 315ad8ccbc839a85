package cache

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/keyward/keyward/store"
)

// A fake is a store in memory that can be slow, hang and fail. As a Reader must, it honours contexts.
type fake struct {
	mu          sync.Mutex
	credentials map[store.Ref]*store.Credential
	assistants  map[string]*store.Assistant
	tokens      map[[32]byte]*store.Token

	reads atomic.Int64
	down  atomic.Bool
	// during, if set, runs after the row was looked up and before it is returned.
	during atomic.Pointer[func(ctx context.Context, name string) error]
}

func newFake() *fake {
	return &fake{
		credentials: map[store.Ref]*store.Credential{}, assistants: map[string]*store.Assistant{}, tokens: map[[32]byte]*store.Token{},
	}
}

func (f *fake) put(ref store.Ref, version int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.credentials[ref] = &store.Credential{Ref: ref, Version: version, SealedVersion: version, Active: true, Sealed: make([]byte, 200)}
}

func (f *fake) remove(ref store.Ref) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.credentials, ref)
}

func (f *fake) whileReading(fn func(ctx context.Context, name string) error) { f.during.Store(&fn) }

func read[K comparable, V any](ctx context.Context, f *fake, rows map[K]*V, key K, name string) (*V, error) {
	f.reads.Add(1)
	if f.down.Load() {
		return nil, store.ErrUnavailable
	}
	f.mu.Lock()
	row := rows[key]
	f.mu.Unlock()
	if fn := f.during.Load(); fn != nil && *fn != nil {
		if err := (*fn)(ctx, name); err != nil {
			return nil, err
		}
	}
	if row == nil {
		return nil, store.ErrNotFound
	}
	return row, nil
}

func (f *fake) Credential(ctx context.Context, ref store.Ref) (*store.Credential, bool, error) {
	c, err := read(ctx, f, f.credentials, ref, ref.Org)
	return c, false, err
}

func (f *fake) Assistant(ctx context.Context, id string) (*store.Assistant, error) {
	return read(ctx, f, f.assistants, id, id)
}

func (f *fake) Token(ctx context.Context, hash [32]byte) (*store.Token, error) {
	return read(ctx, f, f.tokens, hash, "token")
}

// hang is a store behind a network that swallows everything.
func hang(ctx context.Context, _ string) error {
	<-ctx.Done()
	return errors.Join(store.ErrUnavailable, ctx.Err())
}

func always() bool { return true }
func never() bool  { return false }

func newCache(t *testing.T, f *fake, o Options) *Cache {
	t.Helper()
	c, err := New(f, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

var acme = store.Ref{Org: "acme", Provider: "twilio"}

// version asks for a credential and returns its version; 0: there is none.
func version(t *testing.T, c *Cache, ref store.Ref) int64 {
	t.Helper()
	row, _, err := c.Credential(t.Context(), ref)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return 0
	case err != nil:
		t.Fatal(err)
	case row.Ref != ref:
		t.Fatalf("asked for %v, got %v", ref, row.Ref)
	}
	return row.Version
}

func changed(ref store.Ref) store.Change {
	return store.Change{Kind: store.KindCredential, ID: ref.Org}
}

// view is a string that lies in b, as the server's are.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
