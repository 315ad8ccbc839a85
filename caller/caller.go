// Package caller says who may call what: the rules of the configuration file, the grammar of their method and path globs and rates,
// the kernel's peer credentials that they match, and the tokens of those who come over TCP. The proxy asks it, the admin API checks
// new tokens with it.
//
// Rules are compiled once and never changed afterwards; any number of goroutines may ask them. What is asked for each request
// (Match, Allows*, Take, HashToken) takes no lock and allocates nothing.
package caller

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Peer is what the kernel says of the process at the other end of a unix socket (see PeerOf), as it was when it connected. GID is
// its primary group alone: the kernel does not hand out the supplementary ones here, so a rule's gid or group never matches those.
// PID is for the log, never a proof: it may be another process by now.
type Peer struct {
	UID, GID uint32
	PID      int32
}

// A Spec is one rule as it stands under callers: in the file.
type Spec struct {
	Name         string   `yaml:"name" help:"shows in logs, metrics and the audit log; unique"`
	Unix         Unix     `yaml:"unix" help:"which process this is; at least one of the following, and all that are given must match"`
	Orgs         []string `yaml:"orgs" help:"org ids that it may act for; [\"*\"]: all"`
	Providers    []string `yaml:"providers" help:"providers that it may use; absent or [\"*\"]: all"`
	Allow        []string `yaml:"allow" help:"what it may request, as \"METHOD /path\"; * is one path segment (or a part of one), a closing ** any rest, method * any; absent: all"`
	Rate         string   `yaml:"rate" help:"how often: \"50/s\", also /m and /h; the burst is the same number unless \"50/s burst 200\" says otherwise; absent: no limit"`
	MintTTL      string   `yaml:"mint_ttl" help:"the longest life of a token that it may mint, as \"15m\"; at most 24h; absent: 1h"`
	SecretRoutes bool     `yaml:"secret_routes" help:"true: it may also use the routes that exist to hand out secrets"`
}

// Unix is the part of a Spec that the peer credentials are compared with.
type Unix struct {
	UID   *uint32 `yaml:"uid" help:"user id"`
	User  string  `yaml:"user" help:"user name, from /etc/passwd"`
	GID   *uint32 `yaml:"gid" help:"primary group id (the kernel does not tell the supplementary ones)"`
	Group string  `yaml:"group" help:"primary group's name, from /etc/group"`
}

// Rules are the callers: section of the file, in its order.
type Rules struct{ rules []*Rule }

// SelfOnly is what holds without any callers: section: the sidecar's own uid, for every org and provider. A sidecar that runs as
// nobody lets nobody in, since such peers are never matched.
func SelfOnly(uid uint32) *Rules {
	return &Rules{[]*Rule{{name: "self", uid: uid, hasUID: true, anyOrg: true, anyProvider: true, answered: &Answered{}}}}
}

// Match is the first rule, in the file's order, that fits the peer, or nil. A peer with uid 65534 (nobody) or the kernel's overflow
// uid is whoever has no number of its own here: it is never matched.
func (r *Rules) Match(p Peer) *Rule {
	if Nobody(p.UID) {
		return nil
	}
	for _, rule := range r.rules {
		if rule.matches(p) {
			return rule
		}
	}
	return nil
}

// OnlyUID is the one uid that the rules name; false: they name several, or a group.
func (r *Rules) OnlyUID() (uid uint32, only bool) {
	for _, rule := range r.rules {
		switch {
		case !rule.hasUID && !rule.hasGID: // a token's
		case !rule.hasUID, only && rule.uid != uid:
			return 0, false
		default:
			uid, only = rule.uid, true
		}
	}
	return uid, only
}

// All are the rules in the file's order; never change the slice.
func (r *Rules) All() []*Rule { return r.rules }

// A Rule says what one caller may do.
type Rule struct {
	name string

	uid, gid       uint32
	hasUID, hasGID bool // neither: a token's rule, which no peer matches

	anyOrg       bool
	orgs         map[string]struct{}
	onlyOrg      string
	anyProvider  bool
	providers    []string
	allow        []Route
	rate         *bucket // nil: no limit
	mintTTL      time.Duration
	secretRoutes bool
	answered     *Answered // nil: a token's rule, of which there may be any number
}

