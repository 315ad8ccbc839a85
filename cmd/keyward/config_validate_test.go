package main

import (
	"net/url"
	"path/filepath"
	"strings"
	"testing"
)

func mustURL(t *testing.T, s string) *url.URL {
	t.Helper()
	u, err := url.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestBadFlagsAreNamedWithTheirFix(t *testing.T) {
	long := strings.Repeat("x", 100)
	for _, c := range []struct{ args, want string }{
		{"--lisen x", "--lisen: unknown flag; did you mean --listen?"},
		{"--frobnicate", "--frobnicate: unknown flag; see keyward serve --help"},
		{"-x", "-x: unknown flag; see"},
		{"--cache-ttl", "--cache-ttl: needs a value: a duration"},
		{"serve-me", "takes 0 arguments beside its flags, not 1"},
		{"--cache-ttl 5", `--cache-ttl "5": must be a duration, as 500ms, 30s, 5m or 1h30m`},
		{"--cache-size many", `--cache-size "many": must be a whole number`},
		{"--cache-size 0", "--cache-size 0: must be at least 1"},
		{"--max-conns -1", "--max-conns -1: must be at least 1"},
		{"--webhook-attempts 0", "--webhook-attempts 0: must be at least 1"},
		{"--max-body 5x", `--max-body "5x": must be a size in bytes`},
		{"--max-head 10", "--max-head 10: must be from 1KiB to 1MiB"},
		{"--max-head 2MiB", "--max-head 2MiB: must be from 1KiB to 1MiB"},
		{"--head-timeout 0s", "--head-timeout 0s: must be more than 0s"},
		{"--idle-timeout -1s", "--idle-timeout -1s: must be more than 0s"},
		{"--max-stale -1s", "--max-stale -1s: must be more than 0s"},
		{"--min-drain 1m", "--min-drain 1m0s: must not be longer than --drain-timeout, 30s"},
		{"--webhook-backoff 10m", "must not be shorter than --webhook-backoff, 10m0s"},
		{"--auto-migrate=perhaps", `--auto-migrate "perhaps": must be true or false`},
		{"--socket-mode rw", `--socket-mode "rw": must be an octal file mode`},
		{"--socket-mode 1777", `--socket-mode "1777": must be an octal file mode`},
		{"--socket-group no-such-group", `--socket-group "no-such-group": no such group`},
		{"--log-level loud", `--log-level "loud": must be one of trace, debug, info, warn, error`},
		{"--log-format xml", `--log-format "xml": must be one of json, console`},
		{"--socket /" + long + long, "has 201 bytes, and a socket's may have 107"},
		{"--run-dir /" + long, "--run-dir: the path of the socket, /" + long + "/caller.sock, has 113 bytes"},
		{"--socket @abstract", "abstract socket"},
		{"--socket s --admin-socket s", "--socket and --admin-socket: callers and the admin API need a socket each"},
		{"--admin-socket=", "--admin-socket: must not be empty; leave it out for the default RUN_DIR/admin.sock"},
		{"--socket= --listen=", "--socket and --listen: both are off"},
		{"--listen 7450", `--listen "7450": must be an address and a port`},
		{"--listen 127.0.0.1:70000", "must be an address and a port from 0 to 65535"},
		{"--listen 0.0.0.0:7450", "other machines can reach it; use 127.0.0.1, or add --allow-remote"},
		{"--listen :7450", "other machines can reach it"},
		{"--listen app.example:7450", "other machines can reach it"},
		{"--webhook-listen [::]:7451", "other machines can reach it"},
		{"--admin-listen 10.0.0.1:7452", "other machines can reach it"},
		{"--admin-listen 127.0.0.1:7450", `--admin-listen "127.0.0.1:7450": is the address of --listen too`},
		{"--upstream api.twillio.com=https://x", `--upstream "api.twillio.com": no host that Keyward calls; did you mean api.twilio.com?`},
		{"--upstream api.vapi.ai", "--upstream api.vapi.ai: must be a URL"},
		{"--upstream api.vapi.ai=ftp://x", "must be a URL"},
		{"--upstream api.vapi.ai=https://", "must be a URL"},
		{"--upstream api.vapi.ai=http://10.0.0.1", "plain http would show credentials to the network"},
		{"--upstream api.vapi.ai=http://localhost.example", "plain http would show credentials to the network"},
		{"--upstream api.vapi.ai=https://x/v1", "must end after its host and port"},
		{"--upstream api.vapi.ai=https://x?", "must end after its host and port"},
		{"--upstream api.vapi.ai=https://x:0", "port must be from 1 to 65535"},
		{"--upstream api.vapi.ai=https://x --upstream api.vapi.ai=https://y", "is given twice"},
		{"--store mysql://x", "--store: must be sqlite:PATH or postgres://…"},
		{"--store sqlite:", "--store: after sqlite: comes a path"},
		{"--store=", "--store: must not be empty; leave it out for the default sqlite:DATA_DIR/keyward.db"},
		{"--store postgres:db", "--store: must be a URL"},
		{"--migrate-url sqlite:x", "--migrate-url: must be postgres://…"},
		{"--key env:", "after env: comes the name of a variable"},
		{"--key env:A-B", "after env: comes the name of a variable"},
		{"--key file:", "after file: comes a path"},
		{"--key awskms://arn", "--key: awskms://: then comes the key's ARN"},
		{"--key gcpkms://x", "--key: gcpkms://: then comes the key's name"},
		{"--key hcvault://x", "--key: hcvault://: then come the server, the engine and the key"},
		{"--key awskms://alias/k?regoin=x", "regoin: unknown option"},
		{"--store-file /no/such", "--store-file: no such file or directory"},
		{"--store sqlite:x --store-file /y", "--store and --store-file: give one of them"},
		{"--config /no/such.yaml", `--config "/no/such.yaml": no such file or directory`},
		{"--intercept-passthrough files.example", "--intercept-passthrough: is nothing without --intercept"},
		{"--intercept --intercept-passthrough api.twilio.com", "is a provider's host, which is intercepted"},
		{"--intercept --intercept-passthrough 10.0.0.1", "must be a name, as files.example"},
		{"--intercept --intercept-passthrough *", "must be a name, as files.example"},
		{"--intercept --intercept-passthrough *.com", "must be a name, as files.example"},
		{"--intercept --intercept-passthrough *.twilio.com", "*.twilio.com\": takes in api.twilio.com, a provider's host"},
		{"--intercept --intercept-passthrough files.example:0", "must be a name, as files.example"},
		{"--intercept --intercept-passthrough https://files.example/", "must be a name, as files.example"},
		{"--otlp-endpoint http://x", "--otlp-endpoint: plain http would show orgs and paths to the network"},
		{"--otlp-endpoint collector:4318", "--otlp-endpoint: must be a URL"},
		{"--otlp-endpoint https://u:hunter2@x", "--otlp-endpoint: the URL must not hold a user or password"},
		{"--otlp-endpoint https://x/?a=b", "--otlp-endpoint: the URL must not have a query"},
		{"--trace-ratio 0.5", "--trace-ratio: is nothing without --otlp-endpoint"},
		{"--trace-ratio 1.5", "must be a share from 0 to 1"},
		{"--webhook-target 127.0.0.1:3000", "--webhook-target: must be a URL"},
		{"--webhook-target unix:app.sock:/x", "--webhook-target: must be unix:/SOCKET:/PATH"},
		{"--webhook-target unix:/app.sock", "--webhook-target: must be unix:/SOCKET:/PATH"},
		{"--public-url hooks.example", "--public-url: must be a URL"},
	} {
		if got := refusal(t, nil, strings.Fields(c.args)...); !strings.Contains(got, c.want) {
			t.Errorf("%s\ngot  %s\nwant %s", c.args, got, c.want)
		}
	}
}

func TestGoodFlags(t *testing.T) {
	for _, args := range []string{
		"--listen [::1]:7450", "--listen localhost:0 --admin-listen localhost:0", "--listen 0.0.0.0:7450 --allow-remote", "--listen= --webhook-listen= --admin-listen=",
		"--upstream API.vapi.ai=http://localhost:1", "--upstream oauth2.googleapis.com=http://[::1]:1/", "--max-stale 0s --drain-timeout 0s", "--socket= ",
		"--store postgres://keyward@db/keyward", "--store postgresql:///keyward?host=/run/postgresql", "--key env:MY_KEY", "--intercept=false --debug=false", "--debug --cpuprofile /tmp/cpu.prof",
		"--webhook-target unix:/run/app.sock:/hooks --public-url https://hooks.example/base --webhook-backoff 2s", "--socket-group 0", "--max-head 16384", "--max-body 1g",
		"--min-drain 30s",
	} {
		load(t, nil, strings.Fields(args)...)
	}
}

func TestSecretsOnTheCommandLineAreRefusedUnquoted(t *testing.T) {
	for _, args := range []string{
		"--store postgres://keyward:hunter22@db/keyward",
		"--store=postgres://db/keyward?password=hunter22",
		"--store postgresql://db/keyward?sslpassword=hunter22",
		"--migrate-url postgres://keyward:hunter22@db/keyward",
		"--store postgres://keyward:hunter22%@db/keyward",
		"--store hunter22",
		"--key hunter22",
		"--key base64:hunter22",
		"--upstream api.vapi.ai=https://u:hunter22@staging.example",
		"--upstream api.vapi.ai=https://u:hunter22%@staging.example",
		"--webhook-target http://u:hunter22@127.0.0.1",
		"--public-url https://u:hunter22@hooks.example",
		"hunter22",
	} {
		if got := refusal(t, nil, strings.Fields(args)...); strings.Contains(got, "hunter22") {
			t.Errorf("quoted: %s", got)
		}
	}
	for _, name := range []string{"store", "migrate-url"} {
		got := refusal(t, nil, "--"+name, "postgres://keyward:hunter22@db/keyward")
		for _, want := range []string{"--" + name + ": every user", envName(name), "--" + name + "-file", "PGPASSWORD"} {
			if !strings.Contains(got, want) {
				t.Errorf("%s lacks the fix %q", got, want)
			}
		}
	}
}

func TestEveryProblemIsReportedAtOnce(t *testing.T) {
	path := writeFile(t, "k.yaml", "cache_size: none\nlissten: x\nlog_level: loud\ncallers: [{name: api}]\n")
	got := refusal(t, []string{"KEYWARD_MAX_STALE=x"}, "--config", path, "--cache-ttl", "5x", "--listen", "0.0.0.0:1")
	for _, want := range []string{"--cache-ttl", "KEYWARD_MAX_STALE", "k.yaml:1: cache_size", "lissten", `log_level "loud"`, "callers[0].unix", "callers[0].orgs", `--listen "0.0.0.0:1"`} {
		if !strings.Contains(got, want) {
			t.Errorf("lacks %s: %s", want, got)
		}
	}
}

func TestBadFilesAreNamedByLine(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"a: b\nb: c: d", "k.yaml:2: mapping values are not allowed"},
		{"- a", "k.yaml:1: a list must be keys with values"},
		{"\nlissten: x", `k.yaml:2: lissten: unknown key; did you mean listen?`},
		{"wholly_unlike: x", "k.yaml:1: wholly_unlike: unknown key; see keyward serve --help"},
		{"cache-ttl: 5m", "k.yaml:1: cache-ttl: unknown key; write cache_ttl"},
		{"config: other.yaml", "k.yaml:1: config: a file cannot name another"},
		{"cache_ttl: 300", `k.yaml:1: cache_ttl "300": must be a duration`},
		{"cache_ttl:", "k.yaml:1: cache_ttl: must be a duration, as 500ms, 30s, 5m or 1h30m; leave the key out"},
		{"listen: [a, b]", "k.yaml:1: listen: must be HOST:PORT; leave"},
		{"upstream: [[a]]", "k.yaml:1: upstream: must be HOST=URL, or a list of such"},
		{"listen: 0.0.0.0:1", `k.yaml:1: listen "0.0.0.0:1": other machines can reach it`},
		{"listen: 127.0.0.1:1\nlisten: 127.0.0.1:2", "already defined"},
		{"log_level: info\n---\nlog_level: debug", "second document"},
		{"callers:\n  - name: a\n    organisations: [x]", "k.yaml:3: organisations: unknown key; there are name, unix, orgs"},
		{"callers:\n  - name: a\n    org: [x]", "k.yaml:3: org: unknown key; did you mean orgs?"},
		{"callers:\n  - uid: 5", "k.yaml:2: uid: unknown key; there are name, unix, orgs"},
		{"callers:\n  - unix: {usr: app}", "k.yaml:2: usr: unknown key; did you mean user?"},
		{"callers:\n  - unix: {uid: app}", `k.yaml:2: "app" must be a whole number`},
		{"callers:\n  - unix: {uid: -1}", `k.yaml:2: "-1" must be a whole number`},
		{"callers:\n  - orgs: acme", `k.yaml:2: "acme" must be a list of texts`},
		{"callers:\n  - orgs: [*]", `write "*" in quotes`},
		{"callers:\n  - secret_routes: maybe", `k.yaml:2: "maybe" must be true or false`},
		{"callers: {name: a}", "k.yaml:1: keys with values must be a list, each item beginning with -"},
		{"callers: [api]", `k.yaml:1: "api" must be keys with values`},
		{"callers: [{name: a, unix: {uid: 5}, orgs: [acme], providers: [twillio]}]", `k.yaml: callers[0].providers[0]: "twillio" is none of twilio, vapi`},
		{"listeners: [{address: \"0.0.0.0:1\"}]", `k.yaml: listeners[0].address "0.0.0.0:1": other machines can reach it`},
		{"listeners: [{upstream: api.vapi.ai}]", `k.yaml: listeners[0].address "": must be an address and a port`},
		{"listeners: [{address: \"127.0.0.1:1\", upstream: api.vapi.io}]", `listeners[0].upstream "api.vapi.io": no provider's host; did you mean api.vapi.ai?`},
		{"listeners: [{address: \"127.0.0.1:1\", upstream: oauth2.googleapis.com}]", `no provider's host`},
		{"listeners: [{address: \"127.0.0.1:1\", org: a/b}]", `listeners[0].org "a/b": is no org id`},
		{"listeners: [{address: \"127.0.0.1:7450\"}]", "is the address of --listen too"},
		{"listeners: [{addrss: \"127.0.0.1:1\"}]", "k.yaml:1: addrss: unknown key; did you mean address?"},
		{"webhooks: [{target: x}]", "k.yaml: webhooks[0].target: must be a URL"},
		{"webhooks: [{}]", "k.yaml: webhooks[0].target: must be a URL"},
		{"webhooks: [{provider: twillio, target: \"http://127.0.0.1\"}]", `webhooks[0].provider "twillio": must be one of twilio`},
		{"webhooks: [{mode: later, target: \"http://127.0.0.1\"}]", `webhooks[0].mode "later": must be durable or sync`},
	} {
		path := writeFile(t, "k.yaml", c.text)
		got := strings.ReplaceAll(refusal(t, nil, "--config", path), filepath.Dir(path)+"/", "")
		if !strings.Contains(got, c.want) {
			t.Errorf("%s\ngot  %s\nwant %s", c.text, got, c.want)
		}
	}
}

