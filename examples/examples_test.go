// Package examples runs every example as an app would: the SDK as its vendor ships it, the program as built, over the unix socket and
// over TCP, for two orgs. The providers are stand-ins that keep each request whole; testdata says what they must be sent.
package examples

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/standin"
)

// An example is one program and what it prints when all goes well.
type example struct {
	name string // of testdata/NAME.txt
	says []string
}

var nodeExamples = []example{
	{"node-twilio", []string{"sent SM", "verify service ", "verify service "}},
	{"node-resend", []string{"sent "}},
	{"node-vapi", []string{"call ", `"delta":"Hello"`, "[DONE]"}},
	{"node-elevenlabs", []string{"audio 8208 bytes", "voice ", "transcript 3200 bytes heard"}},
	{"node-google-calendar", []string{"calendar ", "calendar Holidays", "event https://www.google.com/calendar/"}},
}

var goExamples = []example{
	{"go-twilio", []string{"sent SM", "verify service ", "verify service "}},
	{"go-resend", []string{"sent ", "0 domains"}},
	{"go-vapi", []string{"call ", `"delta":"Hello"`, "[DONE]"}},
	{"go-elevenlabs", []string{"audio 8194 bytes", `"voice_id"`}},
	{"go-google-calendar", []string{"calendar ", "calendar Holidays", "event https://www.google.com/calendar/"}},
}

func TestSDKsReachTheirProvidersUnchanged(t *testing.T) {
	node := nodeInstalled(t)
	programs := buildGo(t)
	s := startSidecar(t)
	t.Run("tokens", func(t *testing.T) {
		s.exchange(t, programs)
	})
	for _, transport := range []string{"unix", "tcp"} {
		for _, e := range goExamples {
			t.Run(e.name+" over "+transport, func(t *testing.T) {
				s.check(t, e, transport, filepath.Join(programs, strings.TrimPrefix(e.name, "go-")))
			})
		}
		for _, e := range nodeExamples {
			t.Run(e.name+" over "+transport, func(t *testing.T) {
				if !node {
					t.Skip("KEYWARD_TEST_NO_NODE=1: the Node SDKs are not tested")
				}
				s.check(t, e, transport, "node", filepath.Join("node", strings.TrimPrefix(e.name, "node-")+".mjs"))
			})
		}
	}
	t.Run("minted tokens", func(t *testing.T) { s.mintedTokens(t, node) })
	s.logHoldsNoSecret(t)
}

// exchange lets the calendar's token be minted, so that no later request depends on who comes first, and checks the token request.
func (s *sidecar) exchange(t *testing.T, programs string) {
	for _, org := range orgs {
		s.peers.Reset()
		s.run1(t, goExamples[len(goExamples)-1], "unix", org, filepath.Join(programs, "google-calendar"))
		first := s.peers.Requests()[0]
		if first.Host != "oauth2.googleapis.com" {
			t.Fatalf("the first request went to %s", first.Host)
		}
		s.compare(t, "google-token", org, []standin.Request{first})
	}
}

// check runs an example for both orgs at once and holds what the providers were sent against the golden file.
func (s *sidecar) check(t *testing.T, e example, transport string, command ...string) {
	s.peers.Reset()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.run1(t, e, transport, orgs[1], command...)
	}()
	s.run1(t, e, transport, orgs[0], command...)
	<-done
	sent := map[string][]standin.Request{}
	for _, r := range s.peers.Requests() {
		if r.Label == "" {
			t.Errorf("a request reached the provider without a credential of any org:\n%s", r)
			continue
		}
		sent[r.Label] = append(sent[r.Label], r)
	}
	for _, org := range orgs {
		s.compare(t, e.name, org, sent[org])
		for _, r := range sent[org] {
			s.onlyOne(t, org, r)
		}
	}
}

// run1 runs an example for one org; it must succeed and say what it says.
func (s *sidecar) run1(t *testing.T, e example, transport, org string, command ...string) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, command[0], command[1:]...)
	c.Env = s.environment(transport, org)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("%s over %s as %s: %v\n%s", e.name, transport, org, err, out)
		return
	}
	rest := string(out)
	for _, want := range e.says {
		_, after, ok := strings.Cut(rest, want)
		if !ok {
			t.Errorf("%s over %s as %s does not say %q in\n%s", e.name, transport, org, want, out)
			return
		}
		rest = after
	}
}

// logHoldsNoSecret looks for every secret in what the program wrote, at the level debug.
func (s *sidecar) logHoldsNoSecret(t *testing.T) {
	log := s.log.String()
	if !strings.Contains(log, "twilio") {
		t.Errorf("no request in the log:\n%s", log)
	}
	for _, org := range orgs {
		secrets := append(s.peers.AccessTokens(org), s.tokens[org])
		for _, c := range standin.Sample(org) {
			for _, field := range []string{"auth_token", "api_key", "client_secret", "refresh_token"} {
				if v := c.Fields[field]; v != "" {
					secrets = append(secrets, v)
				}
			}
		}
		for _, secret := range secrets {
			if strings.Contains(log, secret) {
				t.Errorf("the log holds a secret of %s", org)
			}
		}
	}
}

// nodeInstalled says whether the Node examples can run, and installs their packages as locked.
func nodeInstalled(t *testing.T) bool {
	t.Helper()
	if os.Getenv("KEYWARD_TEST_NO_NODE") == "1" && os.Getenv("CI") == "" {
		return false
	}
	for _, program := range []string{"node", "npm"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Fatalf("the examples need Node 20 or later with npm: %v (KEYWARD_TEST_NO_NODE=1 leaves them out)", err)
		}
	}
	if upToDate("node/node_modules/.package-lock.json", "node/package-lock.json") {
		return true
	}
	c := exec.Command("npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts")
	c.Dir = "node"
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("npm ci: %v\n%s", err, out)
	}
	return true
}

// upToDate says whether made is newer than from.
func upToDate(made, from string) bool {
	m, err := os.Stat(made)
	if err != nil {
		return false
	}
	f, err := os.Stat(from)
	return err == nil && m.ModTime().After(f.ModTime())
}

// buildGo builds the Go examples and gives the folder.
func buildGo(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	build := exec.Command("go", "build", "-trimpath", "-o", dir+string(filepath.Separator), "./go/...")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as the program is: what is compiled for both is so once
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the Go examples: %v\n%s", err, out)
	}
	return dir
}
