package examples

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An unchanged app is written as its vendor's pages show, and knows nothing of Keyward.
type unchanged struct {
	name    string
	command string   // for a shell
	says    []string // in this order
	sends   []string // method, host and path of what its providers must be sent
}

const (
	sendMessage = "POST api.twilio.com /2010-04-01/Accounts/{account_sid}/Messages.json"
	listVerify  = "GET verify.twilio.com /v2/Services"
	sendEmail   = "POST api.resend.com /emails"
)

var unchangedApps = []unchanged{
	{"twilio-node", "node node/unchanged/twilio.mjs", []string{"sent SM", "verify service ", "verify service "}, []string{sendMessage, listVerify, listVerify}},
	{"googleapis for Node", "node node/unchanged/google-calendar.mjs", []string{"calendar ", "calendar Holidays"}, []string{"GET www.googleapis.com /calendar/v3/users/me/calendarList"}},
	{"undici with ProxyAgent", "node node/unchanged/undici.mjs", []string{"voice "}, []string{"GET api.elevenlabs.io /v1/voices"}},
	{"resend-node, Node's own fetch", `NODE_OPTIONS="--import $PWD/node/unchanged/preload.mjs" node node/unchanged/resend.mjs`, []string{"sent "}, []string{sendEmail}},
	{"twilio-go and resend-go", "$PROGRAMS/unchanged", []string{"sent SM", "sent "}, []string{sendMessage, sendEmail}},
	{"python3-twilio", `PYTHONPATH="$PWD/python/preload" /usr/bin/python3 python/twilio_app.py`, []string{"sent SM", "verify service ", "verify service "}, []string{sendMessage, listVerify, listVerify}},
	{
		"curl",
		`curl -sS --fail -u "$TWILIO_ACCOUNT_SID:$TWILIO_AUTH_TOKEN" --data-urlencode To=+15550001 --data-urlencode From=+15550002 -d Body=Hello https://api.twilio.com/2010-04-01/Accounts/$TWILIO_ACCOUNT_SID/Messages.json`,
		[]string{`"sid":"SM`},
		[]string{sendMessage},
	},
}

// TestUnchangedAppsReachTheirProviders gives each app nothing but what `keyward ca env` prints, pasted into a shell, and placeholders where
// its own keys were. Each runs as two orgs at once.
func TestUnchangedAppsReachTheirProviders(t *testing.T) {
	node := nodeInstalled(t)
	programs := buildGo(t)
	s := startSidecar(t, "--intercept")
	for _, app := range unchangedApps {
		t.Run(app.name, func(t *testing.T) {
			switch {
			case !node && strings.Contains(app.command, "node "):
				t.Skip("KEYWARD_TEST_NO_NODE=1: the Node SDKs are not tested")
			case app.name == "curl" && os.Getenv("KEYWARD_TEST_NO_CURL") == "1":
				t.Skip("NOT TESTED: KEYWARD_TEST_NO_CURL=1 is set")
			case strings.Contains(app.command, "python3") && exec.Command("/usr/bin/python3", "-c", "import twilio").Run() != nil:
				if os.Getenv("CI") != "" {
					t.Fatal("Debian's package python3-twilio is missing; tools/testdeps.sh installs it")
				}
				t.Skip("Debian's package python3-twilio is not installed: left out")
			}
			s.peers.Reset()
			done := make(chan struct{})
			go func() {
				defer close(done)
				s.runUnchanged(t, app, orgs[1], programs)
			}()
			s.runUnchanged(t, app, orgs[0], programs)
			<-done
			sent := map[string][]string{}
			for _, r := range s.peers.Requests() {
				if r.Host == "oauth2.googleapis.com" {
					continue // Keyward's own
				}
				path, _, _ := strings.Cut(r.URI, "?")
				for name, value := range s.secrets(r.Label) {
					if name == "account_sid" {
						path = strings.ReplaceAll(path, value, "{account_sid}")
					}
				}
				sent[r.Label] = append(sent[r.Label], r.Method+" "+r.Host+" "+path)
				s.onlyOne(t, r.Label, r)
			}
			for _, org := range orgs {
				if got := strings.Join(sent[org], "\n"); got != strings.Join(app.sends, "\n") {
					t.Errorf("as %s the providers were sent\n%s\nwant\n%s", org, got, strings.Join(app.sends, "\n"))
				}
			}
		})
	}
	s.logHoldsNoSecret(t)
}

// unchangedEnvironment is the shell that an unchanged app runs in: paths, and placeholders for the keys that it once held. The SID is a
// placeholder that becomes the org's own; the rest is thrown away.
func (s *sidecar) unchangedEnvironment(t *testing.T, org, programs string) []string {
	t.Helper()
	token := filepath.Join(t.TempDir(), org)
	if err := os.WriteFile(token, []byte(s.tokens[org]), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "NODE_NO_WARNINGS=1", "PROGRAMS=" + programs,
		"KEYWARD=" + s.bin, "RUN=" + s.run, "PROXY=" + strings.TrimPrefix(s.url, "http://"), "ORG=" + org, "TOKEN_FILE=" + token,
		"TWILIO_ACCOUNT_SID=AC00000000000000000000000000000000", "TWILIO_AUTH_TOKEN=unused", "RESEND_API_KEY=unused", "ELEVENLABS_API_KEY=unused", "GOOGLE_ACCESS_TOKEN=unused",
	}
}

const pasteEnv = `eval "$("$KEYWARD" ca env --run-dir "$RUN" --proxy "$PROXY" --org "$ORG" --token-file "$TOKEN_FILE")"` + "\n"

func (s *sidecar) runUnchanged(t *testing.T, app unchanged, org, programs string) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, "sh", "-eu", "-c", pasteEnv+"exec env "+app.command)
	c.Env = s.unchangedEnvironment(t, org, programs)
	out, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("%s as %s: %v\n%s", app.name, org, err, out)
		return
	}
	rest := string(out)
	for _, want := range app.says {
		_, after, ok := strings.Cut(rest, want)
		if !ok {
			t.Errorf("%s as %s does not say %q in\n%s", app.name, org, want, out)
			return
		}
		rest = after
	}
}
