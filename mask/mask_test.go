package mask

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

var fields = NewFields([]string{"auth_token", "credentials", "server.headers", "server.secret"})

func overwritten(body string) string {
	b := []byte(body)
	fields.Overwrite(b)
	return string(b)
}

// inPieces is what comes of a body that arrives byte by byte.
func inPieces(body string) string {
	b := []byte(body)
	m := fields.New()
	for i := range b {
		m.Feed(b[i : i+1])
	}
	return string(b)
}

func TestFieldsAreOverwritten(t *testing.T) {
	for body, want := range map[string]string{
		`{"sid":"AC1","auth_token":"abc","x":1}`:            `{"sid":"AC1","auth_token":"***","x":1}`,
		"{ \"auth_token\" :\n \"abc\" }":                    "{ \"auth_token\" :\n \"***\" }",
		`{"auth_token":"a\"b\\"}`:                           `{"auth_token":"******"}`,
		`{"auth\u005ftoken":"abc"}`:                         `{"auth\u005ftoken":"***"}`,
		`{"auth_token":"a","auth_token":"b"}`:               `{"auth_token":"*","auth_token":"*"}`,
		`[{"b":{"auth_token":"abc"}}]`:                      `[{"b":{"auth_token":"***"}}]`,
		`{"credentials":[{"k":"abc","d":[["e"]]}],"y":"z"}`: `{"credentials":[{"k":"***","d":[["*"]]}],"y":"z"}`,
		`{"server":{"secret":"s","headers":{"A":"b"}}}`:     `{"server":{"secret":"*","headers":{"A":"*"}}}`,
		`{"auth_token":"für"}`:                              `{"auth_token":"****"}`, // bytes, not letters
	} {
		if got := overwritten(body); got != want {
			t.Errorf("%s\nbecame %s\nwant   %s", body, got, want)
		}
		if got := inPieces(body); got != want {
			t.Errorf("byte by byte, %s\nbecame %s\nwant   %s", body, got, want)
		}
	}
}

func TestAllElseStays(t *testing.T) {
	for _, body := range []string{
		`{"auth_token":null,"x":"y"}`, `{"auth_token":12}`, `{"auth_token":""}`, `{"x":"auth_token","y":"abc"}`, `["auth_token","abc"]`,
		`{"auth_token_id":"abc","my_auth_token":"abc"}`, `{"secret":"s","headers":{"A":"b"}}`, `{"server":{"y":{"secret":"b"}}}`,
		`auth_token: abc`, `{"a\u0000b":"auth_token"}`, ``, `{`, `}}]]`, `"auth_token`,
	} {
		if got := overwritten(body); got != body {
			t.Errorf("%s became %s", body, got)
		}
	}
}

// However deep a secret stands, short of the depth at which a webhook is refused.
func TestDeepFields(t *testing.T) {
	for _, depth := range []int{63, 64, 65, 255, 256, 257, 500, 999} {
		body := strings.Repeat(`{"a":[`, depth/2) + `{"server":{"secret":"s","x":"y"},"auth_token":"abc"}` + strings.Repeat(`]}`, depth/2)
		want := strings.NewReplacer(`"s"`, `"*"`, `"abc"`, `"***"`).Replace(body)
		if got := overwritten(body); got != want {
			t.Errorf("at depth %d it stands", depth)
		}
	}
}

// FuzzOverwrittenIsTheSameButForItsTexts: a JSON document stays one, of the same length, and no text that is not in one of the fields changes.
func FuzzOverwrittenIsTheSameButForItsTexts(f *testing.F) {
	for _, s := range []string{`{"auth_token":"a","b":["c"]}`, `{"server":{"secret":{"x":"y"},"z":1}}`, `{"auth\u005ftoken":"\u00e4"}`, `[[[]],{"credentials":{}}]`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		got := overwritten(body)
		if got != inPieces(body) && fields.MayBeIn([]byte(body)) {
			t.Fatal("pieces make a difference")
		}
		if len(got) != len(body) {
			t.Fatal("the length changed")
		}
		var before, after any
		if json.Unmarshal([]byte(body), &before) != nil {
			return
		}
		if err := json.Unmarshal([]byte(got), &after); err != nil {
			t.Fatalf("%q became %q: %v", body, got, err)
		}
		if err := compare(before, after, false, false); err != nil {
			t.Fatalf("%q became %q: %v", body, got, err)
		}
	})
}

func compare(before, after any, secret, server bool) error {
	switch v := before.(type) {
	case map[string]any:
		other, ok := after.(map[string]any)
		if !ok || len(other) != len(v) {
			return fmt.Errorf("an object became %T", after)
		}
		for name, value := range v {
			hidden := secret || name == "auth_token" || name == "credentials" || server && (name == "secret" || name == "headers")
			if err := compare(value, other[name], hidden, name == "server"); err != nil {
				return err
			}
		}
	case []any:
		other, ok := after.([]any)
		if !ok || len(other) != len(v) {
			return fmt.Errorf("a list became %T", after)
		}
		for i := range v {
			if err := compare(v[i], other[i], secret, false); err != nil {
				return err
			}
		}
	case string:
		if !secret && v != after {
			return fmt.Errorf("%q became %q", v, after)
		}
		if secret && strings.Trim(after.(string), "*") != "" {
			return fmt.Errorf("%q stands as %q", v, after)
		}
	default:
		if before != after {
			return fmt.Errorf("%v became %v", before, after)
		}
	}
	return nil
}

func BenchmarkOverwrite(b *testing.B) {
	for name, one := range map[string]string{
		"without": `{"id":"0123456789abcdef","name":"something"},`, "with": `{"id":"0123456789abcdef","auth_token":"something"},`,
	} {
		b.Run(name, func(b *testing.B) {
			body := []byte("[" + strings.Repeat(one, 100) + "{}]")
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				fields.Overwrite(body)
			}
		})
	}
}
