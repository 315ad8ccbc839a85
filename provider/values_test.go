package provider

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"testing"
)

// TestEncoding holds the form that sealed rows have: what is written today must be read for ever.
func TestEncoding(t *testing.T) {
	v := Values{"b": {List: []string{"x", "yz"}}, "a": {Text: "secret"}, "c": {Object: []byte(`{"d":1}`)}}
	const want = "01" + "0161" + "74" + "06" + "736563726574" + "0162" + "6c" + "05" + "0178" + "02797a" + "0163" + "6f" + "07" + "7b2264223a317d"
	got := v.Encode(nil)
	if hex.EncodeToString(got) != want {
		t.Fatalf("got %x, want %s", got, want)
	}
	s := Open(got)
	for name, want := range map[string]string{"a": "secret", "b": "", "c": `{"d":1}`, "d": "", "": ""} {
		if got := s.Field(name); string(got) != want || (got == nil) != (want == "") {
			t.Errorf("field %q is %q", name, got)
		}
	}
	if !s.Has("b", []byte("yz")) || s.Has("b", []byte("y")) || !s.Has("a", []byte("secret")) || s.Has("c", []byte(`{"d":1}`)) || s.Has("d", nil) {
		t.Error("Has is wrong")
	}
}

func TestSecretOfNothing(t *testing.T) {
	for _, b := range []string{"", "\x01", "\x02\x01at\x01x", "\x01\x01", "\x01\x01a", "\x01\x01at", "\x01\x01at\x05x", "\x01\x01at\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"} {
		if f := Open([]byte(b)).Field("a"); f != nil {
			t.Errorf("%q has a field: %q", b, f)
		}
		if _, err := DecodeValues([]byte(b)); err == nil && b != "\x01" {
			t.Errorf("%q is decoded", b)
		}
	}
	for _, b := range []string{"\x01\x01at\x01x\x01at\x01y", "\x01\x01ax\x01x", "\x01\x01al\x02\x05x"} {
		if _, err := DecodeValues([]byte(b)); err == nil {
			t.Errorf("%q is decoded", b)
		}
	}
}

func TestEncodeLeavesNothingBehind(t *testing.T) {
	v := Values{"a": {Text: "a secret that is longer than the memory at hand"}, "b": {List: []string{"another"}}}
	dst := make([]byte, 0, 32)
	v.Encode(dst)
	if !bytes.Equal(dst[:cap(dst)], make([]byte, cap(dst))) {
		t.Errorf("memory that was outgrown holds %q", dst[:cap(dst)])
	}
}

func TestDecodeCopies(t *testing.T) {
	b := Values{"a": {Text: "secret"}, "b": {List: []string{"x"}}}.Encode(nil)
	v, err := DecodeValues(b)
	clear(b)
	if err != nil || v["a"].Text != "secret" || v["b"].List[0] != "x" {
		t.Errorf("got %q, %v", v["a"].Text, err)
	}
}

// TestWipe looks at the memory itself: Text and List are views of it.
func TestWipe(t *testing.T) {
	parsed := values(t, &Vapi, `{"api_key":"private-key","webhook_secret":["one","two"],"phone_number_ids":["p1"],"webhook_auth":{"header":"x"}}`)
	decoded, err := DecodeValues(parsed.Encode(nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []Values{parsed, decoded} {
		key, secrets, object := v["api_key"].Text, v["webhook_secret"].List, v["webhook_auth"].Object
		accounts, masked := Vapi.Accounts(v), Vapi.Masked(v)
		v.Wipe()
		if key != "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" || secrets[0] != "\x00\x00\x00" || secrets[1] != "\x00\x00\x00" || object[0] != 0 || len(v) != 0 {
			t.Errorf("left are %q %q %q %d", key, secrets, object, len(v))
		}
		if accounts[0].ID != "p1" || fmt.Sprint(masked["phone_number_ids"]) != "[p1]" || string(masked["webhook_auth"].(json.RawMessage)) != `{"header":"x"}` {
			t.Error("what was taken from the values before is gone too")
		}
	}
	Values{"a": {Text: "a constant"}}.Wipe() // and whoever made values by hand keeps theirs
}

func TestMasked(t *testing.T) {
	got := Vapi.Masked(Values{
		"api_key": {Text: "0123456789abcdef"}, "public_key": {Text: "short"}, "region": {Text: "eu"}, "webhook_secret": {List: []string{"ééééééééééüßñ", "x"}},
		"webhook_auth": {Object: []byte(`{"type":"bearer"}`)}, "gone": {Text: "an older version's field"},
	})
	want := map[string]any{
		"api_key": "…cdef", "public_key": "…", "region": "eu", "webhook_secret": []string{"…éüßñ", "…"}, "webhook_auth": json.RawMessage(`{"type":"bearer"}`),
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestNothingPrints(t *testing.T) {
	v := Values{"a": {Text: "hush"}}
	s := Open(v.Encode(nil))
	for _, x := range []any{v, &v, v["a"], s, &s, []Secret{s}, struct{ S Secret }{s}} {
		b, err := json.Marshal(x)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{string(b), fmt.Sprint(x), fmt.Sprintf("%v %+v %#v %s %q %x %d", x, x, x, x, x, x, x)} {
			if bytes.Contains([]byte(text), []byte("hush")) || bytes.Contains([]byte(text), []byte("68757368")) || bytes.Contains([]byte(text), []byte("104 117")) {
				t.Errorf("%T is printed as %s", x, text)
			}
		}
	}
}

func TestSecretWipe(t *testing.T) {
	b := Values{"a": {Text: "hush"}}.Encode(nil)
	Open(b).Wipe()
	if slices.ContainsFunc(b, func(c byte) bool { return c != 0 }) {
		t.Errorf("left: %q", b)
	}
}
