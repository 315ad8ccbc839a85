package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// keysetVersion is the version of the keyset's form (package comment).
const keysetVersion = 1

// parseKeyset reads a keyset and names everything that is wrong with it, but never a byte of a key: what stands in the wrong place may be
// one. The parts of text that it copies are overwritten before it returns; text is the caller's to overwrite.
func parseKeyset(text []byte) (*Keyring, error) {
	var p problems
	set, err := readObject(text)
	if err != nil {
		return nil, err
	}
	defer set.wipe()
	set.only(&p, "", "version", "keys")
	if v := string(set["version"]); v != fmt.Sprint(keysetVersion) {
		p.add("version: must be %d; this program reads no other", keysetVersion)
	}
	var list []json.RawMessage
	if err := json.Unmarshal(set["keys"], &list); err != nil || len(list) == 0 {
		p.add("keys: must be a list of at least one key")
	}
	r := &ring{}
	defer func() {
		for _, raw := range list {
			clear(raw)
		}
	}()
	for i, raw := range list {
		at := fmt.Sprintf("keys[%d]", i)
		k := parseKey(&p, at, raw)
		if j := slices.IndexFunc(r.keys, func(other *key) bool { return other.id == k.id }); j >= 0 && k.id != "" {
			p.add("%s.id: the same as that of keys[%d]", at, j)
		}
		if j := slices.IndexFunc(r.keys, func(other *key) bool {
			return k.material != nil && other.material != nil && *other.material() == *k.material()
		}); j >= 0 {
			p.add("%s.key: the same as that of keys[%d]", at, j)
		}
		if k.state == Primary {
			if r.primary != nil {
				p.add("%s.state: there is a primary key already, and only one may seal", at)
			}
			r.primary = k
		}
		r.keys = append(r.keys, k)
	}
	if r.primary == nil && len(list) > 0 {
		p.add("no key is primary")
	}
	if err := errors.Join(p...); err != nil {
		for _, k := range r.keys {
			if k.material != nil {
				clear(k.material()[:])
			}
		}
		return nil, err
	}
	return newKeyring(r.primary, r.keys), nil
}

// parseKey reads one key as far as it can be read.
func parseKey(p *problems, at string, text []byte) *key {
	k := &key{}
	o, err := readObject(text)
	if err != nil {
		p.add("%s: must be an object", at)
		return k
	}
	defer o.wipe()
	o.only(p, at+".", "id", "key", "state", "created")
	switch id, ok := o.text("id"); {
	case !ok || !isKeyID(id):
		p.add("%s.id: must be 1 to %d letters, digits or . _ -", at, maxKeyID)
	case decodes(id):
		p.add("%s.id: looks like a key; ids are shown to everyone", at)
	default:
		k.id = string(id)
	}
	material, ok := o.text("key")
	var room [keySize + 3]byte // base64 may write a little more than it says in the end
	b, err := base64.StdEncoding.AppendDecode(room[:0], material)
	if !ok || err != nil || len(b) != keySize {
		p.add("%s.key: must be %d bytes in base64", at, keySize)
	} else {
		k.use([keySize]byte(b))
	}
	clear(b)
	clear(room[:])
	state, _ := o.text("state")
	switch s := State(state); s {
	case Primary, Active, Retiring:
		k.state = s
	default:
		p.add("%s.state: must be primary, active or retiring", at)
	}
	if created, ok := o.text("created"); ok || o["created"] != nil {
		if k.created, err = time.Parse(time.RFC3339, string(created)); err != nil {
			p.add("%s.created: must be a time as 2026-09-01T08:00:00Z", at)
		}
	}
	return k
}

// problems are all that is wrong with a keyset.
type problems []error

func (p *problems) add(format string, args ...any) { *p = append(*p, fmt.Errorf(format, args...)) }

// An object is a JSON object whose values are still text, in memory that can be overwritten, which strings cannot.
type object map[string]json.RawMessage

// readObject says where text is not JSON, and not what stands there.
func readObject(text []byte) (object, error) {
	var o object
	err := json.Unmarshal(text, &o)
	var syntax *json.SyntaxError
	switch {
	case errors.As(err, &syntax):
		before := text[:min(max(syntax.Offset-1, 0), int64(len(text)))]
		return nil, fmt.Errorf("it is not JSON: line %d, byte %d of it", 1+bytes.Count(before, []byte("\n")), len(before)-bytes.LastIndexByte(before, '\n'))
	case err != nil || o == nil:
		return nil, errors.New("it is not a JSON object")
	}
	return o, nil
}

// only names the fields that the object should not have.
func (o object) only(p *problems, at string, known ...string) {
	for _, name := range slices.Sorted(maps.Keys(o)) {
		switch {
		case slices.Contains(known, name):
		case len(name) > 16 || !isKeyID([]byte(name)):
			p.add("%sa field whose name has %d bytes: unknown", at, len(name))
		default:
			p.add("%s%s: unknown field", at, name)
		}
	}
}

// text is a string of the object, in the object's memory. Strings with escapes, which nothing in a keyset needs, are not ok.
func (o object) text(name string) ([]byte, bool) {
	raw := o[name]
	if len(raw) < 2 || raw[0] != '"' || bytes.IndexByte(raw, '\\') >= 0 {
		return nil, false
	}
	return raw[1 : len(raw)-1], true
}

func (o object) wipe() {
	for _, raw := range o {
		clear(raw)
	}
}

func isKeyID(s []byte) bool {
	for _, c := range s {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return len(s) > 0 && len(s) <= maxKeyID
}

// decodeKey reads 32 bytes of hex or of any base64.
func decodeKey(text []byte) (raw [keySize]byte, ok bool) {
	var room [2 * keySize]byte
	defer clear(room[:])
	if len(text) == hex.EncodedLen(keySize) {
		if _, err := hex.Decode(room[:], text); err == nil {
			return [keySize]byte(room[:]), true
		}
	}
	if n := len(text); n < base64.RawStdEncoding.EncodedLen(keySize) || n > base64.StdEncoding.EncodedLen(keySize) {
		return raw, false
	}
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if n, err := enc.Decode(room[:], text); err == nil && n == keySize {
			return [keySize]byte(room[:]), true
		}
	}
	return raw, false
}

func decodes(text []byte) bool {
	raw, ok := decodeKey(text)
	clear(raw[:])
	return ok
}

// appendKeyset writes the keyset by hand: encoding/json keeps its buffers, and with them the keys.
func (r *ring) appendKeyset(dst []byte) []byte {
	dst = fmt.Appendf(dst, "{\n  \"version\": %d,\n  \"keys\": [", keysetVersion)
	for i, k := range r.keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, "\n    {\"id\": \""...)
		dst = append(dst, k.id...)
		dst = append(dst, "\", \"key\": \""...)
		dst = base64.StdEncoding.AppendEncode(dst, k.material()[:])
		dst = append(dst, "\", \"state\": \""...)
		dst = append(dst, k.state...)
		if !k.created.IsZero() {
			dst = append(dst, "\", \"created\": \""...)
			dst = k.created.UTC().AppendFormat(dst, time.RFC3339)
		}
		dst = append(dst, "\"}"...)
	}
	return append(dst, "\n  ]\n}\n"...)
}
