package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

var testKnown = Known{
	Providers: []string{"twilio", "vapi", "resend", "elevenlabs", "google_calendar"},
	Hosts:     []string{"api.twilio.com", "api.vapi.ai", "www.googleapis.com"},
	OwnHosts:  []string{"oauth2.googleapis.com"},
}

// writeFile makes a file of that text and returns its path.
func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func load(t *testing.T, environ []string, args ...string) *Config {
	t.Helper()
	c, err := loadConfigFrom(args, environ, testKnown)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// refusal is the one line that stops the start.
func refusal(t *testing.T, environ []string, args ...string) string {
	t.Helper()
	_, err := loadConfigFrom(args, environ, testKnown)
	var usage *usageError
	if !errors.As(err, &usage) || usage.ExitCode() != 2 {
		t.Fatalf("%q: got %v, want a usage error", args, err)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %s", err)
	}
	return err.Error()
}

func TestDefaultsAreTheContracts(t *testing.T) {
	c := load(t, nil)
	for name, pair := range map[string][2]any{
		"data-dir":           {c.DataDir, ".keyward"},
		"run-dir":            {c.RunDir, ".keyward"},
		"socket":             {c.Socket, ".keyward/caller.sock"},
		"socket-mode":        {os.FileMode(c.SocketMode), os.FileMode(0o660)},
		"admin-socket":       {c.AdminSocket, ".keyward/admin.sock"},
		"listen":             {c.Listen, "127.0.0.1:7450"},
		"webhook-listen":     {c.WebhookListen, "127.0.0.1:7451"},
		"admin-listen":       {c.AdminListen, "127.0.0.1:7452"},
		"store":              {c.Store.Reveal(), "sqlite:.keyward/keyward.db"},
		"key":                {c.Key, "file:.keyward/keys.json"},
		"cache-size":         {c.CacheSize, 1000},
		"cache-ttl":          {c.CacheTTL, 5 * time.Minute},
		"max-stale":          {c.MaxStale, 15 * time.Minute},
		"max-head":           {int64(c.MaxHead), int64(32768)},
		"max-body":           {int64(c.MaxBody), int64(0)},
		"head-timeout":       {c.HeadTimeout, 10 * time.Second},
		"idle-timeout":       {c.IdleTimeout, 5 * time.Minute},
		"first-byte-timeout": {c.FirstByteTimeout, 60 * time.Second},
		"max-conns":          {c.MaxConns, 4096},
		"drain-timeout":      {c.DrainTimeout, 30 * time.Second},
		"webhook-max-body":   {int64(c.WebhookMaxBody), int64(25 << 20)},
		"webhook-attempts":   {c.WebhookAttempts, 12},
		"webhook-backoff":    {c.WebhookBackoff, time.Second},
		"webhook-backoff-m":  {c.WebhookBackoffMax, 5 * time.Minute},
		"log-level":          {c.LogLevel, "info"},
		"auto-migrate":       {c.AutoMigrate, true},
		"socket group":       {c.SocketGID, -1},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %v, want %v", name, pair[0], pair[1])
		}
	}
	if len(c.Warnings) != 0 || c.isSet("listen") {
		t.Errorf("warnings %q, listen set %v", c.Warnings, c.isSet("listen"))
	}
}

