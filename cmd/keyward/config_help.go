package main

import (
	"strings"

	"github.com/spf13/pflag"
)

const helpWidth = 100

// help is what --help prints: all of it comes from the flags themselves.
func (f *flags) help() string {
	var b strings.Builder
	b.WriteString("keyward " + f.command + ": " + f.about + "\n\nUsage:\n  keyward " + f.command)
	for _, name := range f.args {
		b.WriteString(" " + name)
	}
	b.WriteString(" [flags]\n")

	section := "\x00"
	f.VisitAll(func(flag *pflag.Flag) {
		if s := f.section(flag); s != section {
			section = s
			if s == "" {
				s = "Flags"
			}
			b.WriteString("\n" + s + ":\n")
		}
		name, help := argument(flag)
		left := "  --" + flag.Name
		if name != "" {
			left += " " + name
		}
		if flag.Shorthand != "" {
			left += ", -" + flag.Shorthand
		}
		words := strings.Fields(help)
		if def := f.defaultText(flag); def != "" {
			words = append(words, "(default "+def+")")
		}
		b.WriteString(columns(left, words))
	})

	b.WriteString("\nEvery flag --foo-bar is also read from the variable KEYWARD_FOO_BAR")
	if f.Lookup("config") != nil {
		b.WriteString(" and from foo_bar: in the file\nnamed by --config. The flag wins over the variable, the variable over the file")
	}
	b.WriteString(".\n")
	if f.example != "" {
		b.WriteString("\nExample:\n")
		for line := range strings.Lines(strings.TrimSpace(f.example)) {
			b.WriteString("  " + line)
		}
		b.WriteString("\n")
	}
	return b.String()
}

func (f *flags) section(flag *pflag.Flag) string {
	if s := flag.Annotations["section"]; len(s) > 0 {
		return s[0]
	}
	return ""
}

// defaultText is the default as people write it; "" for none.
func (f *flags) defaultText(flag *pflag.Flag) string {
	if def, ok := f.defaults[flag.Name]; ok {
		return def
	}
	switch flag.DefValue {
	case "false", "[]", "0", "0s":
		return ""
	}
	return flag.DefValue
}

// columns sets the flag at the left and its meaning at the right, wrapped.
func columns(left string, right []string) string {
	const indent = 30
	var b strings.Builder
	b.WriteString(left)
	at := len(left)
	if at > indent-2 {
		b.WriteString("\n")
		at = 0
	}
	b.WriteString(strings.Repeat(" ", indent-at))
	at = indent
	for i, word := range right {
		switch {
		case i == 0:
		case at+1+len(word) > helpWidth:
			b.WriteString("\n" + strings.Repeat(" ", indent))
			at = indent
		default:
			b.WriteString(" ")
			at++
		}
		b.WriteString(word)
		at += len(word)
	}
	b.WriteString("\n")
	return b.String()
}
