package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"github.com/keyward/keyward/provider"
)

const credentialsSetExample = `echo '{"account_sid":"AC0123456789abcdef0123456789abcdef","auth_token":"…"}' | keyward credentials set --org acme --provider twilio
keyward credentials set --org acme --provider resend --file resend.json --verify`

// An integration is a credential as the admin API shows it.
type integration struct {
	Org               string         `json:"org"`
	Provider          string         `json:"provider"`
	Fields            map[string]any `json:"fields"`
	Version           int64          `json:"version"`
	IsActive          bool           `json:"is_active"`
	Unreadable        bool           `json:"unreadable"`
	Unconfigured      bool           `json:"unconfigured"`
	LastVerifiedAt    *time.Time     `json:"last_verified_at"`
	VerificationError *string        `json:"verification_error"`
	Verification      *string        `json:"verification"`
	Suspect           bool           `json:"suspect"`
	Reconnect         string         `json:"reconnect"`
	FormerUntil       *time.Time     `json:"former_until"`
	UpdatedAt         *time.Time     `json:"updated_at"`
}

func (i integration) state() string {
	switch {
	case i.Unconfigured:
		return "unconfigured"
	case i.Unreadable:
		return "unreadable"
	case i.IsActive:
		return "active"
	}
	return "disabled"
}

func (i integration) verified() string {
	switch {
	case i.VerificationError != nil:
		return "failed: " + *i.VerificationError
	case i.Suspect:
		return "suspect"
	case i.Verification != nil && *i.Verification == "valid_restricted":
		return ago(i.LastVerifiedAt) + " (restricted)"
	}
	return ago(i.LastVerifiedAt)
}

// target is the credential that a command is about.
type target struct {
	sidecar       *sidecar
	org, provider *string
	json          *bool
}

func targetFlags(f *flags) target {
	return target{
		org:      f.String("org", "", "the org `ID`"),
		provider: f.String("provider", "", "the `PROVIDER`: "+strings.Join(provider.All.Names(), ", ")+", or one of the configuration's"),
		json:     f.json(),
		sidecar:  reach(f),
	}
}

// parse reads the flags and says whether all are there.
func (t target) parse(f *flags, args []string) error {
	if err := f.parse(args); err != nil {
		return err
	}
	return required(f, "org", "provider")
}

func (t target) path() string {
	return "/api/orgs/" + segment(*t.org) + "/integrations/" + segment(*t.provider)
}

// change sends a write and prints what became of it.
func (t target) change(ctx context.Context, std stdio, method string, body any) error {
	return t.changeAt(ctx, std, method, "", body)
}

// changeAt is change at a path below the credential's.
func (t target) changeAt(ctx context.Context, std stdio, method, suffix string, body any) error {
	var answer json.RawMessage
	if err := t.sidecar.do(ctx, method, t.path()+suffix, body, &answer); err != nil {
		return err
	}
	return t.print(std, answer)
}

func (t target) print(std stdio, answer json.RawMessage) error {
	if *t.json {
		return printJSON(std.out, answer)
	}
	var i integration
	if err := json.Unmarshal(answer, &i); err != nil {
		return fmt.Errorf("reading the sidecar's answer: %w", err)
	}
	until := ""
	if i.FormerUntil != nil {
		until = ", the former one beside it until " + ago(i.FormerUntil)
	}
	_, err := fmt.Fprintf(std.out, "%s %s: version %d, %s%s\n", i.Org, i.Provider, i.Version, i.state(), until)
	return err
}

func cmdCredentialsSet(ctx context.Context, f *flags, args []string, std stdio) error {
	t := targetFlags(f)
	file := f.String("file", "", "read the JSON from this `FILE` instead of stdin")
	verify := f.Bool("verify", false, "only if the provider honours it; else nothing changes")
	if err := t.parse(f, args); err != nil {
		return secretOnArgv(f, args, err)
	}
	fields, err := readFields(*file, std)
	defer clear(fields)
	if err != nil {
		return err
	}
	body := slices.Concat([]byte(`{"credentials":`), fields, strconv.AppendBool([]byte(`,"verify":`), *verify), []byte{'}'})
	defer clear(body)
	return t.change(ctx, std, http.MethodPut, json.RawMessage(body))
}

// secretOnArgv says how a credential is given, to someone who tried it with an argument or a flag of the program's own invention.
func secretOnArgv(f *flags, args []string, err error) error {
	var usage *usageError
	if errors.Is(err, pflag.ErrHelp) || !errors.As(err, &usage) {
		return err
	}
	strange, what := f.NArg() > 0, ""
	for _, arg := range args {
		name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !strings.HasPrefix(arg, "-") || f.Lookup(name) != nil {
			continue
		}
		strange = true
		if word.MatchString(name) {
			what = "--" + name + ": no such flag, and "
		}
	}
	if !strange {
		return err
	}
	// What was found wrong is not repeated: it may quote a secret.
	return usagef("%sa credential is never taken from the command line, which every user of this machine can read: "+
		"send its fields as JSON on stdin or with --file FILE; keyward credentials set --help shows how", what)
}

// word is what may be repeated of a flag that there is not: letters only, and few.
var word = regexp.MustCompile(`^[a-z]{2,}([-_][a-z]+)*$`)

// maxFields is more than any credential needs, and less than the admin API reads.
const maxFields = 1 << 19

