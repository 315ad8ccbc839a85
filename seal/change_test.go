package seal

import (
	"errors"
	"strings"
	"sync"
	"testing"
)

// states is a keyring in one line, ids left out.
func states(k *Keyring) string {
	var s []string
	for _, key := range k.Keys() {
		s = append(s, string(key.State))
	}
	return strings.Join(s, " ")
}

func parsed(t *testing.T, keys ...string) *Keyring {
	t.Helper()
	k, err := ParseKeyset([]byte(keysetJSON(keys...)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// copied is the keyring as another process reads it.
func copied(t *testing.T, k *Keyring) *Keyring {
	t.Helper()
	text, err := k.AppendKeyset(nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := ParseKeyset(text)
	if err != nil {
		t.Fatal(err)
	}
	return other
}

func TestRotationOfAKeyring(t *testing.T) {
	k := Generate()
	first := k.PrimaryID()
	old := k.Seal(nil, []byte("old"), nil)
	if k.Successor() != "" {
		t.Error("there is a successor before there is another key")
	}
	added := k.Add()
	if k.PrimaryID() != first || added.State != Active || states(k) != "primary active" || k.Successor() != added.ID {
		t.Fatalf("after add: %s, successor %q", states(k), k.Successor())
	}
	if id, _ := SealedWith(k.Seal(nil, nil, nil)); id != first {
		t.Error("a new key sealed before it was primary")
	}
	if err := k.Promote(added.ID); err != nil {
		t.Fatal(err)
	}
	if states(k) != "retiring primary" || k.Successor() != "" {
		t.Fatalf("after promote: %s, successor %q", states(k), k.Successor())
	}
	if id, _ := SealedWith(k.Seal(nil, nil, nil)); id != added.ID {
		t.Error("the old key sealed")
	}
	if got, err := k.Open(nil, old, nil); err != nil || string(got) != "old" {
		t.Errorf("what the old key sealed: %q, %v", got, err)
	}
	if n := k.Keys()[0].Seals; n != 2 {
		t.Errorf("%d seals of the old key counted, want 2", n)
	}
	if err := k.Drop(first); err != nil || states(k) != "primary" {
		t.Fatalf("after drop: %s, %v", states(k), err)
	}
	if _, err := k.Open(nil, old, nil); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("a key that was taken out opens: %v", err)
	}
}

func TestRefusedChangesOfAKeyring(t *testing.T) {
	k := Generate()
	k.Add()
	before := states(k)
	for what, err := range map[string]error{"promote": k.Promote("k-none"), "drop": k.Drop("k-none")} {
		if !errors.Is(err, ErrNoKey) {
			t.Errorf("%s of a key that is not there: %v", what, err)
		}
	}
	if err := k.Drop(k.PrimaryID()); !errors.Is(err, ErrPrimary) {
		t.Errorf("dropping the primary key: %v", err)
	}
	if states(k) != before {
		t.Errorf("a refusal changed %q to %q", before, states(k))
	}
}

// The newest active key is next, by its time and else by its place, and never one that is older than the primary.
func TestSuccessor(t *testing.T) {
	dated := func(id, state string, n byte, created string) string {
		return strings.Replace(keyJSON(id, state, n), "2026-01-02T03:04:05Z", created, 1)
	}
	undated := func(id, state string, n byte) string {
		return strings.Replace(keyJSON(id, state, n), `,"created":"2026-01-02T03:04:05Z"`, "", 1)
	}
	if s := undated("a", "active", 1); strings.Contains(s, "created") {
		t.Fatalf("%s has a time", s)
	}
	for want, k := range map[string]*Keyring{
		"newest":      parsed(t, dated("primary", "primary", 1, "2025-01-01T00:00:00Z"), dated("newest", "active", 2, "2026-02-01T00:00:00Z"), dated("newer", "active", 3, "2026-01-01T00:00:00Z")),
		"":            parsed(t, dated("older", "active", 1, "2025-01-01T00:00:00Z"), dated("primary", "primary", 2, "2026-01-01T00:00:00Z")),
		"last":        parsed(t, undated("primary", "primary", 1), undated("middle", "active", 2), undated("last", "active", 3)),
		"same-second": parsed(t, dated("primary", "primary", 1, "2025-01-01T00:00:00Z"), dated("same-second", "active", 2, "2025-01-01T00:00:00Z")),
	} {
		if got := k.Successor(); got != want {
			t.Errorf("the successor is %q, want %q", got, want)
		}
	}
}

func TestAdopt(t *testing.T) {
	k := Generate()
	old := k.Seal(nil, []byte("x"), nil)
	next := copied(t, k)
	added := next.Add()
	if k.Same(next) {
		t.Error("a keyring with one more key is the same")
	}
	if dropped, err := k.Adopt(copied(t, next)); err != nil || dropped {
		t.Fatalf("%v, %v", dropped, err)
	}
	if !k.Same(next) || states(k) != "primary active" || k.Keys()[0].Seals != 1 {
		t.Fatalf("%s, %+v", states(k), k.Keys())
	}
	if err := next.Promote(added.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Adopt(copied(t, next)); err != nil {
		t.Fatal(err)
	}
	if id, _ := SealedWith(k.Seal(nil, nil, nil)); id != added.ID {
		t.Errorf("sealed with %q", id)
	}
	if got, err := k.Open(nil, old, nil); err != nil || string(got) != "x" {
		t.Errorf("%q, %v", got, err)
	}
	gone := k.ring.Load().keys[0]
	if err := next.Drop(gone.id); err != nil {
		t.Fatal(err)
	}
	if dropped, err := k.Adopt(next); err != nil || !dropped || states(k) != "primary" {
		t.Fatalf("%v, %v, %s", dropped, err, states(k))
	}
	if *gone.material() != [keySize]byte{} {
		t.Error("the bytes of a key that was taken out are still there")
	}
	if next.PrimaryID() != "" {
		t.Error("what was adopted can still be used")
	}
}

// What an id stands for never changes: the rows that the old bytes sealed would be lost.
func TestAdoptRefusesOtherBytes(t *testing.T) {
	k := parsed(t, keyJSON("a", "primary", 1), keyJSON("b", "retiring", 2))
	sealed := k.Seal(nil, []byte("x"), nil)
	if _, err := k.Adopt(parsed(t, keyJSON("c", "primary", 3), keyJSON("a", "retiring", 4))); !errors.Is(err, ErrOtherKey) || !strings.Contains(err.Error(), `"a"`) {
		t.Fatalf("%v", err)
	}
	if got, err := k.Open(nil, sealed, nil); err != nil || string(got) != "x" || states(k) != "primary retiring" {
		t.Errorf("after the refusal: %q, %v, %s", got, err, states(k))
	}
}

// While keyrings change, calls go on: none fails that has the key it needs.
func TestAdoptUnderLoad(t *testing.T) {
	k := Generate()
	next := copied(t, k)
	sealed := k.Seal(nil, []byte("x"), nil)
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if got, err := k.Open(nil, sealed, nil); err != nil || string(got) != "x" {
					t.Errorf("%q, %v", got, err)
					return
				}
				if mine := k.Seal(nil, []byte("y"), nil); mine != nil {
					if got, err := k.Open(nil, mine, nil); err != nil || string(got) != "y" {
						t.Errorf("%q, %v", got, err)
						return
					}
				}
			}
		})
	}
	first := k.PrimaryID()
	for range 50 {
		added := next.Add()
		_ = next.Promote(added.ID)
		if _, err := k.Adopt(copied(t, next)); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	wg.Wait()
	if n := len(k.Keys()); n != 51 || k.Keys()[0].ID != first {
		t.Errorf("%d keys", n)
	}
}
