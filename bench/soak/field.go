package soak

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyward/keyward/bench/provider"
	"github.com/keyward/keyward/bench/scenario"
	"github.com/keyward/keyward/internal/freeport"
	"github.com/keyward/keyward/internal/pgtest"
)

const (
	onPostgres = "postgres" // how the names of the sidecars begin that share a PostgreSQL
	onSQLite   = "sqlite"
	database   = "soak"
)

// A field is everything that runs.
type field struct {
	provider *provider.Process
	app      *app
	db       *pgtest.Server // nil: none can be started here
	nodes    []*node
	judge    *judge
	faults   []fault
	watched  watched
	orgs     int
	left     []string // what could not be had, and why
	stops    []func() error

	firstFault, lastFault time.Time
	rotors                []*rotor
	inFlight, held        atomic.Int64
	next                  atomic.Int64 // number of the call
	busy                  sync.WaitGroup
	unasked               unasked
	late                  atomic.Int64 // see lateness; nanoseconds
}

// unasked counts what Go's HTTP client says in the log: that an answer came to a connection on which nothing was asked.
type unasked struct{ atomic.Int64 }

func (u *unasked) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte("Unsolicited response")) {
		u.Add(1)
	}
	return len(p), nil
}

// A node is a sidecar and the ways to it.
type node struct {
	*scenario.Sidecar
	name     string
	tcp      string // address of --listen
	webhooks string
	config   string // its file
	log      *logReader
	calls    *http.Client // over the unix socket
	overTCP  *http.Client
	hooks    *http.Client
	admin    *http.Client
}

func newField(ctx context.Context, o Options) (f *field, err error) {
	f = &field{judge: newJudge(), orgs: max(o.Orgs, firstCold+1), faults: faults}
	if len(o.Faults) > 0 {
		f.faults = slices.DeleteFunc(slices.Clone(faults), func(x fault) bool { return !slices.Contains(o.Faults, x.name) })
	}
	if len(f.faults) == 0 {
		return f, fmt.Errorf("no fault is called %q", o.Faults)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.close())
		}
	}()
	if f.provider, err = provider.Launch(provider.Options{}); err != nil {
		return f, err
	}
	f.stops = append(f.stops, f.provider.Close)
	ca := filepath.Join(o.Dir, "ca.pem")
	if err := os.WriteFile(ca, f.provider.CA(), 0o600); err != nil {
		return f, err
	}
	if f.app, err = newApp(); err != nil {
		return f, err
	}
	f.stops = append(f.stops, f.app.close)
	for _, name := range f.names(&o, o.Dir) {
		n, err := f.start(ctx, &o, name, ca)
		if err != nil {
			return f, err
		}
		f.nodes = append(f.nodes, n)
	}
	for _, n := range f.nodes {
		if n.name == onPostgres+"-2" {
			continue // the store is another's too
		}
		if err := f.fill(ctx, &o, n); err != nil {
			return f, fmt.Errorf("%w\n%s", err, n.log.tail())
		}
	}
	if f.db != nil { // what autovacuum does, which is off here: without it PostgreSQL reads whole tables for a page of a listing
		if err := f.db.Run(database, "ANALYZE"); err != nil {
			return f, err
		}
	}
	for _, n := range f.nodes {
		if out := f.touch(n); out != good {
			return f, fmt.Errorf("the first calls to %s: %s", n.name, out)
		}
	}
	return f, nil
}

// names starts the database, if there is one here, and says which sidecars there are to be.
func (f *field) names(o *Options, dir string) []string {
	launch := pgtest.Launch
	if filepath.Dir(dir) == "/dev/shm" {
		launch = func() (*pgtest.Server, error) { return pgtest.LaunchIn("/dev/shm") }
	}
	db, err := launch()
	if err != nil {
		f.left = append(f.left, "PostgreSQL: "+err.Error())
		o.Line("left out: " + f.left[0])
		return []string{onSQLite}
	}
	f.db = db
	f.stops = append(f.stops, func() error { db.Close(); return nil })
	if _, err := db.Create(database); err != nil {
		f.left = append(f.left, "PostgreSQL: "+err.Error())
		return []string{onSQLite}
	}
	return []string{onPostgres + "-1", onPostgres + "-2", onSQLite}
}

func (f *field) stores() string {
	if f.db == nil {
		return "SQLite"
	}
	return "PostgreSQL (two sidecars) and SQLite (one)"
}

