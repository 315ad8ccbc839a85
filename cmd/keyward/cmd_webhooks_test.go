package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/admin"
	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
	"github.com/keyward/keyward/webhook"
)

// A hookRig is a rig with a webhook listener, and an app behind it.
type hookRig struct {
	*rig
	queue *webhook.Queue
	got   chan string
}

func newHookRig(t *testing.T) *hookRig {
	t.Helper()
	b := &hookRig{rig: newRig(t), got: make(chan string, 100)}
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		b.got <- r.Header.Get("Keyward-Org") + " " + string(body)
		_, _ = io.WriteString(w, `{"results":[]}`)
	}))
	t.Cleanup(app.Close)
	keys := seal.Generate()
	b.queue = webhook.NewQueue(webhook.QueueOptions{Store: b.db, Keys: keys, Log: zerolog.Nop()})
	go b.queue.Run()
	server, err := webhook.New(webhook.Options{
		Store: readerOf{b.db}, Keys: keys, Log: zerolog.Nop(), AccountOwner: b.db.AccountOwner, Accept: b.queue.Accept, Memory: b.db,
		Routes: []webhook.Route{{Target: app.URL + "/hooks"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	hooks, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = server.Serve(hooks) }()
	t.Cleanup(func() {
		server.Close()
		_ = b.queue.Shutdown(context.Background())
	})
	b.dir, err = os.MkdirTemp("", "kw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(b.dir) })
	l, err := net.Listen("unix", filepath.Join(b.dir, "admin.sock"))
	if err != nil {
		t.Fatal(err)
	}
	sampler := &webhook.Sampler{Store: b.db, Keys: keys, Address: hooks.Addr().String()}
	api := admin.New(admin.Options{
		DB: b.db, Keeper: &credential.Keeper{DB: b.db, Keys: keys}, Log: zerolog.Nop(), UID: ownUID(),
		Webhooks: admin.Webhooks{Wake: b.queue.Wake, Test: testWebhook(sampler)},
	}).Server()
	go func() { _ = api.Serve(l) }()
	t.Cleanup(func() { _ = api.Close() })
	return b
}

// readerOf is a store without a cache.
type readerOf struct{ store.Reader }

func TestWebhooksTestGoesTheWholeWay(t *testing.T) {
	b := newHookRig(t)
	b.ok(`{"api_key":"vapi-key","webhook_secret":"hook-secret-0123456789"}`, "credentials", "set", "--org", "acme", "--provider", "vapi")
	b.ok(`{"api_key":"re_0123456789"}`, "credentials", "set", "--org", "acme", "--provider", "resend")
	r := b.run("", "webhooks", "test", "--org", "acme", "--provider", "vapi", "--type", "tool-calls")
	if r.code != 0 || r.out != "{\"results\":[]}\n" || !strings.Contains(r.err, "the app answered 200") {
		t.Fatalf("%+v", r)
	}
	if got := <-b.got; !strings.HasPrefix(got, "acme {") || !strings.Contains(got, `"tool-calls"`) {
		t.Errorf("%s", got)
	}
	out := b.ok("", "webhooks", "test", "--org", "acme", "--provider", "vapi", "--json") // a durable one
	if got := <-b.got; !strings.Contains(got, `"status-update"`) || strings.Contains(out+got, "hook-secret") {
		t.Errorf("%s %s", got, out)
	}
	if r = b.run("", "webhooks", "test", "--org", "acme", "--provider", "vapi"); r.code != 0 || !strings.Contains(r.err, "acknowledged, to be delivered; whether the app took it: keyward webhooks show wd_") {
		t.Errorf("%+v", r)
	}
	id := strings.TrimSpace(r.err[strings.LastIndex(r.err, " wd_"):])
	if show := b.ok("", "webhooks", "show", id); !strings.Contains(show, "status-update") {
		t.Errorf("%s", show)
	}
	b.fails(exitNotFound, "org globex has no credential with vapi: keyward credentials set", "", "webhooks", "test", "--org", "globex", "--provider", "vapi")
	b.fails(exitFailed, "the credential of org acme with resend has no webhook secret: put the field webhook_secret into it", "", "webhooks", "test", "--org", "acme", "--provider", "resend")
	b.fails(exitUsage, "--provider is missing", "", "webhooks", "test", "--org", "acme")
	b.fails(exitUsage, "type", "", "webhooks", "test", "--org", "acme", "--provider", "vapi", "--type", "a b")
	b.ok(`{"account_sid":"AC0123456789abcdef0123456789abcdef","auth_token":"fedcba9876543210fedcba9876543210"}`, "credentials", "set", "--org", "acme", "--provider", "twilio")
	b.fails(exitUsage, "twilio has message and call", "", "webhooks", "test", "--org", "acme", "--provider", "twilio", "--type", "sms")
	b.ok("", "credentials", "disable", "--org", "acme", "--provider", "vapi")
	r = b.run("", "webhooks", "test", "--org", "acme", "--provider", "vapi")
	if r.code != exitFailed || !strings.Contains(r.err, "was answered 401 webhook_unverified") || !strings.Contains(r.out, "webhook_unverified") {
		t.Errorf("%+v", r)
	}
}

func TestWebhooksCommands(t *testing.T) {
	b := newRig(t)
	ctx := t.Context()
	var ids []string
	for i, org := range []string{"acme", "globex", "acme"} {
		d := &store.Delivery{Org: org, Provider: "vapi", Type: "end-of-call-report", Target: "http://127.0.0.1:1/hooks", Method: "POST", Path: "/webhooks/vapi", Body: fmt.Appendf(nil, "tenant-secret-%d", i)}
		if _, err := b.db.AcceptDelivery(ctx, d); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, d.ID)
	}
	leased, err := b.db.LeaseDeliveries(ctx, "test", "http://127.0.0.1:1/hooks", 10, time.Minute)
	if err != nil || len(leased) != 3 {
		t.Fatal(err)
	}
	for _, d := range leased[:2] {
		if err := b.db.FinishDelivery(ctx, "test", d, store.Outcome{State: store.Dead, Problem: "the app answered 500\x1b"}); err != nil {
			t.Fatal(err)
		}
	}
	if got := items(t, b.ok("", "webhooks", "list", "--json")); len(got) != 3 || got[0]["id"] != ids[2] || got[2]["state"] != "dead" || got[2]["attempts"] != 1.0 {
		t.Errorf("%v", got)
	}
	if got := items(t, b.ok("", "webhooks", "list", "--state", "dead", "--org", "acme", "--json")); len(got) != 1 || got[0]["id"] != ids[0] {
		t.Errorf("%v", got)
	}
	r := b.run("", "webhooks", "list", "--limit", "2")
	if r.code != 0 || strings.Count(r.out, "\n") != 3 || !strings.Contains(r.err, "newest 2") || strings.Contains(r.out, "\x1b") {
		t.Errorf("%+v", r)
	}
	show := b.ok("", "webhooks", "show", ids[0])
	for _, want := range []string{ids[0], "15 bytes", "the app answered 500?", "POST /webhooks/vapi", "end-of-call-report", "dead"} {
		if !strings.Contains(show, want) {
			t.Errorf("%q is not in %s", want, show)
		}
	}
	asJSON := b.ok("", "webhooks", "show", ids[0], "--json")
	if strings.Contains(show+asJSON+r.out, "tenant-secret") || !json.Valid([]byte(asJSON)) {
		t.Errorf("%s", asJSON)
	}
	b.ok("", "webhooks", "redeliver", ids[0])
	if out := b.ok("", "webhooks", "redeliver", "--state", "dead"); out != ids[1]+": due now\n" {
		t.Errorf("%q", out)
	}
	if got := items(t, b.ok("", "webhooks", "list", "--state", "pending", "--json")); len(got) != 3 {
		t.Errorf("%v", got)
	}
	b.fails(exitNotFound, "no delivery", "", "webhooks", "redeliver", "wd_none")
	b.fails(exitNotFound, "no delivery", "", "webhooks", "show", "wd_none")
	b.fails(exitUsage, "either the id", "", "webhooks", "redeliver")
	b.fails(exitUsage, "either the id", "", "webhooks", "redeliver", ids[0], "--state", "dead")
	b.fails(exitUsage, "state", "", "webhooks", "list", "--state", "lost")
	b.fails(exitUsage, "DELIVERY_ID", "", "webhooks", "show")
}
