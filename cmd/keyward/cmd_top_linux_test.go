package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/memdir"
	"github.com/keyward/keyward/provider"
	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/admin"
)

func TestTopShowsOneSnapshotWhereThereIsNoTerminal(t *testing.T) {
	t.Parallel()
	s := serve(t, memdir.New(t), "--upstream", "api.resend.com="+echo(t))
	s.must(`{"api_key":"re_12345678_abcdefghijklmnopqrstuvwx"}`, "credentials", "set", "--org", "acme", "--provider", "resend")
	c := s.client("caller.sock")
	var shot snapshot
	eventually(t, "traffic", func() bool { // it is of the last ten seconds, of which a busy machine may need some to ask
		for range 20 {
			if _, err := s.call(c, "acme"); err != nil {
				t.Fatal(err)
			}
		}
		shot = snapshot{}
		if err := json.Unmarshal([]byte(s.must("", "top", "--json")), &shot); err != nil {
			t.Fatal(err)
		}
		return shot.Traffic.Requests > 0
	})
	if shot.Orgs != 1 || shot.Credentials.ByProvider["resend"] != 1 || shot.Proxy["requests"] < 20 || shot.Traffic.Window <= 0 {
		t.Errorf("%+v", shot)
	}
	if shot.Traffic.CacheHitRate == nil || *shot.Traffic.CacheHitRate < 0.5 || *shot.Traffic.CacheHitRate > 1 {
		t.Errorf("cache hit rate %v", shot.Traffic.CacheHitRate)
	}
	for _, p := range shot.Traffic.Providers {
		asked := p.Provider == "resend"
		if (p.P50 != nil) != asked || (p.P99 != nil) != asked || (p.OwnP99 != nil) != asked || asked && (*p.P99 < *p.P50 || *p.P50 <= 0 || p.Requests <= 0) {
			t.Errorf("%+v", p)
		}
	}
	if len(shot.Traffic.Providers) != len(provider.All) {
		t.Errorf("%d providers", len(shot.Traffic.Providers))
	}
	out := s.must("", "top")
	if !strings.Contains(out, "PROVIDER") || !regexp.MustCompile(`stored +1 credential +1 org `).MatchString(out) || strings.Contains(out, "\x1b") {
		t.Errorf("%q", out)
	}
}

func TestTopRefuses(t *testing.T) {
	b := newRig(t)
	b.fails(exitUsage, "--interval", "", "top", "--interval", "1ms")
	isFailure(t, runCommand("", "top", "--run-dir", t.TempDir()), exitFailed, "no sidecar")
}

// On a terminal top draws one picture over the other, and leaves the terminal as it was.
func TestTopOnATerminal(t *testing.T) {
	b := newRig(t)
	master, slave := terminal(t)
	before, err := unix.IoctlGetTermios(int(slave.Fd()), getTerminal)
	if err != nil {
		t.Fatal(err)
	}
	var screen, errs syncBuffer
	go func() {
		var buf [4096]byte
		for {
			n, err := master.Read(buf[:])
			if err != nil {
				return
			}
			_, _ = screen.Write(buf[:n])
		}
	}()
	done := make(chan int)
	go func() {
		done <- execute(t.Context(), []string{"top", "--interval", "1h", "--run-dir", b.dir}, stdio{slave, slave, &errs})
	}()
	until(t, func() bool { return strings.Contains(screen.String(), clearBelow) })
	// It is drawn anew when the terminal gets another size, and not at the next tick alone: that is an hour away.
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 5, Col: 30}); err != nil {
		t.Fatal(err)
	}
	_ = unix.Kill(os.Getpid(), unix.SIGWINCH) // the terminal is not this process's own
	until(t, func() bool {
		pictures := strings.Split(screen.String(), topLeft)
		last := pictures[len(pictures)-1]
		return strings.HasSuffix(last, clearBelow) && strings.Count(last, "\r\n") == 4 && strings.Contains(last, "q ends it")
	})
	if _, err := master.WriteString("xq"); err != nil {
		t.Fatal(err)
	}
	if code := <-done; code != exitDone || errs.String() != "" {
		t.Errorf("exit code %d: %s", code, errs.String())
	}
	until(t, func() bool { return strings.HasSuffix(screen.String(), leaveScreen) })
	text := screen.String()
	if !strings.HasPrefix(text, enterScreen) || !strings.Contains(text, "webhooks") || strings.Contains(text, "x"+clearLine) {
		t.Errorf("%q", text)
	}
	for _, picture := range strings.Split(strings.TrimPrefix(text, enterScreen), topLeft) {
		for _, line := range strings.Split(picture, "\r\n") {
			if line = uncoloured(strings.TrimRight(strings.ReplaceAll(line, clearLine, ""), "\r")); len([]rune(line)) > 60 && !strings.Contains(line, leaveScreen) {
				t.Errorf("longer than the terminal is wide: %q", line)
			}
		}
	}
	after, err := unix.IoctlGetTermios(int(slave.Fd()), getTerminal)
	if err != nil || *after != *before {
		t.Errorf("the terminal is not as it was: %+v, %+v, %v", before, after, err)
	}
}

