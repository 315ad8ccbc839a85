package provider

import (
	"bytes"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

// FuzzEncodeRoundTrip: whatever is encoded comes back, by DecodeValues and by Secret alike; whatever else is decoded is refused or comes
// back as the same bytes' values, and never panics.
func FuzzEncodeRoundTrip(f *testing.F) {
	f.Add("auth_token", "secret", "one\ntwo", `{"a":1}`, []byte("\x01\x01at\x01x"))
	f.Add("", "", "", "", []byte{1, 0, 'l', 2, 1, 'x'})
	f.Fuzz(func(t *testing.T, name, text, list, object string, raw []byte) {
		name = name[:min(len(name), 200)]
		v := Values{name + "t": {Text: text}, name + "l": {List: strings.Split(list, "\n")}, name + "o": {Object: append([]byte{}, object...)}}
		encoded := v.Encode([]byte("before"))
		if string(encoded[:6]) != "before" {
			t.Fatal("what stood before is gone")
		}
		encoded = encoded[6:]
		again, err := DecodeValues(encoded)
		if err != nil || len(again) != 3 {
			t.Fatalf("%d values, %v", len(again), err)
		}
		s := Open(encoded)
		for n, one := range v {
			if !one.Equal(again[n]) {
				t.Errorf("%q is %q, was %q", n, again[n].Text, one.Text)
			}
		}
		if string(s.Field(name+"t")) != text || !bytes.Equal(s.Field(name+"o"), []byte(object)) || s.Field(name+"l") != nil {
			t.Error("the secret reads something else")
		}
		i := 0
		for all := s.Items(name + "l"); all.Next(); i++ {
			if string(all.Item) != v[name+"l"].List[i] {
				t.Errorf("item %d is %q", i, all.Item)
			}
		}
		if i != len(v[name+"l"].List) {
			t.Errorf("%d items", i)
		}

		if decoded, err := DecodeValues(raw); err == nil {
			twice, err := DecodeValues(decoded.Encode(nil))
			if err != nil || len(twice) != len(decoded) {
				t.Errorf("%x came back differently", raw)
			}
		}
		odd := Open(raw)
		odd.Field(name)
		for all := odd.Items(name); all.Next(); {
			_ = all.Item
		}
	})
}

var anySID = regexp.MustCompile(`(?i)AC[0-9a-f]{32}`)

// FuzzTwilioPath: whatever the path, what goes out holds no account's SID but the org's and its listed subaccount's, read as they are or
// percent-decoded; nothing but a placeholder is changed.
func FuzzTwilioPath(f *testing.F) {
	for _, path := range []string{
		"/2010-04-01/Accounts/ACkeyward/Messages.json", "/2010-04-01/Accounts/" + placeholderSID + ".json", "/2010-04-01/Accounts/" + foreignSID,
		"/2010-04-01/Accounts/%41%43" + foreignSID[2:], "/2010-04-01/Accounts/" + ownSID + "/../" + foreignSID, "/2010-04-01/Accounts/" + subSID + "/Calls.json",
		"/Organizations/OR1/Accounts/ACkeyward", "ACAC" + foreignSID, "/%2f%2FAccounts%2F" + ownSID + foreignSID, "/a%", "/%4",
	} {
		f.Add(path)
	}
	s := opened(f, &Twilio, withToken)
	f.Fuzz(func(t *testing.T, path string) {
		r := &Request{Method: []byte("GET"), Path: []byte(path)}
		if err := Twilio.Inject(r, s); err != nil {
			return
		}
		out := string(r.Path)
		decoded, err := url.PathUnescape(out)
		if err != nil {
			decoded = out // not valid percent-encoding: nobody decodes it as a whole
		}
		for _, sid := range append(anySID.FindAllString(out, -1), anySID.FindAllString(decoded, -1)...) {
			if !strings.EqualFold(sid, ownSID) && !strings.EqualFold(sid, subSID) {
				t.Errorf("%q went out as %q", path, out)
			}
		}
		if strings.Contains(strings.ToLower(out), "/accounts/ackeyward") || strings.Contains(out, placeholderSID) {
			t.Errorf("%q went out as %q, with a placeholder", path, out)
		}
		if !strings.Contains(strings.ToLower(path), "ac") && !strings.Contains(path, "%") && out != path {
			t.Errorf("%q became %q", path, out)
		}
	})
}

// FuzzParse: no text makes the checks panic, and what they find good survives sealing and is good again.
func FuzzParse(f *testing.F) {
	for _, p := range All {
		f.Add(example(p))
	}
	f.Add(`{"api_key":["a",{"b":"\\\"]"}],"webhook_auth":{"type":"hmac","tolerance_seconds":1e3}}`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, p := range All {
			v, errs := p.Parse([]byte(text))
			if len(errs) > 0 {
				if v != nil {
					t.Fatal("bad values were returned")
				}
				continue
			}
			again, err := DecodeValues(v.Encode(nil))
			if err != nil || len(p.Validate(again)) > 0 {
				t.Errorf("%s: %q is not good any more: %v %v", p.Name, text, err, p.Validate(again))
			}
		}
	})
}
