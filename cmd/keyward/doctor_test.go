package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/freeport"
	"github.com/keyward/keyward/internal/pgtest"
)

func TestDoctorFindsAHealthySetUpWell(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	s := p.serve()
	var findings []finding
	var code int
	well := func() bool { return !slices.ContainsFunc(findings, func(f finding) bool { return f.Status != isOK }) }
	for try := 0; try == 0 || try < 3 && !well(); try++ { // of a busy machine it may hear nothing in time
		findings, code = p.doctor()
	}
	if !well() {
		t.Errorf("%+v", findings)
	}
	var names []string
	for _, f := range findings {
		names = append(names, f.Name)
	}
	for _, name := range []string{
		"configuration", "callers", "key source", "store files", "store", "schema", "sealed rows", "run folder", "caller socket", "admin socket", "sidecar",
		"listen", "webhook-listen", "admin-listen", "open files", "clock", "webhook target", "upstream twilio", "upstream google_calendar",
	} {
		if !slices.Contains(names, name) {
			t.Errorf("nothing about %s", name)
		}
	}
	if code != exitDone {
		t.Errorf("exit code %d", code)
	}
	if out, err := program(append([]string{"doctor"}, p.args...)...).CombinedOutput(); err != nil || !strings.Contains(string(out), "ok    sealed rows") {
		t.Errorf("%v: %s", err, out)
	}
	stop(t, s)
}

