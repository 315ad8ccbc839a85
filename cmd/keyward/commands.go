package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/keyward/keyward/admin"
	"github.com/keyward/keyward/store"
)

// What the program ends with (contract with scripts: never renumber).
const (
	exitDone     = 0
	exitFailed   = 1
	exitUsage    = 2 // bad flags or bad input
	exitNotFound = 3
	exitRefused  = 4 // forbidden, or in conflict with what is there
)

// stdio is what a command reads and writes.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// A command is one row of the table of commands.
type command struct {
	name    string // as typed: "serve", "credentials set"
	usage   string // what it does, one line
	example string // lines to paste
	run     func(ctx context.Context, f *flags, args []string, std stdio) error
}

// commands is everything that keyward does, in the order in which help shows it.
func commands() []command {
	return []command{
		{"serve", "run the sidecar", serveExample, cmdServe},
		{"doctor", "check configuration, keys, store, sockets, listeners and upstreams, and say what to mend; takes what serve takes", doctorExample, cmdDoctor},
		{"wait", "block until the sidecar is ready", "keyward wait --run-dir .keyward --max 30s\nkeyward wait --alive --max 2s", cmdWait},

		{"credentials set", "set an org's credential; its fields are read as JSON from stdin or a file", credentialsSetExample, cmdCredentialsSet},
		{"credentials list", "list credentials, masked", "keyward credentials list --org acme\nkeyward credentials list --json", cmdCredentialsList},
		{"credentials show", "show one credential, masked", "keyward credentials show --org acme --provider twilio", cmdCredentialsShow},
		{"credentials verify", "ask the provider whether it honours a credential", "keyward credentials verify --org acme --provider twilio", cmdCredentialsVerify},
		{"credentials stage", "put a new credential in the place of an org's, with that beside it for a while", credentialsStageExample, cmdCredentialsStage},
		{"credentials promote", "retire the credential that another took the place of", "keyward credentials promote --org acme --provider resend", cmdCredentialsPromote},
		{"credentials unstage", "take a staged credential back: the former one is the org's again", "keyward credentials unstage --org acme --provider resend", cmdCredentialsUnstage},
		{"credentials disable", "refuse requests that need a credential, and keep it", "keyward credentials disable --org acme --provider twilio\nkeyward credentials disable --local --org acme --provider twilio", cmdCredentialsDisable},
		{"credentials enable", "allow requests with a disabled credential again", "keyward credentials enable --org acme --provider twilio\nkeyward credentials enable --local --org acme --provider twilio", cmdCredentialsEnable},
		{"credentials delete", "delete a credential", "keyward credentials delete --org acme --provider twilio", cmdCredentialsDelete},

		{"assistants set", "map a Vapi assistant to an org", `keyward assistants set asst_1 --org acme --role inbound --name "Front desk"`, cmdAssistantsSet},
		{"assistants list", "list mapped assistants", "keyward assistants list --org acme", cmdAssistantsList},
		{"assistants resolve", "print the org of an assistant", "keyward assistants resolve asst_1", cmdAssistantsResolve},
		{"assistants ensure", "make the Vapi assistant of an org's agent be there, as it is configured", "keyward assistants ensure --org acme --role inbound", cmdAssistantsEnsure},
		{"assistants delete", "delete the mapping of an assistant", "keyward assistants delete asst_1", cmdAssistantsDelete},

		{"callers add", "make a caller's token and print it, this once", "keyward callers add --name worker --org acme --provider twilio", cmdCallersAdd},
		{"callers list", "list callers with a token", "keyward callers list --json", cmdCallersList},
		{"callers revoke", "revoke a caller's token", "keyward callers revoke worker", cmdCallersRevoke},

		{"admin-tokens add", "make a token of the admin API and print it, this once", "keyward admin-tokens add --name ops --role operator\nkeyward admin-tokens add --name acme-backend --org acme", cmdAdminTokensAdd},
		{"admin-tokens list", "list the tokens of the admin API", "keyward admin-tokens list --json", cmdAdminTokensList},
		{"admin-tokens revoke", "revoke a token of the admin API", "keyward admin-tokens revoke ops", cmdAdminTokensRevoke},

		{"webhooks list", "list durable webhooks, newest first", "keyward webhooks list --state dead\nkeyward webhooks list --org acme --json", cmdWebhooksList},
		{"webhooks show", "show one durable webhook, without its headers and body", "keyward webhooks show wd_…", cmdWebhooksShow},
		{"webhooks redeliver", "send durable webhooks to the app again", "keyward webhooks redeliver wd_…\nkeyward webhooks redeliver --state dead --org acme", cmdWebhooksRedeliver},
		{"webhooks test", "sign a sample with the org's own secret and send it the whole way", "keyward webhooks test --org acme --provider vapi --type tool-calls", cmdWebhooksTest},

		{"audit", "print the audit log, newest last", "keyward audit --org acme --limit 20\nkeyward audit --follow --json\nkeyward audit --since 720h --export > audit.jsonl", cmdAudit},
		{"top", "watch what goes through the sidecar: requests, times by provider, cache, webhooks", "keyward top\nkeyward top --json", cmdTop},

		{"keys generate", "make a new keyset in the file of --key, never over an existing one", "keyward keys generate --data-dir .keyward", cmdKeysGenerate},
		{"keys list", "list the ids of the keys, what they have sealed and which sidecars have them, never the keys", "keyward keys list --data-dir .keyward", cmdKeysList},
		{"keys add", "put a new key into the key source, which opens and does not seal yet", "keyward keys add --data-dir .keyward", cmdKeysAdd},
		{"keys rotate", "make the newest active key the one that seals, and re-seal all rows with it", keysRotateExample, cmdKeysRotate},
		{"keys retire", "take out keys that have sealed nothing which is still there", "keyward keys retire --data-dir .keyward", cmdKeysRetire},
		{"keys rewrap", "have the key management service wrap the keys anew, or move them to another source", keysRewrapExample, cmdKeysRewrap},
		{"ca print", "print the certificate of the local CA and the variables of an app that trusts it (the same as ca alone)", caPrintExample, cmdCAPrint},
		{"ca show", "print the certificate alone, which apps that are intercepted trust", caShowExample, cmdCAShow},
		{"ca env", "print the variables that have an app call through the sidecar unchanged", caEnvExample, cmdCAEnv},
		{"ca rotate", "make a new local CA, which the one before vouches for during 30 days", caRotateExample, cmdCARotate},
		{"import", "carry an app's own tables over to Keyward; says what it would do, and does it with --apply", importExample, cmdImport},
		{"migrate up", "bring the store's schema up to date (the same as migrate alone)", "keyward migrate up --data-dir .keyward", cmdMigrateUp},
		{"migrate down", "take back the last step of the schema, data of that step included", "keyward migrate down --data-dir .keyward --yes", cmdMigrateDown},
		{"migrate status", "show the store's schema", "keyward migrate status --data-dir .keyward", cmdMigrateStatus},

		{"completion", "print a script that completes commands, flags and values in a shell", completionExample, cmdCompletion},
		{"version", "print the version", "keyward version --json", cmdVersion},
	}
}

