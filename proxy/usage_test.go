package proxy

import (
	"testing"

	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/internal/storetest"
	"github.com/keyward/keyward/store"
)

// A usedWorld is a proxy whose uses go to a real store. The rows that it serves from are in both.
type usedWorld struct {
	*world
	db     *store.DB
	usage  *store.Usage
	worker string // a token, for acme's Twilio alone
	row    *store.Token
}

func newUsedWorld(t *testing.T, to string, change ...func(*Options)) *usedWorld {
	t.Helper()
	db, err := store.Open(t.Context(), storetest.SQLite(t), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	if _, err := db.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	u := &usedWorld{db: db, usage: store.NewUsage(db)}
	u.world = newWorld(t, to, append(change, func(o *Options) { o.Usage = u.usage })...)
	u.worker = u.token(store.Token{ID: "ct_worker", Name: "worker", Orgs: []string{"acme"}, Providers: []string{"twilio"}})
	u.row = u.rows.tokens[caller.HashToken([]byte(u.worker))]
	if err := db.PutToken(t.Context(), store.Actor{}, u.row); err != nil {
		t.Fatal(err)
	}
	for _, a := range u.rows.assistants {
		row := *a
		if err := db.PutAssistant(t.Context(), store.Actor{}, &row, 0); err != nil {
			t.Fatal(err)
		}
	}
	return u
}

// uses are how often the store says that the token and the assistants were used, once all is written.
func (u *usedWorld) uses() (worker, asst1, asst2 int64) {
	u.t.Helper()
	if err := u.usage.Flush(u.t.Context()); err != nil {
		u.t.Fatal(err)
	}
	row, err := u.db.Token(u.t.Context(), u.row.Hash)
	if err != nil {
		u.t.Fatal(err)
	}
	of := func(id string) int64 {
		a, err := u.db.Assistant(u.t.Context(), id)
		if err != nil {
			u.t.Fatal(err)
		}
		return a.UseCount
	}
	return row.UseCount, of("asst_1"), of("asst_2")
}

func TestUsesAreCounted(t *testing.T) {
	u := newUsedWorld(t, bytePeer(t))
	get := func(network, path, header string) {
		t.Helper()
		if r := u.raw(network, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n"+header+"\r\n"); r.StatusCode != 200 {
			t.Fatalf("%s: %d %s", path, r.StatusCode, problemCode(r))
		}
	}
	token := "Keyward-Token: " + u.worker + "\r\n"
	get("unix", "/twilio/2010-04-01/Accounts/ACkeyward.json", "Keyward-Assistant: asst_1\r\n")
	get("unix", "/assistant/asst_1/vapi/call", "")
	get("unix", "/assistant/asst_1/vapi/call", "Keyward-Assistant: asst_1\r\n") // named twice, used once
	get("unix", "/vapi/call", "Keyward-Org: globex\r\n")                        // no assistant
	get("tcp", "/twilio/2010-04-01/Accounts/ACkeyward.json", token)
	get("tcp", "/twilio/2010-04-01/Accounts/ACkeyward.json", token+"Keyward-Assistant: asst_1\r\n")
	get("tcp", "/twilio/2010-04-01/Accounts/ACkeyward.json", token+"Authorization: Bearer "+u.worker+"\r\n") // shown twice, used once
	if worker, one, two := u.uses(); worker != 3 || one != 4 || two != 0 {
		t.Errorf("the token %d, asst_1 %d, asst_2 %d; want 3, 4, 0", worker, one, two)
	}
}

// Who shows a good token where it does not reach is seen; an assistant is used only by who may.
func TestRefusedUses(t *testing.T) {
	u := newUsedWorld(t, bytePeer(t))
	for header, code := range map[string]string{
		"Keyward-Token: " + u.worker + "\r\nKeyward-Assistant: asst_2\r\n":                                      "org_forbidden",
		"Keyward-Assistant: asst_2\r\nAuthorization: Bearer kwt0123456789012345678901234567890123456789012\r\n": "caller_unauthenticated",
		"Keyward-Token: " + u.worker + "\r\nKeyward-Assistant: asst_2\r\nKeyward-Org: acme\r\n":                 "org_conflict",
	} {
		r := u.raw("tcp", "GET /twilio/2010-04-01/Accounts/ACkeyward.json HTTP/1.1\r\nHost: localhost\r\n"+header+"\r\n")
		if problemCode(r) != code {
			t.Errorf("%q: %d %s, want %s", header, r.StatusCode, problemCode(r), code)
		}
	}
	if worker, one, two := u.uses(); worker != 2 || one != 0 || two != 0 {
		t.Errorf("the token %d, asst_1 %d, asst_2 %d; want 2, 0, 0", worker, one, two)
	}
}

// TestUsesAllocateNothing is TestHitAllocatesNothing with a token and an assistant, both counted.
func TestUsesAllocateNothing(t *testing.T) {
	u := newUsedWorld(t, bytePeer(t), quiet)
	do := roundTripper(t, u.world, "GET /twilio/2010-04-01/Accounts.json HTTP/1.1\r\nHost: localhost\r\nKeyward-Assistant: asst_1\r\nKeyward-Token: "+u.worker+"\r\n\r\n")
	const warm, measured = 50, 500
	for range warm {
		do()
	}
	if n := testing.AllocsPerRun(measured, do); n >= 1 {
		t.Errorf("%v allocations per request", n)
	}
	if worker, one, _ := u.uses(); worker != warm+measured+1 || one != worker { // AllocsPerRun warms up once
		t.Errorf("counted %d and %d of %d", worker, one, warm+measured+1)
	}
}
