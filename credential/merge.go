package credential

import (
	"encoding/json"

	"github.com/keyward/keyward/provider"
)

// merge lays change, a JSON object in the sense of RFC 7396 (null removes), over values and reads the whole again, so that a patched
// credential passes exactly the checks of a new one.
func merge(p *provider.Provider, values provider.Values, change []byte) (provider.Values, error) {
	var named map[string]json.RawMessage
	if err := json.Unmarshal(change, &named); err != nil || named == nil {
		return nil, &InvalidError{[]provider.FieldError{{Field: "credentials", Problem: "must be a JSON object"}}}
	}
	defer func() {
		for _, raw := range named {
			clear(raw)
		}
	}()

	size := 2 + len(change)
	for name, v := range values {
		size += len(name) + len(v.Object) + 6*len(v.Text) + 8
		for _, item := range v.List {
			size += 6*len(item) + 3
		}
	}
	whole := append(make([]byte, 0, size), '{') // large enough for the worst: growing would leave secrets behind
	defer func() { clear(whole) }()
	member := func(name string) {
		if len(whole) > 1 {
			whole = append(whole, ',')
		}
		whole = append(appendText(whole, name), ':')
	}
	for name, v := range values {
		if _, replaced := named[name]; !replaced {
			member(name)
			whole = appendValue(whole, v)
		}
	}
	for name, raw := range named {
		if string(raw) == "null" && p.Field(name) != nil {
			continue
		}
		member(name) // an unknown one too: Parse names it
		whole = append(whole, raw...)
	}
	whole = append(whole, '}')
	merged, problems := p.Parse(whole)
	if len(problems) > 0 {
		return nil, &InvalidError{problems}
	}
	return merged, nil
}

// appendValue writes one value as the JSON that Provider.Parse reads.
func appendValue(dst []byte, v provider.Value) []byte {
	switch {
	case v.Object != nil:
		return append(dst, v.Object...)
	case v.List != nil:
		dst = append(dst, '[')
		for i, item := range v.List {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendText(dst, item)
		}
		return append(dst, ']')
	}
	return appendText(dst, v.Text)
}

// appendText writes a JSON string. encoding/json would leave a copy in a buffer of its own.
func appendText[T string | []byte](dst []byte, s T) []byte {
	const hex = "0123456789abcdef"
	dst = append(dst, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return append(dst, '"')
}
