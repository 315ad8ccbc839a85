package main

import (
	"net/url"
	"strings"

	"github.com/keyward/keyward/keysource"
)

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
	if s.Key == "" {
		return
	}
	if _, err := s.source(); err != nil {
		p.addf("%s: %w", f.at("key"), err)
	}
}

// source is Key, read.
func (s *storage) source() (*keysource.Source, error) { return keysource.Parse(s.Key, s.DataDir) }

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
