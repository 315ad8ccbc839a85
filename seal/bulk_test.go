package seal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"sync"
	"testing"
)

func TestBulkOpensOnlyForWhatItWasSealed(t *testing.T) {
	k := Generate()
	sealed := k.SealBulk([]byte("before"), []byte("secret"), []byte("acme/wd_1"))[len("before"):]
	if got, err := k.Open([]byte("x"), sealed, []byte("acme/wd_1")); err != nil || string(got) != "xsecret" {
		t.Fatalf("got %q, %v", got, err)
	}
	if id, ok := SealedWith(sealed); !ok || id != k.PrimaryID() {
		t.Errorf("sealed with %q, %v", id, ok)
	}
	for _, context := range []string{"", "acme/wd_2", "globex/wd_1", "acme/wd_1 "} {
		if got, err := k.Open(nil, sealed, []byte(context)); !errors.Is(err, ErrOpen) || got != nil {
			t.Errorf("context %q: got %q, %v", context, got, err)
		}
	}
	if _, err := Generate().Open(nil, sealed, []byte("acme/wd_1")); !errors.Is(err, ErrUnknownKey) {
		t.Errorf("another keyring: %v", err)
	}
}

func TestEveryChangedByteOfABulkEnvelopeIsNoticed(t *testing.T) {
	k := Generate()
	sealed := k.SealBulk(nil, []byte("secret"), []byte("c"))
	for i := range sealed {
		for bit := byte(1); bit != 0; bit <<= 1 {
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

// One kind of envelope does not pass for the other.
func TestKindsOfEnvelopeAreToldApart(t *testing.T) {
	k := Generate()
	for _, sealed := range [][]byte{k.Seal(nil, make([]byte, 64), nil), k.SealBulk(nil, make([]byte, 64), nil)} {
		sealed[0] ^= formatVersion ^ bulkVersion
		if _, err := k.Open(nil, sealed, nil); !errors.Is(err, ErrOpen) {
			t.Errorf("got %v", err)
		}
	}
}

func TestBulkDoesNotWearTheKeyOut(t *testing.T) {
	k := Generate()
	k.CountSeals(k.PrimaryID(), maxSeals) // not one more of the other kind
	seen := map[string]bool{}
	for range 100 {
		seen[string(k.SealBulk(nil, []byte("x"), nil))] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d different envelopes of 100", len(seen))
	}
	if n := k.Keys()[0].Seals; n != maxSeals {
		t.Errorf("%d seals are counted", n)
	}
}

// What was sealed once opens for ever: an envelope written out by hand, with HKDF-Expand as RFC 5869 has it.
func TestBulkFormat(t *testing.T) {
	material := bytes.Repeat([]byte{7}, 32)
	k, err := Load(file(t, keysetJSON(keyJSON("k1", "primary", 7)), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	const salt = "twenty-four random bytes"
	expand := hmac.New(sha256.New, material)
	expand.Write([]byte("keyward bulk" + salt + "\x01"))
	block, err := aes.NewCipher(expand.Sum(nil))
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	byHand := "\x02" + "\x02k1" + salt + string(gcm.Seal(nil, make([]byte, 12), []byte("secret"), []byte("\x02"+"\x00\x00\x00\x02k1"+"\x00\x00\x00\x04acme")))
	if got, err := k.Open(nil, []byte(byHand), []byte("acme")); err != nil || string(got) != "secret" {
		t.Errorf("got %q, %v", got, err)
	}
	const golden = "02026b317477656e74792d666f75722072616e646f6d20627974657396d0347959879717707b2b8ed476d34f81d63ae86685"
	if got := hex.EncodeToString([]byte(byHand)); got != golden {
		t.Errorf("envelope %s", got)
	}
	if got, want := len(k.SealBulk(nil, []byte("secret"), []byte("acme"))), len(byHand); got != want {
		t.Errorf("an envelope has %d bytes, want %d", got, want)
	}
}

func TestBulkFromManyAtOnce(t *testing.T) {
	k := Generate()
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for range 200 {
				if got, err := k.Open(nil, k.SealBulk(nil, []byte("secret"), []byte("c")), []byte("c")); err != nil || string(got) != "secret" {
					t.Errorf("got %q, %v", got, err)
					return
				}
			}
		})
	}
	wait.Wait()
}

func BenchmarkBulk(b *testing.B) {
	k := Generate()
	for name, size := range map[string]int{"2KiB": 2 << 10, "1MiB": 1 << 20} {
		plain := []byte(strings.Repeat("x", size))
		buf := make([]byte, 0, 2*size)
		b.Run("seal/"+name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				k.SealBulk(buf, plain, []byte("context"))
			}
		})
		sealed := k.SealBulk(nil, plain, []byte("context"))
		b.Run("open/"+name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(size))
			for b.Loop() {
				if _, err := k.Open(buf, sealed, []byte("context")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
