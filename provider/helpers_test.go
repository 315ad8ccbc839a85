package provider

import (
	"fmt"
	"strings"
	"testing"
)

// values parses a good credential.
func values(t testing.TB, p *Provider, text string) Values {
	t.Helper()
	v, errs := p.Parse([]byte(text))
	if len(errs) > 0 {
		t.Fatalf("%s: %s: %v", p.Name, text, errs)
	}
	return v
}

// opened is the secret as the proxy sees it.
func opened(t testing.TB, p *Provider, text string) Secret {
	t.Helper()
	return Open(values(t, p, text).Encode(nil))
}

// inject is what goes to the provider: "PATH HEADER: VALUE", or the error.
func inject(t testing.TB, p *Provider, credential, method, path string) string {
	t.Helper()
	r := &Request{Method: []byte(method), Host: p.Hosts[0], Path: []byte(path)}
	if err := p.Inject(r, opened(t, p, credential)); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s %s: %s", r.Path, r.Header, r.Value)
}

// refused is what is wrong with a credential, as people read it.
func refused(p *Provider, text string) string {
	_, errs := p.Parse([]byte(text))
	all := make([]string, len(errs))
	for i, e := range errs {
		all[i] = e.Field + " " + e.Problem
	}
	return strings.Join(all, "\n")
}

// example is a credential of the provider in which every field is set.
func example(p *Provider) string {
	var b strings.Builder
	for i, f := range p.Fields {
		b.WriteString([]string{",", "{"}[max(0, 1-i)])
		fmt.Fprintf(&b, "%q:", f.Name)
		switch f.Kind {
		case Object:
			b.WriteString(f.Example)
		case List:
			fmt.Fprintf(&b, "[%q]", f.Example)
		default:
			fmt.Fprintf(&b, "%q", f.Example)
		}
	}
	return b.String() + "}"
}
