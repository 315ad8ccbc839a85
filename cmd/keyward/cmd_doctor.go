package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// How long the doctor may take. Each question has its own limit, which ends it well before; the last one holds whatever happens.
const (
	askWithin    = 4 * time.Second // one question, to whomever
	doctorWithin = 9 * time.Second // all of them, which are asked side by side
)

const (
	isOK   = "ok"
	isWarn = "warn" // serve starts, and yet it is hardly meant so
	isFail = "fail"
)

// A finding is one check's outcome: what was seen, and for what is not well how to mend it.
type finding struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	Saw    string `json:"saw"`
	Mend   string `json:"mend"`
}

func ok(name, saw string, args ...any) finding {
	return finding{Name: name, Status: isOK, Saw: fmt.Sprintf(saw, args...)}
}

func warn(name, saw, mend string) finding { return finding{name, isWarn, saw, mend} }
func fail(name, saw, mend string) finding { return finding{name, isFail, saw, mend} }

const doctorExample = `
keyward doctor --data-dir /var/lib/keyward --run-dir /run/keyward --config /etc/keyward.yaml
keyward doctor --skip-upstreams --json
`

// cmdDoctor takes what serve takes, so that the line of a unit or a manifest can be pasted with one word changed. It reads and asks, and
// changes nothing.
func cmdDoctor(ctx context.Context, f *flags, args []string, std stdio) error {
	c := &Config{flags: f}
	skip := f.Bool("skip-upstreams", false, "ask no provider's host: for a machine without a way out")
	asJSON := f.json()
	f.bind(c)
	err := c.load(args, knownNames())
	if errors.Is(err, pflag.ErrHelp) || f.misused {
		return err
	}
	var findings []finding
	if err != nil {
		findings = brokenConfig(err)
	} else {
		d := &doctor{c: c, skipUpstreams: *skip}
		findings = append(configFindings(c), d.examine(ctx)...)
	}
	hide := hider(c)
	failed := 0
	for i := range findings {
		f := &findings[i]
		for _, text := range []*string{&f.Saw, &f.Mend} {
			*text = hide.Replace(strings.Join(strings.Fields(*text), " "))
		}
		if f.Status == isFail {
			failed++
		}
	}
	if *asJSON {
		err = printJSON(std.out, map[string]any{"checks": findings})
	} else {
		err = printFindings(std.out, findings)
	}
	if err == nil && failed > 0 {
		err = fmt.Errorf("%d of %d checks failed", failed, len(findings))
	}
	return err
}

// printFindings prints for people: one line each, and below it how to mend it.
func printFindings(w io.Writer, findings []finding) error {
	wide := 0
	for _, f := range findings {
		wide = max(wide, len(f.Name))
	}
	for _, f := range findings {
		if _, err := fmt.Fprintf(w, "%-5s %-*s  %s\n", f.Status, wide, f.Name, printable(f.Saw)); err != nil {
			return err
		}
		if f.Mend != "" {
			if _, err := fmt.Fprintf(w, "%-5s %-*s  → %s\n", "", wide, "", printable(f.Mend)); err != nil {
				return err
			}
		}
	}
	return nil
}

// hider takes out passwords, should an error of some library quote one.
func hider(c *Config) *strings.Replacer {
	secrets := []string{c.GoogleClientSecret.Reveal(), os.Getenv("PGPASSWORD")}
	for _, u := range []secretURL{c.Store, c.MigrateURL} {
		parsed, err := url.Parse(u.Reveal())
		if err != nil {
			secrets = append(secrets, u.Reveal())
			continue
		}
		password, _ := parsed.User.Password()
		_, raw, _ := strings.Cut(parsed.User.String(), ":")
		secrets = append(secrets, password, raw, parsed.Query().Get("password"), parsed.Query().Get("sslpassword"))
	}
	var pairs []string
	for _, s := range secrets {
		if len(s) > 2 { // shorter ones are in any text
			pairs = append(pairs, s, "(hidden)")
		}
	}
	return strings.NewReplacer(pairs...)
}

// brokenConfig is what is wrong with a configuration that stops the start. Nothing else is looked at: it would be in the wrong places.
func brokenConfig(err error) []finding {
	problems := []error{err}
	if e := (*usageError)(nil); errors.As(err, &e) {
		problems = e.problems
	}
	var all []finding
	for _, p := range problems {
		text := strings.Join(strings.Fields(p.Error()), " ")
		saw, mend, two := strings.Cut(text, "; ")
		if !two {
			mend = "correct it; keyward serve --help and docs/reference/flags.md say what there is"
		}
		all = append(all, fail("configuration", saw, mend))
	}
	return append(all, warn("all else", "was not looked at", "mend the configuration first, then ask again"))
}

func configFindings(c *Config) []finding {
	saw := "flags and variables alone, no file"
	if c.Config != "" {
		saw = c.Config + " has no mistake"
	}
	all := []finding{ok("configuration", "%s", saw)}
	for _, w := range c.Warnings {
		what, mend, _ := strings.Cut(w, "; ")
		all = append(all, warn("configuration", what, mend))
	}
	if _, err := c.compileRules(c.known(), nil); err != nil {
		all = append(all, fail("callers", err.Error(), "correct callers: in "+c.Config))
	} else if len(c.Callers) > 0 {
		all = append(all, ok("callers", "%s", counted(len(c.Callers), "rule")))
	} else {
		all = append(all, ok("callers", "no rules: uid %d over the socket, for every org; over TCP a token is needed", ownUID()))
	}
	return all
}

// A doctor looks at everything that a sidecar of this configuration needs.
type doctor struct {
	c             *Config
	skipUpstreams bool
}

// examine asks all questions side by side and puts the answers in a fixed order. Who does not answer in time is left behind.
func (d *doctor) examine(ctx context.Context) []finding {
	ctx, cancel := context.WithTimeout(ctx, doctorWithin)
	defer cancel()
	groups := []struct {
		name string
		ask  func(context.Context) []finding
	}{
		{"key source and store", d.checkStorage},
		{"sockets", d.checkSockets},
		{"listeners", d.checkListeners},
		{"interception CA", d.checkCA},
		{"limits", d.checkLimits},
		{"upstreams", d.checkUpstreams},
		{"targets", d.checkTargets},
	}
	answers := make(chan answer, len(groups))
	for i, g := range groups {
		go func() { answers <- answer{i, g.ask(ctx)} }()
	}
	found := gather(ctx, answers, len(groups))
	var all []finding
	for i, g := range groups {
		if found[i] == nil {
			found[i] = []finding{fail(g.name, fmt.Sprintf("no answer within %s", doctorWithin), "see whether a disk or a network that this needs hangs")}
		}
		all = append(all, found[i]...)
	}
	return all
}

// An answer is what one group of questions has found.
type answer struct {
	group    int
	findings []finding
}

// gather takes the answers of so many groups, until ctx ends; those count too that are there by then. The findings of one that has not
// answered are nil.
func gather(ctx context.Context, answers <-chan answer, groups int) [][]finding {
	found := make([][]finding, groups)
	for range groups {
		select {
		case a := <-answers:
			found[a.group] = a.findings
			continue
		default:
		}
		select {
		case a := <-answers:
			found[a.group] = a.findings
		case <-ctx.Done():
		}
	}
	return found
}
