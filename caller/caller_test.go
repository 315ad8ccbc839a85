package caller

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

var known = []string{"twilio", "vapi", "resend", "elevenlabs", "google_calendar"}

func num(n uint32) *uint32 { return &n }

func mustCompile(t *testing.T, specs ...Spec) *Rules {
	t.Helper()
	r, err := Compile(specs, known, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// matched is the name of the rule that fits, or "".
func matched(r *Rules, p Peer) string {
	if rule := r.Match(p); rule != nil {
		return rule.Name()
	}
	return ""
}

func TestMatchIsFirstInFileOrder(t *testing.T) {
	r := mustCompile(t,
		Spec{Name: "both", Unix: Unix{UID: num(1000), GID: num(50)}, Orgs: []string{"*"}},
		Spec{Name: "uid", Unix: Unix{UID: num(1000)}, Orgs: []string{"*"}},
		Spec{Name: "gid", Unix: Unix{GID: num(50)}, Orgs: []string{"*"}},
		Spec{Name: "root", Unix: Unix{User: "root"}, Orgs: []string{"*"}},
		Spec{Name: "wheel", Unix: Unix{Group: "root"}, Orgs: []string{"*"}},
	)
	for _, c := range []struct {
		peer Peer
		want string
	}{
		{Peer{UID: 1000, GID: 50}, "both"},
		{Peer{UID: 1000, GID: 51}, "uid"},
		{Peer{UID: 1001, GID: 50}, "gid"},
		{Peer{UID: 0, GID: 7}, "root"},
		{Peer{UID: 7, GID: 0}, "wheel"},
		{Peer{UID: 7, GID: 7}, ""},
	} {
		if got := matched(r, c.peer); got != c.want {
			t.Errorf("%+v: rule %q, want %q", c.peer, got, c.want)
		}
	}
}

func TestNobodyIsNeverMatched(t *testing.T) {
	r := mustCompile(t, Spec{Name: "by group", Unix: Unix{GID: num(50)}, Orgs: []string{"*"}})
	for _, uid := range []uint32{65534, overflowUID()} {
		if got := matched(r, Peer{UID: uid, GID: 50}); got != "" {
			t.Errorf("uid %d got rule %q", uid, got)
		}
		if SelfOnly(uid).Match(Peer{UID: uid}) != nil {
			t.Errorf("uid %d is let in as the sidecar's own", uid)
		}
	}
}

func TestSelfOnly(t *testing.T) {
	const uid = 1234
	r := SelfOnly(uid)
	if r.Match(Peer{UID: uid + 1}) != nil {
		t.Error("another uid is let in")
	}
	self := r.Match(Peer{UID: uid, GID: 99})
	if self == nil {
		t.Fatal("own uid is not let in")
	}
	if !self.AllowsOrg([]byte("any")) || !self.AllowsProvider("vapi") || !self.AllowsRoute([]byte("GET"), []byte("/x/../y")) || self.SecretRoutes() || self.OnlyOrg() != "" {
		t.Errorf("wrong rights: %+v", self)
	}
}

func TestNoRulesMatchNobody(t *testing.T) {
	if mustCompile(t).Match(Peer{UID: 1000}) != nil {
		t.Error("rules without a rule let somebody in")
	}
}

func TestTokenRuleMatchesNoPeer(t *testing.T) {
	r, err := NewRule("worker", []string{"*"}, []string{"*"}, nil, "", false, known)
	if err != nil {
		t.Fatal(err)
	}
	if (&Rules{[]*Rule{r}}).Match(Peer{UID: 0, GID: 0}) != nil {
		t.Error("a token's rule matched a peer")
	}
}

func TestRuleGrants(t *testing.T) {
	r, err := NewRule("worker", []string{"acme", "globex"}, []string{"twilio"}, []string{"POST /a/*"}, "", true, known)
	if err != nil {
		t.Fatal(err)
	}
	one, err := NewRule("one", []string{"acme", "acme"}, []string{"*"}, nil, "", false, known)
	if err != nil {
		t.Fatal(err)
	}
	for what, ok := range map[string]bool{
		"acme":           r.AllowsOrg([]byte("acme")),
		"no initech":     !r.AllowsOrg([]byte("initech")),
		"no prefix":      !r.AllowsOrg([]byte("acm")),
		"no star":        !r.AllowsOrg([]byte("*")),
		"no empty org":   !r.AllowsOrg(nil),
		"twilio":         r.AllowsProvider("twilio"),
		"no vapi":        !r.AllowsProvider("vapi"),
		"secret routes":  r.SecretRoutes(),
		"two: no only":   r.OnlyOrg() == "",
		"one: only":      one.OnlyOrg() == "acme",
		"has allow":      r.HasAllow() && !one.HasAllow(),
		"route":          r.AllowsRoute([]byte("POST"), []byte("/a/b")),
		"no other route": !r.AllowsRoute([]byte("POST"), []byte("/b")),
		"no dots":        !r.AllowsRoute([]byte("POST"), []byte("/a/..")),
		"all routes":     one.AllowsRoute([]byte("DELETE"), []byte("/")),
	} {
		if !ok {
			t.Errorf("not so: %s", what)
		}
	}
}

func TestCompileReportsEverything(t *testing.T) {
	_, err := Compile([]Spec{
		{Name: "api", Unix: Unix{UID: num(5)}, Orgs: []string{"*"}},
		{Name: "api", Orgs: []string{"ac me"}, Providers: []string{"twillio"}, Allow: []string{"/x"}, Rate: "fast", MintTTL: "25h"},
		{Unix: Unix{User: "no-such-user", Group: "no-such-group"}, Providers: []string{}, Allow: []string{}},
		{Name: "n", Unix: Unix{UID: num(65534)}, Orgs: []string{"*"}},
		{Name: "r", Unix: Unix{UID: num(5), User: "root", GID: num(5), Group: "root"}, Orgs: []string{"*"}},
	}, known, nil)
	if err == nil {
		t.Fatal("accepted")
	}
	got := strings.Split(err.Error(), "\n")
	want := []string{
		`callers[1].name: "api" is the name of callers[0] too`,
		`callers[1].orgs[0]: "ac me" is no org id`,
		`callers[1].providers[0]: "twillio" is none of twilio, vapi`,
		`callers[1].allow[0]: "/x": must be "METHOD /path"`,
		`callers[1].rate: "fast" must be like "50/s"`,
		`callers[1].mint_ttl: "25h" must be a time from 1s to 24h`,
		`callers[1].unix: says no uid`,
		`callers[2].name: "" must be 1 to 64`,
		`callers[2].orgs: names no org`,
		`callers[2].providers: names no provider`,
		`callers[2].allow: names no route`,
		`callers[2].unix.user: "no-such-user" is not in /etc/passwd`,
		`callers[2].unix.group: "no-such-group" is not in /etc/group`,
		`callers[3].unix: uid 65534 is nobody's`,
		`callers[4].unix: uid 5 and user "root" (uid 0) can never both match`,
		`callers[4].unix: gid 5 and group "root" (gid 0) can never both match`,
	}
	if len(got) != len(want) {
		t.Fatalf("%d problems, want %d:\n%s", len(got), len(want), err)
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("problem %d: %s\nwant %s…", i, got[i], want[i])
		}
	}
}

func TestNewRuleNamesTheField(t *testing.T) {
	_, err := NewRule("w", nil, []string{"x"}, []string{"GET"}, "", false, known)
	if err == nil || !strings.HasPrefix(err.Error(), "orgs: ") || !strings.Contains(err.Error(), "\nproviders[0]: ") || !strings.Contains(err.Error(), "\nallow[0]: ") {
		t.Errorf("got %v", err)
	}
}

func TestMintTTL(t *testing.T) {
	for text, want := range map[string]time.Duration{"": time.Hour, "1s": time.Second, "90s": 90 * time.Second, "24h": 24 * time.Hour} {
		rules, err := Compile([]Spec{{Name: "api", Unix: Unix{UID: num(5)}, Orgs: []string{"*"}, MintTTL: text}}, known, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := rules.All()[0].MintTTL(); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	for _, bad := range []string{"0", "-1m", "500ms", "24h1s", "1d", "forever"} {
		if _, err := Compile([]Spec{{Name: "api", Unix: Unix{UID: num(5)}, Orgs: []string{"*"}, MintTTL: bad}}, known, nil); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if got := SelfOnly(5).All()[0].MintTTL(); got != time.Hour {
		t.Errorf("without rules: %v", got)
	}
}

func TestReloadKeepsRate(t *testing.T) {
	now := time.Now()
	spec := func(rate string) Spec {
		return Spec{Name: "api", Unix: Unix{UID: num(5)}, Orgs: []string{"*"}, Rate: rate}
	}
	peer := Peer{UID: 5}
	before := mustCompile(t, spec("2/h"))
	for range 2 {
		if ok, _ := before.Match(peer).Take(now); !ok {
			t.Fatal("burst not granted")
		}
	}
	for _, c := range []struct {
		rate string
		ok   bool
	}{{"2/h", false}, {"3/h", true}, {"2/h burst 3", true}, {"", true}} {
		after, err := Compile([]Spec{{Name: "first", Unix: Unix{UID: num(6)}, Orgs: []string{"*"}}, spec(c.rate)}, known, before)
		if err != nil {
			t.Fatal(err)
		}
		if ok, _ := after.Match(peer).Take(now); ok != c.ok {
			t.Errorf("after a reload with %q: Take is %v, want %v", c.rate, ok, c.ok)
		}
	}
}

func TestReloadKeepsWhatWasAnswered(t *testing.T) {
	spec := func(rate string) Spec {
		return Spec{Name: "api", Unix: Unix{UID: num(5)}, Orgs: []string{"*"}, Rate: rate}
	}
	before := mustCompile(t, spec("2/h"))
	rule := before.Match(Peer{UID: 5})
	rule.Answered()[1].Add(1)
	after, err := Compile([]Spec{spec("3/h"), {Name: "other", Unix: Unix{UID: num(6)}, Orgs: []string{"*"}}}, known, before)
	if err != nil {
		t.Fatal(err)
	}
	rule.Answered()[1].Add(1) // of a request that began before
	if n := after.Match(Peer{UID: 5}).Answered()[1].Load(); n != 2 {
		t.Errorf("%d answers, want 2", n)
	}
	if n := after.Match(Peer{UID: 6}).Answered()[1].Load(); n != 0 {
		t.Errorf("%d answers of one who never asked", n)
	}
	self, again := SelfOnly(5), SelfOnly(5)
	self.All()[0].Answered()[3].Add(1)
	if again.Keep(self); again.All()[0].Answered()[3].Load() != 1 {
		t.Error("without callers: nothing was kept")
	}
	if token, err := NewRule("worker", []string{"*"}, []string{"*"}, nil, "", false, known); err != nil || token.Answered() != nil {
		t.Errorf("a token's answers are counted by name: %v", err)
	}
}

func TestHotPathAllocatesNothing(t *testing.T) {
	r := mustCompile(t,
		Spec{Name: "other", Unix: Unix{UID: num(6)}, Orgs: []string{"*"}},
		Spec{
			Name: "api", Unix: Unix{UID: num(5)}, Orgs: []string{"acme", "globex"}, Providers: []string{"vapi", "twilio"}, Rate: "1000000/s",
			Allow: []string{"GET /v1/**", "POST /2010-04-01/Accounts/AC*/Messages.json"},
		})
	org, method, path := []byte("globex"), []byte("POST"), []byte("/2010-04-01/Accounts/ACkeyw%61rd/Messages.json")
	token, _ := NewToken()
	tokenBytes := []byte(token)
	now := time.Now()
	if n := testing.AllocsPerRun(100, func() {
		rule := r.Match(Peer{UID: 5, GID: 5, PID: 5})
		ok, _ := rule.Take(now)
		if !ok || !rule.AllowsOrg(org) || !rule.AllowsProvider("twilio") || !rule.AllowsRoute(method, path) || !IsToken(tokenBytes) || HashToken(tokenBytes) == [32]byte{} {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkRule(b *testing.B) {
	r, err := NewRule("w", []string{"acme", "globex"}, []string{"twilio"}, []string{"GET /v1/**", "POST /2010-04-01/Accounts/*/Messages.json"}, "1000000/s", false, known)
	if err != nil {
		b.Fatal(err)
	}
	rules := SelfOnly(5)
	org, method, path := []byte("globex"), []byte("POST"), []byte("/2010-04-01/Accounts/AC00000000000000000000000000000000/Messages.json")
	token := []byte(fmt.Sprintf("kwt%043d", 5))
	for name, fn := range map[string]func(){
		"Match":       func() { rules.Match(Peer{UID: 5}) },
		"AllowsOrg":   func() { r.AllowsOrg(org) },
		"AllowsRoute": func() { r.AllowsRoute(method, path) },
		"Take":        func() { r.Take(time.Now()) },
		"HashToken":   func() { IsToken(token); HashToken(token) },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				fn()
			}
		})
	}
}
