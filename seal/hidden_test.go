package seal

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/gob"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"go.yaml.in/yaml/v3"
)

// Everything that holds a key is printed in every way that Go and the program's libraries have, alone and inside of other things.
func TestNothingPrintsAKey(t *testing.T) {
	k := Generate()
	one := k.ring.Load().primary
	holders := map[string]any{
		"a keyring": k, "its copy": *k, "a key": one, "a list": []*Keyring{k}, "a map": map[string]any{"k": k, "key": one},
		"a field": struct{ K *Keyring }{k}, "a hidden field": struct{ k *Keyring }{k}, "a hidden copy": struct{ k Keyring }{*k}, "a hidden key": struct{ k *key }{one},
		"a pointer": &k, "a ring": k.ring, "its content": k.ring.Load(), "what is shown": k.Keys(), "an error": fmt.Errorf("with %v and %#v", k, one),
	}
	for name, v := range holders {
		var out bytes.Buffer
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%o", "%b", "%c", "%U", "%t", "%T", "%10v", "%-+#x"} {
			fmt.Fprintf(&out, verb, v)
		}
		fmt.Fprint(&out, v)
		if b, err := json.Marshal(v); err == nil {
			out.Write(b)
		}
		if b, err := json.MarshalIndent(v, "", " "); err == nil {
			out.Write(b)
		}
		if b, err := yaml.Marshal(v); err == nil {
			out.Write(b)
		}
		if b, err := xml.Marshal(v); err == nil {
			out.Write(b)
		}
		_ = gob.NewEncoder(&out).Encode(v)
		log := zerolog.New(&out).With().Interface("context", v).Logger()
		log.Info().Interface("v", v).Any("any", v).Fields(map[string]any{"f": v}).Msgf("%v %+v", v, v)
		if s, ok := v.(fmt.Stringer); ok {
			log.Info().Stringer("s", s).Stringers("ss", []fmt.Stringer{s}).Msg(s.String())
		}
		slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "v", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("m", "v", v)

		shown := strings.ToLower(out.String())
		raw := one.material()[:]
		words := []uint32{binary.BigEndian.Uint32(raw), binary.BigEndian.Uint32(raw[4:])} // two, since one may be a number like any other
		for form, secret := range map[string]string{
			"raw": strings.ToLower(string(raw[:8])), "hex": hex.EncodeToString(raw[:8]), "spaced hex": fmt.Sprintf("% x", raw[:8]), "decimal": strings.Trim(fmt.Sprint(raw[:8]), "[]"),
			"Go": strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", raw[:8]), "[]byte{"), "}"), "round keys": strings.Trim(fmt.Sprint(words), "[]"), "base64": strings.ToLower(base64.StdEncoding.EncodeToString(raw)[:12]),
		} {
			if strings.Contains(shown, secret) {
				t.Errorf("%s shows a key, %s: %s", name, form, secret)
			}
		}
		if name == "a keyring" && strings.Count(shown, hiddenRing) < 20 || name == "a key" && strings.Count(shown, hiddenKey) < 20 {
			t.Errorf("%s prints as %s", name, shown)
		}
	}
}
