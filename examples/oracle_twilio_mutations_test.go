package examples

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// queryOf changes the query of a URL.
func queryOf(url string, change func(string) string) string {
	bare, query, ok := strings.Cut(url, "?")
	if !ok {
		return url
	}
	return bare + "?" + change(query)
}

// like is a form's text written in another way, which reads as params do.
func (f *form) like(r random, change func(text string) string) {
	if len(f.params) == 0 {
		f.param("Body", "h\u00e9llo w")
	}
	f.param("Note", "\u00e9 /?")
	r.Shuffle(len(f.params), func(i, j int) { f.params[i], f.params[j] = f.params[j], f.params[i] })
	f.written = change(encoded(f.params))
}

var formMutations = []mutation[*form]{
	// The URL.
	{trait: "other URL signed", before: func(r random, f *form) {
		f.sign = func(u string) string { return r.changed(u, "aZ0/?&=.:%") }
	}},
	{trait: "query changed", after: func(r random, f *form) {
		was := f.query
		f.query = r.changed(f.query, "aZ0&=.%+")
		f.url = strings.TrimSuffix(strings.TrimSuffix(f.url, was), "?")
		if f.query != "" {
			f.url += "?" + f.query
		}
	}},
	{trait: "IPv6 address", before: func(r random, f *form) { f.server = pick(r, "[::1]", "[2001:db8::5]") }},
	{trait: "user and password in the URL", before: func(r random, f *form) {
		f.user, f.mustType = pick(r, "user:pass@", "user@", "u:p%40ss@"), true
	}},
	{trait: "user and password not signed", before: func(_ random, f *form) {
		f.user, f.mustType = "user:pass@", true
		f.sign = func(u string) string { return strings.Replace(u, "user:pass@", "", 1) }
	}},
	{trait: "fragment typed"},
	{trait: "capitals in the host", before: func(r random, f *form) {
		f.server = "Hooks.Example.COM"
		if r.in(2) {
			f.sign = func(u string) string { return strings.Replace(u, f.server, strings.ToLower(f.server), 1) }
		}
	}},
	{trait: "quote in the query", before: func(r random, f *form) {
		f.addQuery("q=it's")
		if r.in(2) {
			f.sign = func(u string) string { return strings.ReplaceAll(u, "'", "%27") }
		}
	}},
	{trait: "characters that browsers escape", before: func(r random, f *form) {
		c := pick(r, `"`, "<", "{", "`", ">")
		f.pathTyped, f.mustType = f.pathTyped+c, true
		if r.in(2) {
			f.sign = func(u string) string { return strings.ReplaceAll(u, c, strings.ToUpper(escapedLegacy(c))) }
		}
	}},
	{trait: "characters that browsers escape in the query", before: func(r random, f *form) {
		c := pick(r, `"`, "<", ">")
		f.addQuery("q=" + c)
		if r.in(2) {
			f.sign = func(u string) string { return strings.ReplaceAll(u, c, escapedLegacy(c)) }
		}
	}},
	{trait: "dots in the path", before: func(r random, f *form) {
		f.pathTyped, f.mustType = pick(r, "/a/../b", "/./b", "/a/%2e%2e/b"), true
		if was := f.pathTyped; r.in(2) {
			f.sign = func(u string) string { return strings.Replace(u, was, "/b", 1) }
		}
	}},
	{trait: "query encoded anew", before: func(r random, f *form) {
		f.addQuery(pick(r, "k=a:b", "k=x%20y+z", "k=%2F/", "k=(a)", "k=a@b,c", "foo=2&foo=1"))
		f.sign = func(u string) string { return queryOf(u, legacy) }
	}},
	{trait: "loosely written query encoded anew", before: func(r random, f *form) {
		f.addQuery(pick(r, "k", "k=%c3%a9", "7=x", "k=a&&l=b", "=x", "k=%zz", "12=a&3=b"))
		f.sign = func(u string) string { return queryOf(u, legacy) }
	}},

	// The form.
	{trait: "other body", after: func(r random, f *form) { f.body = []byte(r.changed(string(f.body), "aZ0&=+%; \xff")) }},
	{trait: "parameter twice, the same value", before: func(r random, f *form) {
		v := r.text()
		f.param("MediaUrl", v)
		f.param("MediaUrl", v)
	}},
	{trait: "parameter twice", before: func(r random, f *form) {
		for range 2 + r.IntN(2) {
			f.param("MediaUrl", r.of(letters, 5)+r.text())
		}
	}},
	{trait: "parameter twice, values that order differently", before: func(_ random, f *form) {
		f.param("MediaUrl", "\U0001F600")
		f.param("MediaUrl", "\uffed")
	}},
	{trait: "names that differ in case", before: func(r random, f *form) {
		for _, name := range []string{"b", "A", "a", "B", "_x", "10", "9"} {
			f.param(name, r.text())
		}
	}},
	{trait: "form written loosely", before: func(r random, f *form) {
		f.like(r, func(text string) string {
			return pick(r,
				strings.ReplaceAll(text, "%C3%A9", "%c3%a9"),
				strings.ReplaceAll(text, "%C3%A9", "\u00e9"),
				"&"+text, text+"&", strings.Replace(text, "&", "&&", 1)+"&&",
				strings.Replace(text, "+", " ", 1)+"&",
			)
		})
	}},
	{trait: "form with a parameter without =", before: func(r random, f *form) {
		f.like(r, func(text string) string { return text + "&Flag" })
		f.param("Flag", "")
	}},
	{trait: "form with a stray percent sign", before: func(r random, f *form) {
		odd := pick(r, "100%", "%zz", "%4")
		f.like(r, func(text string) string { return text + "&Odd=" + odd })
		f.param("Odd", odd)
	}},
	{trait: "form with an escape that is not UTF-8", before: func(r random, f *form) {
		value, written := pick(r, "\xff", "a\xc3", "\xed\xa0\x80"), ""
		for _, c := range []byte(value) {
			written += escaped(string([]byte{c}))
		}
		f.like(r, func(text string) string { return text + "&Odd=" + written })
		if r.in(2) {
			value = strings.Repeat(string(utf8.RuneError), len(value)-strings.Count(value, "a"))
			if strings.HasPrefix(written, "a") {
				value = "a" + value
			}
		}
		f.param("Odd", value)
	}},
	{trait: "form with a semicolon", before: func(r random, f *form) {
		f.like(r, func(text string) string { return text + "&Odd=a;b" })
		f.param("Odd", "a;b")
	}},
	{trait: "form without its Content-Type", after: func(r random, f *form) {
		if len(f.body) > 0 {
			i := f.contentType()
			f.header[i][1] = pick(r, "", "application/json", "text/plain", "multipart/form-data; boundary=x", "x-application/x-www-form-urlencoded")
		}
	}},
	{trait: "body that is not signed", before: func(r random, f *form) {
		f.param("Body", "x")
		f.unsigned = true
		if r.in(2) {
			f.json = r.json()
		}
	}, after: func(r random, f *form) {
		f.header[f.contentType()][1] = pick(r, "application/json", "text/plain", "")
	}},
	{trait: "Content-Type twice", after: func(r random, f *form) {
		h := f.header[f.contentType()]
		f.header = append(f.header, [2]string{h[0], pick(r, h[1], "application/json", "application/x-www-form-urlencoded")})
	}},
	{trait: "Content-Type in capitals", after: func(_ random, f *form) {
		if i := f.contentType(); len(f.params) > 0 {
			f.header[i][1] = "Application/X-WWW-Form-URLEncoded"
		}
	}},

	// A body with its hash in the query.
	{trait: "hash of the body", before: func(r random, f *form) { f.json, f.hash = r.json(`"Body":`+r.value(3)), "bodySHA256={sum}" }},
	{trait: "hash of a body that is not UTF-8", before: func(r random, f *form) { f.json, f.hash = "\xff\x00"+string(r.bytes(40)), "bodySHA256={sum}" }},
	{trait: "hash of the form", before: func(r random, f *form) {
		f.param("Body", r.text())
		f.hash, f.unsigned = "bodySHA256={sum}", true
	}},
	{trait: "hash of another body", before: func(r random, f *form) {
		f.json, f.hash = r.json(), "bodySHA256="+pick(r, "", r.of(hexDigits, 64), "{sum}0")
	}},
	{trait: "hash and another body", before: func(r random, f *form) { f.json, f.hash = r.json(), "bodySHA256={sum}" }, after: func(r random, f *form) {
		f.body = []byte(r.changed(string(f.body), " {}\"\xff"))
	}},
	{trait: "hash twice", before: func(r random, f *form) {
		f.json, f.hash = r.json(), pick(r, "bodySHA256={sum}&bodySHA256=00", "bodySHA256=00&bodySHA256={sum}", "bodySHA256={sum}&bodySHA256={sum}")
	}},
	{trait: "hash under an escaped name", before: func(r random, f *form) {
		f.json, f.hash = r.json(), pick(r, "body%53HA256={sum}&x=bodySHA256", "x=bodySHA256&%62odySHA256={sum}")
	}},
	{trait: "hash in capitals", before: func(r random, f *form) { f.json, f.hash = r.json(), "bodySHA256={sum}" }, after: func(_ random, f *form) {
		was := f.query
		i := strings.LastIndex(was, "=") + 1
		f.query = was[:i] + strings.ToUpper(was[i:])
		f.url = strings.TrimSuffix(f.url, was) + f.query
		f.signWith(signature(f.token, f.url, nil))
	}},
	{trait: "hash of an empty body", before: func(_ random, f *form) {
		f.params, f.hash = nil, "bodySHA256={sum}"
	}},
	{trait: "empty body with the hash of {}", before: func(_ random, f *form) {
		f.params, f.hash = nil, "bodySHA256=44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
	}},
	{trait: "parameters signed beside a hash", before: func(r random, f *form) {
		f.param("Body", r.text())
		f.hash = "bodySHA256={sum}"
	}},
	{trait: "the word bodySHA256 elsewhere", before: func(r random, f *form) { f.addQuery(pick(r, "xbodySHA256=1", "x=bodySHA256")) }},

	// The signature and the secrets.
	{trait: "signature changed", after: func(r random, f *form) {
		s := f.signature
		f.signWith(pick(r, "", r.changed(s, "aA0+/="), strings.TrimRight(s, "="), strings.ToLower(s), s+"=", s+","+s, "sha1="+s, s[:10], strings.NewReplacer("+", "-", "/", "_", "=", "").Replace(s)))
	}},
	{trait: "signature missing", after: func(_ random, f *form) {
		f.header = slices.DeleteFunc(f.header, func(h [2]string) bool { return strings.EqualFold(h[0], "X-Twilio-Signature") })
	}},
	{trait: "signature twice", after: func(r random, f *form) {
		f.header = append(f.header, [2]string{"X-Twilio-Signature", pick(r, f.signature, "AAAA", "")})
	}},
	{trait: "several secrets", before: func(r random, f *form) {
		for range r.IntN(8) {
			f.secrets = append(f.secrets, r.of(hexDigits, 32))
		}
		i := r.IntN(len(f.secrets))
		f.secrets[0], f.secrets[i] = f.secrets[i], f.secrets[0]
	}},
	{trait: "more than 8 secrets", before: func(r random, f *form) {
		for range 8 + r.IntN(3) {
			f.secrets = append([]string{r.of(hexDigits, 32)}, f.secrets...)
		}
	}},
	{trait: "other secret", before: func(r random, f *form) {
		f.secrets[0] = pick(r, r.of(hexDigits, 32), r.changed(f.token, hexDigits))
	}},
}
