package provider

import "testing"

// TestHotPathAllocatesNothing: what runs for each request, besides Inject, which the conformance test measures for every provider.
func TestHotPathAllocatesNothing(t *testing.T) {
	s := opened(t, &Twilio, example(&Twilio))
	sub, body := []byte(subSID), []byte("To=whatsapp%3A%2B15550001111&Body=Hi")
	dst, method, path := make([]byte, 0, 256), []byte("POST"), []byte("/2010-04-01/Accounts/ACkeyward/Messages.json")
	escaped := []byte("/2010-04-01/Accounts/%41C" + subSID[2:] + ".json")
	foreign := []byte("/2010-04-01/Accounts/" + foreignSID + ".json")
	r := Request{Method: method, Value: make([]byte, 0, 256), Scratch: make([]byte, 0, 256)}
	eu := opened(t, &Vapi, `{"api_key":"k","region":"eu"}`)
	webCall := []byte("/call/web")
	for name, fn := range map[string]func(){
		"Field":        func() { s.Field("webhook_secret"); s.Field("missing") },
		"Has":          func() { s.Has("subaccounts", sub) },
		"DefaultHost":  func() { Twilio.DefaultHost(s); Vapi.DefaultHost(eu) },
		"escaped path": func() { r.Path, r.Value = escaped, r.Value[:0]; _ = Twilio.Inject(&r, s) },
		"foreign path": func() { r.Path, r.Value = foreign, r.Value[:0]; _ = Twilio.Inject(&r, s) },
		"no key":       func() { r.Path, r.Value = webCall, r.Value[:0]; _ = Vapi.Inject(&r, eu) },
		"Match":        func() { Twilio.Complete.Match(method, "api.twilio.com", path) },
		"Append":       func() { Twilio.Complete.Append(append(dst, body...), body, s) },
		"Named":        func() { Named("google_calendar") },
	} {
		if n := testing.AllocsPerRun(100, fn); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}
