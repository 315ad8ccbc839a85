package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"errors"
	"strings"
	"sync"
	"testing"
)

func TestOpensOnlyForWhatItWasSealed(t *testing.T) {
	k := Generate()
	sealed := k.Seal(nil, []byte("secret"), []byte("acme/twilio/1"))
	if got, err := k.Open(nil, sealed, []byte("acme/twilio/1")); err != nil || string(got) != "secret" {
		t.Fatalf("got %q, %v", got, err)
	}
	for _, context := range []string{"", "acme/twilio/2", "globex/twilio/1", "acme/twilio/1 "} {
		if got, err := k.Open(nil, sealed, []byte(context)); !errors.Is(err, ErrOpen) || got != nil {
			t.Errorf("context %q: got %q, %v", context, got, err)
		}
	}
}

func TestSealingTwiceDiffers(t *testing.T) {
	k := Generate()
	if bytes.Equal(k.Seal(nil, []byte("x"), nil), k.Seal(nil, []byte("x"), nil)) {
		t.Error("two envelopes of one text are the same")
	}
}

func TestEveryChangedByteIsNoticed(t *testing.T) {
	k := Generate()
	sealed := k.Seal(nil, []byte("secret"), []byte("c"))
	for i := range sealed {
		for _, bit := range []byte{1, 0x80} {
			changed := bytes.Clone(sealed)
			changed[i] ^= bit
			if _, err := k.Open(nil, changed, []byte("c")); !errors.Is(err, ErrOpen) {
				t.Fatalf("byte %d changed: %v", i, err)
			}
		}
	}
	for n := range sealed {
		if _, err := k.Open(nil, sealed[:n], []byte("c")); !errors.Is(err, ErrOpen) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
}

// What was sealed once opens for ever: an envelope written out by hand, byte by byte as the package comment has it.
func TestFormat(t *testing.T) {
	material := bytes.Repeat([]byte{7}, 32)
	k, err := Load(file(t, keysetJSON(keyJSON("k1", "primary", 7)), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(material)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := []byte("twelve bytes")
	byHand := "\x01" + "\x02k1" + string(nonce) + string(gcm.Seal(nil, nonce, []byte("secret"), []byte("\x01"+"\x00\x00\x00\x02k1"+"\x00\x00\x00\x04acme")))
	if got, err := k.Open(nil, []byte(byHand), []byte("acme")); err != nil || string(got) != "secret" {
		t.Errorf("got %q, %v", got, err)
	}
	const golden = "01026b317477656c7665206279746573fbb2d2487b7cda05571f1f65ccffd5a10bef6666af6a"
	if got := hex.EncodeToString([]byte(byHand)); got != golden {
		t.Errorf("envelope %s", got)
	}
	if got, want := len(k.Seal(nil, []byte("secret"), []byte("acme"))), len(byHand); got != want {
		t.Errorf("an envelope has %d bytes, want %d", got, want)
	}
}

// A row sealed by one key does not open as sealed by another, though both are in the keyring: the key id is part of what is authenticated.
func TestKeyIDIsAuthenticated(t *testing.T) {
	k, err := Load(file(t, keysetJSON(keyJSON("k1", "primary", 7), keyJSON("k2", "active", 8)), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	// Two ids for one key's bytes, as a keyset never has them.
	keys := k.ring.Load().keys
	keys[1].use(*keys[0].material())
	sealed := k.Seal(nil, []byte("x"), nil)
	sealed[3] = '2'
	if id, _ := SealedWith(sealed); id != "k2" {
		t.Fatal(id)
	}
	if _, err := k.Open(nil, sealed, nil); !errors.Is(err, ErrOpen) || errors.Is(err, ErrUnknownKey) {
		t.Errorf("got %v", err)
	}
}

func TestUnknownKey(t *testing.T) {
	sealed := Generate().Seal(nil, []byte("x"), nil)
	_, err := Generate().Open(nil, sealed, nil)
	if !errors.Is(err, ErrUnknownKey) || !errors.Is(err, ErrOpen) {
		t.Errorf("got %v", err)
	}
}

func TestSealedWith(t *testing.T) {
	k := Generate()
	if id, ok := SealedWith(k.Seal(nil, nil, nil)); !ok || id != k.PrimaryID() {
		t.Errorf("sealed with %q, %v", id, ok)
	}
	for _, s := range []string{"", "\x01", "\x01\x00", "\x02\x02k1" + strings.Repeat("x", 28), "\x01\x02k1" + strings.Repeat("x", 27), "\x01\xffk1"} {
		if id, ok := SealedWith([]byte(s)); ok {
			t.Errorf("%q was sealed with %q", s, id)
		}
	}
}

func TestAppendsToDst(t *testing.T) {
	k := Generate()
	sealed := k.Seal([]byte("front"), []byte("text"), nil)
	if !bytes.HasPrefix(sealed, []byte("front")) {
		t.Fatal("Seal did not append")
	}
	if got, err := k.Open([]byte("front "), sealed[5:], nil); err != nil || string(got) != "front text" {
		t.Errorf("got %q, %v", got, err)
	}
	sealed[len(sealed)-1]++
	if got, err := k.Open([]byte("front "), sealed[5:], nil); err == nil || string(got) != "front " {
		t.Errorf("got %q, %v", got, err)
	}
}

// Nothing of a text that did not open is left in the buffer.
func TestNothingIsLeftOfWhatDoesNotOpen(t *testing.T) {
	k := Generate()
	sealed := k.Seal(nil, []byte("a secret that is long"), nil)
	sealed[len(sealed)-1]++
	buf := make([]byte, 0, 256)
	_, _ = k.Open(buf, sealed, nil)
	if !bytes.Equal(buf[:cap(buf)], make([]byte, cap(buf))) {
		t.Errorf("left: %q", buf[:cap(buf)])
	}
}

func TestOlderKeysOpen(t *testing.T) {
	old, err := Load(file(t, keysetJSON(keyJSON("a", "primary", 1)), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	all, err := Load(file(t, keysetJSON(keyJSON("a", "retiring", 1), keyJSON("b", "primary", 2), keyJSON("c", "active", 3)), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := all.Open(nil, old.Seal(nil, []byte("x"), nil), nil); err != nil || string(got) != "x" {
		t.Errorf("got %q, %v", got, err)
	}
	if id, _ := SealedWith(all.Seal(nil, nil, nil)); id != "b" || all.PrimaryID() != "b" {
		t.Errorf("sealed with %q", id)
	}
	keys := all.Keys()
	if len(keys) != 3 || keys[0].State != Retiring || !keys[1].Primary || keys[1].Seals != 1 || keys[2].State != Active || keys[2].Primary {
		t.Errorf("keys %+v", keys)
	}
	if keys[0].CreatedAt.Year() != 2026 {
		t.Errorf("created %v", keys[0].CreatedAt)
	}
}

func TestSealLimit(t *testing.T) {
	k := Generate()
	k.Seal(nil, nil, nil)
	k.CountSeals("another key", maxSeals)
	k.CountSeals(k.PrimaryID(), warnSeals-1)
	if k.WornOut() {
		t.Error("warned too early")
	}
	if k.Seal(nil, nil, nil); !k.WornOut() {
		t.Error("no warning long before the limit")
	}
	k.CountSeals(k.PrimaryID(), 17) // fewer than are counted
	if n := k.Keys()[0].Seals; n != warnSeals {
		t.Errorf("%d seals counted, want %d", n, warnSeals)
	}
	k.CountSeals(k.PrimaryID(), maxSeals-1)
	k.Seal(nil, nil, nil)
	if n := k.Keys()[0].Seals; n != maxSeals {
		t.Errorf("%d seals counted", n)
	}
	for range 2 {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("sealed beyond what is safe")
				}
			}()
			k.Seal(nil, nil, nil)
		}()
	}
	if n := k.Keys()[0].Seals; n != maxSeals {
		t.Errorf("%d seals counted after refusals", n)
	}
}

func TestWipe(t *testing.T) {
	k := Generate()
	sealed := k.Seal(nil, []byte("x"), nil)
	p := k.ring.Load().primary
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				if got, err := k.Open(nil, sealed, nil); err == nil && string(got) != "x" {
					t.Errorf("opened %q", got)
				}
			}
		})
	}
	k.Wipe()
	wg.Wait()
	if *p.material() != [keySize]byte{} {
		t.Error("the key's bytes are still there")
	}
	if _, err := k.Open(nil, sealed, nil); !errors.Is(err, ErrOpen) {
		t.Errorf("a wiped keyring opens: %v", err)
	}
	if k.PrimaryID() != "" || len(k.Keys()) != 0 || k.WornOut() {
		t.Error("a wiped keyring still has keys")
	}
	if err := k.WriteFile(t.TempDir() + "/keys.json"); err == nil {
		t.Error("a wiped keyring was written")
	}
	defer func() {
		if recover() == nil {
			t.Error("a wiped keyring seals")
		}
	}()
	k.Seal(nil, nil, nil)
}

func TestOpenAllocatesNothing(t *testing.T) {
	k := Generate()
	context := bytes.Repeat([]byte("c"), 60)
	sealed := k.Seal(nil, make([]byte, 200), context)
	buf := make([]byte, 0, len(sealed))
	if n := testing.AllocsPerRun(1000, func() { _, _ = k.Open(buf, sealed, context) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkOpen(b *testing.B) {
	k := Generate()
	context := bytes.Repeat([]byte("c"), 60)
	sealed := k.Seal(nil, make([]byte, 200), context)
	buf := make([]byte, 0, len(sealed))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Open(buf, sealed, context); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBareCipher is the part of BenchmarkOpen that is crypto/cipher's.
func BenchmarkBareCipher(b *testing.B) {
	k := Generate()
	context := bytes.Repeat([]byte("c"), 84)
	aead := k.ring.Load().primary.cipher()
	sealed := aead.Seal(nil, nil, make([]byte, 200), context)
	buf := make([]byte, 0, len(sealed))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := aead.Open(buf, nil, sealed, context); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	k := Generate()
	context, plain := bytes.Repeat([]byte("c"), 60), make([]byte, 200)
	buf := make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		buf = k.Seal(buf[:0], plain, context)
	}
}

// FuzzOpenNeverAcceptsChanged: whatever is sealed for whatever, nothing but the very envelope opens, and only for the very context.
func FuzzOpenNeverAcceptsChanged(f *testing.F) {
	k := Generate()
	f.Add([]byte("secret"), []byte("acme"), []byte("acme"), 3, byte(1))
	f.Add([]byte(""), []byte(""), []byte(""), 0, byte(0))
	f.Add([]byte("secret"), []byte("acme"), []byte("acmf"), 0, byte(0))
	f.Add([]byte("secret"), []byte("acme"), []byte("acme"), -5, byte(0))
	f.Fuzz(func(t *testing.T, plain, context, other []byte, at int, change byte) {
		sealed := k.Seal(nil, plain, context)
		given := bytes.Clone(sealed)
		switch {
		case at >= 0:
			given[at%len(given)] ^= change
		default:
			given = given[:max(0, len(given)+at)%len(given)]
		}
		got, err := k.Open(nil, given, other)
		same := bytes.Equal(given, sealed) && bytes.Equal(context, other)
		if same != (err == nil) || same && !bytes.Equal(got, plain) || !same && (got != nil || !errors.Is(err, ErrOpen)) {
			t.Fatalf("same: %v; opened %q, %v", same, got, err)
		}
		_, _ = k.Open(nil, plain, context) // and nothing that was never sealed does anything but fail
	})
}