func (f *field) start(ctx context.Context, o *Options, name, ca string) (*node, error) {
	n := &node{name: name, log: &logReader{}}
	dir := filepath.Join(o.Dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	n.config = filepath.Join(dir, "keyward.yaml")
	if err := n.configure(4000); err != nil {
		return nil, err
	}
	for _, address := range []*string{&n.tcp, &n.webhooks} {
		free, release, err := freeport.Take()
		if err != nil {
			return nil, err
		}
		*address = free
		f.stops = append(f.stops, func() error { release(); return nil })
	}
	args := []string{
		"--config", n.config, "--listen", n.tcp, "--webhook-listen", n.webhooks, "--webhook-target", f.app.url(), "--upstream-ca", ca,
		"--webhook-backoff", "200ms", "--webhook-backoff-max", "2s", "--webhook-attempts", "100",
	}
	for _, host := range []string{"api.resend.com", "api.vapi.ai", "api.elevenlabs.io"} {
		args = append(args, "--upstream", host+"=https://"+f.provider.Address())
	}
	if strings.HasPrefix(name, onPostgres) {
		key := filepath.Join(o.Dir, "keys.json")
		if _, err := os.Stat(key); errors.Is(err, os.ErrNotExist) {
			if out, err := exec.CommandContext(ctx, o.Binary, "keys", "generate", "--key", "file:"+key).CombinedOutput(); err != nil {
				return nil, fmt.Errorf("making a key: %w: %s", err, out)
			}
		}
		args = append(args, "--store", f.db.URL(database), "--key", "file:"+key)
	}
	var err error
	if n.Sidecar, err = scenario.StartSidecar(ctx, scenario.SidecarOptions{Binary: o.Binary, Dir: dir, Args: args, Log: n.log}); err != nil {
		return nil, err
	}
	f.stops = append(f.stops, n.Stop)
	n.calls = client("unix", filepath.Join(dir, "caller.sock"))
	n.overTCP = client("tcp", n.tcp)
	n.hooks = client("tcp", n.webhooks)
	n.admin = client("unix", filepath.Join(dir, "admin.sock"))
	return n, nil
}

// configure writes the file: one setting that a SIGHUP takes over.
func (n *node) configure(conns int) error {
	half := n.config + ".new"
	if err := os.WriteFile(half, fmt.Appendf(nil, "max_conns: %d\n", conns), 0o600); err != nil {
		return err
	}
	return os.Rename(half, n.config)
}

// client sends everything to one address. Its idle connections end long before the sidecar's.
func client(network, address string) *http.Client {
	return &http.Client{Timeout: 90 * time.Second, Transport: &http.Transport{
		MaxIdleConnsPerHost: 64, IdleConnTimeout: 20 * time.Second, DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	}}
}

// fill stores what the calls need.
func (f *field) fill(ctx context.Context, o *Options, n *node) error {
	if err := n.Fill(ctx, o.Say, "soak: "+n.name, 0, f.orgs); err != nil {
		return err
	}
	for i := range voiceOrgs {
		org := scenario.OrgName(i)
		if err := n.SetCredential(ctx, org, "elevenlabs", map[string]any{"api_key": provider.KeyOf(org)}); err != nil {
			return err
		}
		if err := n.SetCredential(ctx, org, "vapi", map[string]any{"api_key": provider.KeyOf(org), "webhook_secret": hookSecret(org)}); err != nil {
			return err
		}
		if err := n.Do(ctx, http.MethodPut, "/api/assistants/"+assistantOf(i), map[string]any{"org": org, "role": "inbound", "name": "soak"}, nil); err != nil {
			return err
		}
	}
	for i := range rotatedOrgs {
		org := scenario.OrgName(firstRotated + i)
		// On both stores: the provider is one, and knows one key of each org. So each store has rotated orgs of its own.
		f.rotors = append(f.rotors, &rotor{f: f, node: n, org: n.name + "-" + org})
	}
	for _, r := range f.rotors {
		if r.node == n {
			if out := r.replace(); out != good {
				return fmt.Errorf("storing the credential of %s: %s", r.org, out)
			}
		}
	}
	return nil
}

// sharing are the sidecars on the same store as n.
func (f *field) sharing(n *node) []*node {
	same := n.name[:len(onSQLite)]
	return slices.DeleteFunc(slices.Clone(f.nodes), func(o *node) bool { return o.name[:len(onSQLite)] != same })
}

func (f *field) close() error {
	var errs []error
	for _, stop := range slices.Backward(f.stops) {
		errs = append(errs, stop())
	}
	f.stops = nil
	return errors.Join(errs...)
}

// A logReader reads what a sidecar logs, as whoever ships logs would, and keeps what matters.
type logReader struct {
	mu     sync.Mutex
	rest   []byte
	lines  int
	panics []string
	errors map[string]int // :: message of a line of level warn or error → how often
	last   []string       // the newest of those
}

func (l *logReader) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, p...)
	for {
		i := bytes.IndexByte(l.rest, '\n')
		if i < 0 {
			return len(p), nil
		}
		l.line(l.rest[:i])
		l.rest = append(l.rest[:0], l.rest[i+1:]...)
	}
}

func (l *logReader) line(b []byte) {
	l.lines++
	if !bytes.Contains(b, []byte("panic")) && !bytes.Contains(b, []byte(`"level":"error"`)) && !bytes.Contains(b, []byte(`"level":"warn"`)) {
		return
	}
	if len(l.last) == 20 {
		l.last = slices.Delete(l.last, 0, 1)
	}
	l.last = append(l.last, string(b))
	var said struct{ Level, Message, Error string }
	_ = json.Unmarshal(b, &said)
	if bytes.Contains(b, []byte("panic")) && len(l.panics) < 20 {
		l.panics = append(l.panics, string(b))
	}
	if l.errors == nil {
		l.errors = map[string]int{}
	}
	if said.Level == "error" {
		said.Message += ": " + said.Error
	}
	if len(l.errors) < 100 || l.errors[said.Message] > 0 {
		l.errors[said.Message]++
	}
}

func (l *logReader) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.last, "\n")
}

var _ io.Writer = (*logReader)(nil)
