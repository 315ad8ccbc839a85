package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

const completionExample = `
source <(keyward completion bash)
keyward completion zsh > "${fpath[1]}/_keyward"
keyward completion fish > ~/.config/fish/completions/keyward.fish
`

// shellNames are the shells that there is a script for.
const shellNames = "bash zsh fish"

func cmdCompletion(_ context.Context, f *flags, args []string, std stdio) error {
	if err := f.parse(args, "bash|zsh|fish"); err != nil {
		return err
	}
	script := map[string]func([]described) string{"bash": bashScript, "zsh": zshScript, "fish": fishScript}[f.Arg(0)]
	if script == nil {
		return usagef("there are scripts for bash, zsh and fish")
	}
	_, err := fmt.Fprint(std.out, script(tables()))
	return err
}

// bashScript needs nothing but bash, from 3.2 on: no package bash-completion.
func bashScript(all []described) string {
	var b strings.Builder
	b.WriteString(`# Completion of keyward in bash: source <(keyward completion bash)

_keyward() {
	local IFS=$' \t\n' words= command=${COMP_WORDS[1]} at=$COMP_CWORD
	local cur=${COMP_WORDS[at]} prev=${COMP_WORDS[at-1]}
	COMPREPLY=()
	# bash splits --flag=value at the sign
	if [ "$cur" = = ]; then cur=; elif [ "$prev" = = ]; then prev=${COMP_WORDS[at-2]}; fi
	if [ "$at" -eq 1 ]; then
		COMPREPLY=($(compgen -W '` + strings.Join(firstWords(all), " ") + ` help' -- "$cur"))
		return
	fi
	case $command in
`)
	for _, group := range groups(all) {
		var words []string
		for _, c := range members(all, group) {
			words = append(words, c.second())
		}
		fmt.Fprintf(&b, "	%s) words='%s' ;;\n", group, strings.Join(words, " "))
	}
	b.WriteString(`	esac
	if [ -n "$words" ]; then
		case "$command $at $cur" in
`)
	for _, group := range slices.Sorted(maps.Keys(alone)) {
		fmt.Fprintf(&b, "		'%s 2 -'*) command='%s %s' ;;\n", group, group, alone[group])
	}
	b.WriteString(`		*' 2 '*) COMPREPLY=($(compgen -W "$words" -- "$cur")); return ;;
`)
	for _, group := range slices.Sorted(maps.Keys(alone)) {
		fmt.Fprintf(&b, "		'%s '*) case ${COMP_WORDS[2]} in -*) command='%s %s' ;; *) command+=\" ${COMP_WORDS[2]}\" ;; esac ;;\n", group, group, alone[group])
	}
	b.WriteString(`		*) command+=" ${COMP_WORDS[2]}" ;;
		esac
	fi
	words=
	case "$command $prev" in
`)
	var open, files, folders []string
	for _, c := range all {
		c.each(func(flag *pflag.Flag) {
			is := "'" + c.name + " --" + flag.Name + "'"
			values := valuesOf(c.name, flag)
			switch {
			case !takesValue(flag):
			case values != nil:
				fmt.Fprintf(&b, "	%s) words='%s' ;;\n", is, strings.Join(values, " "))
			case placeOf(flag) == "file":
				files = append(files, is)
			case placeOf(flag) == "folder":
				folders = append(folders, is)
			default:
				open = append(open, is)
			}
		})
	}
	fmt.Fprintf(&b, "	%s)\n		IFS=$'\\n'; COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n", strings.Join(files, "|"))
	fmt.Fprintf(&b, "	%s)\n		IFS=$'\\n'; COMPREPLY=($(compgen -d -- \"$cur\")); return ;;\n", strings.Join(folders, "|"))
	fmt.Fprintf(&b, "	%s)\n		return ;; # nothing that could be known\n", strings.Join(open, "|"))
	b.WriteString("	*)\n		case $command in\n")
	for _, c := range all {
		var names []string
		if c.name == "completion" {
			names = append(names, shellNames)
		}
		c.each(func(flag *pflag.Flag) { names = append(names, "--"+flag.Name) })
		fmt.Fprintf(&b, "		'%s') words='%s' ;;\n", c.name, strings.Join(append(names, "--help"), " "))
	}
	b.WriteString(`		esac ;;
	esac
	COMPREPLY=($(compgen -W "$words" -- "$cur"))
}

complete -o filenames -F _keyward keyward
`)
	return b.String()
}

// aboutWord is what a first word does.
func aboutWord(all []described, word string) string {
	for _, c := range all {
		if c.name == word {
			return c.usage
		}
	}
	return "commands of " + word
}

func zshQuoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func zshScript(all []described) string {
	var b strings.Builder
	b.WriteString(`#compdef keyward
# Completion of keyward in zsh, for a folder of $fpath: keyward completion zsh > "${fpath[1]}/_keyward"

_keyward() {
	local -a found
	local command=$words[2] before=$words[CURRENT-1]
	if (( CURRENT == 2 )); then
		found=(
`)
	for _, word := range firstWords(all) {
		about := aboutWord(all, word)
		b.WriteString("			" + zshQuoted(word+":"+about) + "\n")
	}
	b.WriteString("		)\n		_describe command found\n		return\n	fi\n	case $command in\n")
	for _, group := range groups(all) {
		fmt.Fprintf(&b, "	%s)\n		found=(\n", group)
		for _, c := range members(all, group) {
			b.WriteString("			" + zshQuoted(c.second()+":"+c.usage) + "\n")
		}
		b.WriteString("		)\n")
		if alone[group] != "" {
			fmt.Fprintf(&b, "		if [[ $words[3] == -* ]]; then command='%s %s'; else\n", group, alone[group])
		}
		b.WriteString("		if (( CURRENT == 3 )); then _describe command found; return; fi\n		command+=\" $words[3]\"\n")
		if alone[group] != "" {
			b.WriteString("		fi\n")
		}
		b.WriteString("		;;\n")
	}
	b.WriteString("	esac\n	case \"$command $before\" in\n")
	for _, c := range all {
		c.each(func(flag *pflag.Flag) {
			if !takesValue(flag) {
				return
			}
			do := "_message value"
			if values := valuesOf(c.name, flag); values != nil {
				do = "compadd -- " + strings.Join(values, " ")
			} else if place := placeOf(flag); place != "" {
				do = map[string]string{"file": "_files", "folder": "_files -/"}[place]
			}
			fmt.Fprintf(&b, "	'%s --%s') %s; return ;;\n", c.name, flag.Name, do)
		})
	}
	b.WriteString("	esac\n	case $command in\n")
	for _, c := range all {
		fmt.Fprintf(&b, "	'%s') found=(\n", c.name)
		c.each(func(flag *pflag.Flag) {
			_, help := argument(flag)
			b.WriteString("		" + zshQuoted("--"+flag.Name+":"+help) + "\n")
		})
		b.WriteString("		'--help:what there is, with an example'\n	) ;;\n")
	}
	b.WriteString("	esac\n	[[ $command == completion ]] && compadd -- " + shellNames + `
	_describe flag found
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then _keyward "$@"; else compdef _keyward keyward; fi
`)
	return b.String()
}

func fishQuoted(s string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(s) + "'"
}

func fishScript(all []described) string {
	var b strings.Builder
	b.WriteString(`# Completion of keyward in fish: keyward completion fish > ~/.config/fish/completions/keyward.fish

function __keyward_words
    set -l words (commandline -opc)
    test (count $words) = $argv[1]
end

function __keyward_is
    set -l words (commandline -opc)
    set -e words[1]
    for word in $argv
        test "$words[1]" = $word; or return 1
        set -e words[1]
    end
end

complete -c keyward -f
`)
	for _, word := range firstWords(all) {
		about := aboutWord(all, word)
		fmt.Fprintf(&b, "complete -c keyward -n '__keyward_words 1' -a %s -d %s\n", word, fishQuoted(about))
	}
	fmt.Fprintf(&b, "complete -c keyward -n '__keyward_words 2; and __keyward_is completion' -a '%s'\n", shellNames)
	for _, c := range all {
		group, word, two := strings.Cut(c.name, " ")
		if two {
			fmt.Fprintf(&b, "complete -c keyward -n '__keyward_words 2; and __keyward_is %s' -a %s -d %s\n", group, word, fishQuoted(c.usage))
		}
		c.each(func(flag *pflag.Flag) {
			_, help := argument(flag)
			how := ""
			switch values := valuesOf(c.name, flag); {
			case !takesValue(flag):
			case values != nil:
				how = " -x -a '" + strings.Join(values, " ") + "'"
			case placeOf(flag) == "file":
				how = " -r -F"
			case placeOf(flag) == "folder":
				how = " -x -a '(__fish_complete_directories)'"
			default:
				how = " -x"
			}
			fmt.Fprintf(&b, "complete -c keyward -n '__keyward_is %s' -l %s%s -d %s\n", c.name, flag.Name, how, fishQuoted(help))
			if two && alone[group] == word {
				fmt.Fprintf(&b, "complete -c keyward -n '__keyward_words 2; and __keyward_is %s' -l %s%s -d %s\n", group, flag.Name, how, fishQuoted(help))
			}
		})
	}
	return b.String()
}
