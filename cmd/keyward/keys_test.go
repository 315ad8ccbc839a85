package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/internal/memdir"
	"github.com/keyward/keyward/internal/pgtest"
	"github.com/keyward/keyward/keysource"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
)

// keysCommand runs keyward keys as a process of its own; args are program's.
func keysCommand(t *testing.T, args ...string) (out string, code int) {
	t.Helper()
	cmd := program(append([]string{"keys"}, args...)...)
	b, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

func mustKeys(t *testing.T, args ...string) string {
	t.Helper()
	out, code := keysCommand(t, args...)
	if code != 0 {
		t.Fatalf("keyward keys %v: exit code %d: %s", args, code, out)
	}
	return out
}

// addKey adds a key, and waits until every sidecar has it: without that none may seal with it. keys add itself waits for some seconds.
func addKey(t *testing.T, args ...string) {
	t.Helper()
	mustKeys(t, append([]string{"add"}, args...)...)
	eventually(t, "every sidecar has the key", func() bool {
		var l struct {
			Items    []struct{ Sidecars int }
			Sidecars []any
		}
		if err := json.Unmarshal([]byte(mustKeys(t, append([]string{"list", "--json"}, args...)...)), &l); err != nil {
			t.Fatal(err)
		}
		for _, key := range l.Items {
			if key.Sidecars < len(l.Sidecars) {
				return false
			}
		}
		return true
	})
}

func refusedKeys(t *testing.T, code int, words string, args ...string) {
	t.Helper()
	if out, got := keysCommand(t, args...); got != code || !strings.Contains(out, words) {
		t.Errorf("keyward keys %v: exit code %d, want %d with %q: %s", args, got, code, words, out)
	}
}

// A keyRing is keyward keys on one key source and store.
type keyRing struct {
	t   *testing.T
	env []string
}

// newKeyRing makes a key for a store.
func newKeyRing(t *testing.T, store string) *keyRing {
	t.Helper()
	key := "file:" + filepath.Join(memdir.New(t), "keys.json")
	mustKeys(t, "generate", "--key", key)
	return &keyRing{t, []string{"KEYWARD_STORE=" + store, "KEYWARD_KEY=" + key}}
}

// with are the args, for this store and key source.
func (k *keyRing) with(args ...string) []string { return append(slices.Clone(k.env), args...) }

func (k *keyRing) must(args ...string) string {
	k.t.Helper()
	return mustKeys(k.t, k.with(args...)...)
}

func (k *keyRing) add() {
	k.t.Helper()
	addKey(k.t, k.env...)
}

func (k *keyRing) refuses(code int, words string, args ...string) {
	k.t.Helper()
	refusedKeys(k.t, code, words, k.with(args...)...)
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to+".new", b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(to+".new", to); err != nil {
		t.Fatal(err)
	}
}

func rotates(t *testing.T, url string, orgs int) {
	keys := newKeyRing(t, url)
	s := serve(t, memdir.New(t), keys.with("--upstream", "api.resend.com="+echo(t))...)
	for i := range orgs {
		s.must(fmt.Sprintf(`{"api_key":"re_of_org_%d"}`, i), "credentials", "set", "--org", fmt.Sprint("org", i), "--provider", "resend")
	}
	c := s.client("caller.sock")
	works := func(when string) {
		t.Helper()
		for i := range orgs {
			if got, err := s.call(c, fmt.Sprint("org", i)); err != nil || got != fmt.Sprint("Bearer re_of_org_", i) {
				t.Fatalf("%s: %q, %v", when, got, err)
			}
		}
	}
	keys.refuses(exitRefused, "keyward keys add makes a new one", "rotate")
	first := items(t, keys.must("list", "--json"))[0]["id"].(string)
	keys.add()
	works("with the new key added")

	// A key that is to go has rows.
	keys.refuses(exitRefused, "it is the primary key", "retire", first)
	out := keys.must("rotate", "--json")
	var done struct {
		KeyID                string `json:"key_id"`
		Promoted             bool
		Resealed, Unreadable int
	}
	if err := json.Unmarshal([]byte(out), &done); err != nil || !done.Promoted || done.Resealed != orgs || done.Unreadable != 0 || done.KeyID == first {
		t.Errorf("%s: %v", out, err)
	}
	works("after the rotation")
	if out := keys.must("retire"); !strings.Contains(out, "Looking once more in 6s") {
		t.Errorf("it waits without a word: %s", out)
	}
	eventually(t, "the sidecar has let the old key go", func() bool {
		all := items(t, keys.must("list", "--json"))
		return len(all) == 1 && all[0]["id"] == done.KeyID && all[0]["rows"] == float64(orgs)
	})
	works("without the old key")
	if out := s.must("", "audit", "--json"); strings.Count(out, `"key.`) != 4 { // add, rotate, reseal, retire
		t.Errorf("the audit log: %s", out)
	}
	if strings.Contains(s.log.String(), "re_of_org") {
		t.Error("a secret is in the log")
	}
}

func TestKeysTurn(t *testing.T) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		rotates(t, "sqlite:"+filepath.Join(memdir.New(t), "keyward.db"), 5)
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		rotates(t, pgtest.New(t), 5)
	})
}

