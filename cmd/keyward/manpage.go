package main

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// manual is keyward(1) in man(7)'s macros, all of it out of the tables that help and the command line itself go by. The same program
// always writes the same: its date is that of the commit that it was built from.
func manual() string {
	all := tables()
	date := "2026-01-01"
	if built, err := time.Parse(time.RFC3339, thisBuild().Time); err == nil {
		date = built.UTC().Format(time.DateOnly)
	}
	m := &roff{}
	fmt.Fprintf(&m.b, ".\\\" Made by keyward help --man.\n.TH KEYWARD 1 %s \"Keyward %s\" \"User Commands\"\n", date, m.escaped(version))
	m.section("NAME")
	m.b.WriteString("keyward \\- carries an app\\(aqs calls to third-party APIs and adds each org\\(aqs own credential on the way\n")
	m.section("SYNOPSIS")
	m.b.WriteString(".B keyward\n.I command\n[\n.I flags\n]\n")
	m.section("DESCRIPTION")
	m.text("A sidecar beside the app: keyward serve runs it. The other commands talk to the running one over its admin socket, or, those of keys, of the schema and of the import, work on the store itself. Every listing takes --json.")
	m.section("COMMANDS")
	for _, c := range all {
		m.command(c)
	}
	m.section("FLAGS OF SERVE")
	serve := newServeFlags(&Config{})
	section := ""
	serve.VisitAll(func(flag *pflag.Flag) {
		if s := serve.section(flag); s != section {
			section = s
			m.subsection(s)
		}
		m.flag(serve, flag)
	})
	m.section("FILE")
	m.text("The YAML file named by --config holds any of these flags (foo_bar: for --foo-bar), and:")
	m.keys("", reflect.TypeFor[fileSections]())
	m.section("ENVIRONMENT")
	m.text("Every flag --foo-bar is also read from the variable KEYWARD_FOO_BAR. The flag wins over the variable, the variable over the file.")
	m.section("EXIT STATUS")
	for _, code := range exitCodes {
		m.item(fmt.Sprint(code.code), code.means)
	}
	m.section("SIGNALS")
	m.item("SIGHUP", "reads the file anew: callers, limits, upstreams, log level; a bad one is refused and the old one stays")
	m.item("SIGTERM, SIGINT", "drains: accepts no more, finishes what is in flight for at most --drain-timeout, and ends; a second one ends at once")
	m.section("EXAMPLES")
	m.example(serveExample)
	return m.b.String()
}

// exitCodes are what the program ends with, in words.
var exitCodes = []struct {
	code  int
	means string
}{
	{exitDone, "done"},
	{exitFailed, "failed"},
	{exitUsage, "bad flags or bad input; what is wrong is named"},
	{exitNotFound, "not found"},
	{exitRefused, "refused: forbidden, or in conflict with what is there"},
}

// A roff is a page that is being written.
type roff struct{ b strings.Builder }

// escaped is text as roff reads it as it is.
func (m *roff) escaped(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == '\\':
			b.WriteString(`\e`)
		case r == '-':
			b.WriteString(`\-`) // a hyphen would not be found by who looks for a flag, nor work when pasted
		case r == '\'':
			b.WriteString(`\(aq`)
		case r == '"':
			b.WriteString(`\(dq`)
		case r == '`':
			b.WriteString(`\(ga`)
		case r == '~':
			b.WriteString(`\(ti`)
		case r == '^':
			b.WriteString(`\(ha`)
		case r == '.' && i == 0:
			b.WriteString(`\&.`)
		case r > '~':
			fmt.Fprintf(&b, `\[u%04X]`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

func (m *roff) section(name string)    { m.b.WriteString(".SH " + name + "\n") }
func (m *roff) subsection(name string) { m.b.WriteString(".SS " + m.escaped(name) + "\n") }
func (m *roff) text(s string) {
	m.b.WriteString(m.escaped(strings.Join(strings.Fields(s), " ")) + "\n")
}

func (m *roff) item(name, means string) {
	m.b.WriteString(".TP\n.B " + m.escaped(name) + "\n")
	m.text(means)
}

func (m *roff) example(s string) {
	m.b.WriteString(".RS\n.nf\n")
	for line := range strings.Lines(strings.TrimSpace(s) + "\n") {
		m.b.WriteString(m.escaped(strings.TrimRight(line, "\n")) + "\n")
	}
	m.b.WriteString(".fi\n.RE\n")
}

func (m *roff) command(c described) {
	m.subsection(strings.Join(append([]string{"keyward", c.name}, c.flags.args...), " "))
	m.text(c.usage)
	serve := newServeFlags(&Config{})
	like := c.name == "serve" || c.flags.Lookup("webhook-listen") != nil // those that take all that serve takes
	c.each(func(flag *pflag.Flag) {
		if !like || serve.Lookup(flag.Name) == nil {
			m.flag(c.flags, flag)
		}
	})
	if like {
		m.b.WriteString(".PP\n")
		m.text("Its flags are those of the section FLAGS OF SERVE below.")
	}
	m.b.WriteString(".PP\n")
	m.example(c.example)
}

func (m *roff) flag(f *flags, flag *pflag.Flag) {
	name, help := argument(flag)
	if def := f.defaultText(flag); def != "" {
		help += " (default " + def + ")"
	}
	left := "--" + flag.Name
	if flag.Shorthand != "" {
		left = "-" + flag.Shorthand + ", " + left
	}
	if name == "" {
		m.b.WriteString(".TP\n.B " + m.escaped(left) + "\n")
	} else {
		m.b.WriteString(".TP\n.BI \"" + m.escaped(left) + " \" \"" + m.escaped(name) + "\"\n")
	}
	m.text(help)
}

// keys are those of the file alone.
func (m *roff) keys(under string, t reflect.Type) {
	for i := range t.NumField() {
		f := t.Field(i)
		key := under + f.Tag.Get("yaml")
		m.item(key, f.Tag.Get("help"))
		if f.Type.Kind() == reflect.Slice && f.Type.Elem().Kind() == reflect.Struct {
			m.keys(key+"[].", f.Type.Elem())
		}
	}
}