func TestServeAsTyped(t *testing.T) {
	c := load(t, nil, "--data-dir", "D", "--run-dir", "R", "--listen", "127.0.0.1:7450", "--webhook-listen", "127.0.0.1:7451", "--admin-listen", "127.0.0.1:7452",
		"--upstream", "api.twilio.com=http://127.0.0.1:9001", "--upstream", "api.vapi.ai=https://127.0.0.1:9443", "--upstream-ca", "ca.pem",
		"--webhook-target", "http://127.0.0.1:3000/hooks")
	got := fmt.Sprintln(c.Socket, c.AdminSocket, c.Store.Reveal(), c.Key, c.Upstreams["api.twilio.com"], c.Upstreams["api.vapi.ai"], c.UpstreamCA, c.WebhookTarget)
	want := fmt.Sprintln("R/caller.sock", "R/admin.sock", "sqlite:D/keyward.db", "file:D/keys.json", "http://127.0.0.1:9001", "https://127.0.0.1:9443", "ca.pem", "http://127.0.0.1:3000/hooks")
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Flag over environment over file over default, for every kind of flag.
func TestPrecedence(t *testing.T) {
	file := writeFile(t, "k.yaml", "cache_size: 2\ncache_ttl: 2m\nsocket_mode: 0600\nmax_body: 2KiB\nauto_migrate: false\nlog_level: warn\nlisten: \"\"\nupstream: [api.vapi.ai=https://file]\n")
	environ := []string{
		"KEYWARD_CACHE_SIZE=3", "KEYWARD_CACHE_TTL=3m", "KEYWARD_SOCKET_MODE=0666", "KEYWARD_MAX_BODY=3KiB", "KEYWARD_AUTO_MIGRATE=true",
		"KEYWARD_LOG_LEVEL=error", "KEYWARD_LISTEN=127.0.0.1:3", "KEYWARD_UPSTREAM=api.vapi.ai=https://env,api.twilio.com=https://env2",
	}
	args := []string{
		"--cache-size=4", "--cache-ttl=4m", "--socket-mode=0640", "--max-body=4KiB", "--auto-migrate=false",
		"--log-level=debug", "--listen=127.0.0.1:4", "--upstream=api.vapi.ai=https://flag",
	}
	say := func(c *Config) string {
		return fmt.Sprintf("%d %s %o %d %v %s %q %v", c.CacheSize, c.CacheTTL, c.SocketMode, c.MaxBody, c.AutoMigrate, c.LogLevel, c.Listen, c.Upstreams)
	}
	for _, c := range []struct{ got, want string }{
		{say(load(t, nil)), `1000 5m0s 660 0 true info "127.0.0.1:7450" map[]`},
		{say(load(t, nil, "--config", file)), `2 2m0s 600 2048 false warn "" map[api.vapi.ai:https://file]`},
		{say(load(t, []string{"KEYWARD_CONFIG=" + file})), `2 2m0s 600 2048 false warn "" map[api.vapi.ai:https://file]`},
		{say(load(t, environ, "--config", file)), `3 3m0s 666 3072 true error "127.0.0.1:3" map[api.twilio.com:https://env2 api.vapi.ai:https://env]`},
		{say(load(t, environ, append(args, "--config", file)...)), `4 4m0s 640 4096 false debug "127.0.0.1:4" map[api.vapi.ai:https://flag]`},
	} {
		if c.got != c.want {
			t.Errorf("got  %s\nwant %s", c.got, c.want)
		}
	}
}

// Every flag of serve is read from its variable and from its key.
func TestEveryFlagHasVariableAndKey(t *testing.T) {
	values := map[string]string{"bool": "true", "int": "77", "duration": "77s", "size": "77KiB", "mode": "0600", "share": "0.77", "stringArray": "api.vapi.ai=https://77.example"}
	newServeFlags(&Config{}).VisitAll(func(flag *pflag.Flag) {
		value := values[flag.Value.Type()]
		if value == "" {
			value = "x77"
		}
		if flag.DefValue == "true" {
			value = "false"
		}
		changes := func(f *flags) bool {
			now := f.Lookup(flag.Name)
			return f.isSet(flag.Name) && now.Value.String() != now.DefValue
		}
		if flag.Name != "config" {
			f := newServeFlags(&Config{})
			f.environ = nil
			if err := f.parse([]string{"--config", writeFile(t, "k.yaml", keyName(flag.Name)+": "+value)}); err != nil {
				t.Errorf("key: %v", err)
			} else if !changes(f) {
				t.Errorf("%s: in the file does nothing", keyName(flag.Name))
			}
		}
		f := newServeFlags(&Config{})
		f.environ = []string{envName(flag.Name) + "=" + value}
		if err := f.parse(nil); err != nil && flag.Name != "config" {
			t.Errorf("variable: %v", err)
		} else if !changes(f) {
			t.Errorf("%s does nothing", envName(flag.Name))
		}
	})
}

func TestEmptyVariables(t *testing.T) {
	c := load(t, []string{"KEYWARD_LISTEN=", "KEYWARD_STORE=", "KEYWARD_CACHE_TTL=", "KEYWARD_UPSTREAM=", "KEYWARD_DEV=", "KEYWARD_SOCKET_GROUP="})
	if c.Listen != "" {
		t.Error("KEYWARD_LISTEN= does not turn the listener off")
	}
	if c.Store != "sqlite:.keyward/keyward.db" || c.CacheTTL != 5*time.Minute || c.Dev {
		t.Error("an empty variable without a meaning took a default away")
	}
}

func TestUnknownVariablesAreOneWarning(t *testing.T) {
	c := load(t, []string{"KEYWARD_LISEN=secret-value", "PATH=/bin", "KEYWARD_KEK=0123456789abcdef", "KEYWARD_PORT=tcp://10.0.0.1", "KEYWARD_LOG_LEVEL=info", "KEYWARD_log_level=x"},
		"--key", "env:KEYWARD_KEK")
	want := []string{"KEYWARD_LISEN, KEYWARD_PORT, KEYWARD_log_level: no such flag, ignored; see keyward serve --help"}
	if !slices.Equal(c.Warnings, want) {
		t.Errorf("got %q", c.Warnings)
	}
	for _, s := range c.flags.environ {
		if strings.Contains(s, "0123456789abcdef") || strings.Contains(s, "secret-value") || strings.Contains(s, "/bin") {
			t.Errorf("kept for good: %s", s)
		}
	}
}

func TestHelpIsNoError(t *testing.T) {
	f := newServeFlags(&Config{})
	var out bytes.Buffer
	f.out = &out
	if err := f.parse([]string{"--help"}); !errors.Is(err, pflag.ErrHelp) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"keyward serve [flags]", "--cache-ttl TIME", "(default 5m)", "(default RUN_DIR/caller.sock)", "\nExample:\n  keyward serve --dev\n", "KEYWARD_FOO_BAR"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("help lacks %q", want)
		}
	}
	for line := range strings.Lines(out.String()) {
		if len([]rune(line)) > helpWidth+1 {
			t.Errorf("too wide: %s", line)
		}
	}
}

