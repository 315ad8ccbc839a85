package legacy

import (
	"errors"
	"strings"
	"testing"
)

const testKey = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

func opener(t *testing.T, parts string) *Opener {
	t.Helper()
	o, err := NewOpener(Format{Parts: parts, Key: "auto"}, []byte(testKey))
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// What Node's crypto module has sealed, with both lengths of iv and in both encodings.
func TestOpensWhatNodeHasSealed(t *testing.T) {
	o := opener(t, "iv:tag:ciphertext")
	for _, text := range []string{
		"070707070707070707070707:6a4ec4adb27f81005e10eb7f9ea7b4cb:6a99da2b39b987066595944f",
		"BwcHBwcHBwcHBwcH:ak7ErbJ/gQBeEOt/nqe0yw==:apnaKzm5hwZllZRP",
		"BwcHBwcHBwcHBwcH:ak7ErbJ_gQBeEOt_nqe0yw:apnaKzm5hwZllZRP",
		"07070707070707070707070707070707:756cc3942fdc9e1ccc93eac27c9afdeb:cec59254cec0df095b08fcbe",
		"BwcHBwcHBwcHBwcHBwcHBw==:dWzDlC/cnhzMk+rCfJr96w==:zsWSVM7A3wlbCPy+",
	} {
		if plain, err := o.open(text); string(plain) != "AC secret ü" {
			t.Errorf("%s: %q, %v", text, plain, err)
		}
	}
	other := opener(t, "iv:ciphertext:tag")
	if plain, err := other.open("070707070707070707070707:6a99da2b39b987066595944f:6a4ec4adb27f81005e10eb7f9ea7b4cb"); string(plain) != "AC secret ü" {
		t.Errorf("another order: %q, %v", plain, err)
	}
}

func TestOpensNothingElse(t *testing.T) {
	o := opener(t, "iv:tag:ciphertext")
	good := "070707070707070707070707:6a4ec4adb27f81005e10eb7f9ea7b4cb:6a99da2b39b987066595944f"
	for text, want := range map[string]error{
		strings.Replace(good, "6a99", "6a98", 1):   errNotOpened,
		strings.Replace(good, "07:", "08:", 1):     errNotOpened,
		strings.Replace(good, "b4cb:", "b4cc:", 1): errNotOpened,
		strings.Replace(good, "a7b4cb:", ":", 1):   errNotOpened, // a shortened tag
		"07:6a4ec4adb27f81005e10eb7f9ea7b4cb:6a99": errNotSealed,
		"a text: with: colons":                     errNotSealed,
		"https://example.com:8080/a":               errNotSealed,
		"":                                         errNotSealed,
	} {
		if _, err := o.open(text); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", text, err, want)
		}
	}
}

func TestKeysAreReadInEveryForm(t *testing.T) {
	for _, f := range []struct{ how, text string }{
		{"auto", testKey},
		{"auto", " " + strings.ToUpper(testKey) + "\n"},
		{"hex", testKey},
		{"auto", "ABEiM0RVZneImaq7zN3u/wARIjNEVWZ3iJmqu8zd7v8="},
		{"base64", "ABEiM0RVZneImaq7zN3u_wARIjNEVWZ3iJmqu8zd7v8"},
		{"auto", "this text has 32 characters, yes"},
		{"text", "this text has 32 characters, yes"},
		{"sha256", "any text at all"},
	} {
		if b, err := readKey(f.how, []byte(f.text)); err != nil || len(b) != keySize {
			t.Errorf("%s: %d bytes, %v", f.how, len(b), err)
		}
	}
	for _, how := range []string{"auto", "hex", "base64", "text"} {
		if _, err := readKey(how, []byte("hunter2")); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", how, err)
		}
	}
}
