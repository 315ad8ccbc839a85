package main

import (
	"errors"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/provider"
)

//go:generate go test -run "^(TestFlagReference|TestMetricsReference)$" . -update-reference

// A Config is what serve runs with. The fields' tags are the flags: names, defaults, help and the reference in the docs all come from
// them. After loadConfig every field has its final value, but with --dev, which chooses folders of its own and calls resolve again.
type Config struct {
	Config     string `flag:"config" arg:"FILE" default:"" section:"Files and folders" help:"YAML file with any of these settings, and with callers:, listeners:, providers: and webhooks:"`
	ConfigTest bool   `flag:"config-test" help:"check the configuration, say what is wrong with it and end"`
	Dev        bool   `flag:"dev" help:"everything a first try needs: throw-away store and key, built-in stand-ins for all providers, org demo; prints commands to paste"`
	connection
	storage

	Socket      string `flag:"socket" arg:"PATH" default:"RUN_DIR/caller.sock" empty:"off" section:"Callers" help:"unix socket where callers connect; empty: off"`
	SocketMode  mode   `flag:"socket-mode" arg:"MODE" default:"0660" help:"its file mode"`
	SocketGroup string `flag:"socket-group" arg:"GROUP" default:"" help:"its group, by name or number; empty: the sidecar's own"`
	Listen      string `flag:"listen" arg:"HOST:PORT" default:"127.0.0.1:7450" empty:"off" help:"where callers connect over TCP, with a token; loopback only; empty: off"`
	AllowRemote bool   `flag:"allow-remote" help:"allow addresses that other machines can reach"`
	AdminListen string `flag:"admin-listen" arg:"HOST:PORT" default:"127.0.0.1:7452" empty:"off" help:"admin API, console, /healthz, /readyz and /metrics over TCP; empty: off"`

	CacheSize int           `flag:"cache-size" arg:"N" default:"1000" section:"Cache" help:"how many credentials are kept, sealed"`
	CacheTTL  time.Duration `flag:"cache-ttl" arg:"TIME" default:"5m" help:"the longest that one is served unrefreshed"`
	MaxStale  time.Duration `flag:"max-stale" arg:"TIME" default:"15m" help:"the longest that one is served while the store cannot be reached"`
	StrictOrg []string      `flag:"strict-org" arg:"ORG" reload:"yes" help:"an org that fails closed: its credentials are not used while the store cannot be reached; repeatable"`
	LastGood  string        `flag:"last-known-good" arg:"FILE" default:"" help:"keep all rows in this file too, sealed: with it a start while PostgreSQL is away serves, and orgs that are not in the cache; for --max-stale"`

	Upstream          []string `flag:"upstream" arg:"HOST=URL" section:"Upstreams" reload:"yes" help:"send what is meant for a provider's host elsewhere (staging, a stand-in); repeatable; plain http only to loopback"`
	UpstreamCA        string   `flag:"upstream-ca" arg:"FILE" default:"" help:"PEM certificates trusted for upstreams in addition to the system's"`
	IsolateUpstreams  bool     `flag:"isolate-upstreams" help:"connections to providers are never shared between orgs"`
	Intercept         bool     `flag:"intercept" help:"answer CONNECT to the providers' hosts with TLS interception, for apps that know a proxy and no base URL; keyward ca env prints what they need"`
	InterceptPassthru []string `flag:"intercept-passthrough" arg:"HOST" help:"with --intercept: let CONNECT to this host through untouched, as files.example, files.example:8443 or *.example; repeatable; addresses that are not on the public internet are never dialled"`

	MaxHead          size          `flag:"max-head" arg:"SIZE" default:"32KiB" section:"Limits" help:"the longest head of a request"`
	MaxBody          size          `flag:"max-body" arg:"SIZE" default:"0" reload:"yes" help:"the longest body of a request; 0: no limit"`
	HeadTimeout      time.Duration `flag:"head-timeout" arg:"TIME" default:"10s" help:"the longest that a caller may take for a request's head"`
	IdleTimeout      time.Duration `flag:"idle-timeout" arg:"TIME" default:"5m" reload:"yes" help:"the longest that a connection or a stream may stand still"`
	FirstByteTimeout time.Duration `flag:"first-byte-timeout" arg:"TIME" default:"60s" reload:"yes" help:"the longest that a provider may take to begin its answer"`
	MaxConns         int           `flag:"max-conns" arg:"N" default:"4096" reload:"yes" help:"connections per listener"`

	WebhookListen     string        `flag:"webhook-listen" arg:"HOST:PORT" default:"127.0.0.1:7451" empty:"off" section:"Webhooks" help:"inbound provider webhooks; empty: off"`
	PublicURL         string        `flag:"public-url" arg:"URL" default:"" help:"the webhook listener as providers see it"`
	WebhookTarget     string        `flag:"webhook-target" arg:"TARGET" default:"" help:"where verified webhooks go: http://127.0.0.1:3000/path or unix:/run/app.sock:/path"`
	WebhookMaxBody    size          `flag:"webhook-max-body" arg:"SIZE" default:"25MiB" help:"the longest body of a webhook"`
	WebhookRedact     bool          `flag:"webhook-redact" help:"overwrite the tenant's secrets in webhook bodies (Vapi: twilioAuthToken and the like) with * before they are stored and forwarded"`
	WebhookAttempts   int           `flag:"webhook-attempts" arg:"N" default:"12" help:"deliveries to the app that are tried before one is kept as dead"`
	WebhookBackoff    time.Duration `flag:"webhook-backoff" arg:"TIME" default:"1s" help:"delay before the second attempt; it doubles from then on"`
	WebhookBackoffMax time.Duration `flag:"webhook-backoff-max" arg:"TIME" default:"5m" help:"the longest delay between attempts"`

	VerifyEvery time.Duration `flag:"verify-every" arg:"TIME" default:"24h" section:"Integrations" help:"how often the providers are asked whether they still honour the active credentials; 0s: never unasked, but when they refuse one"`

	GoogleClientID         string     `flag:"google-client-id" arg:"ID" default:"" help:"OAuth client that orgs' consents are asked for with; empty: orgs bring their own"`
	GoogleClientSecret     secretText `flag:"google-client-secret" arg:"SECRET" default:"" help:"its secret; never on the command line"`
	GoogleClientSecretFile string     `flag:"google-client-secret-file" arg:"FILE" default:"" help:"file that holds it"`
	GoogleRedirectURL      string     `flag:"google-redirect-url" arg:"URL" default:"" shown:"http://ADMIN_LISTEN/api/oauth/google/callback" help:"where Google sends browsers back to, as registered with the OAuth client; it must reach that path of the admin API"`
	GoogleReturnURL        string     `flag:"google-return-url" arg:"URL" default:"" help:"page of the app that browsers are sent to when a consent is finished, with outcome, org and provider; empty: they are told in words"`

	LogLevel     string        `flag:"log-level" arg:"LEVEL" default:"info" section:"Running" reload:"yes" help:"trace, debug, info, warn or error"`
	LogFormat    string        `flag:"log-format" arg:"FORMAT" default:"" shown:"json; console on a terminal" help:"json or console"`
	OTLPEndpoint string        `flag:"otlp-endpoint" arg:"URL" default:"" help:"OpenTelemetry collector that traces and metrics are sent to, over OTLP/HTTP, as http://127.0.0.1:4318; plain http only to loopback, or with --allow-remote; empty: nothing is sent"`
	TraceRatio   share         `flag:"trace-ratio" arg:"SHARE" default:"0.01" help:"with --otlp-endpoint: the share of requests and webhooks that are traced, from 0 to 1; who sends a traceparent header decides for himself"`
	Debug        bool          `flag:"debug" help:"profiles under /debug/pprof on the admin socket"`
	CPUProfile   string        `flag:"cpuprofile" arg:"FILE" default:"" help:"write a CPU profile of the whole run to this file"`
	DrainTimeout time.Duration `flag:"drain-timeout" arg:"TIME" default:"30s" help:"on SIGTERM: the longest that requests in flight may take to finish"`
	MinDrain     time.Duration `flag:"min-drain" arg:"TIME" default:"0s" help:"on SIGTERM: keep accepting for so long before the drain"`

	fileSections // what stands in the file alone

	// Upstreams is Upstream, read: host to the URL that it is sent to.
	Upstreams map[string]*url.URL
	// Warnings are what is worth a line in the log at start.
	Warnings []string

	// SocketGID is SocketGroup's number; -1: none.
	SocketGID int

	custom provider.Set // providers:, made
	flags  *flags
	again  func() (*Config, error) // reads all sources anew
	loaded *Config                 // as the sources said, before --dev changed anything
}

