package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"

	"github.com/keyward/keyward/internal/freeport"
	"github.com/keyward/keyward/internal/memdir"
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

// TestDrainLeavesAppsTheirProviders: what a webhook in flight is answered with may be a provider's, which the app reaches through the sidecar only.
// The app is given that for as long as it is asked, by who sent the message and by the queue.
func TestDrainLeavesAppsTheirProviders(t *testing.T) {
	t.Parallel()
	var s *served
	arrived, release := make(chan string, 2), make(chan bool)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- r.Header.Get("Keyward-Delivery-Id")
		<-release
		got, err := s.call(s.client("caller.sock"), "acme")
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = fmt.Fprint(w, got, err)
	}))
	defer app.Close()
	at := freeport.New(t)
	s = serve(t, memdir.New(t), "--webhook-listen", at, "--webhook-target", app.URL, "--upstream", "api.resend.com="+echo(t), "--drain-timeout", "2m")
	s.must(`{"api_key":"re_drained"}`, "credentials", "set", "--org", "acme", "--provider", "resend")
	s.must(`{"api_key":"key-of-vapi-1","webhook_secret":"secret-of-vapi-1"}`, "credentials", "set", "--org", "acme", "--provider", "vapi")
	post := func(kind string) (string, error) {
		req, err := http.NewRequest("POST", "http://"+at+"/webhooks/vapi/acme", strings.NewReader(`{"message":{"type":"`+kind+`"}}`))
		if err != nil {
			return "", err
		}
		req.Header.Set("X-Vapi-Secret", "secret-of-vapi-1")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return "", err
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		return fmt.Sprint(resp.StatusCode, " ", string(b)), err
	}
	if got, err := post("hang"); err != nil || got != "200 " {
		t.Fatalf("%s, %v", got, err)
	}
	delivery := <-arrived
	got := make(chan string, 1)
	go func() {
		b, err := post("tool-calls")
		got <- fmt.Sprint(b, err)
	}()
	<-arrived
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	eventually(t, "no more webhooks are taken", func() bool {
		c, err := net.Dial("tcp", at)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	close(release)
	if b := <-got; b != "200 Bearer re_drained<nil><nil>" {
		t.Errorf("the message in flight was answered with %s", b)
	}
	if err := <-s.done; err != nil {
		t.Errorf("it ended with %v", err)
	}
	s.done <- nil
	if log := s.log.String(); strings.Count(log, "webhook delivered") != 1 || strings.Contains(log, "webhook not delivered") {
		t.Errorf("the delivery %s failed:\n%s", delivery, log)
	}
}
