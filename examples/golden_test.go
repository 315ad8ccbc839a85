package examples

import (
	"encoding/base64"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/keyward/keyward/standin"
)

var update = flag.Bool("update", false, "write testdata/*.txt and the code in docs/sdks anew instead of comparing them")

// secrets are an org's credentials as they stand in a request: what a golden file writes as {name}.
func (s *sidecar) secrets(org string) map[string]string {
	m := map[string]string{}
	for _, c := range standin.Sample(org) {
		f := c.Fields
		switch c.Provider {
		case standin.Twilio:
			m["account_sid"] = f["account_sid"]
			m["from_number"] = strings.TrimPrefix(f["from_number"], "+")
			m["basic"] = base64.StdEncoding.EncodeToString([]byte(f["account_sid"] + ":" + f["auth_token"]))
		case standin.Vapi:
			m["vapi_key"] = f["api_key"]
		case standin.Resend:
			m["resend_key"] = f["api_key"]
		case standin.ElevenLabs:
			m["elevenlabs_key"] = f["api_key"]
		case standin.GoogleCalendar:
			// as in a form
			m["client_id"], m["client_secret"] = f["client_id"], f["client_secret"]
			m["refresh_token"] = strings.ReplaceAll(f["refresh_token"], "/", "%2F")
			if all := s.peers.AccessTokens(org); len(all) > 0 {
				m["access_token"] = all[len(all)-1]
			}
		}
	}
	return m
}

// The parts of a request that differ from run to run and from machine to machine, and nothing else.
var chance = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`(?mi)^(sec-websocket-key: ).*`), "$1{nonce}"},
	{regexp.MustCompile(`gccl-invocation-id/\S+`), "gccl-invocation-id/{uuid}"},
	{regexp.MustCompile(`\((linux|darwin|windows) \w+\)`), "({os} {arch})"},
	{regexp.MustCompile(`((?: |gl-)node/v?)\d+\.\d+\.\d+`), "$1{version}"},
	{regexp.MustCompile(`(go/go|gl-go/)\d+\.\d+(\.\d+)?`), "$1{version}"},
	{regexp.MustCompile(`(?mi)^(x-fern-runtime-version: ).*`), "$1{version}"},
}

// uuid is that of an object made before, unless it is a key.
var uuid = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}`)

var boundary = regexp.MustCompile(`(?i)boundary="?([^"\r\n;]+)`)

// text is a request in the form of a golden file, but with its credentials.
func (s *sidecar) text(r standin.Request) string {
	t := uuid.ReplaceAllStringFunc(r.String(), func(id string) string {
		for _, org := range orgs {
			if s.secrets(org)["vapi_key"] == id {
				return id
			}
		}
		return "{uuid}"
	})
	if m := boundary.FindStringSubmatch(t); m != nil {
		t = strings.ReplaceAll(t, m[1], "{boundary}")
	}
	for _, c := range chance {
		t = c.re.ReplaceAllString(t, c.to)
	}
	return strings.ReplaceAll(t, "\r\n", "\n")
}

// compare holds the requests of one org against testdata/NAME.txt, filled in with that org's credentials.
func (s *sidecar) compare(t *testing.T, name, org string, requests []standin.Request) {
	t.Helper()
	const between = "\n=====\n"
	var got []string
	for _, r := range requests {
		got = append(got, s.text(r))
	}
	file := filepath.Join("testdata", name+".txt")
	secrets := s.secrets(org)
	if *update && org == orgs[0] {
		all := strings.Join(got, between) + "\n"
		for field, value := range secrets {
			all = strings.ReplaceAll(all, value, "{"+field+"}")
		}
		if err := os.WriteFile(file, []byte(all), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	golden, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.TrimSuffix(string(golden), "\n")
	for field, value := range secrets {
		want = strings.ReplaceAll(want, "{"+field+"}", value)
	}
	if d := cmp.Diff(strings.Split(want, between), got); d != "" {
		t.Errorf("%s as %s: the provider was sent something else than %s says (-want +got):\n%s", name, org, file, d)
	}
}

// The headers in which any of the providers reads a credential.
var authHeaders = []string{"authorization", "proxy-authorization", "xi-api-key", "x-goog-api-key", "cookie"}

// onlyOne checks what no golden file may get wrong: one credential, the org's own, and no trace of what the app gave.
func (s *sidecar) onlyOne(t *testing.T, org string, r standin.Request) {
	t.Helper()
	whole := r.String()
	var proofs []string
	for _, f := range r.Header {
		if slices.Contains(authHeaders, strings.ToLower(f.Name)) {
			proofs = append(proofs, f.Value)
		}
		if strings.HasPrefix(strings.ToLower(f.Name), "keyward-") {
			t.Errorf("%s reached the provider in\n%s", f.Name, whole)
		}
	}
	secrets := s.secrets(org)
	own := []string{"Basic " + secrets["basic"], "Bearer " + secrets["vapi_key"], "Bearer " + secrets["resend_key"], secrets["elevenlabs_key"], "Bearer " + secrets["access_token"]}
	if len(proofs) != 1 || !slices.Contains(own, proofs[0]) {
		t.Errorf("%d credentials, want one of %s, in\n%s", len(proofs), org, whole)
	}
	for _, token := range s.tokens {
		basic := base64.StdEncoding.EncodeToString([]byte("ACkeyward:" + token))
		for _, trace := range []string{token, basic} {
			if strings.Contains(whole, trace) {
				t.Errorf("a caller's token reached the provider in\n%s", whole)
			}
		}
	}
	for _, trace := range []string{"keyward", "unused", base64.StdEncoding.EncodeToString([]byte("ACkeyward:unused"))} {
		if strings.Contains(strings.ToLower(whole), strings.ToLower(trace)) {
			t.Errorf("%q reached the provider in\n%s", trace, whole)
		}
	}
}