// A storage is where the store and its keys are: bound by serve and by the commands that work on the store itself.
type storage struct {
	DataDir        string    `flag:"data-dir" arg:"DIR" default:".keyward" section:"Store and keys" help:"embedded store and generated key, made with mode 0700"`
	Store          secretURL `flag:"store" arg:"URL" default:"sqlite:DATA_DIR/keyward.db" help:"sqlite:PATH or postgres://…; a password never on the command line"`
	StoreFile      string    `flag:"store-file" arg:"FILE" default:"" help:"file that holds the URL of --store"`
	Key            string    `flag:"key" arg:"SOURCE" default:"file:DATA_DIR/keys.json" help:"key source: file:PATH, env:NAME, awskms://…, gcpkms://… or hcvault://…; a missing file is generated for SQLite only"`
	AutoMigrate    bool      `flag:"auto-migrate" default:"true" help:"bring the store's schema up to date at start; false: refuse an old one"`
	MigrateURL     secretURL `flag:"migrate-url" arg:"URL" default:"" help:"postgres://… for schema changes, where they need another role or a direct address"`
	MigrateURLFile string    `flag:"migrate-url-file" arg:"FILE" default:"" help:"file that holds the URL of --migrate-url"`
}

// Known is what the configuration is checked against: what the providers are.
type Known struct {
	Providers []string
	Hosts     []string // that callers reach
	OwnHosts  []string // that Keyward itself calls besides
}

