package examples

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
)

// A form is a delivery of Twilio's in the making.
type form struct {
	*delivery
	scheme, user, server, port string
	pathTyped                  string
	mustType                   bool // the request does not show the URL that was typed
	params                     [][2]string
	written                    string // the form's text, where it is not params as Twilio writes them
	json                       string // a body that is no form
	hash                       string // of the body, in the query; empty: none
	unsigned                   bool   // params are sent, but not signed
	token                      string
	sign                       func(url string) string // the URL that is signed
	signature                  string
}

func newForm(r random, _ time.Time, org string) *delivery {
	f := &form{delivery: newDelivery("twilio", org), scheme: pick(r, "https://", "https://", "https://", "http://"), server: pick(r, "hooks.example.com", "hooks.acme.example", "a.b-c.example")}
	f.token = r.of(hexDigits, 32)
	f.secrets = []string{f.token}
	f.pathTyped = pick(r, "/sms", "/myapp.php", "/a/b/", "/", "/x%20y/%C3%A9", "/a;b=c,d", "/~me/@x:y")
	if r.in(3) {
		f.port = pick(r, ":443", ":80", ":8443")
	}
	for range r.IntN(4) {
		f.addQuery(pick(r, "foo", "bar", "a-b", "A") + "=" + pick(r, "1", "", "x%20y", "a+b", "%2Fp", "%C3%A9", "2-3_4.5~6"))
	}
	for range pick(r, 0, 1, 4, 4, 4, 12) {
		f.param("P"+r.of(letters, 3)+strconv.Itoa(len(f.params)), r.text())
	}
	if len(f.params) > 0 {
		f.param("AccountSid", "AC"+r.of(hexDigits, 32))
		f.param("Body", r.text())
	}
	typed := r.in(2)
	all := mutations(r, formMutations)
	for _, change := range all {
		f.odd(change.trait)
		if change.before != nil {
			change.before(r, f)
		}
	}
	authority := f.user + f.server + f.port
	if typed || f.mustType || f.is("fragment typed") {
		f.typed = f.scheme + authority + f.pathTyped
		f.url = f.typed
	} else {
		f.host = f.server + f.port
		f.url = "https://" + f.host + f.path
	}
	f.finish(r)
	for _, change := range all {
		if change.after != nil {
			change.after(r, f)
		}
	}
	r.Shuffle(len(f.header), func(i, j int) { f.header[i], f.header[j] = f.header[j], f.header[i] })
	return f.delivery
}

// finish writes and signs the request.
func (f *form) finish(r random) {
	switch {
	case f.json != "":
		f.body = []byte(f.json)
	case f.written != "":
		f.body = []byte(f.written)
	default:
		r.Shuffle(len(f.params), func(i, j int) { f.params[i], f.params[j] = f.params[j], f.params[i] })
		f.body = []byte(encoded(f.params))
	}
	if f.hash != "" {
		f.addQuery(strings.ReplaceAll(f.hash, "{sum}", fmt.Sprintf("%x", sha256.Sum256(f.body))))
	}
	typedQuery := ""
	if f.typed != "" && f.query != "" && r.in(2) {
		typedQuery = "?" + f.query // a hash is never typed; all else of the query may be
		if f.hash != "" {
			typedQuery = ""
		}
	}
	if f.query != "" {
		f.url += "?" + f.query
	}
	if f.typed != "" {
		f.typed += typedQuery
		if f.is("fragment typed") {
			f.typed += "#rc=2&rp=all"
		}
	}
	signed := portSigned(r, f.url)
	if f.sign != nil {
		signed = f.sign(signed)
	}
	params := f.params
	if f.json != "" || f.unsigned {
		params = nil
	}
	for i, p := range params {
		if slices.ContainsFunc(params[:i], func(q [2]string) bool { return p[0] == q[0] && p[1] != q[1] }) {
			f.odd("parameter twice")
		}
	}
	f.signature = signature(f.token, signed, params)
	f.header = [][2]string{{pick(r, "X-Twilio-Signature", "x-twilio-signature"), f.signature}}
	switch {
	case f.json != "":
		f.header = append(f.header, [2]string{"Content-Type", "application/json"})
	case len(f.body) > 0:
		f.header = append(f.header, [2]string{"Content-Type", pick(r, "application/x-www-form-urlencoded", "application/x-www-form-urlencoded; charset=UTF-8")})
	}
}

