package provider

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

var updateReference = flag.Bool("update-reference", false, "write docs/reference/credentials.md anew")

const referencePath = "../docs/reference/credentials.md"

func TestCredentialReference(t *testing.T) {
	want := reference()
	if *updateReference {
		if err := os.WriteFile(referencePath, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	updateTable(t)
	got, err := os.ReadFile(referencePath)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s differs from the providers' fields: run go generate ./provider", referencePath)
	}
}

// reference is docs/reference/credentials.md, all of it out of All.
func reference() string {
	var b strings.Builder
	b.WriteString(`# Fields of a credential

<!-- Generated from the providers in provider/ by go generate ./provider. Change it there. -->

What one org holds with one provider, as ` + "`keyward credentials set` and the management API take it: one JSON object. `GET /api/providers`" + ` says the
same. A field that is not needed is left out. *Secret* ones are write-only: what is shown of one is its last four characters at most, and none of
one shorter than twelve.
`)
	for _, p := range All {
		fmt.Fprintf(&b, "\n## %s: `%s`\n\n", p.Title, p.Name)
		writeFields(&b, p.Fields)
		for _, f := range p.Fields {
			if len(f.Members) > 0 {
				fmt.Fprintf(&b, "\nMembers of `%s`, each of which may be left out:\n\n", f.Name)
				writeFields(&b, f.Members)
			}
		}
		writeHosts(&b, p)
	}
	return b.String()
}

const mintReferencePath = "../docs/reference/minted-tokens.md"

func TestMintReference(t *testing.T) {
	want := mintReference()
	if *updateReference {
		if err := os.WriteFile(mintReferencePath, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(mintReferencePath)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s differs from the providers' tokens: run go generate ./provider", mintReferencePath)
	}
}

// mintReference is docs/reference/minted-tokens.md, all of it out of All.
func mintReference() string {
	var b strings.Builder
	b.WriteString(`# Minted tokens: what may be asked for

<!-- Generated from the providers in provider/ by go generate ./provider. Change it there. -->

Members of the JSON object that is sent to ` + "`POST /keyward/mint/NAME`: [minted-tokens.md](../minted-tokens.md) shows how." + `
`)
	for _, p := range All {
		for _, m := range p.Mints {
			fmt.Fprintf(&b, "\n## `%s`\n\n%s Of %s's credential it needs `%s`, and lives at most %d hours.\n\n", m.Name, m.Help, p.Title, strings.Join(m.Needs, "`, `"), int(m.Longest.Hours()))
			writeFields(&b, m.Fields())
			for _, g := range m.Grants {
				fmt.Fprintf(&b, "\n### Grant `%s`\n\n%s", g.Name, g.Help)
				if g.Name == m.Usual {
					b.WriteString(" Without `grants` it is this one.")
				}
				if g.Whole {
					b.WriteString(" The token can do all that the credential can: only for callers with `secret_routes: true`.")
				}
				b.WriteString("\n")
				if len(g.Members) > 0 {
					b.WriteString("\n")
					writeFields(&b, g.Members)
				}
			}
		}
	}
	return b.String()
}

func writeFields(b *strings.Builder, fields []Field) {
	b.WriteString("| field | value | meaning | example |\n|---|---|---|---|\n")
	for _, f := range fields {
		name := "`" + f.Name + "`"
		if f.Required {
			name += " (required)"
		}
		value := map[Kind]string{List: "list of texts", TextOrList: "text or list", Object: "object", Flag: "true, false", Number: "number"}[f.Kind]
		if value == "" {
			value = "text"
		}
		if f.Kind == Number {
			value = fmt.Sprintf("%d to %d", f.Min, f.Max)
		}
		if len(f.Options) > 0 {
			value = "`" + strings.Join(f.Options, "`, `") + "`"
		}
		if f.Secret {
			value = "*secret* " + value
		}
		meaning := f.Help
		if f.Pattern != nil && f.PatternHelp != visibleHelp && f.PatternHelp != identifierHelp { // those go without saying
			meaning += " Must be " + f.PatternHelp + "."
		}
		fmt.Fprintf(b, "| %s | %s | %s | `%s` |\n", name, value, strings.ReplaceAll(meaning, "|", `\|`), f.Example)
	}
}

// writeHosts lists the hosts, long lists by their pattern.
func writeHosts(b *strings.Builder, p *Provider) {
	var plain []string
	products, regional := 0, 0
	for _, h := range p.Hosts {
		switch {
		case p != &Twilio || h == twilioHost:
			plain = append(plain, "`"+h+"`")
		case strings.Count(h, ".") > 3:
			regional++
		default:
			products++
		}
	}
	fmt.Fprintf(b, "\nHosts: %s", strings.Join(plain, ", "))
	if p == &Twilio {
		fmt.Fprintf(b, " and those of the other products, like `verify.twilio.com` (%d), also with edge and region, like `verify.dublin.ie1.twilio.com` (%d)", products, regional)
	}
	b.WriteString(".")
	if len(p.OwnHosts) > 0 {
		fmt.Fprintf(b, " Keyward itself calls `%s`, which no caller can reach.", strings.Join(p.OwnHosts, "`, `"))
	}
	b.WriteString("\n")
}

const (
	tablePath  = "../docs/providers.md"
	tableBegin = "<!-- providers: go generate ./provider writes what is between these marks -->\n"
	tableEnd   = "<!-- /providers -->\n"
)

// updateTable holds the table in docs/providers.md against All.
func updateTable(t *testing.T) {
	t.Helper()
	b, err := os.ReadFile(tablePath)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), tableBegin)
	got, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatalf("%s lacks its marks", tablePath)
	}
	want := table()
	if *updateReference {
		got = want
		if err := os.WriteFile(tablePath, []byte(before+tableBegin+want+tableEnd+after), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got != want {
		t.Errorf("%s differs from the providers' files: run go generate ./provider", tablePath)
	}
}

func table() string {
	var b strings.Builder
	b.WriteString("| provider | default host | credential in | asked to verify | webhooks |\n|---|---|---|---|---|\n")
	for _, p := range All {
		s := Open(exampleValues(p).Encode(nil))
		r := &Request{Method: []byte("GET"), Path: []byte("/"), Token: []byte("token")}
		if err := p.Inject(r, s); err != nil {
			panic(err)
		}
		scheme, _, two := strings.Cut(string(r.Value), " ")
		if !two {
			scheme = "the bare key"
		}
		paths := p.Probe.Paths(s)
		fmt.Fprintf(&b, "| %s: `%s` | `%s` | `%s`, %s | `GET %s` | %s |\n", p.Title, p.Name, p.DefaultHost(Secret{}), r.Header, scheme, paths[0], webhookWords(p))
	}
	return b.String()
}

func webhookWords(p *Provider) string {
	w := p.Webhook
	if w == nil {
		return "none"
	}
	words := "its own scheme"
	switch scheme := w.Scheme.(type) {
	case StandardWebhooks:
		words = "Standard Webhooks"
	case StampedHMAC:
		words = fmt.Sprintf("HMAC in `%s`, %s old at most", scheme.Header, minutes(scheme.Past))
	case StampedECDSA:
		words = fmt.Sprintf("ECDSA in `%s`, %s old at most", scheme.Header, minutes(scheme.Past))
	case SharedToken:
		words = fmt.Sprintf("the secret in `%s`", scheme.Header)
		if scheme.Basic {
			words += " as Basic"
		}
	}
	words += "; `" + w.Secret + "`"
	if w.AccountField != "" {
		words += "; shared path"
	}
	return words
}

func minutes(d time.Duration) string { return fmt.Sprintf("%d min", int(d.Minutes())) }

// exampleValues are all fields' examples.
func exampleValues(p *Provider) Values {
	v, errs := p.Parse([]byte(example(p)))
	if len(errs) > 0 {
		panic(errs)
	}
	return v
}