// readFields reads a JSON object from the file, else from stdin. Nothing that was read is ever quoted.
func readFields(file string, std stdio) ([]byte, error) {
	in, where := std.in, "stdin"
	if file != "" && file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return nil, usagef("--file: %w", err)
		}
		defer func() { _ = opened.Close() }()
		in, where = opened, file
	} else if isTerminal(in) {
		fmt.Fprintln(std.err, "Type or paste the credential's fields as a JSON object, then press Ctrl-D:")
	}
	b, err := io.ReadAll(io.LimitReader(in, maxFields+1))
	b = bytes.TrimSpace(b)
	switch {
	case err != nil:
		return b, fmt.Errorf("reading %s: %w", where, err)
	case len(b) == 0:
		return b, usagef("%s is empty: send the credential's fields as a JSON object; keyward credentials set --help shows how", where)
	case len(b) > maxFields:
		return b, usagef("%s holds more than %d KiB: that is no credential", where, maxFields>>10)
	case b[0] != '{' || !json.Valid(b):
		return b, usagef("%s holds no JSON object: send the credential's fields as one; keyward credentials set --help shows how", where)
	}
	return b, nil
}

func isTerminal(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func cmdCredentialsList(ctx context.Context, f *flags, args []string, std stdio) error {
	s := reach(f)
	org := f.String("org", "", "only those of this org `ID`")
	local := f.Bool("local", false, "those that are disabled in this sidecar alone")
	asJSON := f.json()
	if err := f.parse(args); err != nil {
		return err
	}
	if *local {
		return s.listLocal(ctx, std, *org, *asJSON)
	}
	all := listing{Items: []json.RawMessage{}}
	orgs, err := s.orgs(ctx, *org)
	if err != nil {
		return err
	}
	for _, o := range orgs {
		l, err := s.list(ctx, "/api/orgs/"+segment(o)+"/integrations")
		if err != nil {
			return err
		}
		all.Items = append(all.Items, l.Items...)
	}
	if *asJSON {
		return printJSON(std.out, all)
	}
	return printTable(std, all, "no credentials", "ORG PROVIDER STATE VERSION UPDATED VERIFIED", func(i integration) []string {
		return []string{i.Org, i.Provider, i.state(), strconv.FormatInt(i.Version, 10), ago(i.UpdatedAt), i.verified()}
	})
}

// orgs are the one that was asked for, or all.
func (s *sidecar) orgs(ctx context.Context, only string) ([]string, error) {
	if only != "" {
		return []string{only}, nil
	}
	l, err := s.list(ctx, "/api/orgs")
	if err != nil {
		return nil, err
	}
	orgs := make([]string, len(l.Items))
	for i, raw := range l.Items {
		var item struct{ Org string }
		if err := json.Unmarshal(raw, &item); err != nil {
			return nil, fmt.Errorf("reading the sidecar's answer: %w", err)
		}
		orgs[i] = item.Org
	}
	return orgs, nil
}

func cmdCredentialsShow(ctx context.Context, f *flags, args []string, std stdio) error {
	t := targetFlags(f)
	if err := t.parse(f, args); err != nil {
		return err
	}
	var answer json.RawMessage
	if err := t.sidecar.do(ctx, http.MethodGet, t.path(), nil, &answer); err != nil {
		return err
	}
	if *t.json {
		return printJSON(std.out, answer)
	}
	var i integration
	if err := json.Unmarshal(answer, &i); err != nil {
		return fmt.Errorf("reading the sidecar's answer: %w", err)
	}
	w := tabwriter.NewWriter(std.out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "org\t%s\nprovider\t%s\nstate\t%s\nversion\t%d\nupdated\t%s\nverified\t%s\n",
		i.Org, i.Provider, i.state(), i.Version, printable(ago(i.UpdatedAt)), printable(i.verified()))
	if i.FormerUntil != nil {
		fmt.Fprintf(w, "former one until\t%s\n", ago(i.FormerUntil))
	}
	if i.Reconnect != "" {
		fmt.Fprintf(w, "reconnect at\t%s\n", printable(i.Reconnect))
	}
	for _, name := range slices.Sorted(maps.Keys(i.Fields)) {
		text, ok := i.Fields[name].(string)
		if !ok {
			b, _ := json.Marshal(i.Fields[name]) // it came from JSON
			text = string(b)
		}
		fmt.Fprintf(w, "%s\t%s\n", name, printable(text))
	}
	return w.Flush()
}

func cmdCredentialsDisable(ctx context.Context, f *flags, args []string, std stdio) error {
	return setActive(ctx, f, args, std, false)
}

func cmdCredentialsEnable(ctx context.Context, f *flags, args []string, std stdio) error {
	return setActive(ctx, f, args, std, true)
}

func setActive(ctx context.Context, f *flags, args []string, std stdio, active bool) error {
	t := targetFlags(f)
	local := f.Bool("local", false, "in this sidecar alone, at once, whether or not the store can be reached")
	if err := t.parse(f, args); err != nil {
		return err
	}
	if *local {
		return t.setLocal(ctx, std, !active)
	}
	return t.change(ctx, std, http.MethodPatch, map[string]bool{"is_active": active})
}

func cmdCredentialsDelete(ctx context.Context, f *flags, args []string, std stdio) error {
	t := targetFlags(f)
	if err := t.parse(f, args); err != nil {
		return err
	}
	if err := t.sidecar.do(ctx, http.MethodDelete, t.path(), nil, nil); err != nil {
		return err
	}
	if *t.json {
		return nil
	}
	_, err := fmt.Fprintf(std.out, "%s %s: deleted\n", *t.org, *t.provider)
	return err
}
