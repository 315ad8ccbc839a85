package main

import (
	"net/url"
	"regexp"
	"strings"
)

var envVariable = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// loadStorage is for commands that work on the store itself: after f.parse, it reads the *-file twins, resolves the defaults and
// checks the result. The error is a *usageError.
func (s *storage) load(f *flags) error {
	var p problems
	s.readFiles(f, &p)
	s.resolve(f)
	s.validate(f, &p)
	return p.err()
}

// validate checks what names the store and the key. No message quotes them: either may hold a secret, typed in the wrong place.
func (s *storage) validate(f *flags, p *problems) {
	checkStore(f, "store", s.Store, p)
	if s.MigrateURL != "" {
		checkStore(f, "migrate-url", s.MigrateURL, p)
	}
	kind, rest, _ := strings.Cut(s.Key, ":")
	switch kind {
	case "env":
		if !envVariable.MatchString(rest) {
			p.addf("%s: after env: comes the name of a variable, as env:KEYWARD_KEY", f.at("key"))
		}
	case "file":
		if rest == "" {
			p.addf("%s: after file: comes a path, as file:/etc/keyward/keys.json", f.at("key"))
		}
	case "awskms", "gcpkms", "hcvault":
		p.addf("%s: %s:// is not available in this version; use file:PATH or env:NAME", f.at("key"), kind)
	case "":
	default:
		p.addf("%s: must be env:NAME or file:PATH, never the key itself", f.at("key"))
	}
}

func checkStore(f *flags, name string, s secretURL, p *problems) {
	at := f.at(name)
	text := s.Reveal()
	switch scheme, rest, _ := strings.Cut(text, ":"); scheme {
	case "":
	case "sqlite":
		switch {
		case name == "migrate-url":
			p.addf("%s: must be postgres://…; an SQLite store needs none", at)
		case rest == "":
			p.addf("%s: after sqlite: comes a path, as sqlite:/var/lib/keyward/keyward.db", at)
		}
	case "postgres", "postgresql":
		u, err := url.Parse(text)
		switch {
		case err != nil || u.Opaque != "" || !strings.HasPrefix(rest, "//"):
			p.addf("%s: must be a URL, as postgres://user@host:5432/database; other characters in a password are percent-encoded", at)
		case f.from[name].source == fromCommandLine && s.hasPassword():
			p.addf("%s: every user of this machine sees a password on the command line; put the URL into %s, the file of --%s-file or the configuration file, or the password into PGPASSWORD or ~/.pgpass",
				at, envName(name), name)
		}
	default:
		p.addf("%s: must be sqlite:PATH or postgres://…", at)
	}
}
