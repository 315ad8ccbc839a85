package main

import (
	"strings"
	"testing"
)

// --webhook-redact is for all routes that do not say otherwise.
func TestRoutesThatRedact(t *testing.T) {
	path := writeFile(t, "k.yaml", `
webhook_target: http://127.0.0.1:1/all
webhooks:
  - {org: acme, target: "http://127.0.0.1:1/acme"}
  - {org: globex, target: "http://127.0.0.1:1/globex", redact: true}
  - {org: initech, target: "http://127.0.0.1:1/initech", redact: false}
`)
	for flag, want := range map[string]string{"": "globex", "--webhook-redact": "acme globex all", "--webhook-redact=false": "globex"} {
		var got []string
		for _, r := range load(t, nil, strings.Fields("--config "+path+" "+flag)...).webhookRoutes() {
			if r.Redact {
				got = append(got, r.Target[strings.LastIndex(r.Target, "/")+1:])
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %v are redacted, want %s", flag, got, want)
		}
	}
	bad := writeFile(t, "bad.yaml", "webhooks:\n  - {target: \"http://127.0.0.1:1\", redact: maybe}\n")
	if got := refusal(t, nil, "--config", bad); !strings.Contains(got, `bad.yaml:2: "maybe" must be true or false`) {
		t.Errorf("got %s", got)
	}
}