func TestPasswordComesFromElsewhere(t *testing.T) {
	const url = "postgres://keyward:hunter22@db/keyward"
	urlFile := writeFile(t, "url", url+"\n")
	config := writeFile(t, "k.yaml", "store: "+url+"\nmigrate_url: "+url+"\n")
	for _, c := range []*Config{
		load(t, []string{"KEYWARD_STORE=" + url}),
		load(t, nil, "--config", config),
		load(t, nil, "--store-file", urlFile),
		load(t, []string{"KEYWARD_STORE_FILE=" + urlFile}, "--config", config),
		load(t, []string{"KEYWARD_STORE=postgres://elsewhere/x"}, "--store-file", urlFile),
	} {
		if c.Store.Reveal() != url {
			t.Errorf("store is %s", c.Store)
		}
		out, err := json.Marshal(c.Store)
		if printed := fmt.Sprintf("%v %+v %#v %s %q %d", *c, *c, c.Store, c.Store, c.Store, c.Store) + string(out); err != nil || strings.Contains(printed, "hunter22") {
			t.Errorf("the password is printed: %s", printed)
		}
		if got := c.Store.String(); got != "postgres://keyward@db/keyward" {
			t.Errorf("printed as %s", got)
		}
	}
	if c := load(t, []string{"KEYWARD_STORE_FILE=" + urlFile}, "--store", "sqlite:x"); c.Store != "sqlite:x" {
		t.Errorf("the flag does not win over the variable of its twin: %s", c.Store)
	}
	if c := load(t, nil, "--store-file", urlFile, "--migrate-url-file", urlFile); c.MigrateURL != url {
		t.Error("--migrate-url-file does nothing")
	}
}

