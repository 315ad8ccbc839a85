package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

// keyJSON is one key whose 32 bytes are all b.
func keyJSON(id, state string, b byte) string {
	return fmt.Sprintf(`{"id":%q,"key":%q,"state":%q,"created":"2026-01-02T03:04:05Z"}`, id, base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{b}, 32)), state)
}

func keysetJSON(keys ...string) string {
	return `{"version":1,"keys":[` + strings.Join(keys, ",") + `]}`
}

func TestMalformedKeysets(t *testing.T) {
	good := keyJSON("a", "primary", 7)
	material := bytes.Repeat([]byte{7}, 32)
	b64, b16 := base64.StdEncoding.EncodeToString(material), hex.EncodeToString(material)
	for name, tc := range map[string]struct {
		text string
		want []string
	}{
		"empty":                 {"", []string{"not JSON: line 1"}},
		"a bare key":            {b64, []string{"not JSON: line 1, byte 1"}},
		"a key as a string":     {`"` + b64 + `"`, []string{"not a JSON object"}},
		"null":                  {"null", []string{"not a JSON object"}},
		"cut off":               {"{\"version\":1,\n\"keys\":[" + good, []string{"not JSON: line 2"}},
		"something behind":      {keysetJSON(good) + "x", []string{"not JSON"}},
		"no version":            {`{"keys":[` + good + `]}`, []string{"version: must be 1"}},
		"version 2":             {`{"version":2,"keys":[` + good + `]}`, []string{"version: must be 1"}},
		"no keys":               {`{"version":1,"keys":[]}`, []string{"keys: must be a list of at least one key"}},
		"keys is an object":     {`{"version":1,"keys":{}}`, []string{"keys: must be a list"}},
		"a key is a number":     {`{"version":1,"keys":[7]}`, []string{"keys[0]: must be an object"}},
		"unknown field":         {`{"version":1,"keyss":0,"keys":[` + good + `]}`, []string{"keyss: unknown field"}},
		"a key as a field":      {`{"version":1,"` + b16 + `":0,"keys":[` + good + `]}`, []string{"a field whose name has 64 bytes: unknown"}},
		"unknown field of one":  {`{"version":1,"keys":[` + strings.Replace(good, `"id"`, `"use":"x","id"`, 1) + `]}`, []string{"keys[0].use: unknown field"}},
		"a key as an id":        {keysetJSON(keyJSON(b16, "primary", 7)), []string{"keys[0].id: looks like a key"}},
		"a key as a state":      {keysetJSON(keyJSON("a", b64, 7)), []string{"keys[0].state: must be primary, active or retiring", "no key is primary"}},
		"a key as a time":       {keysetJSON(strings.Replace(good, "2026-01-02T03:04:05Z", b16, 1)), []string{"keys[0].created: must be a time"}},
		"a short key":           {keysetJSON(strings.Replace(good, b64, b64[:40], 1)), []string{"keys[0].key: must be 32 bytes in base64"}},
		"a long key":            {keysetJSON(strings.Replace(good, b64, b64+b64, 1)), []string{"keys[0].key: must be 32 bytes in base64"}},
		"a key in hex":          {keysetJSON(strings.Replace(good, b64, b16, 1)), []string{"keys[0].key: must be 32 bytes in base64"}},
		"a key that is a list":  {keysetJSON(strings.Replace(good, `"`+b64+`"`, `["`+b64+`"]`, 1)), []string{"keys[0].key: must be 32 bytes in base64"}},
		"no primary":            {keysetJSON(keyJSON("a", "active", 7)), []string{"no key is primary"}},
		"two primaries":         {keysetJSON(good, keyJSON("b", "primary", 8)), []string{"keys[1].state: there is a primary key already"}},
		"an id twice":           {keysetJSON(good, keyJSON("a", "active", 8)), []string{"keys[1].id: the same as that of keys[0]"}},
		"a key twice":           {keysetJSON(good, keyJSON("b", "active", 7)), []string{"keys[1].key: the same as that of keys[0]"}},
		"everything is missing": {`{"version":1,"keys":[{}]}`, []string{"keys[0].id", "keys[0].key", "keys[0].state"}},
		"all wrong at once": {
			`{"version":"1","extra":1,"keys":[{"id":"a b","key":"c2hvcnQ=","state":"x","created":"today"},` + good + "," + good + `]}`,
			[]string{
				"version: must be 1", "extra: unknown field", "keys[0].id", "keys[0].key", "keys[0].state", "keys[0].created",
				"keys[2].id: the same as that of keys[1]", "keys[2].key: the same as that of keys[1]", "keys[2].state",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			text := []byte(tc.text)
			k, err := parseKeyset(text)
			if err == nil {
				t.Fatalf("taken: %v", k.Keys())
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q lacks %q", err, want)
				}
			}
			for _, secret := range []string{b64[:12], b16[:12], "c2hvcn"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error quotes a key: %v", err)
				}
			}
		})
	}
}

// What is written is read again as it was, states and times included.
func TestKeysetRoundTrip(t *testing.T) {
	k, err := parseKeyset([]byte(keysetJSON(keyJSON("a", "retiring", 1), keyJSON("b", "primary", 2), strings.Replace(keyJSON("c", "active", 3), `,"created":"2026-01-02T03:04:05Z"`, "", 1))))
	if err != nil {
		t.Fatal(err)
	}
	text := k.ring.Load().appendKeyset(nil)
	again, err := parseKeyset(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if a, b := fmt.Sprint(k.Keys()), fmt.Sprint(again.Keys()); a != b {
		t.Errorf("%s became %s", a, b)
	}
	if got, err := again.Open(nil, k.Seal(nil, []byte("x"), nil), nil); err != nil || string(got) != "x" {
		t.Errorf("got %q, %v", got, err)
	}
}

// FuzzKeysetNeverQuotesAKey: however a keyset is damaged, no error shows a part of its key.
func FuzzKeysetNeverQuotesAKey(f *testing.F) {
	const key = "3q2+78r+ur4BI0VniavN7xAyVHaYutz+AAECAwQFBgc="
	text := keysetJSON(`{"id":"a","key":"` + key + `","state":"primary","created":"2026-01-02T03:04:05Z"}`)
	if _, err := parseKeyset([]byte(text)); err != nil {
		f.Fatal(err)
	}
	f.Add(10, 0, "")
	f.Add(30, 3, `"`)
	f.Add(50, 1, `\`)
	f.Fuzz(func(t *testing.T, at, cut int, insert string) {
		if at < 0 || cut < 0 || at > len(text) || cut > len(text)-at || strings.Contains(insert, key[:8]) {
			t.Skip("out of the text")
		}
		_, err := parseKeyset([]byte(text[:at] + insert + text[at+cut:]))
		if err == nil {
			return
		}
		for i := range len(key) - 8 {
			if part := key[i : i+8]; strings.Contains(err.Error(), part) && !strings.Contains(insert, part) {
				t.Fatalf("quoted: %v", err)
			}
		}
	})
}
