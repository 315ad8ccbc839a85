package torture

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Two seconds after the load has stopped, root looks through all memory of the sidecar, its log and what it shows of itself. No secret
// may be there, in any form that a request, the store or an answer has it in; and no key in what it shows, or in a core dump.
func TestNoSecretStaysInMemory(t *testing.T) {
	if os.Geteuid() != 0 {
		leftOut(t, "no secret in memory", "only root reads the memory of a process that cannot be dumped")
	}
	t.Run("key in a file", func(t *testing.T) { newMemoryTest(t, many(200, 1000), "").run() })
	t.Run("key in the environment", func(t *testing.T) {
		var key [32]byte
		_, _ = rand.Read(key[:])
		t.Setenv("TORTURE_KEY", hex.EncodeToString(key[:]))
		m := newMemoryTest(t, 20, "TORTURE_KEY")
		m.find.learnKey(key[:])
		m.run()
	})
}

// A memoryTest is one sidecar with its orgs. An org's number decides its fate: some are replaced or deleted, some never used, some have a
// provider that echoes the credential or cuts its answers.
type memoryTest struct {
	t         *testing.T
	s         *sidecar
	find      *finder
	orgs      []string
	valid     sync.Map // :: what a provider must see → the finder's class
	strangers atomic.Int64
	served    atomic.Int64
	failed    atomic.Int64
	failures  sync.Map // :: what was asked → the last failure
	token     string
	unix, tcp *http.Client
}

var fates = []string{"replaced", "deleted", "never used", "echoed", "cut", "used", "used", "used", "used", "used"}

func (m *memoryTest) fate(i int) string { return fates[i%len(fates)] }

func newMemoryTest(t *testing.T, orgs int, env string) *memoryTest {
	m := &memoryTest{t: t, find: newFinder()}
	overTLS := httptest.NewTLSServer(http.HandlerFunc(m.provider))
	t.Cleanup(overTLS.Close)
	plain := httptest.NewServer(http.HandlerFunc(m.provider))
	t.Cleanup(plain.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: overTLS.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"--log-level", "debug", "--upstream-ca", ca}
	if env != "" {
		args = append(args, "--key", "env:"+env)
	}
	for _, host := range []string{"api.twilio.com", "api.elevenlabs.io", "www.googleapis.com", "oauth2.googleapis.com"} {
		args = append(args, "--upstream", host+"="+overTLS.URL)
	}
	address := strings.TrimPrefix(plain.URL, "http://")
	m.s = startSidecar(t, map[string]string{"api.vapi.ai": address, "api.resend.com": address}, args...)
	if env == "" {
		m.learnKeyFile()
	}
	for i := range orgs {
		m.orgs = append(m.orgs, fmt.Sprintf("org-%d-%s", i, random(12)))
	}
	m.token = regexp.MustCompile(`kwt[0-9A-Za-z]{43}`).FindString(m.s.token())
	m.unix = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DialContext: func(context.Context, string, string) (net.Conn, error) { return m.s.tryDial("unix") }}}
	m.tcp = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DialContext: func(context.Context, string, string) (net.Conn, error) { return m.s.tryDial("tcp") }}}
	t.Cleanup(m.unix.CloseIdleConnections)
	t.Cleanup(m.tcp.CloseIdleConnections)
	return m
}

func (m *memoryTest) learnKeyFile() {
	b, err := os.ReadFile(filepath.Join(m.s.dir, "data", "keys.json"))
	var set struct {
		Keys []struct{ Key []byte }
	}
	if err == nil {
		err = json.Unmarshal(b, &set)
	}
	if err != nil || len(set.Keys) == 0 || len(set.Keys[0].Key) != 32 {
		m.t.Fatalf("reading the key file: %v", err)
	}
	m.find.learnKey(set.Keys[0].Key)
}

func (m *memoryTest) run() {
	for i, org := range m.orgs {
		m.store(i, org)
	}
	m.refusedInput()
	m.load(many(6, 20))
	for i, org := range m.orgs {
		switch m.fate(i) {
		case "replaced":
			m.admin("PATCH", "/api/orgs/"+org+"/integrations/resend", map[string]any{"credentials": map[string]any{"api_key": m.secret("resend.api_key, the new one")}})
		case "deleted":
			m.admin("DELETE", "/api/orgs/"+org+"/integrations/elevenlabs", nil)
		}
	}
	m.s.mustLive()
	m.failures.Range(func(what, why any) bool {
		m.t.Errorf("%s: %v", what, why)
		return true
	})
	if m.strangers.Load() > 0 || m.failed.Load() > 0 {
		m.t.Errorf("%d requests reached a provider without the right credential, %d failed", m.strangers.Load(), m.failed.Load())
	}
	time.Sleep(2 * time.Second)
	inMemory, size := m.scanMemory()
	shown := m.scanShown()
	row(m.t, "2 s after load: 0 secrets in live memory, 0 secrets or keys in logs, /proc, stats ("+strings.TrimPrefix(m.t.Name(), "TestNoSecretStaysInMemory/")+")",
		"%d orgs, %d secrets, %d requests, %d MiB of memory: %d found in memory, %d elsewhere", len(m.orgs), m.find.secrets, m.served.Load(), size>>20, inMemory, shown)
	m.coreDump()
	m.stacks()
}