func TestMissingFileIsNamedByItsSource(t *testing.T) {
	if got, want := refusal(t, []string{"KEYWARD_CONFIG=/no/such"}), `KEYWARD_CONFIG "/no/such": no such file or directory`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestFileMayBeEmpty(t *testing.T) {
	for _, text := range []string{"", "# nothing yet\n", "callers:\n", "callers: []\n"} {
		load(t, nil, "--config", writeFile(t, "k.yaml", text))
	}
}

// A command that works on the store reads the same file as serve.
func TestStorageOfOtherCommands(t *testing.T) {
	type config struct {
		Config string `flag:"config" arg:"FILE" help:"the file of serve"`
		storage
	}
	read := func(args ...string) (*config, error) {
		c := &config{}
		f := newFlags("migrate", "brings the schema up to date", "")
		f.environ = nil
		f.bind(c)
		if err := f.parse(args); err != nil {
			return nil, err
		}
		return c, c.load(f)
	}
	c, err := read("--config", writeFile(t, "k.yaml", "data_dir: D\nlisten: 127.0.0.1:1\ncallers: []\n"))
	if err != nil || c.Store != "sqlite:D/keyward.db" || c.Key != "file:D/keys.json" {
		t.Errorf("got %+v, %v", c, err)
	}
	if _, err := read("--config", writeFile(t, "k.yaml", "lissten: x\n")); err == nil {
		t.Error("an unknown key is accepted")
	}
	if _, err := read("--store", "postgres://u:hunter22@db/x"); err == nil || strings.Contains(err.Error(), "hunter22") {
		t.Errorf("a password on the command line: %v", err)
	}
}

func TestOperands(t *testing.T) {
	for _, c := range []struct {
		args, operands, want string
	}{
		{"", "", ""},
		{"asst_1 --run-dir R", "ASSISTANT_ID", ""},
		{"--run-dir R asst_1", "ASSISTANT_ID", ""},
		{"", "ASSISTANT_ID", "missing ASSISTANT_ID; see keyward test --help"},
		{"a b", "ASSISTANT_ID", "takes 1 arguments"},
		{"", "[WHAT]", ""},
		{"up", "[WHAT]", ""},
	} {
		f := newFlags("test", "tests", "")
		f.environ = []string{"KEYWARD_LISTEN=x", "KEYWARD_RUN_DIR=E"}
		var conn connection
		f.bind(&conn)
		err := f.parse(strings.Fields(c.args), strings.Fields(c.operands)...)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q for %q: %v", c.args, c.operands, err)
		}
		if want := map[bool]string{true: "R/admin.sock", false: "E/admin.sock"}[strings.Contains(c.args, "--run-dir")]; conn.socket() != want {
			t.Errorf("admin socket %s, want %s", conn.socket(), want)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]size{"0": 0, "32768": 32768, "32KiB": 32768, "32 KiB": 32768, "25MiB": 25 << 20, "1GiB": 1 << 30, "8k": 8192, "5M": 5 << 20, "1kB": 1000, "7b": 7} {
		var s size
		if err := s.Set(text); err != nil || s != want {
			t.Errorf("%s: %d, %v", text, s, err)
		}
		var again size
		if err := again.Set(s.String()); err != nil || again != s {
			t.Errorf("%s does not read back", &s)
		}
	}
	for _, text := range []string{"", "k", "-1", "1.5MiB", "1TiB", "9999999999GiB", "99999999999999999999", "1 2"} {
		if err := new(size).Set(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}
