package caller

import (
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Compile checks the callers: section and compiles it. Providers are the names that there are. Every problem is reported, joined,
// each beginning with its place, as "callers[1].rate". A rule that keeps its name keeps what prev, the rules until now, has counted of
// it, and one that keeps its rate too what was counted against that; prev may be nil. No specs make rules that match nobody: SelfOnly is
// the default of an absent section.
func Compile(specs []Spec, providers []string, prev *Rules) (*Rules, error) {
	var p problems
	rules := &Rules{}
	seen := map[string]int{}
	for i, s := range specs {
		at := fmt.Sprintf("callers[%d].", i)
		if first, ok := seen[s.Name]; ok && s.Name != "" {
			p.add(at+"name", "%q is the name of callers[%d] too; logs and the audit log go by it", s.Name, first)
		}
		seen[s.Name] = i
		if s.Providers == nil {
			s.Providers = []string{"*"}
		}
		r := compile(&p, at, s, providers)
		compileUnix(&p, at+"unix", s.Unix, r)
		r.answered = &Answered{}
		rules.rules = append(rules.rules, r)
	}
	if len(p) > 0 {
		return nil, errors.Join(p...)
	}
	rules.Keep(prev)
	return rules, nil
}

// NewRule compiles what a caller token may do; known are the names of the providers that there are. Orgs and providers may be "*" and
// must not be empty. Every problem is reported, joined, each beginning with the field's name.
func NewRule(name string, orgs, providers, allow []string, rate string, secretRoutes bool, known []string) (*Rule, error) {
	var p problems
	r := compile(&p, "", Spec{Name: name, Orgs: orgs, Providers: providers, Allow: allow, Rate: rate, SecretRoutes: secretRoutes}, known)
	if len(p) > 0 {
		return nil, errors.Join(p...)
	}
	return r, nil
}

func (r *Rules) named(name string) *Rule {
	if r == nil {
		return nil
	}
	for _, rule := range r.rules {
		if rule.name == name {
			return rule
		}
	}
	return nil
}

// problems collects all that is wrong, so that a file is mended in one go.
type problems []error

func (p *problems) add(at, format string, args ...any) {
	*p = append(*p, fmt.Errorf("%s: %s", at, fmt.Sprintf(format, args...)))
}

func compile(p *problems, at string, s Spec, known []string) *Rule {
	r := &Rule{name: s.Name, secretRoutes: s.SecretRoutes}
	if !isName(s.Name) {
		p.add(at+"name", "%q must be 1 to 64 printable characters", s.Name)
	}

	if len(s.Orgs) == 0 {
		p.add(at+"orgs", `names no org; write ["*"] for all`)
	}
	r.orgs = make(map[string]struct{}, len(s.Orgs))
	for i, o := range s.Orgs {
		switch {
		case o == "*":
			r.anyOrg = true
		case !isOrg(o):
			p.add(fmt.Sprintf("%sorgs[%d]", at, i), `%q is no org id (a letter or digit, then up to 63 of A-Z a-z 0-9 . _ -) and not "*"`, o)
		default:
			r.orgs[o] = struct{}{}
			r.onlyOrg = o
		}
	}
	if r.anyOrg || len(r.orgs) != 1 {
		r.onlyOrg = ""
	}

	if len(s.Providers) == 0 {
		p.add(at+"providers", `names no provider; write ["*"] for all`)
	}
	for i, name := range s.Providers {
		switch {
		case name == "*":
			r.anyProvider = true
		case !slices.Contains(known, name):
			p.add(fmt.Sprintf("%sproviders[%d]", at, i), `%q is none of %s and not "*"`, name, strings.Join(known, ", "))
		default:
			r.providers = append(r.providers, name)
		}
	}

	if s.Allow != nil && len(s.Allow) == 0 {
		p.add(at+"allow", "names no route; leave it out for all")
	}
	for i, g := range s.Allow {
		route, err := ParseRoute(g)
		if err != nil {
			p.add(fmt.Sprintf("%sallow[%d]", at, i), "%q: %s", g, err)
			continue
		}
		r.allow = append(r.allow, route)
	}

	if s.Rate != "" {
		b, err := parseRate(s.Rate)
		if err != nil {
			p.add(at+"rate", "%q %s", s.Rate, err)
		}
		r.rate = b
	}

	if s.MintTTL != "" {
		d, err := time.ParseDuration(s.MintTTL)
		if err != nil || d < time.Second || d > longestMintTTL {
			p.add(at+"mint_ttl", "%q must be a time from 1s to 24h, as 900s, 15m or 1h", s.MintTTL)
		}
		r.mintTTL = d
	}
	return r
}

// compileUnix settles which peers the rule is for. Names are looked up now, once: a name that does not exist stops the start rather
// than matching whoever gets it later.
func compileUnix(p *problems, at string, u Unix, r *Rule) {
	if u.UID == nil && u.User == "" && u.GID == nil && u.Group == "" {
		p.add(at, "says no uid, user, gid or group: whose rule is it?")
		return
	}
	if u.User != "" {
		found, err := user.Lookup(u.User)
		if err != nil {
			p.add(at+".user", "%q is not in /etc/passwd; create the user, or write its number as uid", u.User)
		} else {
			r.uid, r.hasUID = id(found.Uid), true
		}
	}
	if u.UID != nil {
		if r.hasUID && r.uid != *u.UID {
			p.add(at, "uid %d and user %q (uid %d) can never both match", *u.UID, u.User, r.uid)
		}
		r.uid, r.hasUID = *u.UID, true
	}
	if r.hasUID && Nobody(r.uid) {
		p.add(at, "uid %d is nobody's own: such peers are never let in; run the app as a user of its own", r.uid)
	}
	if u.Group != "" {
		found, err := user.LookupGroup(u.Group)
		if err != nil {
			p.add(at+".group", "%q is not in /etc/group; create the group, or write its number as gid", u.Group)
		} else {
			r.gid, r.hasGID = id(found.Gid), true
		}
	}
	if u.GID != nil {
		if r.hasGID && r.gid != *u.GID {
			p.add(at, "gid %d and group %q (gid %d) can never both match", *u.GID, u.Group, r.gid)
		}
		r.gid, r.hasGID = *u.GID, true
	}
}

// id reads a number out of /etc/passwd or /etc/group. One that is none becomes nobody's.
func id(s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return nobody
	}
	return uint32(n)
}

// isName keeps names short and printable: they stand in logs and label metrics.
func isName(s string) bool {
	for _, c := range s {
		if !unicode.IsPrint(c) {
			return false
		}
	}
	return s != "" && len(s) <= 64 && strings.TrimSpace(s) == s
}

// isOrg: the format of an org id.
func isOrg(s string) bool {
	for i := range len(s) {
		if !isAlnum(s[i]) && (i == 0 || !strings.ContainsRune("._-", rune(s[i]))) {
			return false
		}
	}
	return s != "" && len(s) <= 64
}
