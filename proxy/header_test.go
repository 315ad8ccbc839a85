package proxy

import (
	"fmt"
	"strings"
	"testing"
)

// scanned reads a whole head as the server hands it over.
func scanned(t *testing.T, text string) (*head, *headError) {
	t.Helper()
	line, raw, _ := strings.Cut(text, "\r\n")
	parts := strings.SplitN(line, " ", 3)
	h := &head{}
	return h, h.scan([]byte(parts[0]), []byte(parts[1]), []byte(raw), parts[2] == "HTTP/1.0")
}

func TestHeadRefused(t *testing.T) {
	const ok = "POST /x HTTP/1.1\r\nHost: a\r\n"
	for name, tc := range map[string]struct {
		head string
		want *headError
	}{
		"bare LF ends a line":                {ok + "X: 1\nY: 2\r\n\r\n", errBareLF},
		"bare CR in a value":                 {ok + "X: 1\rY: 2\r\n\r\n", errBareLF},
		"folded header":                      {ok + "X: 1\r\n 2\r\n\r\n", errFold},
		"folded with a tab":                  {ok + "X: 1\r\n\t2\r\n\r\n", errFold},
		"space before the colon":             {ok + "X : 1\r\n\r\n", errName},
		"space in a name":                    {ok + "X Y: 1\r\n\r\n", errName},
		"no colon":                           {ok + "XY\r\n\r\n", errName},
		"empty name":                         {ok + ": 1\r\n\r\n", errName},
		"NUL in a name":                      {ok + "X\x00: 1\r\n\r\n", errName},
		"high byte in a name":                {ok + "X\xff: 1\r\n\r\n", errName},
		"NUL in a value":                     {ok + "X: \x00\r\n\r\n", errValue},
		"DEL in a value":                     {ok + "X: \x7f\r\n\r\n", errValue},
		"Keyward_Org":                        {ok + "Keyward_Org: acme\r\n\r\n", errUnderscore},
		"X_Org_Id":                           {ok + "X_Org_Id: acme\r\n\r\n", errUnderscore},
		"Content_Length":                     {ok + "Content_Length: 1\r\n\r\n", errUnderscore},
		"xi_api-key":                         {ok + "xi_api-key: k\r\n\r\n", errUnderscore},
		"two Hosts":                          {ok + "Host: b\r\n\r\n", errHostTwice},
		"no Host":                            {"GET / HTTP/1.1\r\nX: 1\r\n\r\n", errHostMissing},
		"Host with userinfo":                 {"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", errHostBytes},
		"two in one Host":                    {"GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", errHostBytes},
		"Host with a path":                   {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", errHostBytes},
		"signed length":                      {ok + "Content-Length: +1\r\n\r\n", errLength},
		"list of lengths":                    {ok + "Content-Length: 1, 1\r\n\r\n", errLength},
		"hex length":                         {ok + "Content-Length: 0x1\r\n\r\n", errLength},
		"empty length":                       {ok + "Content-Length:\r\n\r\n", errLength},
		"endless length":                     {ok + "Content-Length: 99999999999999999999\r\n\r\n", errLength},
		"two lengths, alike":                 {ok + "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", errLengthTwice},
		"length and coding":                  {ok + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", errLengthCoding},
		"identity coding":                    {ok + "Transfer-Encoding: identity\r\n\r\n", errCoding},
		"gzip, chunked":                      {ok + "Transfer-Encoding: gzip, chunked\r\n\r\n", errCoding},
		"chunked twice":                      {ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", errCoding},
		"quoted coding":                      {ok + "Transfer-Encoding: \"chunked\"\r\n\r\n", errCoding},
		"coding with a tail":                 {ok + "Transfer-Encoding: chunked;x\r\n\r\n", errCoding},
		"coding in HTTP/1.0":                 {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", errCoding10},
		"announced trailer":                  {ok + "Transfer-Encoding: chunked\r\nTrailer: Keyward-Org\r\n\r\n", errTrailers},
		"unknown expectation":                {ok + "Expect: 200-ok\r\n\r\n", errExpect},
		"two orgs":                           {ok + "Keyward-Org: acme\r\nKeyward-Org: globex\r\n\r\n", errRepeated},
		"two orgs in another case":           {ok + "Keyward-Org: acme\r\nKEYWARD-ORG: globex\r\n\r\n", errRepeated},
		"two tokens":                         {ok + "Keyward-Token: a\r\nKeyward-Token: b\r\n\r\n", errRepeated},
		"two Authorizations":                 {ok + "Authorization: a\r\nAuthorization: b\r\n\r\n", errRepeated},
		"an empty and a full org":            {ok + "Keyward-Org:\r\nKeyward-Org: acme\r\n\r\n", errRepeated},
		"space in the target":                {"GET\x00 / HTTP/1.1\r\nHost: a\r\n\r\n", errMethod},
		"control character in the target":    {"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", errTarget},
		"101 headers":                        {ok + strings.Repeat("X: 1\r\n", 100) + "\r\n", errTooMany},
		"Connection that lists far too much": {ok + "Connection: a,b,c,d,e,f,g,h,i\r\n\r\n", errListed},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := scanned(t, tc.head); err != tc.want {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func TestHeadAccepted(t *testing.T) {
	for name, text := range map[string]string{
		"HTTP/1.0 without Host":  "GET / HTTP/1.0\r\n\r\n",
		"100 headers":            "GET / HTTP/1.1\r\nHost: a\r\n" + strings.Repeat("X: 1\r\n", 99) + "\r\n",
		"harmless underscore":    "GET / HTTP/1.1\r\nHost: a\r\nmy_header: 1\r\n\r\n",
		"UTF-8 in a value":       "GET / HTTP/1.1\r\nHost: a\r\nX: h\xc3\xa9llo\r\n\r\n",
		"tab in a value":         "GET / HTTP/1.1\r\nHost: a\r\nX: a\tb\r\n\r\n",
		"empty value":            "GET / HTTP/1.1\r\nHost: a\r\nX:\r\n\r\n",
		"same header many times": "GET / HTTP/1.1\r\nHost: a\r\nAccept: a\r\nAccept: b\r\n\r\n",
		"chunked in capitals":    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n",
		"IPv6 host":              "GET / HTTP/1.1\r\nHost: [::1]:7450\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := scanned(t, text); err != nil {
				t.Errorf("refused: %s", err.detail)
			}
		})
	}
}

func TestHeadSays(t *testing.T) {
	h, err := scanned(t, "POST /p?q HTTP/1.1\r\nhost: A.b\r\nKEYWARD-ORG:  acme \r\nContent-Length: 12\r\nConnection: close, X-Mine , Upgrade\r\nUpgrade: websocket\r\nExpect: 100-Continue\r\nUser-Agent: u\r\n\r\n")
	if err != nil {
		t.Fatal(err.detail)
	}
	got := fmt.Sprintf("%s %s %s %d %v %v %v", h.host, h.org, h.upgrade, h.length, h.expect, h.isListed([]byte("x-mine")), h.isListed([]byte("close")))
	if want := "A.b acme websocket 12 true true false"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestScanAllocatesNothing(t *testing.T) {
	h := &head{}
	method, target := []byte("POST"), []byte("/2010-04-01/Accounts/ACkeyward/Messages.json")
	raw := []byte("Host: api.twilio.com\r\nKeyward-Org: acme\r\nAccept: */*\r\nUser-Agent: twilio-go\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 44\r\n\r\n")
	if n := testing.AllocsPerRun(100, func() { _ = h.scan(method, target, raw, false) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkScan(b *testing.B) {
	h := &head{}
	method, target := []byte("POST"), []byte("/2010-04-01/Accounts/ACkeyward/Messages.json")
	raw := []byte("Host: api.twilio.com\r\nKeyward-Org: acme\r\nAccept: */*\r\nUser-Agent: twilio-go\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 44\r\n\r\n")
	b.ReportAllocs()
	for b.Loop() {
		if err := h.scan(method, target, raw, false); err != nil {
			b.Fatal(err.detail)
		}
	}
}

// FuzzScan holds that whatever is accepted means one thing: every header line that was read is in the block, once, byte for byte.
func FuzzScan(f *testing.F) {
	f.Add("Host: a\r\nX: 1\r\n\r\n")
	f.Add("Host: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n")
	f.Fuzz(func(t *testing.T, raw string) {
		h := &head{}
		if h.scan([]byte("GET"), []byte("/"), []byte(raw), false) != nil {
			return
		}
		rest := raw
		for _, fl := range h.fields[:h.n] {
			line, after, ok := strings.Cut(rest, "\r\n")
			name, value, _ := strings.Cut(line, ":")
			if !ok || name != string(fl.name) || strings.Trim(value, " \t") != string(fl.value) {
				t.Fatalf("read %q: %q from line %q", fl.name, fl.value, line)
			}
			if strings.ContainsAny(line, "\r\n\x00") {
				t.Fatalf("control bytes passed in %q", line)
			}
			rest = after
		}
	})
}