func (f *form) addQuery(pair string) {
	if f.query != "" {
		f.query += "&"
	}
	f.query += pair
}

func (f *form) param(name, value string) { f.params = append(f.params, [2]string{name, value}) }

// contentType is where that header stands; it is added if it does not.
func (f *form) contentType() int {
	for i, h := range f.header {
		if h[0] == "Content-Type" {
			return i
		}
	}
	f.header = append(f.header, [2]string{"Content-Type", ""})
	return len(f.header) - 1
}

// signWith puts another signature into its header.
func (f *form) signWith(signature string) {
	for i, h := range f.header {
		if strings.EqualFold(h[0], "X-Twilio-Signature") {
			f.header[i][1] = signature
		}
	}
}

// portSigned is the URL with its port, without one, or with the usual one: Twilio's back ends differ.
func portSigned(r random, url string) string {
	scheme, rest, _ := strings.Cut(url, "://")
	end := strings.IndexAny(rest+"/", "/?")
	authority, rest := rest[:end], rest[end:]
	bare := authority
	if colon := strings.LastIndexByte(authority, ':'); colon > strings.LastIndexByte(authority, ']') && colon > strings.LastIndexByte(authority, '@') {
		bare = authority[:colon]
	}
	usual := map[string]string{"https": ":443", "http": ":80"}[strings.ToLower(scheme)]
	if bare != authority {
		usual = authority[len(bare):]
	}
	return scheme + "://" + pick(r, authority, bare, bare+usual) + rest
}

// signature is Twilio's, by the rule of its SDK for Node: of a repeated parameter the different values, in JavaScript's order.
func signature(token, url string, params [][2]string) string {
	byName := map[string][]string{}
	var names []string
	for _, p := range params {
		if byName[p[0]] == nil {
			names = append(names, p[0])
		}
		byName[p[0]] = append(byName[p[0]], p[1])
	}
	slices.SortFunc(names, byUTF16)
	sum := hmac.New(sha1.New, []byte(token))
	sum.Write([]byte(url))
	for _, name := range names {
		values := byName[name]
		slices.SortFunc(values, byUTF16)
		for _, v := range slices.Compact(values) {
			sum.Write([]byte(name + v))
		}
	}
	return base64.StdEncoding.EncodeToString(sum.Sum(nil))
}

func byUTF16(a, b string) int {
	return slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b)))
}

// encoded is a form as Twilio writes it.
func encoded(params [][2]string) string {
	var pairs []string
	for _, p := range params {
		pairs = append(pairs, escaped(p[0])+"="+escaped(p[1]))
	}
	return strings.Join(pairs, "&")
}

func escaped(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case strings.IndexByte(letters+".-*_", c) >= 0:
			b.WriteByte(c)
		case c == ' ':
			b.WriteByte('+')
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// legacy is a query decoded and encoded anew, as Node's querystring does: numbers in front, equal names together.
func legacy(query string) string {
	var names []string
	values := map[string][]string{}
	for part := range strings.SplitSeq(query, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		name, value = decoded(name), decoded(value)
		if values[name] == nil {
			names = append(names, name)
		}
		values[name] = append(values[name], value)
	}
	slices.SortStableFunc(names, func(a, b string) int {
		x, errX := strconv.Atoi(a)
		y, errY := strconv.Atoi(b)
		switch {
		case errX == nil && errY == nil:
			return x - y
		case errX == nil:
			return -1
		case errY == nil:
			return 1
		}
		return 0
	})
	var pairs []string
	for _, name := range names {
		for _, v := range values[name] {
			pairs = append(pairs, escapedLegacy(name)+"="+escapedLegacy(v))
		}
	}
	return strings.Join(pairs, "&")
}

func decoded(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		n, err := strconv.ParseUint(s[min(i+1, len(s)):min(i+3, len(s))], 16, 8)
		switch {
		case s[i] == '%' && i+2 < len(s) && err == nil:
			b.WriteByte(byte(n))
			i += 2
		case s[i] == '+':
			b.WriteByte(' ')
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func escapedLegacy(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if strings.IndexByte(letters+"!'()*-._~", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