// terminal is a pseudo-terminal of 60 columns.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprint("/dev/pts/", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slave.Close() })
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 20, Col: 60}); err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// The rates and times are those of the last seconds, whatever was before.
func TestTrafficIsOfTheLastSeconds(t *testing.T) {
	var requests int64
	at := time.Now()
	tr := &traffic{take: func(s *sample) { s.at, s.requests = at, requests }}
	if now := tr.now(); now.Window != 0 || now.Requests != 0 {
		t.Errorf("before anything was measured: %+v", now)
	}
	requests = 5000
	for range 2 * samples {
		tr.sample()
		at = at.Add(time.Second)
		requests += 10
	}
	if now := tr.now(); now.Window < 10 || now.Window > 11 || now.Requests < 9.9 || now.Requests > 10.1 {
		t.Errorf("%+v", now)
	}
}

func uncoloured(s string) string { return regexp.MustCompile("\x1b\\[[0-9]*m").ReplaceAllString(s, "") }

// The busiest provider comes first, columns stand below each other, and what has no room is left out, not broken.
func TestTopsPicture(t *testing.T) {
	half, long := 0.5, 1234.5
	shot := snapshot{Version: "v1", Store: "postgres", Uptime: 61}
	shot.Cache.StoreDown = true
	shot.Webhooks.Dead = 2
	shot.Traffic = admin.Traffic{Window: 10, Requests: 12.5, Providers: []admin.ProviderTraffic{
		{Provider: "twilio"},
		{Provider: "vapi", Requests: 2, Errors: 1, P50: &half, P99: &long, OwnP50: &half, OwnP99: &half},
		{Provider: "resend", Requests: 100, P50: &half, P99: &half, OwnP50: &half, OwnP99: &half},
	}}
	whole := func(columns int, colours bool) (out []string) {
		for _, line := range shot.picture(columns) {
			out = append(out, text(line, columns, colours))
		}
		return out
	}
	want := []string{
		"keyward v1   up 1m1s   store postgres DOWN   the last 10 s",
		"",
		"requests      12.5/s                  0.0/s refused          0.0/s failed               0 in all",
		"cache              - hit                  0 held",
		"webhooks           0 waiting              2 dead",
		"stored             0 credentials          0 orgs                 0 disabled",
		"",
		"PROVIDER             REQ/S     ERR/S    P50 MS    P99 MS   OWN P50   OWN P99",
		"resend               100.0       0.0     0.500     0.500     0.500     0.500",
		"vapi                   2.0       1.0     0.500    1234.5     0.500     0.500",
		"twilio                 0.0       0.0         -         -         -         -",
		"Times are milliseconds until the answer's end; OWN: of those, what Keyward adds.",
	}
	if got := whole(0, false); !slices.Equal(got, want) {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
	for columns, titles := range map[int]string{60: "P99 MS", 40: "ERR/S", 20: "PROVIDER"} {
		lines := whole(columns, true)
		if !strings.HasSuffix(uncoloured(lines[7]), titles) && columns > 30 {
			t.Errorf("%d columns: %q", columns, lines[7])
		}
		for _, line := range lines {
			if len([]rune(uncoloured(line))) > columns {
				t.Errorf("%d columns: %q", columns, line)
			}
		}
	}
	all := strings.Join(whole(0, true), "\n")
	for _, alarming := range []string{"\x1b[31m DOWN\x1b[0m", "\x1b[31m         2 dead", "\x1b[31m       1.0\x1b[0m"} {
		if !strings.Contains(all, alarming) {
			t.Errorf("%q is not in %q", alarming, all)
		}
	}
}
