package provider

import (
	"encoding/json"
	"fmt"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestConformance is what every provider must pass. It says what a new one lacks.
func TestConformance(t *testing.T) {
	owner := map[string]string{} // :: host → provider
	for _, p := range All {
		t.Run(p.Name, func(t *testing.T) {
			if !regexp.MustCompile(`^[a-z][a-z0-9_]*$`).MatchString(p.Name) || p.Title == "" {
				t.Errorf("name %q, title %q", p.Name, p.Title)
			}
			if Named(p.Name) != p {
				t.Errorf("Named(%q) is another", p.Name)
			}
			for _, h := range slices.Concat(p.Hosts, p.OwnHosts) {
				if !regexp.MustCompile(`^([a-z0-9-]+\.)+[a-z]+$`).MatchString(h) {
					t.Errorf("host %q is not a host name in lower case", h)
				}
				if other := owner[h]; other != "" {
					t.Errorf("host %s is that of %s too", h, other)
				}
				owner[h] = p.Name
			}
			if h := p.DefaultHost(Secret{}); !slices.Contains(p.Hosts, h) {
				t.Errorf("the usual host %q is none of its hosts", h)
			}
			t.Run("regions", func(t *testing.T) { conformRegions(t, p) })
			t.Run("fields", func(t *testing.T) { conformFields(t, p) })
			t.Run("example", func(t *testing.T) { conformExample(t, p) })
			t.Run("inject", func(t *testing.T) { conformInject(t, p) })
			t.Run("webhook", func(t *testing.T) { conformWebhook(t, p) })
		})
	}
}

// conformRegions: whatever region and edge a credential names, its default host is one of the provider's, and no two regions share it.
func conformRegions(t *testing.T, p *Provider) {
	region := p.Field("region")
	if region == nil {
		return
	}
	options := [][]string{region.Options, {""}}
	if edge := p.Field("edge"); edge != nil {
		options[1] = append(options[1], edge.Options...)
	}
	seen := map[string]string{}
	for _, r := range options[0] {
		for _, e := range options[1] {
			v := Values{"region": {Text: r}}
			if e != "" {
				v["edge"] = Value{Text: e}
			}
			h := p.DefaultHost(Open(v.Encode(nil)))
			if !slices.Contains(p.Hosts, h) {
				t.Errorf("region %s, edge %q: %q is none of its hosts", r, e, h)
			}
			if other, ok := seen[h]; ok && other != r {
				t.Errorf("regions %s and %s share %s", r, other, h)
			}
			seen[h] = r
		}
	}
}

func conformFields(t *testing.T, p *Provider) {
	seen := map[string]bool{}
	var check func(f *Field, path string)
	check = func(f *Field, path string) {
		if !regexp.MustCompile(`^[a-z][a-z0-9_]*$`).MatchString(f.Name) || len(f.Name) > 40 || seen[path] {
			t.Errorf("%s: no good name, or one that is there twice", path)
		}
		seen[path] = true
		if f.Title == "" || f.Example == "" || !strings.HasSuffix(f.Help, ".") {
			t.Errorf("%s: title %q, example %q, help %q: all are needed, and help is whole sentences", path, f.Title, f.Example, f.Help)
		}
		if (f.Pattern == nil) != (f.PatternHelp == "") {
			t.Errorf("%s: a pattern and its help go together", path)
		}
		if f.Pattern != nil {
			f.Pattern.MatchString(f.Example) // which panics if it cannot be compiled
		}
		if f.Secret && f.Account != nil {
			t.Errorf("%s: a secret cannot be an id that is looked up", path)
		}
		if (f.Kind == Object) != (len(f.Members) > 0) || (f.Kind == Number) != (f.Max > f.Min) {
			t.Errorf("%s: its kind does not fit its members or bounds", path)
		}
		for i := range f.Members {
			check(&f.Members[i], path+"."+f.Members[i].Name)
		}
	}
	for i := range p.Fields {
		f := &p.Fields[i]
		if f.Kind == Flag || f.Kind == Number {
			t.Errorf("%s: only members are flags or numbers", f.Name)
		}
		check(f, f.Name)
		if p.Field(f.Name) != f {
			t.Errorf("Field(%q) is another", f.Name)
		}
	}
	if f := p.Field("webhook_secret"); f != nil && (f.Kind != TextOrList || !f.Secret) {
		t.Error("webhook_secret must be a secret, and a text or a list of them")
	}
}

// conformExample: the fields' examples are one good credential; it survives sealing; what is shown of it holds no secret.
func conformExample(t *testing.T, p *Provider) {
	v := values(t, p, example(p))
	if len(v) != len(p.Fields) {
		t.Errorf("%d of %d fields were read", len(v), len(p.Fields))
	}
	encoded := v.Encode(nil)
	again, err := DecodeValues(encoded)
	if err != nil {
		t.Fatal(err)
	}
	s := Open(encoded)
	for _, f := range p.Fields {
		if !v[f.Name].Equal(again[f.Name]) {
			t.Errorf("%s is another after sealing", f.Name)
		}
		got := string(s.Field(f.Name))
		if f.Kind == List {
			got = ""
			for all := s.Items(f.Name); all.Next(); {
				got += string(all.Item)
			}
		}
		if got != f.Example {
			t.Errorf("%s is %q in the secret", f.Name, got)
		}
		if f.Account != nil && !slices.Contains(p.Accounts(v), Account{f.Name, f.Account(f.Example)}) {
			t.Errorf("%s is not among the accounts", f.Name)
		}
	}
	for _, f := range p.Fields {
		if f.Required {
			_, errs := p.Parse([]byte(`{}`))
			if !slices.ContainsFunc(errs, func(e FieldError) bool { return e.Field == f.Name && strings.HasPrefix(e.Problem, "is missing") }) {
				t.Errorf("%s is not missed", f.Name)
			}
		}
	}
	conformMasking(t, p)
	if s := fmt.Sprintf("%v %+v %#v %s", v, v, again, v); strings.TrimSpace(strings.ReplaceAll(s, hidden, "")) != "" {
		t.Errorf("printed: %s", s)
	}
}

// conformMasking tries secrets of every length, alone and in a list.
func conformMasking(t *testing.T, p *Provider) {
	for _, f := range p.Fields {
		if !f.Secret {
			continue
		}
		for n := 1; n < 40; n++ {
			secret := "0123456789abcdefghijklmnopqrstuvwxyzABCD"[:n]
			for _, v := range []Value{{Text: secret}, {List: []string{secret, secret}}} {
				b, err := json.Marshal(p.Masked(Values{f.Name: v}))
				if err != nil {
					t.Fatal(err)
				}
				most := 4
				if n < 12 {
					most = 0
				}
				if got := overlap(string(b), secret); got != most {
					t.Errorf("%s of %d characters: %d of them are shown: %s", f.Name, n, got, b)
				}
			}
		}
	}
}

// overlap is the length of the longest piece of secret in text, where it is not part of the field's name.
func overlap(text, secret string) int {
	_, text, _ = strings.Cut(text, ":")
	for n := len(secret); n > 0; n-- {
		for i := 0; i+n <= len(secret); i++ {
			if strings.Contains(text, secret[i:i+n]) {
				return n
			}
		}
	}
	return 0
}

// conformWebhook: what it is verified and resolved by are fields, its headers are in lower case, and there is a sample where its scheme is shared.
func conformWebhook(t *testing.T, p *Provider) {
	w := p.Webhook
	if w == nil {
		return
	}
	f := p.Field(w.Secret)
	if _, public := w.Scheme.(StampedECDSA); f == nil || f.Secret == public {
		t.Errorf("%q is no field that its webhooks could be verified with", w.Secret)
	}
	if w.AccountField != "" && (p.Field(w.AccountField) == nil || p.Field(w.AccountField).Account == nil) {
		t.Errorf("%q is no field that lists ids", w.AccountField)
	}
	var headers []string
	switch s := w.Scheme.(type) {
	case OwnScheme:
		return
	case StandardWebhooks:
	case StampedHMAC:
		headers = []string{s.Header, s.Version}
		if s.Past <= 0 || s.Future <= 0 {
			t.Error("a timestamp without a bound")
		}
	case StampedECDSA:
		headers = []string{s.Header, s.Timestamp}
		if s.Past <= 0 || s.Future <= 0 {
			t.Error("a timestamp without a bound")
		}
	case SharedToken:
		headers = append([]string{s.Header}, s.IDs...)
	default:
		t.Errorf("scheme %T", w.Scheme)
	}
	for _, h := range headers {
		if h == "" || strings.ToLower(h) != h {
			t.Errorf("header %q is empty or not in lower case", h)
		}
	}
	if w.SampleType == "" || w.Sample != "" && !json.Valid([]byte(strings.NewReplacer("{now}", "1").Replace(w.Sample))) {
		t.Error("its sample has no type, or is no JSON")
	}
}

// conformInject: exactly one header, one of those that are deleted from what the caller sent, with one line of text; no allocation once
// the memory is there.
func conformInject(t *testing.T, p *Provider) {
	for _, h := range p.AuthHeaders {
		if textproto.CanonicalMIMEHeaderKey(h) != h {
			t.Errorf("header %q is not in canonical form", h)
		}
	}
	for _, name := range p.AuthParams {
		if strings.ToLower(name) != name {
			t.Errorf("parameter %q is not in lower case", name)
		}
	}
	for _, name := range p.AuthSubprotocols {
		if name == "" || strings.ToLower(name) != name {
			t.Errorf("subprotocol %q is empty or not in lower case", name)
		}
	}
	s := opened(t, p, example(p))
	r := Request{Method: []byte("GET"), Host: p.Hosts[0]}
	if p.Exchange != nil {
		r.Token = []byte("ya29.token")
	}
	path := []byte("/2010-04-01/Accounts/%41Ckeyward/Messages/SM00112233445566778899aabbccddeeff.json")
	run := func() {
		r.Path, r.Value, r.Scratch = path, r.Value[:0], r.Scratch[:0]
		if err := p.Inject(&r, s); err != nil {
			t.Fatal(err)
		}
	}
	run()
	if !slices.Contains(p.AuthHeaders, r.Header) {
		t.Errorf("%q is not deleted from what callers send", r.Header)
	}
	if v := string(r.Value); v == "" || strings.TrimSpace(v) != v || strings.ContainsAny(v, "\r\n\x00") || !utf8.ValidString(v) {
		t.Errorf("%q is no value of a header", v)
	}
	if n := testing.AllocsPerRun(100, run); n != 0 {
		t.Errorf("injecting allocates %v times", n)
	}
	if err := p.Inject(&Request{Method: []byte("GET"), Path: []byte("/")}, Secret{}); err == nil {
		t.Error("an empty credential is injected")
	}
	for _, h := range []string{"Authorization", "Proxy-Authorization", "Cookie"} {
		if !slices.Contains(p.AuthHeaders, h) {
			t.Errorf("a caller's %s would stay", h)
		}
	}
	if (p.Exchange != nil) != (len(p.OwnHosts) > 0) || p.Exchange != nil && (p.Field(p.Exchange.RefreshField) == nil || !slices.Contains(p.OwnHosts, p.Exchange.Host)) {
		t.Error("an exchange needs its host among OwnHosts and its refresh field among the fields")
	}
}
