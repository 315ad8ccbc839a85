package webhook

import (
	"bytes"
	"cmp"
	"crypto/sha1"
	"crypto/sha256"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/keyward/keyward/provider"
)

// Twilio (twilio.com/docs/usage/webhooks/webhooks-security): base64 of HMAC-SHA1(auth token, URL and the form's parameters, sorted, each
// as name and value). The URL is what was typed at Twilio, and only nearly so: with and without a port, and with a query that was
// encoded anew. Where Twilio's own libraries disagree, this does what the one for Node does, which knows most.

func verifyTwilio(m *message, s provider.Secret) verdict {
	given, okHeader := m.head.one("x-twilio-signature")
	params, signed := twilioParams(m)
	urls := twilioURLs(m, string(s.Field("webhook_url")))
	secrets, known := secretsOf(s, "webhook_secret", "auth_token")
	ok := false
	var once []byte
	for _, secret := range secrets {
		for _, u := range urls {
			sum := mac(sha1.New, secret, []byte(u), params)
			if same(inBase64(sum), given) {
				ok, once = true, sum
			}
		}
	}
	body := sha256.Sum256(m.body)
	switch {
	case !known:
		return no(noSecret)
	case !okHeader:
		return no(badHeader)
	case !signed:
		return no("the body is not covered by the signature")
	case !ok:
		return no(badSignature)
	}
	// Twilio's own id of the request is not signed, but without it the second of two equal key presses in a call would be a replay.
	id, _ := m.head.get("i-twilio-idempotency-token")
	return verdict{ok: true, once: bytes.Join([][]byte{once, body[:], id}, []byte{0})}
}

// twilioParams is what of the body is signed, and whether all of it is: by its parameters if it is a form, by its hash in the query
// otherwise.
func twilioParams(m *message) (params []byte, signed bool) {
	if want, ok := bodyHash(m.rawQuery); ok {
		sum := sha256.Sum256(m.body)
		return nil, same(inHex(sum[:]), []byte(want))
	}
	if len(m.body) == 0 {
		return nil, true
	}
	if !isForm(m.head) {
		return nil, false
	}
	form, ok := parseForm(m.body)
	return joinParams(form), ok
}

func bodyHash(rawQuery string) (string, bool) {
	for pair := range strings.SplitSeq(rawQuery, "&") {
		if v, ok := strings.CutPrefix(pair, "bodySHA256="); ok {
			return v, true
		}
	}
	return "", false
}

// isForm says whether the body is a form, by its one Content-Type.
func isForm(h *head) bool {
	v, ok := h.one("content-type")
	kind, _, _ := bytes.Cut(v, []byte{';'})
	return ok && is(bytes.TrimSpace(kind), "application/x-www-form-urlencoded")
}

// parseForm reads a form of which every byte counts: one that could be written in another way and be the same form to Twilio's scheme is
// refused, as no sender writes it so (a parameter without "=", an empty one, a small letter in an escape, a byte that must be escaped, one
// that is not UTF-8).
// Without that, a signed body could be changed and still verify.
func parseForm(body []byte) (map[string][]string, bool) {
	form := map[string][]string{}
	for pair := range strings.SplitSeq(string(body), "&") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || !isPlain(pair) {
			return form, false
		}
		n, err := url.QueryUnescape(name)
		if err != nil || !utf8.ValidString(n) {
			return form, false
		}
		v, err := url.QueryUnescape(value)
		if err != nil || !utf8.ValidString(v) {
			return form, false
		}
		form[n] = append(form[n], v)
	}
	return form, true
}

func isPlain(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case c <= ' ' || c >= 0x7f:
			return false
		case c == '%':
			if i+2 >= len(s) || !isUpperHex(s[i+1]) || !isUpperHex(s[i+2]) {
				return false
			}
		}
	}
	return true
}

func isUpperHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'A' && c <= 'F' }

// joinParams writes the parameters as they are signed: sorted by name, of a repeated one its different values, sorted, as JavaScript sorts.
func joinParams(form map[string][]string) []byte {
	names := make([]string, 0, len(form))
	for name := range form {
		names = append(names, name)
	}
	slices.SortFunc(names, compareUTF16)
	var b []byte
	for _, name := range names {
		values := slices.Clone(form[name])
		slices.SortFunc(values, compareUTF16)
		for _, v := range slices.Compact(values) {
			b = append(append(b, name...), v...)
		}
	}
	return b
}

// compareUTF16 orders texts by their UTF-16 code units, as JavaScript and Java do: characters beyond U+FFFF are two surrogates there, and
// stand before U+E000.
func compareUTF16(a, b string) int {
	const privateUse, beyond = 0xee, 0xf0 // the first bytes of U+E000 and U+10000
	for i := range min(len(a), len(b)) {
		x, y := a[i], b[i]
		switch {
		case x == y:
		case x >= privateUse && y >= privateUse && (x >= beyond) != (y >= beyond):
			return cmp.Compare(y, x)
		default:
			return cmp.Compare(x, y)
		}
	}
	return cmp.Compare(len(a), len(b))
}