// TestNewKeysReachEverySidecarBeforeTheySeal: two sidecars on one store, each with a copy of the keyset.
func TestNewKeysReachEverySidecarBeforeTheySeal(t *testing.T) {
	t.Parallel()
	keys, there := newKeyRing(t, pgtest.New(t)), filepath.Join(memdir.New(t), "keys.json")
	here := strings.TrimPrefix(keys.env[1], "KEYWARD_KEY=file:")
	copyFile(t, here, there)
	up := "api.resend.com=" + echo(t)
	a := serve(t, memdir.New(t), keys.with("--upstream", up)...)
	b := serve(t, memdir.New(t), keys.with("--key", "file:"+there, "--upstream", up)...)
	a.must(`{"api_key":"re_sealed_before"}`, "credentials", "set", "--org", "acme", "--provider", "resend")
	eventually(t, "both are known", func() bool {
		return strings.Contains(keys.must("list"), "2 of 2")
	})

	keys.must("add")
	keys.refuses(exitRefused, fmt.Sprintf("(pid %d)", b.cmd.Process.Pid), "rotate")
	if strings.Contains(keys.must("list"), "retiring") {
		t.Error("a refused rotation changed the keyset")
	}
	copyFile(t, here, there)
	eventually(t, "both have the new key", func() bool {
		return strings.Count(keys.must("list"), "2 of 2") == 2
	})

	// The other one seals with the old key until it is told, and the rotation waits for it.
	rotation := program(keys.with("keys", "rotate")...)
	var said syncBuffer
	rotation.Stdout, rotation.Stderr = &said, &said
	if err := rotation.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new key is primary", func() bool { return strings.Contains(keys.must("list"), "retiring") })
	b.must(`{"api_key":"re_sealed_by_who_comes_last"}`, "credentials", "set", "--org", "globex", "--provider", "resend")
	copyFile(t, here, there)
	if err := rotation.Wait(); err != nil || !strings.Contains(said.String(), "re-sealed 2 rows") {
		t.Fatalf("%v: %s", err, said.String())
	}
	keys.must("retire")
	copyFile(t, here, there)
	for name, s := range map[string]*served{"first": a, "second": b} {
		c := s.client("caller.sock")
		for org, want := range map[string]string{"acme": "Bearer re_sealed_before", "globex": "Bearer re_sealed_by_who_comes_last"} {
			if got, err := s.call(c, org); got != want {
				t.Errorf("the %s sidecar, %s: %q, %v", name, org, got, err)
			}
		}
	}
}

// TestWebhooksTurnToo: one that waits in the store is re-sealed with the rest, and delivered when the old key is long gone.
func TestWebhooksTurnToo(t *testing.T) {
	t.Parallel()
	var up atomic.Bool
	got := make(chan string, 10)
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !up.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		body, _ := io.ReadAll(r.Body)
		got <- string(body)
	}))
	t.Cleanup(app.Close)
	dir := memdir.New(t)
	s := serve(t, dir, "--webhook-listen", "127.0.0.1:0", "--webhook-target", app.URL, "--webhook-backoff", "1s", "--webhook-backoff-max", "2s", "--webhook-attempts", "1000")
	s.must(`{"api_key":"re_of_acme","webhook_secret":"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}`, "credentials", "set", "--org", "acme", "--provider", "resend")
	s.must("", "webhooks", "test", "--org", "acme", "--provider", "resend")
	data := filepath.Join(dir, "data")
	first := items(t, mustKeys(t, "list", "--json", "--data-dir", data))[0]
	if first["rows"] != 2.0 {
		t.Fatalf("the first key has sealed %v rows, want a credential and a webhook", first["rows"])
	}
	addKey(t, "--data-dir", data)
	if out := mustKeys(t, "rotate", "--data-dir", data); !strings.Contains(out, "re-sealed 2 rows") {
		t.Error(out)
	}
	mustKeys(t, "retire", first["id"].(string), "--data-dir", data)
	up.Store(true)
	select {
	case body := <-got:
		if !strings.Contains(body, "email") {
			t.Errorf("delivered: %s", body)
		}
	case <-time.After(time.Minute):
		t.Errorf("the webhook was never delivered: %s", s.log)
	}
}