// Nothing is made, changed or removed: not before the first start, not beside a sidecar that was killed.
func TestDoctorChangesNothing(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	p.doctor()
	if files := everyFile(t, p.dir); len(files) != 0 {
		t.Errorf("it made %v", files)
	}
	s := p.serve()
	kill(s)
	for _, world := range []os.FileMode{0o600, 0o644} { // of a file that the start would mend
		chmod(t, filepath.Join(p.dir, "data", "keyward.db"), world)
		before := everyFile(t, p.dir)
		p.doctor()
		if after := everyFile(t, p.dir); !slices.Equal(before, after) {
			t.Errorf("before\n%s\nafter\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
		}
	}
	p.names("store files", isWarn, "0644", "chmod 600")
	s = serve(t, p.dir, p.args...)
	stop(t, s) // folds the log into the file
	before := everyFile(t, p.dir)
	p.names("sealed rows", isOK, "1, all", "")
	if after := everyFile(t, p.dir); !slices.Equal(before, after) {
		t.Errorf("before\n%s\nafter\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
	}
}

// everyFile is every file with its mode, times and content.
func everyFile(t *testing.T, dir string) (files []string) {
	t.Helper()
	err := filepath.Walk(dir, func(path string, st os.FileInfo, err error) error {
		if err != nil || st.IsDir() {
			return err
		}
		var text []byte
		if st.Mode().IsRegular() && !strings.HasSuffix(path, "-shm") { // an index in memory that readers mark, too
			text, err = os.ReadFile(path)
		}
		files = append(files, strings.Join([]string{path, st.Mode().String(), string(text)}, " "))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestDoctorNamesBrokenKeys(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	stop(t, p.serve())
	key := filepath.Join(p.dir, "data", "keys.json")

	chmod(t, key, 0o644)
	p.names("key source", isFail, "0644", "chmod 600 "+key)
	chmod(t, key, 0o600)

	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	p.names("key source", isFail, "is missing", "from its copy")
	mustKeys(t, "generate", "--data-dir", filepath.Join(p.dir, "data"))
	p.names("sealed rows", isFail, "1 rows are sealed by key", "put that key back")

	write(t, key, "not a keyset")
	p.names("key source", isFail, key, "good keyset")
	p.set("--key", "env:KEYWARD_CANARY_KEY")
	p.names("key source", isFail, "KEYWARD_CANARY_KEY", "good keyset", "KEYWARD_CANARY_KEY="+canaryPassword)
}

func TestDoctorNamesAnOldSchema(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	stop(t, p.serve())
	if out, err := program("migrate", "down", "--yes", "--data-dir", filepath.Join(p.dir, "data")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	p.names("schema", isWarn, "step ", "next start")
	p.args = append(p.args, "--auto-migrate=false")
	p.names("schema", isFail, "--auto-migrate=false", "keyward migrate up")
}

func TestDoctorOnPostgres(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	key := filepath.Join(p.dir, "keys.json")
	mustKeys(t, "generate", "--key", "file:"+key)
	p.set("--key", "file:"+key)
	url := pgtest.New(t)
	if out, err := program("migrate", "up", "KEYWARD_STORE="+url).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	p.names("store", isOK, "answers", "", "KEYWARD_STORE="+url)
	p.names("store role", isWarn, "row-level security does not hold", "keyward_app", "KEYWARD_STORE="+url)
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	p.names("key source", isFail, "is missing", "keyward keys generate", "KEYWARD_STORE="+url)
}

func TestDoctorNamesAStoreThatIsAway(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	p.names("store", isFail, "127.0.0.1", "PostgreSQL runs", "KEYWARD_STORE=postgres://keyward:"+canaryPassword+"@"+freeport.New(t)+"/keyward")
	p.names("store", isFail, "no answer", "PostgreSQL runs", "KEYWARD_STORE=postgres://keyward:"+canaryPassword+"@"+blackHole(t)+"/keyward")
	text := filepath.Join(p.dir, "notes.db")
	write(t, text, strings.Repeat("no database ", 1000))
	p.set("--store", "sqlite:"+text)
	p.names("store", isFail, "not an SQLite database", "correct --store")
}

// What has answered counts, although the time is up by the time that somebody looks.
func TestDoctorTakesAnswersThatCameInTime(t *testing.T) {
	ctx, end := context.WithCancel(t.Context())
	end()
	for range 20 {
		answers := make(chan answer, 5)
		for group := range 5 {
			answers <- answer{group, []finding{ok("x", "y")}}
		}
		for group, findings := range gather(ctx, answers, 6) {
			if (findings == nil) != (group == 5) {
				t.Fatalf("group %d: %v", group, findings)
			}
		}
	}
}

// Everything that can be asked is a black hole at once.
func TestDoctorEndsInTime(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	hole := blackHole(t)
	for i, a := range p.args {
		if host, _, is := strings.Cut(a, "=https://"); is {
			p.args[i] = host + "=https://" + hole
		}
	}
	p.set("--listen", hole)
	p.set("--admin-listen", blackHole(t))
	for _, name := range []string{"caller.sock", "admin.sock"} {
		l, err := net.Listen("unix", filepath.Join(p.dir, name)) // nobody accepts
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
	}
	findings, _ := p.doctor("KEYWARD_STORE=postgres://keyward:"+canaryPassword+"@"+hole+"/keyward", "VAULT_TOKEN=t", "VAULT_ADDR=http://"+hole)
	for _, name := range []string{"store", "sidecar", "listen", "upstream twilio", "upstream resend"} {
		if !slices.ContainsFunc(findings, func(f finding) bool { return f.Name == name && f.Status == isFail }) {
			t.Errorf("no failure of %s in %+v", name, findings)
		}
	}
}

func TestDoctorNamesBrokenSockets(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	kill(p.serve())
	p.names("admin socket", isFail, "is gone", "keyward serve")
	p.names("caller socket", isFail, "is gone", "keyward serve")
	if err := os.Remove(filepath.Join(p.dir, "caller.sock")); err != nil {
		t.Fatal(err)
	}
	p.names("caller socket", isWarn, "no sidecar runs", "keyward serve")
	write(t, filepath.Join(p.dir, "caller.sock"), "")
	p.names("caller socket", isFail, "a file and no socket", "move it away")
	chmod(t, p.dir, 0o777)
	p.names("run folder", isFail, "writable by everyone", "chmod go-w")
}

func TestDoctorNamesWhatTheSidecarSaysOfItself(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	p.serve()
	key := filepath.Join(p.dir, "data", "keys.json")
	write(t, key, "not a keyset")
	eventually(t, "it finds out", func() bool {
		findings, _ := p.doctor()
		return slices.ContainsFunc(findings, func(f finding) bool {
			return f.Name == "sidecar" && f.Status == isWarn && strings.Contains(f.Saw, "keys failed")
		})
	})
	chmod(t, filepath.Join(p.dir, "caller.sock"), 0o666)
	p.names("caller socket", isWarn, "0666, not 0660", "start the sidecar again")
}

func TestDoctorNamesTakenPorts(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	p.names("listen", isOK, "is free", "")
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") }))
	t.Cleanup(other.Close)
	p.set("--admin-listen", strings.TrimPrefix(other.URL, "http://"))
	p.names("admin-listen", isFail, "held by another program", "--admin-listen")
	p.args = append(p.args, "--allow-remote")
	p.set("--listen", "192.0.2.1:7450") // no address of any machine
	p.names("listen", isFail, "cannot be listened on", "address of this machine")
}

func TestDoctorNamesUpstreams(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	own := slices.Index(p.args, "--upstream-ca")
	trusted := p.args[own+1]
	p.args[own+1] = writeFile(t, "other.pem", otherCA)
	p.names("upstream resend", isFail, "signed by nobody who is trusted", "--upstream-ca")
	p.args[own+1] = trusted
	at := slices.IndexFunc(p.args, func(a string) bool { return strings.HasPrefix(a, "api.resend.com=") })
	for _, tc := range []struct{ url, saw, mend string }{
		{"https://" + freeport.New(t), "nobody listens", "correct --upstream"},
		{strings.Replace(plain.URL, "http:", "https:", 1), "no TLS", "http:// to loopback"},
		{strings.Replace(p.args[at][len("api.resend.com="):], "127.0.0.1", "localhost", 1), "another host's", "--upstream the host of its certificate"},
	} {
		p.args[at] = "api.resend.com=" + tc.url
		p.names("upstream resend", isFail, tc.saw, tc.mend)
	}
	p.args[at] = "api.resend.com=" + plain.URL
	p.names("upstream resend", isOK, "reached", "")
	p.args[at] = "api.resend.com=https://" + freeport.New(t)
	p.args = append(p.args, "--skip-upstreams")
	p.names("upstreams", isOK, "--skip-upstreams", "")
}

func TestDoctorNamesTargets(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	p.set("--webhook-target", "http://"+freeport.New(t)+"/"+canaryPassword)
	p.names("webhook target", isFail, "nobody listens", "start the app")
	p.set("--webhook-target", "unix:"+filepath.Join(p.dir, "app.sock")+":/hooks")
	p.names("webhook target", isFail, "app.sock", "start the app")
	if l, err := net.Listen("unix", filepath.Join(p.dir, "app.sock")); err == nil {
		t.Cleanup(func() { _ = l.Close() })
	}
	p.names("webhook target", isOK, "app.sock is reached", "")
}

func TestDoctorNamesMistakesInTheConfiguration(t *testing.T) {
	t.Parallel()
	p := newPatient(t)
	file := filepath.Join(p.dir, "keyward.yaml")
	p.args = append(p.args, "--config", file)
	write(t, file, "cache_sise: 5\nlog_level: loud\n")
	p.names("configuration", isFail, "keyward.yaml:1: cache_sise: unknown key", "cache_size")
	p.names("configuration", isFail, "log_level", "")
	p.names("all else", isWarn, "not looked at", "configuration")
	write(t, file, "callers: [\n")
	p.names("configuration", isFail, "keyward.yaml", "correct it")
	write(t, file, "cache_size: 5\n")
	p.names("configuration", isWarn, "KEYWARD_CACHE_SISE", "serve --help", "KEYWARD_CACHE_SISE=5")
	if out, err := program("doctor", "--lsten", "x").CombinedOutput(); exitOf(t, err) != exitUsage || !strings.Contains(string(out), "--listen") {
		t.Errorf("%v: %s", err, out)
	}
}

func TestDoctorNamesTheClockAndLimits(t *testing.T) {
	t.Parallel()
	if f := clockFinding(time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)); f.Status != isFail || !strings.Contains(f.Mend, "NTP") {
		t.Errorf("%+v", f)
	}
	if f := filesFinding(1 << 40); f.Status != isWarn || !strings.Contains(f.Mend, "LimitNOFILE") {
		t.Errorf("%+v", f)
	}
	p := newPatient(t)
	p.names("runtime", isWarn, "clobberfree=0", "GODEBUG", "GODEBUG=clobberfree=0")
}

// otherCA is a certificate authority that has signed nothing here.
const otherCA = `-----BEGIN CERTIFICATE-----
MIIBhzCCAS2gAwIBAgIUPs5uEsq3sz2sHojLFsnayczp4qMwCgYIKoZIzj0EAwIw
GDEWMBQGA1UEAwwNc29tZWJvZHkgZWxzZTAgFw0yNjExMjUxNzMxMjVaGA8yMTI2
MTEwMTE3MzEyNVowGDEWMBQGA1UEAwwNc29tZWJvZHkgZWxzZTBZMBMGByqGSM49
AgEGCCqGSM49AwEHA0IABAgzePcnGsEfnjhGL4tTAfius/PmGu4bOyOSYORiM3Nj
VlDxvdn++xxCAw9R+0H5DLA382wosjfKLG8c4L+1FsijUzBRMB0GA1UdDgQWBBQ9
1iRmVKlbc5+gsZA7DHMU6kQt2DAfBgNVHSMEGDAWgBQ91iRmVKlbc5+gsZA7DHMU
6kQt2DAPBgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIQDL+MS8Xabm
+Jt05yI06h9bWP+Q4jx5l4O8mVsYdV3iUAIgGmuKAQi63/OMJbi+a7gVU3UX/ide
DE5lmiE25ey38SM=
-----END CERTIFICATE-----
`

func TestDoctorNamesAKeyServiceThatIsAway(t *testing.T) {
	t.Parallel()
	source, away := vault(t)
	p := newPatient(t)
	p.set("--key", source(filepath.Join(p.dir, "wrapped.json")))
	p.names("key source", isFail, "is missing", "keyward keys generate", vaultToken)
	mustKeys(t, vaultToken, "generate", "--key", source(filepath.Join(p.dir, "wrapped.json")))
	p.names("key source", isOK, "1 key,", "", vaultToken)
	away.Store(true)
	p.names("key source", isFail, "sealed", "reaches the key management service", vaultToken)
}