func TestReadablePasswordIsAWarning(t *testing.T) {
	path := writeFile(t, "k.yaml", "store: postgres://u:hunter22@db/x\n")
	if w := load(t, nil, "--config", path).Warnings; len(w) != 0 {
		t.Errorf("warnings %q", w)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if w := load(t, nil, "--config", path).Warnings; len(w) != 1 || !strings.Contains(w[0], "chmod o=") || strings.Contains(w[0], "hunter22") {
		t.Errorf("warnings %q", w)
	}
}

func TestExampleFile(t *testing.T) {
	c := load(t, nil, "--config", writeFile(t, "k.yaml", exampleFile))
	if len(c.Callers) != 2 || c.Callers[1].Rate != "50/s burst 200" || c.Listeners[0].Upstream != "www.googleapis.com" || c.Webhooks[0].Mode != "durable" || c.CacheSize != 5000 ||
		c.Socket != "/run/keyward/caller.sock" || c.Upstreams["api.twilio.com"].String() != "https://twilio.staging.example" {
		t.Errorf("got %+v", *c)
	}
}

func TestReload(t *testing.T) {
	path := writeFile(t, "k.yaml", "log_level: info\n")
	c := load(t, []string{"KEYWARD_MAX_CONNS=5"}, "--config", path, "--idle-timeout", "7s")
	rewrite := func(text string) (*Config, []string, error) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return c.reload()
	}

	next, restart, err := rewrite(`
log_level: debug
max_body: 1KiB
max_conns: 9
idle_timeout: 9s
upstream: {api.vapi.ai: "https://new"}
cache_size: 9
listen: 127.0.0.1:9
run_dir: elsewhere
listeners: [{address: "127.0.0.1:10"}]
callers: [{name: api, unix: {uid: 5}, orgs: [acme]}]
`)
	if err != nil {
		t.Fatal(err)
	}
	if next.LogLevel != "debug" || next.MaxBody != 1024 || next.Upstreams["api.vapi.ai"].Host != "new" || len(next.Callers) != 1 {
		t.Errorf("not taken over: %+v", *next)
	}
	if next.MaxConns != 5 || next.IdleTimeout != 7*time.Second {
		t.Error("the file won over the environment or the command line")
	}
	if next.CacheSize != 1000 || next.Listen != "127.0.0.1:7450" || next.Socket != ".keyward/caller.sock" || len(next.Listeners) != 0 {
		t.Errorf("changed without a restart: %+v", *next)
	}
	if want := []string{"run_dir", "admin_socket", "socket", "listen", "cache_size", "listeners"}; !slices.Equal(restart, want) {
		t.Errorf("a restart is needed for %q, want %q", restart, want)
	}

	c = next
	if _, _, err := rewrite("log_level: loud\ncallers: [{name: api}]\n"); err == nil || !strings.Contains(err.Error(), "loud") || !strings.Contains(err.Error(), "callers[0].unix") {
		t.Errorf("a bad file: %v", err)
	}
	if c.LogLevel != "debug" || len(c.Callers) != 1 {
		t.Error("a bad file changed something")
	}

	next, restart, err = rewrite("")
	if err != nil || len(restart) != 0 || next.LogLevel != "info" || len(next.Callers) != 0 || len(next.Upstreams) != 0 {
		t.Errorf("back to an empty file: %v, restart for %q, %+v", err, restart, *next)
	}
}

func TestReloadKeepsWhatDevAdded(t *testing.T) {
	c := load(t, nil, "--dev")
	c.Upstreams["api.twilio.com"] = mustURL(t, "http://127.0.0.1:1")
	c.DataDir = "/elsewhere"
	c.resolve()
	for range 2 {
		next, restart, err := c.reload()
		if err != nil || len(restart) != 0 || next.Upstreams["api.twilio.com"] == nil || next.Store != "sqlite:/elsewhere/keyward.db" {
			t.Fatalf("%v, restart for %q, %v, %s", err, restart, next.Upstreams, next.Store)
		}
		c = next
	}
}

func TestDefaultRulesAreTheOwnUser(t *testing.T) {
	rules, err := load(t, nil).compileRules(testKnown, nil)
	if err != nil || len(rules.All()) != 1 || rules.All()[0].Name() != "self" {
		t.Errorf("got %v, %v", rules, err)
	}
}
