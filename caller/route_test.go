package caller

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func allows(t *testing.T, glob, request string) bool {
	t.Helper()
	r, err := ParseRoute(glob)
	if err != nil {
		t.Fatalf("%s: %v", glob, err)
	}
	method, path, _ := strings.Cut(request, " ")
	return r.Match([]byte(method), []byte(path))
}

func TestRouteAllows(t *testing.T) {
	for _, c := range [][2]string{
		{"POST /2010-04-01/Accounts/*/Messages.json", "POST /2010-04-01/Accounts/ACkeyward/Messages.json"},
		{"POST /2010-04-01/Accounts/*/Messages.json", "POST /2010-04-01/Accounts/ACkeyward/Messages"},
		{"POST /2010-04-01/Accounts/*/Messages.json", "POST /2010-04-01/Accounts/ACkeyward/Messages.json/"},
		{"POST /2010-04-01/Accounts/*/Messages/", "POST /2010-04-01/Accounts/ACkeyward/Messages.json"},
		{"GET /call", "GET /%63all"},
		{"GET /%63all", "GET /call"},
		{"GET /call.json", "GET /call%2ejson"},
		{"GET /a%2fb", "GET /a%2Fb"},
		{"GET /a%40b", "GET /a%40b"},
		{"* /call", "PATCH /call"},
		{"get /call", "GET /call"},
		{"GET /", "GET /"},
		{"GET /", "GET "},
		{"GET /v1/**", "GET /v1/a/b/c"},
		{"GET /v1/**", "GET /v1/a%2Fb"},
		{"GET /v1/**", "GET /v1"},
		{"GET /v1/**", "GET /v1/"},
		{"GET /v1/**.json", "GET /v1/a/b"},
		{"GET /**", "GET /"},
		{"GET /**", "GET /a/b"},
		{"GET /*/b/**", "GET /a/b/c"},
		{"GET /call*", "GET /call"},
		{"GET /call*", "GET /calls"},
		{"GET /*-x-*", "GET /a-x-x-b"},
		{"GET /a*b*c", "GET /aXbYbZc"},
		{"GET /*", "GET /*"},
		{"GET /*", "GET /.json"},
		{"GET /x/*.json", "GET /x/y"},
		{"GET /calendars/*/events", "GET /calendars/en.usa%23holiday%40group.v.calendar.google.com/events"},
	} {
		if !allows(t, c[0], c[1]) {
			t.Errorf("%q refuses %q", c[0], c[1])
		}
	}
}

func TestRouteRefuses(t *testing.T) {
	for _, c := range [][2]string{
		{"POST /call", "GET /call"},
		{"POST /call", "post /call"},
		{"POST /call", "POST /Call"},
		{"POST /call", "POST /calls"},
		{"POST /call", "POST /call/x"},
		{"POST /call", "POST /x/call"},
		{"POST /call", "POST /call//"},
		{"POST /call", "POST call"},
		{"OPTIONS /**", "OPTIONS *"},
		{"GET /a/*/c", "GET /a/b/x/c"},
		{"GET /a/*/c", "GET /a//c"},
		{"GET /a/*/c", "GET /a/c"},
		{"GET /a/*", "GET /a"},
		{"GET /a/*", "GET /a/"},
		{"GET /a/*", "GET /a/b/c"},
		{"GET /*", "GET /"},
		{"GET /a/b", "GET /a%2Fb"},
		{"GET /a%2Fb", "GET /a/b"},
		{"GET /a/*", "GET /a/b%2Fc"},
		{"GET /a/*", "GET /a/b%5cc"},
		{"GET /a/*", `GET /a/b\c`},
		{"GET /a/x*", "GET /a/xb%2Fc"},
		{"GET /a@b", "GET /a%40b"},
		{"GET /v1/**", "GET /v10"},
		{"GET /v1/**", "GET /v2/v1/x"},
		{"GET /call.json", "GET /call.json.json"},
		{"GET /call", "GET /calljson"},
		{"GET /x%zz", "GET /x"},
	} {
		if allows(t, c[0], c[1]) {
			t.Errorf("%q allows %q", c[0], c[1])
		}
	}
}

func TestParseRouteRefuses(t *testing.T) {
	for glob, why := range map[string]string{
		"":                                     "METHOD /path",
		"/v1":                                  "METHOD /path",
		"GET":                                  "METHOD /path",
		"GET v1":                               "begin with /",
		"GET **":                               "begin with /",
		"GET /a /b":                            "one method",
		"G(T /a":                               "no method",
		"GET /a?b=c":                           "query",
		"GET /a#b":                             "query",
		"GET /a/../b":                          ". or ..",
		"GET /a//b":                            "empty segment",
		"GET /a/**/b":                          "last segment",
		"GET /a/b**":                           "last segment",
		"GET /a/***":                           "last segment",
		"GET /" + strings.Repeat("x", maxGlob): "longer",
	} {
		if _, err := ParseRoute(glob); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: %v, want …%s…", glob, err, why)
		}
	}
}

