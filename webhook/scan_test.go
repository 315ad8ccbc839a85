package webhook

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func orgOf(body string) (org string, p scanProblem) {
	p = scan([]byte(body), vapiTree, func(leaf int, text []byte) {
		if leaf == leafOrg {
			org = string(text)
		}
	})
	return org, p
}

func TestScan(t *testing.T) {
	for body, want := range map[string]string{
		`{"message":{"call":{"orgId":"a"}}}`: "a",
		" {\n\"x\" : [ { } , [ ] , 1e5 , -0.5 , true , null , \"\\\"}\" ] ,\t\"message\" : { \"call\" : { \"orgId\" : \"a\" } } }\r\n": "a",
		`{"message":{"call":{"\u006frgId":"\u0061\n\ud83d\ude00"}}}`:                                                                   "a\n😀",
		`{"orgId":"no","message":{"orgId":"no","call":{"x":{"orgId":"no"}}}}`:                                                          "",
		`{"message":[{"call":{"orgId":"no"}}]}`:                                                                                        "",
		`{"message":{"call":null}}`:                                                                                                    "",
		`{"message":{"call":"orgId"}}`:                                                                                                 "",
		`{"message":{"call":{"orgId":null}}}`:                                                                                          "",
		`{"message":{"call":{"orgId":"a"}},"message":{"call":{"orgId":"a"}}}`:                                                          "a",
		`{"message":{"call":{"x":1,"x":2,"orgId":"a"}}}`:                                                                               "a", // not looked at
		`[]`: "", `"x"`: "", `5`: "",
		`{"x":` + strings.Repeat("[", 900) + strings.Repeat("]", 900) + `,"message":{"call":{"orgId":"a"}}}`: "a",
	} {
		if got, p := orgOf(body); got != want || p != "" {
			t.Errorf("%.60s: %q %q, want %q", body, got, p, want)
		}
	}
	for body, want := range map[string]scanProblem{
		``: notJSON, `{`: notJSON, `{"message"`: notJSON, `{"message":{"call":{"orgId":"a"}}`: notJSON, `{"message":{"call":{"orgId":"a"}}}}`: notJSON,
		`{"message":{},}`: notJSON, `{"x":[1,]}`: notJSON, `{"x":[}`: notJSON, `{"x":{]}`: notJSON, `{"x":01}`: notJSON, `{"x":tru}`: notJSON, `{'x':1}`: notJSON, `{x:1}`: notJSON,
		`{"x":"` + "\n" + `"}`: notJSON, `{"x":"\`: notJSON, `{"x" 1}`: notJSON, `{"x":1 "y":2}`: notJSON, `{"x":"\0"}`: notJSON, `{"x":"\u00g0"}`: notJSON, `{"x":"\u00`: notJSON, `{"message":{"call":{"orgId":"\x"}}}`: notJSON, "\xef\xbb\xbf{}": notJSON,
		`{"message":{"call":{"orgId":"a","orgId":"b"}}}`:              ambiguous,
		`{"message":{"call":{"orgId":"a","org\u0049d":"b"}}}`:         ambiguous,
		`{"message":{"call":{"orgId":"a"},"call":{}}}`:                ambiguous,
		`{"message":{"call":{"orgId":"a"}},"message":null}`:           ambiguous,
		`{"message":{"call":{"orgId":1}}}`:                            wrongType,
		`{"message":{"call":{"orgId":[]}}}`:                           wrongType,
		`{"message":{"call":{"orgId":true}}}`:                         wrongType,
		`{"x":` + strings.Repeat("[", 100000):                         tooDeep,
		`{"message":{"x":` + strings.Repeat(`{"a":`, 100000):          tooDeep,
		`{"message":{"squad":{"members":` + strings.Repeat("[", 2000): tooDeep,
	} {
		if _, p := orgOf(body); p != want {
			t.Errorf("%.60s: %q, want %q", body, p, want)
		}
	}
}

func TestScanIsQuick(t *testing.T) {
	body := []byte(`{"x":"` + strings.Repeat("audio+", 1<<20) + `","message":{"call":{"orgId":"a"}}}`)
	began := time.Now()
	var org string
	n := 21.0
	for try := 0; try < 5 && n > 20; try++ { // what other goroutines allocate meanwhile is counted, too
		n = testing.AllocsPerRun(1, func() {
			scan(body, vapiTree, func(_ int, text []byte) { org = string(text) })
		})
	}
	if org != "a" || n > 20 {
		t.Errorf("found %q with %v allocations", org, n)
	}
	if took := time.Since(began); took > 30*time.Second { // far from any machine, near for a scan that goes back
		t.Errorf("6 MiB took %s", took)
	}
}

// FuzzScanAgreesWithEncodingJSON: what is taken is JSON to encoding/json too, and the same org.
func FuzzScanAgreesWithEncodingJSON(f *testing.F) {
	for _, s := range []string{`{"message":{"call":{"orgId":"a"}}}`, `{"message":{"call":{"orgId":"\u0061"}},"x":[1,{"y":"\""}]}`, `[1e5,{"a":[]}]`, `{"message":null}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		org, p := orgOf(body)
		if p == tooDeep || p == ambiguous || p == wrongType {
			return
		}
		if (p == "") != json.Valid([]byte(body)) {
			t.Fatalf("%q: problem %q, json.Valid says %t", body, p, json.Valid([]byte(body)))
		}
		if p != "" || strings.Contains(body, "\\u") {
			return
		}
		var v map[string]any
		if json.Unmarshal([]byte(body), &v) != nil {
			return
		}
		m, _ := v["message"].(map[string]any)
		c, _ := m["call"].(map[string]any)
		if s, ok := c["orgId"].(string); ok && len(c) == 1 && len(m) == 1 && s != org && !strings.Contains(s, "\ufffd") {
			t.Fatalf("%q: found %q, encoding/json %q", body, org, s)
		}
	})
}