// store gives an org its credentials, by the API or by the command.
func (m *memoryTest) store(i int, org string) {
	of := func(field string) string { return m.secret(field + ", " + m.fate(i)) }
	sid := "AC" + hex.EncodeToString([]byte(random(16)))
	all := map[string]map[string]any{
		"twilio":     {"account_sid": sid, "auth_token": of("twilio.auth_token")},
		"vapi":       {"api_key": of("vapi.api_key"), "public_key": of("vapi.public_key"), "webhook_secret": []string{of("vapi.webhook_secret"), of("vapi.webhook_secret")}},
		"resend":     {"api_key": of("resend.api_key"), "webhook_secret": of("resend.webhook_secret")},
		"elevenlabs": {"api_key": of("elevenlabs.api_key")},
	}
	if i%20 == 9 || i%20 == 3 || len(m.orgs) <= 20 {
		all["google_calendar"] = map[string]any{"client_id": "client-" + org, "client_secret": of("google.client_secret"), "refresh_token": of("google.refresh_token")}
	}
	m.valid.Store("Basic "+base64.StdEncoding.EncodeToString([]byte(sid+":"+all["twilio"]["auth_token"].(string))), true)
	m.valid.Store("Bearer "+all["vapi"]["api_key"].(string), true)
	m.valid.Store("Bearer "+all["resend"]["api_key"].(string), true)
	m.valid.Store(all["elevenlabs"]["api_key"], true)
	for provider, fields := range all {
		if i%50 == 7 {
			b, _ := json.Marshal(fields)
			cmd := exec.Command(binary, "credentials", "set", "--run-dir", m.s.dir, "--org", org, "--provider", provider)
			cmd.Stdin = bytes.NewReader(b)
			if out, err := cmd.CombinedOutput(); err != nil {
				m.t.Fatalf("credentials set: %v: %s", err, out)
			}
			continue
		}
		m.s.put(org, provider, fields)
	}
}

// refusedInput sends secrets that are never stored.
func (m *memoryTest) refusedInput() {
	secret := func() string { return m.secret("refused input") }
	for _, body := range []string{
		`{"credentials":{"api_key":"` + secret() + `"}`,
		`{"credentials":{"api_key":"` + secret() + `","colour":"red"}}`,
		`{"credentials":{"api_key":["` + secret() + `"]}}`,
		`{"credentials":{"api_key":"` + secret() + ` ` + secret() + `"}}`,
		`{"credentials":"` + secret() + `"}`, `"` + secret() + `"`,
	} {
		if status := m.admin("PUT", "/api/orgs/refused/integrations/resend", json.RawMessage(body)); status/100 != 4 {
			m.t.Errorf("%.40s…: status %d", body, status)
		}
	}
}

