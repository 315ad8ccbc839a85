package examples

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A delivery is a generated one: what is sent, whose secret it is held against, and what was done to it.
type delivery struct {
	provider, org string
	traits        []string // what is odd about it; empty: nothing is, and it must verify

	secrets     []string // the org's
	typed       string   // Twilio: the URL as it is typed there; empty: the one that the request shows
	url         string   // Twilio: the URL that the SDKs are told, from which the app knows itself to be called
	host        string
	path, query string
	header      [][2]string
	body        []byte
}

func newDelivery(provider, org string) *delivery {
	return &delivery{provider: provider, org: org, host: "hooks.example.com", path: "/webhooks/" + provider + "/" + org}
}

func (d *delivery) target() string {
	if d.query == "" {
		return d.path
	}
	return d.path + "?" + d.query
}

func (d *delivery) odd(trait string) {
	if !d.is(trait) {
		d.traits = append(d.traits, trait)
	}
}

func (d *delivery) is(trait string) bool { return slices.Contains(d.traits, trait) }

// String is all of it, to be tried by hand. The secrets are made up.
func (d *delivery) String() string {
	return fmt.Sprintf("%s\nsecrets %q, typed %q, url %q\n%q", strings.Join(d.traits, " + "), d.secrets, d.typed, d.url, d.wire())
}

// A mutation changes a draft of a provider's deliveries, before it is signed or after.
type mutation[D any] struct {
	trait         string
	before, after func(r random, d D)
}

// mutations picks which to apply: to a third none, to most one.
func mutations[D any](r random, all []mutation[D]) []mutation[D] {
	switch n := r.IntN(20); {
	case n < 7:
		return nil
	case n < 19:
		return []mutation[D]{pick(r, all...)}
	}
	return []mutation[D]{pick(r, all...), pick(r, all...)}
}

// A random makes things up, the same ones for the same seed.
type random struct{ *rand.Rand }

func pick[T any](r random, of ...T) T { return of[r.IntN(len(of))] }

// in says yes one time in n.
func (r random) in(n int) bool { return r.IntN(n) == 0 }

const (
	hexDigits = "0123456789abcdef"
	letters   = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
)

func (r random) of(alphabet string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(b)
}

func (r random) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// text is what people and programs write: every kind of character, at every length that matters.
func (r random) text() string {
	var b strings.Builder
	for range pick(r, 0, 1, 1, 2, 5, 12, 40) {
		b.WriteString(pick(r, "a", "Z", "7", " ", "  ", "+", "&", "=", "%", "%41", "é", "ß", "😀", "￭", "漢", "\n", "\t", "\"", "'", "\\", "/", "?", "#", "~", "*", "(", "|", "<", ";", ":", "@", ",", ".", "-", "\u00a0", "\u2028", "\x00", "hello", "true", "v1,"))
	}
	return b.String()
}

// changed is text with one byte another, taken away or put in.
func (r random) changed(text, alphabet string) string {
	for {
		i := r.IntN(len(text) + 1)
		put := string(alphabet[r.IntN(len(alphabet))])
		c := text[:i] + put + text[i:]
		if i < len(text) {
			c = pick(r, c, text[:i]+text[i+1:], text[:i]+put+text[i+1:])
		}
		if c != text {
			return c
		}
	}
}

// json is a JSON text with the given members and some made-up ones, in any order and spacing.
func (r random) json(members ...string) string {
	for range r.IntN(5) {
		members = append(members, quoted("x"+r.of(letters, 4))+":"+r.value(3))
	}
	r.Shuffle(len(members), func(i, j int) { members[i], members[j] = members[j], members[i] })
	space := pick(r, "", "", " ", "\n  ")
	return "{" + space + strings.Join(members, ","+space) + space + "}"
}

func (r random) value(depth int) string {
	switch n := r.IntN(9); {
	case n == 0 && depth > 0:
		return "[" + r.value(depth-1) + "," + r.value(depth-1) + "]"
	case n == 1 && depth > 0:
		return "{" + quoted(r.of(letters, 3)) + ":" + r.value(depth-1) + "}"
	case n == 2:
		return pick(r, "null", "true", "false", "0", "-1.5e3", "1e400")
	case n == 3:
		return `"\u0041\ud83d\ude00\/"`
	}
	return quoted(r.text())
}

func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // a text can always be written
	}
	return string(b)
}

// oddBody is a body that is no JSON object as others are, with what is odd about it.
func (r random) oddBody(d *delivery, usual string) string {
	if usual == "" {
		usual = "{}"
	}
	switch r.IntN(7) {
	case 0:
		return ""
	case 1:
		return pick(r, "hello", "{", strings.ToValidUTF8(usual[:len(usual)/2], ""), usual+"}", "null", "[]", "42", `"text"`, "\ufeff"+usual)
	case 2:
		d.odd("body with a key twice")
		return `{"type":"a","type":"b",` + usual[1:]
	case 3:
		d.odd("body nested very deep")
		return `{"type":` + strings.Repeat("[", 1500) + strings.Repeat("]", 1500) + "}"
	case 4:
		d.odd("type that is not a text")
		return `{"type":` + pick(r, "5", `["a"]`, `{"a":1}`, "true") + "}"
	case 5:
		return r.text()
	}
	return strings.Repeat(usual, 20)
}

// seconds are a time in Unix seconds, as text.
func seconds(t time.Time) string { return strconv.FormatInt(t.Unix(), 10) }

// mangled is a plain number in another form, and what programs that are not strict take it for.
func (r random) mangled(stamp string) (written, read string) {
	written = pick(r, "+"+stamp, "0"+stamp, "000"+stamp, stamp+"x", stamp+".0", stamp+".5", stamp+" s", stamp+"e0", "-"+stamp, "soon", "NaN", "0x65f2b3c0", "1_"+stamp, stamp+"000", stamp+", "+stamp, "Infinity", "1e9", "9"+strings.Repeat("9", 22))
	return written, pick(r, written, stamp)
}