func TestRetireRefusesWhileRowsNeedTheKey(t *testing.T) {
	t.Parallel()
	dir := memdir.New(t)
	s := serve(t, dir)
	s.must(`{"api_key":"re_sealed_by_the_first"}`, "credentials", "set", "--org", "acme", "--provider", "resend")
	data := filepath.Join(dir, "data")
	first := items(t, mustKeys(t, "list", "--json", "--data-dir", data))[0]["id"].(string)
	stop(t, s)
	mustKeys(t, "add", "--data-dir", data)

	// As a rotation leaves it that is killed as soon as the new key is primary: the row is still the old one's.
	text, err := os.ReadFile(filepath.Join(data, "keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	turned := strings.Replace(strings.Replace(string(text), `"primary"`, `"retiring"`, 1), `"active"`, `"primary"`, 1)
	write(t, filepath.Join(data, "keys.json"), turned)
	refusedKeys(t, exitRefused, "1 rows of org_credentials are sealed by it, and would be lost", "retire", "--data-dir", data)
	refusedKeys(t, exitRefused, "are sealed by it", "retire", first, "--data-dir", data)
	refusedKeys(t, exitNotFound, "there is no key of that id", "retire", "k-of-nobody", "--data-dir", data)
	mustKeys(t, "rotate", "--data-dir", data) // goes on where the other one was ended
	mustKeys(t, "retire", first, "--data-dir", data)
}

// TestKeysetThatIsNoGoodChangesNothing: a sidecar that runs keeps what it has, and says so.
func TestKeysetThatIsNoGoodChangesNothing(t *testing.T) {
	t.Parallel()
	dir := memdir.New(t)
	s := serve(t, dir, "--upstream", "api.resend.com="+echo(t))
	s.must(`{"api_key":"re_kept"}`, "credentials", "set", "--org", "acme", "--provider", "resend")
	path := filepath.Join(dir, "data", "keys.json")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write(t, path, `{"version":1,"keys":[]}`)
	s.says("could not be taken over")
	if got, err := s.call(s.client("caller.sock"), "acme"); got != "Bearer re_kept" {
		t.Errorf("%q, %v", got, err)
	}
	write(t, path, string(good))
	mustKeys(t, "add", "--data-dir", filepath.Join(dir, "data"))
	s.says("keys read anew")
}

// TestKeysThatChangeDuringTheStartAreTakenOverAtOnce: callers are served by then, and rows may be sealed by the new key the moment after.
func TestKeysThatChangeDuringTheStartAreTakenOverAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(memdir.New(t), "keys.json")
	mustKeys(t, "generate", "--key", "file:"+path)
	source, err := keysource.Parse("file:"+path, "")
	if err != nil {
		t.Fatal(err)
	}
	seen := fingerprintOf(path)
	keys, err := source.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	mustKeys(t, "add", "--key", "file:"+path, "KEYWARD_STORE=sqlite:"+path+".db")
	synctest.Test(t, func(t *testing.T) {
		s := &sidecarProcess{log: zerolog.Nop(), keys: keys, source: &keyWatch{source: source, seen: seen, again: make(chan struct{}, 1), changed: make(chan struct{}, 1)}}
		ctx, end := context.WithCancel(t.Context())
		defer end()
		go s.watchKeys(ctx)
		synctest.Wait() // no time passes
		if n := len(keys.Keys()); n != 2 {
			t.Errorf("it has %d of 2 keys", n)
		}
	})
}

const vaultToken = "VAULT_TOKEN=hvs.test"

// A vault is as much of Vault's transit engine as wraps a data key, and can be away. What uses it is run with vaultToken.
func vault(t *testing.T) (source func(keyset string) string, away *atomic.Bool) {
	away = &atomic.Bool{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if away.Load() {
			http.Error(w, `{"errors":["Vault is sealed"]}`, http.StatusServiceUnavailable)
			return
		}
		var in map[string]string
		_ = json.NewDecoder(r.Body).Decode(&in)
		switch r.URL.Path {
		case "/v1/transit/encrypt/keyward":
			_ = json.NewEncoder(w).Encode(map[string]any{"data": map[string]string{"ciphertext": "vault:v1:" + in["plaintext"]}})
		case "/v1/transit/decrypt/keyward":
			plain := strings.TrimPrefix(in["ciphertext"], "vault:v1:")
			if _, err := base64.StdEncoding.DecodeString(plain); err != nil {
				http.Error(w, `{"errors":["invalid ciphertext"]}`, http.StatusBadRequest)
				return
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"data": map[string]string{"plaintext": plain}})
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "http://")
	return func(keyset string) string {
		return "hcvault://" + host + "/transit/keys/keyward?scheme=http&keyset=" + keyset
	}, away
}

// TestKMSAway: sidecars that run go on, a start says what it lacks, and both keep working when the service is back.
func TestKMSAway(t *testing.T) {
	t.Parallel()
	source, away := vault(t)
	dir := memdir.New(t)
	wrapped := source(filepath.Join(dir, "wrapped.json"))
	mustKeys(t, "generate", "--key", "file:"+filepath.Join(dir, "plain.json"))
	mustKeys(t, vaultToken, "rewrap", "--key", "file:"+filepath.Join(dir, "plain.json"), "--to", wrapped)
	if err := os.Remove(filepath.Join(dir, "plain.json")); err != nil {
		t.Fatal(err)
	}
	up := "api.resend.com=" + echo(t)
	s := serve(t, dir, vaultToken, "--key", wrapped, "--upstream", up)
	s.must(`{"api_key":"re_under_a_kms"}`, "credentials", "set", "--org", "acme", "--provider", "resend")
	store := "sqlite:" + filepath.Join(dir, "data", "keyward.db")
	keys := &keyRing{t, []string{vaultToken, "KEYWARD_STORE=" + store, "KEYWARD_KEY=" + wrapped}}
	keys.add()
	keys.must("rotate")

	away.Store(true)
	if got, err := s.call(s.client("caller.sock"), "acme"); got != "Bearer re_under_a_kms" {
		t.Errorf("a sidecar that runs: %q, %v", got, err)
	}
	s.must(`{"api_key":"re_written_meanwhile"}`, "credentials", "set", "--org", "globex", "--provider", "resend")
	late := start(t, memdir.New(t), keys.with()...) // it tries for ten seconds, as keys add does
	keys.refuses(exitFailed, "the key management service cannot answer now", "add")
	stop(t, s)
	err := <-late.done
	late.done <- err
	if out := late.log.String(); late.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(out, "the key management service cannot answer now") ||
		!strings.Contains(out, "sidecars that run go on without it") {
		t.Errorf("exit code %d: %s", late.cmd.ProcessState.ExitCode(), out)
	}

	away.Store(false)
	s = serve(t, dir, vaultToken, "--key", wrapped, "--upstream", up)
	c := s.client("caller.sock")
	for org, want := range map[string]string{"acme": "Bearer re_under_a_kms", "globex": "Bearer re_written_meanwhile"} {
		if got, err := s.call(c, org); got != want {
			t.Errorf("%s: %q, %v", org, got, err)
		}
	}
}

// TestARetiredKeyIsNotMissing: right after keys retire the sidecars still have the key, which no row needs.
func TestARetiredKeyIsNotMissing(t *testing.T) {
	keys := seal.Generate()
	defer keys.Wipe()
	states := map[string]string{}
	for _, item := range keyItems(keys, []store.SealCount{{KeyID: "lost", Rows: 2}}, []store.Sidecar{{Keys: []string{keys.PrimaryID(), "old", "lost"}}}, true) {
		states[item.ID] = item.State
	}
	if len(states) != 3 || states["old"] != "retired" || states["lost"] != "missing" || states[keys.PrimaryID()] != "primary" {
		t.Errorf("%v", states)
	}
}
