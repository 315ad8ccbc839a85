package main

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/keyward/keyward/legacy"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/seal"
)

//go:embed import_mapping.yaml
var defaultMapping []byte

// readMapping reads the file, or the default.
func readMapping(path string) (*legacy.Mapping, error) {
	text, name := defaultMapping, "the default mapping"
	if path != "" {
		var err error
		if text, err = os.ReadFile(path); err != nil {
			return nil, usagef("--mapping %q: %w", path, plainError(err))
		}
		name = path
	}
	m := &legacy.Mapping{}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(m); err != nil {
		return nil, usagef("%s: %w", name, err)
	}
	if m.Sealed.Parts == "" {
		m.Sealed.Parts = "iv:tag:ciphertext"
	}
	if m.Sealed.Key == "" {
		m.Sealed.Key = "auto"
	}
	var p problems
	p.add(m.Check())
	for i, err := range p {
		p[i] = fmt.Errorf("%s: %w", name, err)
	}
	return m, p.err()
}

// readConstants reads what the mapping's constants name. A variable that is not set is left out.
func readConstants(m *legacy.Mapping) (map[string]string, error) {
	all := map[string]string{}
	var p problems
	variables := readVariables(m, &p)
	for field, source := range m.Constants {
		kind, rest, _ := strings.Cut(source, ":")
		switch {
		case kind == "env":
			source = variables[rest]
		case kind == "file":
			text, err := seal.ReadFile(rest)
			if err != nil {
				p.addf("constants: %s: reading %q: %w", field, rest, err)
			}
			source = string(text)
		case isSecret(field):
			p.addf("constants: %s: a secret stands in no mapping; write env:NAME or file:PATH", field)
		}
		if source = strings.TrimSpace(source); source != "" {
			all[field] = source
		}
	}
	return all, p.err()
}

// readVariables reads those that constants name, and takes what is secret out of the process's environment, as a key is.
func readVariables(m *legacy.Mapping, p *problems) map[string]string {
	all := map[string]string{}
	secret := map[string]string{} // :: variable → field
	for field, source := range m.Constants {
		kind, name, _ := strings.Cut(source, ":")
		if value := os.Getenv(name); kind == "env" && value != "" {
			all[name] = strings.Clone(value) // of what is overwritten then
			if isSecret(field) {
				secret[name] = field
			}
		}
	}
	for name, field := range secret {
		text, err := seal.TakeEnv(name)
		clear(text)
		if err != nil {
			p.addf("constants: %s: variable %s: %w", field, name, err)
		}
	}
	return all
}

// isSecret is asked of provider.field.
func isSecret(field string) bool {
	of, name, _ := strings.Cut(field, ".")
	return provider.Named(of).Field(name).Secret
}

// readLegacyKey reads the app's key: env:NAME or file:PATH.
func readLegacyKey(source string) ([]byte, error) {
	kind, rest, _ := strings.Cut(source, ":")
	switch {
	case kind == "env" && rest != "":
		if os.Getenv(rest) == "" {
			return nil, usagef("--legacy-key: variable %s is not set: it holds the key that the app has sealed with", rest)
		}
		text, err := seal.TakeEnv(rest)
		if err != nil {
			return nil, usagef("--legacy-key: variable %s: %w", rest, err)
		}
		return text, nil
	case kind == "file" && rest != "":
		text, err := seal.ReadFile(rest)
		if err != nil {
			return nil, usagef("--legacy-key: reading %q: %w", rest, err)
		}
		return text, nil
	}
	return nil, &usageError{[]error{errors.New("--legacy-key: must be env:NAME or file:PATH, never the key itself")}}
}