const serveExample = `
keyward serve --dev
keyward serve --data-dir /var/lib/keyward --run-dir /run/keyward --config /etc/keyward.yaml
KEYWARD_STORE=postgres://keyward:…@db/keyward keyward serve --key env:KEYWARD_KEY --listen ''
`

func newServeFlags(c *Config) *flags {
	f := newFlags("serve", "runs the sidecar", serveExample)
	f.bind(c)
	return f
}

// loadConfig reads command line, environment and file, and checks everything. The error is a *usageError, or pflag.ErrHelp when
// --help was printed.
func loadConfig(args []string, k Known) (*Config, error) {
	return loadConfigFrom(args, os.Environ(), k)
}

func loadConfigFrom(args, environ []string, k Known) (*Config, error) {
	c := &Config{}
	c.flags = newServeFlags(c)
	c.flags.environ = environ
	c.again = func() (*Config, error) { return loadConfigFrom(args, c.flags.environ, k) } // as parse has reduced it
	if err := c.load(args, k); err != nil {
		return nil, err
	}
	return c, nil
}

// load reads all sources by c.flags, which c's fields are bound to, and checks everything.
func (c *Config) load(args []string, k Known) error {
	var p problems
	err := c.flags.parse(args)
	if errors.Is(err, pflag.ErrHelp) || err != nil && !c.flags.complete {
		return err
	}
	p.add(err)
	if c.flags.file != nil {
		c.fileSections = c.flags.file.fileSections
	}
	c.storage.readFiles(c.flags, &p)
	c.flags.readTwin(&p, "google-client-secret", func(text string) { c.GoogleClientSecret = secretText(text) })
	c.resolve()
	c.makeProviders(&p)
	c.validate(k.with(c.custom), &p)
	if err := p.err(); err != nil {
		return err
	}
	c.warn()
	loaded := *c
	loaded.Upstreams = maps.Clone(c.Upstreams)
	c.loaded = &loaded
	return nil
}

// isSet says whether the flag was given, on the command line, in the environment or in the file.
func (c *Config) isSet(flag string) bool { return c.flags.isSet(flag) }

// resolve fills DataDir and RunDir into the defaults that contain them. It may be called again after they have changed.
func (c *Config) resolve() {
	c.storage.resolve(c.flags)
	for name, field := range map[string]*string{"socket": &c.Socket, "admin-socket": &c.AdminSocket} {
		if !c.isSet(name) {
			*field = fill(c.flags.defaults[name], "RUN_DIR", c.RunDir)
		}
	}
}

func (s *storage) resolve(f *flags) {
	if !f.isSet("store") && !f.isSet("store-file") {
		s.Store = secretURL(fill(f.defaults["store"], "DATA_DIR", s.DataDir))
	}
	if !f.isSet("key") {
		s.Key = fill(f.defaults["key"], "DATA_DIR", s.DataDir)
	}
}

