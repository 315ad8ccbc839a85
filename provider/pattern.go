package provider

import (
	"regexp"
	"sync"
)

// A Pattern is a regular expression that is compiled when it is first needed: all of them at once are a tenth of the program's start.
type Pattern struct {
	text     string
	compiled func() *regexp.Regexp
}

func pattern(text string) *Pattern {
	return &Pattern{text, sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })}
}

// String is how it is written.
func (p *Pattern) String() string { return p.text }

// MatchString says whether it matches a text.
func (p *Pattern) MatchString(s string) bool { return p.compiled().MatchString(s) }

// Match is MatchString for bytes.
func (p *Pattern) Match(b []byte) bool { return p.compiled().Match(b) }
