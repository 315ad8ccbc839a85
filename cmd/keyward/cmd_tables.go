package main

import (
	"context"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// A described command is what help says of one, for who lists them all: completion and the manual.
type described struct {
	command
	flags *flags
}

// tables has every command take down its flags and end there. The tables are those that run, so that nothing can differ from them.
func tables() []described {
	var all []described
	for _, c := range commands() {
		f := newServeFlags(&Config{})
		if c.name != "serve" { // which makes its flags itself
			f = newFlags(c.name, c.usage, c.example)
			f.listing, f.out = true, io.Discard
			_ = c.run(context.Background(), f, nil, stdio{strings.NewReader(""), io.Discard, io.Discard}) // pflag.ErrHelp
		}
		all = append(all, described{c, f})
	}
	return all
}

// groups are the first words of commands of two, in order.
func groups(all []described) []string {
	var words []string
	for _, c := range all {
		if group, _, two := strings.Cut(c.name, " "); two && !slices.Contains(words, group) {
			words = append(words, group)
		}
	}
	return words
}

// each calls fn for every flag.
func (d described) each(fn func(*pflag.Flag)) { d.flags.VisitAll(fn) }

// second is the last word of the name of a command of two.
func (d described) second() string {
	_, word, _ := strings.Cut(d.name, " ")
	return word
}

// members are the commands of a group.
func members(all []described, group string) []described {
	var found []described
	for _, c := range all {
		if strings.HasPrefix(c.name, group+" ") {
			found = append(found, c)
		}
	}
	return found
}

// firstWords are what stands first after the program's name.
func firstWords(all []described) []string {
	var words []string
	for _, c := range all {
		if word, _, _ := strings.Cut(c.name, " "); !slices.Contains(words, word) {
			words = append(words, word)
		}
	}
	return words
}

// valuesOf are the values that a flag can have, where they are a closed list.
func valuesOf(command string, flag *pflag.Flag) []string {
	switch flag.Name {
	case "provider":
		return provider.All.Names()
	case "state":
		return []string{string(store.Pending), string(store.Delivered), string(store.Dead)}
	case "role":
		if command == "admin-tokens add" {
			return []string{store.RoleOperator, store.RoleOrg}
		}
		return []string{store.Inbound, store.Outbound}
	case "log-level":
		return logLevels
	case "log-format":
		return logFormats
	}
	return nil
}

// placeOf is what a flag's value is on the disk, if it is anything there.
func placeOf(flag *pflag.Flag) string {
	switch name, _ := argument(flag); name {
	case "FILE", "PATH":
		return "file"
	case "DIR":
		return "folder"
	}
	return ""
}

// takesValue: it is no switch.
func takesValue(flag *pflag.Flag) bool { return flag.NoOptDefVal == "" }