// Answered is how many requests of a caller were answered, by the class of the status: 1xx to 5xx. It may be added to by anybody at once.
type Answered [5]atomic.Uint64

func (r *Rule) matches(p Peer) bool {
	return (r.hasUID || r.hasGID) && (!r.hasUID || r.uid == p.UID) && (!r.hasGID || r.gid == p.GID)
}

// Name as in the file, or the token's.
func (r *Rule) Name() string { return r.name }

// AllowsOrg says whether the caller may act for the org.
func (r *Rule) AllowsOrg(org []byte) bool {
	if r.anyOrg {
		return true
	}
	_, ok := r.orgs[string(org)]
	return ok
}

// OnlyOrg is the one org that the caller is bound to, or "".
func (r *Rule) OnlyOrg() string { return r.onlyOrg }

// AllowsProvider says whether the caller may use the provider.
func (r *Rule) AllowsProvider(name string) bool {
	if r.anyProvider {
		return true
	}
	for _, p := range r.providers {
		if p == name {
			return true
		}
	}
	return false
}

// HasAllow says whether the rule names routes at all: only then may the path not be ambiguous.
func (r *Rule) HasAllow() bool { return len(r.allow) > 0 }

// AllowsRoute says whether the caller may make such a request. Path is the provider's, as sent, without prefixes of ours and without
// the query. An ambiguous path is allowed only where the rule names no routes.
func (r *Rule) AllowsRoute(method, path []byte) bool {
	if len(r.allow) == 0 {
		return true
	}
	if AmbiguousPath(path) {
		return false
	}
	for i := range r.allow {
		if r.allow[i].Match(method, path) {
			return true
		}
	}
	return false
}

// SecretRoutes says whether the caller may use the routes that hand out secrets.
func (r *Rule) SecretRoutes() bool { return r.secretRoutes }

// usualMintTTL is that of a rule which says nothing of it, and of every token.
const usualMintTTL, longestMintTTL = time.Hour, 24 * time.Hour

// MintTTL is the longest life of a token that the caller may mint.
func (r *Rule) MintTTL() time.Duration {
	if r.mintTTL == 0 {
		return usualMintTTL
	}
	return r.mintTTL
}

// Answered is what was counted of a rule of the file; nil: it is a token's. A rule that is read anew goes on counting where it was.
func (r *Rule) Answered() *Answered { return r.answered }

// Take counts one request against the rule's rate. Refused, it says after how long the next one would pass.
func (r *Rule) Take(now time.Time) (ok bool, retryAfter time.Duration) {
	if r.rate == nil {
		return true, 0
	}
	return r.rate.take(now)
}

// Keep takes over what prev has counted of rules of the same names: answers, and what a rate has if that is the same, so that reading rules
// anew does not hand out a fresh burst. Call it before they are in use. A nil prev is fine.
func (r *Rules) Keep(prev *Rules) {
	for _, rule := range r.rules {
		old := prev.named(rule.name)
		if old == nil {
			continue
		}
		rule.answered = old.answered
		if old.rate != nil && rule.rate != nil && old.rate.sameAs(rule.rate) {
			rule.rate = old.rate
		}
	}
}

// nobody is the uid that most systems and NFS give to those without one.
const nobody = 65534

// Nobody says whether the uid is one that stands for whoever has none: 65534, or the kernel's overflow uid.
func Nobody(uid uint32) bool { return uid == nobody || uid == overflowUID() }

// overflowUID is what the kernel says instead of a uid that has no number in our user namespace.
var overflowUID = sync.OnceValue(func() uint32 {
	b, err := os.ReadFile("/proc/sys/kernel/overflowuid")
	if err != nil {
		return nobody // the kernel's default
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 32)
	if err != nil {
		return nobody
	}
	return uint32(n)
})