// readFiles reads the *-file twins of what is a storage's.
func (s *storage) readFiles(f *flags, p *problems) {
	f.readTwin(p, "store", func(text string) { s.Store = secretURL(text) })
	f.readTwin(p, "migrate-url", func(text string) { s.MigrateURL = secretURL(text) })
}

// readTwin reads the file that a flag's *-file twin names. Of a flag and its twin the nearer source wins, as everywhere; both from the same
// is a mistake.
func (f *flags) readTwin(p *problems, name string, set func(text string)) {
	twin := name + "-file"
	path := f.Lookup(twin).Value.String()
	switch {
	case path == "" || f.from[name].source > f.from[twin].source:
	case f.from[name].source == f.from[twin].source:
		p.addf("%s and %s: give one of them", f.at(name), f.at(twin))
	default:
		b, err := os.ReadFile(path)
		if err != nil {
			p.addf("%s: %s", f.at(twin), plainError(err))
			return
		}
		set(strings.TrimSpace(string(b)))
		f.from[name] = origin{fromFile, f.at(twin)} // and so it may hold a password
	}
}

// warn notes what is no mistake and yet hardly meant.
func (c *Config) warn() {
	strangers := slices.DeleteFunc(c.flags.strangers(), func(name string) bool { return c.Key == "env:"+name })
	if len(strangers) > 0 {
		c.Warnings = append(c.Warnings, strings.Join(strangers, ", ")+": no such flag, ignored; see keyward serve --help")
	}
	path := c.StoreFile
	if path == "" && c.flags.from["store"].source == fromFile {
		path = c.Config
	}
	if path == "" || !c.Store.hasPassword() {
		return
	}
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o007 != 0 {
		c.Warnings = append(c.Warnings, "every user of this machine may read "+path+", which holds the store's password; chmod o= "+path)
	}
}

// reload reads the file anew, for SIGHUP. The result is this configuration with what may change while it runs (callers, limits,
// upstreams, log level), and the names of what has changed besides and needs a restart. With an error nothing has changed.
func (c *Config) reload() (next *Config, restart []string, err error) {
	fresh, err := c.again()
	if err != nil {
		return nil, nil, err
	}
	merged, loaded := *c, *c.loaded
	merged.Upstreams, merged.Warnings = maps.Clone(fresh.Upstreams), fresh.Warnings
	for host, u := range c.Upstreams {
		if c.loaded.Upstreams[host] == nil && merged.Upstreams[host] == nil {
			merged.Upstreams[host] = u // one of ours (--dev), no source ever named it
		}
	}
	loaded.Upstreams = fresh.Upstreams
	merged.loaded = &loaded
	merge(reflect.ValueOf(&merged).Elem(), reflect.ValueOf(c.loaded).Elem(), reflect.ValueOf(fresh).Elem(), &restart)
	return &merged, restart, nil
}

// merge copies the fields that a reload may change, and names the others that differ from what was loaded at start.
func merge(to, loaded, fresh reflect.Value, restart *[]string) {
	for i := range to.NumField() {
		field := to.Type().Field(i)
		name, key := field.Tag.Get("flag"), field.Tag.Get("yaml")
		switch {
		case field.Anonymous && field.Type.Kind() == reflect.Struct:
			merge(to.Field(i), loaded.Field(i), fresh.Field(i), restart)
		case name == "" && key == "":
		case field.Tag.Get("reload") == "yes":
			to.Field(i).Set(fresh.Field(i))
		case !reflect.DeepEqual(loaded.Field(i).Interface(), fresh.Field(i).Interface()):
			*restart = append(*restart, keyName(name)+key)
		}
	}
}

// compileRules compiles callers:, or the default when there are none: the sidecar's own uid. Prev are the rules until now, or nil.
func (c *Config) compileRules(k Known, prev *caller.Rules) (*caller.Rules, error) {
	if len(c.Callers) == 0 {
		rules := caller.SelfOnly(uint32(os.Geteuid()))
		rules.Keep(prev)
		return rules, nil
	}
	return caller.Compile(c.Callers, k.Providers, prev)
}

// plainError is an error of the file system without the path, which the message names already.
func plainError(err error) error {
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}

var _ pflag.Value = (*secretURL)(nil)
