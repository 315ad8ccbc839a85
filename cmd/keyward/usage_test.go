package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/freeport"
	"github.com/keyward/keyward/internal/memdir"
)

// What was used in the last minute is written at the end of the drain, and listed after the next start.
func TestUseIsListed(t *testing.T) {
	t.Parallel()
	began := time.Now()
	dir := memdir.New(t)
	args := []string{"--upstream", "api.resend.com=" + echo(t)}
	s := serve(t, dir, args...)
	s.must(`{"api_key":"re_0123456789"}`, "credentials", "set", "--org", "acme", "--provider", "resend")
	s.must("", "assistants", "set", "asst_1", "--org", "acme")
	s.must("", "assistants", "set", "asst_2", "--org", "acme")
	token := strings.TrimSpace(strings.SplitN(s.must("", "callers", "add", "--name", "worker", "--org", "acme"), "\n", 2)[0])
	for range 3 {
		req, err := http.NewRequest("GET", "http://api.resend.com/domains", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Keyward-Token": {token}, "Keyward-Assistant": {"asst_1"}}
		resp, err := s.client("caller.sock").Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if _ = resp.Body.Close(); resp.StatusCode != http.StatusOK {
			t.Fatalf("%d %s", resp.StatusCode, resp.Header.Get("Keyward-Error"))
		}
	}
	stop(t, s)
	before := s.log.String()

	s = serve(t, dir, args...)
	type used struct {
		ID, Name   string
		LastUsedAt *time.Time `json:"last_used_at"`
		UseCount   int64      `json:"use_count"`
	}
	list := func(args ...string) (items []used) {
		t.Helper()
		var l struct{ Items []used }
		if err := json.Unmarshal([]byte(s.must("", append(args, "--json")...)), &l); err != nil {
			t.Fatal(err)
		}
		return l.Items
	}
	for _, got := range []used{list("assistants", "list")[0], list("callers", "list")[0]} {
		if got.UseCount != 3 || got.LastUsedAt == nil || got.LastUsedAt.Before(began.Truncate(time.Second)) {
			t.Errorf("%+v, since %v\n%s", got, began, before)
		}
	}
	if got := list("assistants", "list")[1]; got.UseCount != 0 || got.LastUsedAt != nil {
		t.Errorf("one that was not used: %+v", got)
	}
	if out := s.must("", "assistants", "list"); !strings.Contains(out, "USES") || !strings.Contains(strings.Split(out, "\n")[1], " 3") {
		t.Errorf("listed as\n%s", out)
	}
}

// While a webhook waits for the app, no file of the sidecar's holds what is in it; with --webhook-redact the app does not get the tenant's
// secrets either, and the rest as it was.
func TestWaitingWebhookIsSealedAndRedacted(t *testing.T) {
	t.Parallel()
	var up atomic.Bool
	got := make(chan string, 100)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if !up.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			b = []byte("refused")
		}
		got <- string(b)
	}))
	t.Cleanup(app.Close)
	address := freeport.New(t)
	dir := memdir.New(t)
	args := []string{"--webhook-listen", address, "--webhook-target", app.URL + "/hooks", "--webhook-redact", "--webhook-backoff", "200ms", "--webhook-backoff-max", "200ms", "--webhook-attempts", "1000"}
	s := serve(t, dir, args...)
	s.must(`{"api_key":"vapi-key","webhook_secret":"vapi_test"}`, "credentials", "set", "--org", "acme", "--provider", "vapi")
	const caller, secret = "+1-555-0100-caller", "0123456789-twilio-token"
	body := `{"message":{"type":"end-of-call-report","call":{"id":"c1"},"customer":"` + caller + `","phoneNumber":{"twilioAuthToken":"` + secret + `"}}}`
	req, err := http.NewRequest("POST", "http://"+address+"/webhooks/vapi/acme", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vapi-Secret", "vapi_test")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if _ = resp.Body.Close(); resp.StatusCode != http.StatusOK {
		t.Fatalf("answered %d\n%s", resp.StatusCode, s.log)
	}
	if first := <-got; first != "refused" {
		t.Fatal(first)
	}
	holdsNot := func(what string) {
		t.Helper()
		for _, text := range []string{caller, secret} {
			for _, file := range filesUnder(t, filepath.Join(dir, "data")) {
				if b, err := os.ReadFile(file); err == nil && bytes.Contains(b, []byte(text)) {
					t.Errorf("%s: %s holds %q", what, filepath.Base(file), text)
				}
			}
			if strings.Contains(s.log.String(), text) {
				t.Errorf("%s: the log holds %q", what, text)
			}
		}
	}
	holdsNot("while it waits")
	stop(t, s)
	holdsNot("after the end")

	up.Store(true)
	s = serve(t, dir, args...)
	want := strings.Replace(body, secret, strings.Repeat("*", len(secret)), 1)
	for b := range got {
		if b == "refused" {
			continue
		}
		if b != want {
			t.Errorf("the app got %s, want %s", b, want)
		}
		break
	}
}

func filesUnder(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files in %s, %v", len(files), dir, err)
	}
	return files
}