// twilioURLs are the URLs that Twilio may have signed.
func twilioURLs(m *message, typed string) []string {
	var first []string
	switch {
	case typed == "":
		first = []string{m.url}
	default:
		typed, _, _ = strings.Cut(typed, "#") // connection overrides are not sent
		bare, query, _ := strings.Cut(typed, "?")
		first = []string{withQuery(bare, m.rawQuery)}
		if query != "" && !strings.Contains(m.rawQuery, query) { // something on the way has taken the typed query off
			joined := query
			if m.rawQuery != "" {
				joined += "&" + m.rawQuery
			}
			first = append(first, bare+"?"+joined)
		}
	}
	var all []string
	add := func(u string) {
		if !slices.Contains(all, u) {
			all = append(all, u)
		}
	}
	for _, u := range first {
		forms := []string{u}
		if normal, ok := normalURL(u); ok {
			forms = append(forms, normal, legacyQuery(normal))
		}
		for _, v := range forms {
			add(v)
			p, ok := splitURL(v)
			if !ok {
				continue
			}
			for _, user := range []string{p.user, ""} {
				add(p.scheme + user + p.host + p.rest)
				add(p.scheme + user + p.host + p.portOrDefault() + p.rest)
			}
		}
	}
	return all
}

func withQuery(u, rawQuery string) string {
	if rawQuery == "" {
		return u
	}
	return u + "?" + rawQuery
}

// urlParts are a URL's, as it stands: nothing is decoded.
type urlParts struct{ scheme, user, host, port, rest string }

func splitURL(u string) (p urlParts, ok bool) {
	i := strings.Index(u, "://")
	if i < 0 {
		return p, false
	}
	p.scheme = u[:i+3]
	authority := u[i+3:]
	if end := strings.IndexAny(authority, "/?#"); end >= 0 {
		authority, p.rest = authority[:end], authority[end:]
	}
	if at := strings.LastIndexByte(authority, '@'); at >= 0 {
		p.user, authority = authority[:at+1], authority[at+1:]
	}
	p.host = authority
	if colon := strings.IndexByte(authority[strings.LastIndexByte(authority, ']')+1:], ':'); colon >= 0 {
		colon += strings.LastIndexByte(authority, ']') + 1
		p.host, p.port = authority[:colon], authority[colon:]
	}
	return p, true
}

func (p urlParts) portOrDefault() string {
	switch {
	case p.port != "":
		return p.port
	case strings.EqualFold(p.scheme, "https://"):
		return ":443"
	}
	return ":80"
}

// normalURL is the URL as browsers write it (url.spec.whatwg.org): scheme and host in small letters, no default port, a path, no
// apostrophe in the query. Not ok is one that they would write anew in more than that.
func normalURL(u string) (normal string, ok bool) {
	p, ok := splitURL(u)
	if !ok || strings.ContainsAny(p.rest, "\"<>\\^`{}") || strings.IndexFunc(p.rest, func(c rune) bool { return c >= 0x7f }) >= 0 || hasDots(p.rest) {
		return "", false
	}
	p.scheme, p.host = strings.ToLower(p.scheme), strings.ToLower(p.host)
	if p.port == ":443" && p.scheme == "https://" || p.port == ":80" && p.scheme == "http://" {
		p.port = ""
	}
	if !strings.HasPrefix(p.rest, "/") {
		p.rest = "/" + p.rest
	}
	path, query, has := strings.Cut(p.rest, "?")
	if has {
		path += "?" + strings.ReplaceAll(query, "'", "%27")
	}
	return p.scheme + p.user + p.host + p.port + path, true
}

// hasDots says whether a path has a segment that stands for this folder or the one above.
func hasDots(rest string) bool {
	path, _, _ := strings.Cut(rest, "?")
	for segment := range strings.SplitSeq(path, "/") {
		if plain := strings.ReplaceAll(strings.ToLower(segment), "%2e", "."); plain == "." || plain == ".." {
			return true
		}
	}
	return false
}

// legacyQuery is the URL with its query as Node's querystring module writes it: decoded and encoded anew, which is what some of
// Twilio's back ends sign. A query that could be written in several ways is left as it is, for the reason given at parseForm.
func legacyQuery(u string) string {
	path, query, ok := strings.Cut(u, "?")
	if !ok || query == "" {
		return u
	}
	type pair struct{ name, value string }
	var names []string
	values := map[string][]string{}
	for part := range strings.SplitSeq(query, "&") {
		n, v, ok := strings.Cut(part, "=")
		if !ok || !isPlain(part) {
			return u
		}
		p := pair{unescape(n), unescape(v)}
		if _, isIndex := number([]byte(p.name)); isIndex {
			return u // JavaScript moves such names to the front
		}
		if values[p.name] == nil {
			names = append(names, p.name)
		}
		values[p.name] = append(values[p.name], p.value)
	}
	var b []byte
	for _, name := range names {
		for _, v := range values[name] {
			if len(b) > 0 {
				b = append(b, '&')
			}
			b = appendLegacy(append(appendLegacy(b, name), '='), v)
		}
	}
	return path + "?" + string(b)
}

func unescape(s string) string {
	if t, err := url.QueryUnescape(s); err == nil {
		return t
	}
	return s
}

// appendLegacy escapes what Node's querystring.escape does.
func appendLegacy(b []byte, s string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!'()*-._~", c) >= 0 {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return b
}