func TestAmbiguousPath(t *testing.T) {
	for _, p := range []string{
		"/..", "/.", "/a/..", "/a/../b", "/a/./b", "/../a", "//", "/a//b", "//a", "/a//", "/a/../", "/a/./",
		"/%2e%2e/a", "/a/%2E", "/a/.%2e/b", "/%2e", "/a%2f..%2fb", "/a%2F%2Fb", `/a\..\b`, "/a%5c..%5Cb", "/a/..%2f", "/a%2F", "/%2fa",
		"/a/..;x/b", "/a/.;/b", "/a/..%3bx", "/a/;x/b", "/a/;", "a/b", "*",
	} {
		if !AmbiguousPath([]byte(p)) {
			t.Errorf("%q passes", p)
		}
	}
	for _, p := range []string{
		"", "/", "/a", "/a/", "/a/b.json", "/.a", "/a.", "/...", "/a/...", "/..a", "/a..b", "/%2e%2e%2e", "/a%20b", "/a%2Fb", "/a/b;c", "/.json", "/%", "/%2", "/a/%252e%252e",
		"/2010-04-01/Accounts/AC00000000000000000000000000000000/Messages.json",
	} {
		if AmbiguousPath([]byte(p)) {
			t.Errorf("%q is refused", p)
		}
	}
}

// reference is the slow way: the path is written out in full, each escape that stays as one rune of its own, and the glob made a
// regular expression of the same form.
func reference(glob, method, path string) bool {
	gm, gp, _ := strings.Cut(strings.TrimSpace(glob), " ")
	if gm != "*" && strings.ToUpper(gm) != method || path != "" && path[0] != '/' {
		return false
	}
	gp, path = canonical(strings.TrimSpace(gp)), canonical(path)
	gp, rest := strings.CutSuffix(gp, "/**")
	const star = "[^/\\\\\U0010012F\U0010015C]"
	var re strings.Builder
	re.WriteString(`(?s)\A`)
	for i, seg := range strings.Split(gp, "/") {
		if i > 0 {
			re.WriteString("/")
		}
		if seg == "*" {
			re.WriteString(star + "+")
			continue
		}
		for i, part := range strings.Split(seg, "*") {
			if i > 0 {
				re.WriteString(star + "*")
			}
			re.WriteString(regexp.QuoteMeta(part))
		}
	}
	if rest {
		re.WriteString("(?:/.*)?")
	}
	re.WriteString(`\z`)
	return regexp.MustCompile(re.String()).MatchString(path)
}

var anyEscape = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

func canonical(p string) string {
	// Bytes become runes first, so that a byte above 0x7F is one character too.
	runes := make([]rune, len(p))
	for i := range len(p) {
		runes[i] = rune(p[i])
	}
	p = anyEscape.ReplaceAllStringFunc(string(runes), func(s string) string {
		n, _ := strconv.ParseUint(s[1:], 16, 8)
		if regexp.MustCompile(`^[A-Za-z0-9._~-]$`).MatchString(string(rune(n))) {
			return string(rune(n))
		}
		return string(rune(0x100100 + n))
	})
	p = strings.TrimSuffix(p, "/")
	if cut, ok := strings.CutSuffix(p, ".json"); ok && cut != "" && !strings.HasSuffix(cut, "/") {
		p = cut
	}
	return p
}

func FuzzRouteMatchesAsReference(f *testing.F) {
	for _, seed := range [][3]string{
		{"POST /2010-04-01/Accounts/*/Messages.json", "POST", "/2010-04-01/Accounts/AC1/Messages"},
		{"GET /v1/**", "GET", "/v1/a/b"},
		{"* /a*b*c/**", "X", "/aXbYbZc/.json"},
		{"GET /%41%2f*/b", "GET", "/A%2F%2e/b/"},
		{"GET /*%", "GET", "/%%2E%2"},
		{"GET /a/*.json", "GET", "/a/%2Ejson"},
	} {
		f.Add(seed[0], seed[1], seed[2])
	}
	f.Fuzz(func(t *testing.T, glob, method, path string) {
		r, err := ParseRoute(glob)
		if err != nil {
			return
		}
		if got, want := r.Match([]byte(method), []byte(path)), reference(glob, method, path); got != want {
			t.Errorf("%q on %q %q: %v, want %v", glob, method, path, got, want)
		}
	})
}

// FuzzAmbiguousPathHasNoOtherReading: a path that passes has no empty, "." or ".." segment in any decoding that a server may do once.
func FuzzAmbiguousPathHasNoOtherReading(f *testing.F) {
	for _, seed := range []string{"/a/b", "/a%2f..", `/a\.`, "/a/;b", "/%2e%2E/"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		if AmbiguousPath([]byte(path)) || path == "" {
			return
		}
		plain := anyEscape.ReplaceAllStringFunc(path, func(s string) string {
			n, _ := strconv.ParseUint(s[1:], 16, 8)
			return string([]byte{byte(n)})
		})
		plain = strings.ReplaceAll(plain, `\`, "/")
		segments := strings.Split(strings.TrimSuffix(plain, "/"), "/")
		for _, s := range segments[1:] {
			if name, _, _ := strings.Cut(s, ";"); name == "" || name == "." || name == ".." {
				t.Errorf("%q passes with segment %q", path, s)
			}
		}
	})
}