func (m *memoryTest) admin(method, path string, body any) int {
	m.t.Helper()
	b, ok := body.(json.RawMessage)
	if !ok {
		b, _ = json.Marshal(body)
	}
	req, err := http.NewRequest(method, "http://keyward"+path, bytes.NewReader(b))
	if err != nil {
		m.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := m.s.admin.Do(req)
	if err != nil {
		m.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, _ := io.ReadAll(resp.Body)
	m.t.Cleanup(func() {
		if hits := m.find.in("answer of "+method+" "+path, answer, 0); len(hits) > 0 {
			m.t.Errorf("the answer holds a secret: %s", hits[0])
		}
	})
	return resp.StatusCode
}

// load uses every credential several times, from many callers at once.
func (m *memoryTest) load(rounds int) {
	type job struct {
		i        int
		provider string
	}
	jobs := make(chan job)
	var wait sync.WaitGroup
	for range 32 {
		wait.Go(func() {
			for n := 0; ; n++ {
				j, ok := <-jobs
				if !ok {
					return
				}
				m.call(m.orgs[j.i], j.provider, m.fate(j.i), n)
			}
		})
	}
	for range rounds {
		for i := range m.orgs {
			if m.fate(i) == "never used" {
				continue
			}
			for _, provider := range []string{"twilio", "vapi", "resend", "elevenlabs"} {
				jobs <- job{i, provider}
			}
			if i%20 == 9 || i%20 == 3 {
				jobs <- job{i, "google"}
			}
		}
	}
	close(jobs)
	wait.Wait()
}

var targets = map[string][2]string{
	"twilio": {"POST", "api.twilio.com/2010-04-01/Accounts/ACkeyward/Messages.json"}, "vapi": {"GET", "api.vapi.ai/assistant?limit=10"},
	"resend": {"POST", "api.resend.com/emails"}, "elevenlabs": {"POST", "api.elevenlabs.io/v1/text-to-speech/voice/stream"},
	"google": {"GET", "www.googleapis.com/calendar/v3/calendars/primary/events"},
}

// call is one request of a caller. What the provider shall do with it depends on the org's fate and the number.
func (m *memoryTest) call(org, provider, fate string, n int) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	target := targets[provider]
	req, err := http.NewRequestWithContext(ctx, target[0], "http://"+target[1], strings.NewReader("To=%2B15550001&Body="+strings.Repeat("hi", n%7*2000)))
	if err != nil {
		m.failed.Add(1)
		return
	}
	req.Header.Set("Keyward-Org", org)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	do := []string{"plain", "stream"}[n%2]
	switch {
	case fate == "echoed":
		do = "echo"
	case fate == "cut":
		do = []string{"cut", "leave"}[n%2]
	case n%5 == 4:
		do = "upgrade"
		req, _ = http.NewRequestWithContext(ctx, "GET", "http://"+target[1], nil)
		req.Header = http.Header{"Keyward-Org": {org}, "Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
	}
	req.Header.Set("Torture", do)
	client := m.unix
	fail := func(why any) {
		m.failed.Add(1)
		m.failures.Store(provider+", "+do, why)
	}
	if n%4 == 3 {
		client = m.tcp
		req.Header.Set("Authorization", "Bearer "+m.token)
	}
	resp, err := client.Do(req)
	if err != nil {
		if do != "cut" && do != "leave" {
			fail(err)
		}
		return
	}
	defer func() { _ = resp.Body.Close() }()
	switch do {
	case "leave":
		_, _ = io.ReadFull(resp.Body, make([]byte, 1))
	case "upgrade":
		both, ok := resp.Body.(io.ReadWriter)
		if ok {
			_, _ = io.WriteString(both, "hello")
			_, err = io.ReadFull(both, make([]byte, 5))
		}
		if !ok || err != nil {
			fail(fmt.Sprint(resp.Status, err))
		}
	default:
		if _, err := io.Copy(io.Discard, resp.Body); do != "cut" && (err != nil || resp.StatusCode != 200) {
			fail(fmt.Sprint(resp.Status, resp.Header["Keyward-Error"], err))
		}
	}
}

// provider is every provider, good and bad.
func (m *memoryTest) provider(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/token" {
		m.tokens(w, r)
		return
	}
	auth := r.Header.Get("Authorization") + r.Header.Get("Xi-Api-Key")
	if _, ok := m.valid.Load(auth); !ok {
		m.strangers.Add(1)
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	m.served.Add(1)
	w.Header().Set("Content-Type", "application/json")
	flush := http.NewResponseController(w).Flush
	switch r.Header.Get("Torture") {
	case "upgrade":
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(workLimit))
		_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.CopyN(c, rw, 5)
	case "cut":
		w.Header().Set("Content-Length", "100000")
		_, _ = io.WriteString(w, `{"cut":"`)
		_ = flush()
		panic(http.ErrAbortHandler)
	case "echo":
		plain, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(auth, "Basic "))
		w.Header().Set("X-Echo", auth)
		_, _ = fmt.Fprintf(w, `{"echo":%q,"plain":%q,`, auth, plain)
		_ = flush()
		_, _ = fmt.Fprintf(w, `"again":%q}`, auth)
	case "leave":
		_, _ = io.WriteString(w, `{"wait":"`)
		_ = flush()
		select {
		case <-r.Context().Done():
		case <-time.After(200 * time.Millisecond):
		}
	case "stream":
		_, _ = io.Copy(io.Discard, r.Body)
		for range 5 {
			_, _ = io.WriteString(w, strings.Repeat("part ", 200))
			_ = flush()
		}
	default:
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"sid":"SM1"}`)
	}
}

// tokens is Google's token endpoint, which replaces the refresh token each time.
func (m *memoryTest) tokens(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("refresh_token") == "" || r.FormValue("client_secret") == "" {
		m.strangers.Add(1)
		http.Error(w, `{"error":"invalid_request"}`, http.StatusBadRequest)
		return
	}
	access := m.secret("google, the access token")
	m.valid.Store("Bearer "+access, true)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{
		"access_token": access, "refresh_token": m.secret("google, the replaced refresh token"), "expires_in": 3600, "token_type": "Bearer",
	})
}

// secret makes a new one of 46 characters, some of which are escaped in JSON, in URLs and in neither.
func (m *memoryTest) secret(class string) string {
	s := random(20) + "/&+" + random(20) + "=~%"
	m.find.learn(class, []byte(s))
	return s
}

func random(n int) string { return (rand.Text() + rand.Text())[:n] }
