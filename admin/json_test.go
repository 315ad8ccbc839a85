package admin

import (
	"bytes"
	"encoding/json"
	"testing"
)

// What eachMember finds in an object is what encoding/json finds in it.
func FuzzMembersAreThoseOfEncodingJSON(f *testing.F) {
	for _, s := range []string{`{}`, ` { "a" : 1 , "b":[1,{"c":"}"}] } `, `{"a":"\\\"","\u0061":null}`, `{"a":{"a":[[],{}]},"b":-1.5e3}`, `{"a":1}`, `{"a":"x","a":"y"}`, `{"ä":"ö","":""}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		data = bytes.TrimSpace(data)
		if !json.Valid(data) || data[0] != '{' {
			return
		}
		if checkNames(data, 0) != nil {
			return // a name twice, or too deep
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(data, &want); err != nil {
			return
		}
		n := 0
		eachMember(data, func(name string, raw []byte) {
			n++
			if !bytes.Equal(raw, want[name]) {
				t.Errorf("%q: %q is %q, want %q", data, name, raw, want[name])
			}
		})
		if n != len(want) {
			t.Errorf("%q: %d members, want %d", data, n, len(want))
		}
	})
}

func TestANameTwiceIsFoundAtAnyDepth(t *testing.T) {
	for _, s := range []string{`{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `{"x":{"a":1,"a":2}}`, `{"x":[{"y":[1,{"a":1,"b":1,"a":2}]}]}`} {
		if err := checkNames([]byte(s), 0); err == nil {
			t.Errorf("%s passes", s)
		}
	}
	for _, s := range []string{`{"a":{"a":1},"b":{"a":1}}`, `{"x":[{"a":1},{"a":1}]}`} {
		if err := checkNames([]byte(s), 0); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
}