// execute runs the command that args name and returns the exit code. Errors are one line on stderr.
func execute(ctx context.Context, args []string, std stdio) int {
	err := dispatch(ctx, args, std)
	if err == nil || errors.Is(err, pflag.ErrHelp) {
		return exitDone
	}
	fmt.Fprintln(std.err, "keyward: "+strings.Join(strings.Fields(err.Error()), " "))
	return exitCode(err)
}

// exitCode is the one table from errors to exit codes.
func exitCode(err error) int {
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	var p *admin.Problem
	if errors.As(err, &p) {
		switch p.Status {
		case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
			return exitUsage
		case http.StatusNotFound:
			return exitNotFound
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusConflict, http.StatusPreconditionFailed:
			return exitRefused
		}
		return exitFailed
	}
	if errors.Is(err, store.ErrNotFound) {
		return exitNotFound
	}
	return exitFailed
}

// A refused error is something that the program will not do; exit code 4.
type refused struct{ error }

func (refused) ExitCode() int { return exitRefused }

func (r refused) Unwrap() error { return r.error }

// A notFound error is about something that is not there; exit code 3.
type notFound struct{ error }

func (notFound) ExitCode() int { return exitNotFound }

func (n notFound) Unwrap() error { return n.error }

func dispatch(ctx context.Context, args []string, std stdio) error {
	if slices.Equal(args, []string{"help", "--man"}) {
		_, err := fmt.Fprint(std.out, manual())
		return err
	}
	all := commands()
	if len(args) == 0 || isHelp(args[0]) {
		out, err := std.out, error(nil)
		if len(args) == 0 {
			out, err = std.err, usagef("no command given; the list is above")
		}
		fmt.Fprint(out, overview(all, ""))
		return err
	}
	word, rest := args[0], args[1:]
	if word == "--version" {
		word = "version"
	}
	if second := alone[word]; second != "" && (len(rest) == 0 || strings.HasPrefix(rest[0], "-") && !isHelp(rest[0])) {
		rest = slices.Insert(slices.Clone(rest), 0, second)
	}
	group := false
	for _, c := range all {
		first, second, two := strings.Cut(c.name, " ")
		if first != word {
			continue
		}
		group = group || two
		if !two || len(rest) > 0 && rest[0] == second {
			if two {
				rest = rest[1:]
			}
			f := newFlags(c.name, c.usage, c.example)
			f.out, f.err = std.out, std.err
			return c.run(ctx, f, rest, std)
		}
	}
	switch {
	case !group:
		return usagef("%q is no command; %s", word, suggest(word, firstWords(tables()), "keyward ", "keyward --help lists them"))
	case len(rest) > 0 && isHelp(rest[0]):
		fmt.Fprint(std.out, overview(all, word))
		return nil
	case len(rest) == 0:
		fmt.Fprint(std.err, overview(all, word))
		return usagef("%s needs one of the words above", word)
	}
	return usagef("%s has no command of that name; keyward %s --help lists them", word, word) // not quoted: it may be a secret
}

// alone is the command that a first word stands for when no other follows it.
var alone = map[string]string{"migrate": "up", "ca": "print"}

func isHelp(arg string) bool { return arg == "--help" || arg == "-h" || arg == "help" }

// overview lists the commands, or those of one group.
func overview(all []command, group string) string {
	var b strings.Builder
	if group == "" {
		b.WriteString("Keyward carries an app's calls to third-party APIs and adds each org's own credential on the way.\n\nCommands:\n")
	} else {
		b.WriteString("Commands of keyward " + group + ":\n")
	}
	for _, c := range all {
		if group == "" || strings.HasPrefix(c.name, group+" ") {
			b.WriteString(columns("  "+c.name, strings.Fields(c.usage)))
		}
	}
	b.WriteString("\nkeyward COMMAND --help says more, with an example.\n")
	if group == "" {
		b.WriteString("\nExample:\n  keyward serve --dev\n")
	}
	return b.String()
}
