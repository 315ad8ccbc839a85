package provider

import (
	"bytes"
	"fmt"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"
)

// A Custom is what a configuration says of a provider that has no file here: one key, in one header. It sends no webhooks, and what of its
// answers is secret beside the key itself nobody knows.
type Custom struct {
	Name, Title string
	Hosts       []string
	Header      string  // empty: Authorization
	Prefix      *string // the word in front of the key; nil: Bearer in Authorization, else none
	Probe       string  // path of a GET; empty: there is none
}

// MaxHosts is how many hosts a Custom may have.
const MaxHosts = 20

var (
	customName = pattern(`^[a-z][a-z0-9_]{0,31}$`)
	hostName   = pattern(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]$`)
	schemeWord = pattern("^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,32}$")
	probePath  = pattern(`^/[!-"$-~]{0,199}$`) // no space, no fragment

	// privateNames end what only a network of one's own resolves (RFC 6761, RFC 6762, RFC 8375, ICANN's internal).
	privateNames = []string{".localhost", ".local", ".internal", ".home.arpa", ".lan", ".intranet", ".private", ".corp", ".home", ".test", ".invalid"}

	// reservedNames are first segments of a path that mean something else.
	reservedNames = []string{"org", "assistant", "keyward"}

	// pathNames are the first segments of the built-in providers' own paths. A provider named like one would get what a request says to them by
	// its Host alone.
	pathNames = []string{
		"analytics", "api_keys", "assistants", "audiences", "audio", "automations", "batch", "batches", "broadcasts", "calendar", "call", "calls", "campaign", "chat",
		"contact_properties", "contacts", "conversations", "credential", "credentials", "discovery", "domains", "emails", "embeddings", "eval", "events", "file",
		"files", "images", "insight", "knowledge_base", "listen", "logs", "models", "monitoring", "o", "oauth2", "observability", "phone_number", "phone_numbers",
		"provider", "reporting", "responses", "segments", "session", "speak", "squad", "structured_output", "templates", "test_suite", "token", "tool", "topics",
		"upload", "user", "webhooks", "workflow",
	}
	versionName = pattern(`^v[0-9]+([a-z]+[0-9]*)?$`)

	// needed are headers that requests to any provider may carry: callers' own ones of the name that a key is sent in never leave.
	needed = []string{
		"Accept", "Accept-Charset", "Accept-Language", "Baggage", "Cache-Control", "Content-Disposition", "Content-Language", "Content-Location", "Content-Md5",
		"Content-Range", "Forwarded", "Idempotency-Key", "If-Match", "If-Modified-Since", "If-None-Match", "If-Range", "If-Unmodified-Since",
		"Last-Event-Id", "Max-Forwards", "Pragma", "Prefer", "Priority", "Referer", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
		"X-Http-Method", "X-Http-Method-Override", "X-Method-Override", "X-Request-Id", "On-Behalf-Of",
	}

	// neededPrefixes begin the headers by which requests to the providers that have a file say more than the key does.
	neededPrefixes = []string{"openai-", "stripe-", "twilio-", "i-twilio-", "x-twilio-", "x-goog-", "x-upload-"}

	// framing are the headers that are one hop's or that make a request what it is: a key in one of them would be lost, or would break it.
	framing = []string{
		"Connection", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
		"Host", "Content-Length", "Content-Type", "Content-Encoding", "Expect", "Http2-Settings", "Cookie", "Set-Cookie", "Accept-Encoding", "Range",
		"User-Agent", "Traceparent", "Tracestate", "Origin", "Date",
	}
)

// maxHeaderName is the longest name that the proxy's set of dropped headers has room for.
const maxHeaderName = 39

// IsCustomName says whether a Custom could have the name.
func IsCustomName(name string) bool { return customName.MatchString(name) }

// Make is the provider, unless something is wrong: a FieldError's Field is the key in the file. taken are the providers that there are.
func (c *Custom) Make(taken Set) (*Provider, []FieldError) {
	var errs []FieldError
	bad := func(field, format string, args ...any) {
		errs = append(errs, FieldError{field, fmt.Sprintf(format, args...)})
	}
	switch {
	case !IsCustomName(c.Name):
		bad("name", "must be a lower-case letter, then up to 31 of a-z 0-9 _")
	case slices.Contains(reservedNames, c.Name):
		bad("name", "means something else in a path; choose another")
	case slices.Contains(pathNames, c.Name), versionName.MatchString(c.Name):
		bad("name", "is how paths of other providers begin, whose requests it would take; choose another, as acme_%s", c.Name)
	case c.begins(c.Probe):
		bad("name", "is how this API's own paths begin (see probe), and would be cut off them; choose another, as %s_api", c.Name)
	case taken.Named(c.Name) != nil:
		bad("name", "is that of a provider that there is already; choose another")
	}
	if strings.ContainsFunc(c.Title, isControl) || len(c.Title) > 64 {
		bad("title", "must be at most 64 bytes without control characters")
	}
	if len(c.Hosts) == 0 || len(c.Hosts) > MaxHosts {
		bad("hosts", "must be a list of 1 to %d host names, as [api.example.com]", MaxHosts)
	}
	for i, h := range c.Hosts {
		if problem := hostProblem(h, taken); problem != "" {
			bad(fmt.Sprintf("hosts[%d]", i), "%s", problem)
		} else if slices.Contains(c.Hosts[:i], h) {
			bad(fmt.Sprintf("hosts[%d]", i), "stands twice")
		}
	}
	header := "Authorization"
	if c.Header != "" {
		header = textproto.CanonicalMIMEHeaderKey(c.Header)
	}
	if problem := headerProblem(header); problem != "" {
		bad("header", "%s", problem)
	}
	prefix := ""
	if header == "Authorization" {
		prefix = "Bearer"
	}
	if c.Prefix != nil {
		prefix = strings.TrimSuffix(*c.Prefix, " ")
	}
	if prefix != "" && !schemeWord.MatchString(prefix) {
		bad("prefix", "must be one word of at most 32 letters, digits or marks, as Bearer; a space goes between it and the key")
	}
	if c.Probe != "" && !probePath.MatchString(c.Probe) {
		bad("probe", "must be a path that is asked with GET, as /v1/me, without spaces, control characters and fragment")
	}
	for _, p := range taken.Or() {
		if !p.Custom {
			continue
		}
		if (&Custom{Name: p.Name}).begins(c.Probe) {
			bad("probe", "begins with /%s, the name of another provider, which would take such requests; name that one otherwise", p.Name)
		}
		if slices.ContainsFunc(p.Probe.Paths(Secret{}), c.begins) {
			bad("name", "is how paths of the provider %s begin (see its probe), whose requests it would take; choose another, as %s_api", p.Name, c.Name)
		}
	}
	if len(errs) > 0 {
		return nil, errs
	}
	return c.provider(header, prefix), nil
}

// begins says whether a path begins with the provider's name, as one does that is meant for it.
func (c *Custom) begins(path string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	first, _, _ = strings.Cut(first, "?")
	return strings.ReplaceAll(first, "-", "_") == c.Name
}

func (c *Custom) provider(header, prefix string) *Provider {
	if prefix != "" {
		prefix += " "
	}
	title := c.Title
	if title == "" {
		title = c.Name
	}
	p := &Provider{
		Name: c.Name, Title: title, Hosts: slices.Clone(c.Hosts), DefaultHost: always(c.Hosts[0]), Custom: true,
		Fields: []Field{{
			Name: "api_key", Title: "API key", Help: "What goes into the header " + header + ", as the configuration has it.",
			Example: "0123456789abcdef", Secret: true, Required: true, Pattern: visible, PatternHelp: visibleHelp,
		}},
		AuthHeaders: callerHeaders(),
		Probe:       Probe{Paths: func(Secret) []string { return nil }, Read: readCustomProbe},
		Inject: func(r *Request, s Secret) error {
			key := s.Field("api_key")
			if len(key) == 0 {
				return errNoAPIKey
			}
			r.Header = header
			r.Value = append(append(slices.Grow(r.Value, len(prefix)+len(key)), prefix...), key...)
			return nil
		},
	}
	if !slices.Contains(p.AuthHeaders, header) {
		p.AuthHeaders = append(p.AuthHeaders, header)
	}
	if c.Probe != "" {
		p.Probe.Paths = onePath(c.Probe)
	}
	return p
}

// HostProblem says why a configuration cannot name a host as a provider's; "": it can.
func HostProblem(h string) string { return hostProblem(h, nil) }

// hostProblem says why a host cannot be one that credentials go to: it is no exact public name, or another provider's.
func hostProblem(h string, taken Set) string {
	plain := strings.Trim(h, "[]")
	_, notIP := netip.ParseAddr(plain)
	switch {
	case strings.ContainsFunc(h, isControl):
		return "contains a control character"
	case strings.HasPrefix(h, "http:"):
		return "must be a host alone; plain http is never spoken with a provider"
	case strings.Contains(h, "//") || strings.ContainsAny(h, "/?#@"):
		return "must be a host alone, without scheme, user and path"
	case strings.Contains(h, "*"):
		return "must be one exact host; list each by itself, there are no wildcards"
	case notIP == nil || plain != h:
		return "must be a name, not an address: a certificate is verified for it"
	case strings.Contains(h, ":"):
		return "must be without a port: providers are reached at 443; --upstream HOST=URL says otherwise"
	case strings.ToLower(h) != h:
		return "must be in lower case"
	case slices.ContainsFunc(privateNames, func(end string) bool { return strings.HasSuffix("."+h, end) }):
		return "is a name of this machine or of a private network; requests with a credential go to public hosts only"
	case len(h) > 253 || !hostName.MatchString(h):
		return "must be a public host name, as api.example.com"
	}
	for _, p := range taken.Or() {
		if slices.Contains(p.Hosts, h) || slices.Contains(p.OwnHosts, h) {
			return "is a host of " + p.Name + " already"
		}
	}
	return ""
}

func headerProblem(header string) string {
	switch low := strings.ToLower(header); {
	case !headerName.MatchString(header) || len(header) > maxHeaderName || strings.Contains(header, "_"):
		return fmt.Sprintf("must be the name of a header: at most %d letters, digits and -", maxHeaderName)
	case slices.Contains(framing, header), strings.HasPrefix(low, "sec-"):
		return "is a header that makes a request what it is, or that goes no further than one hop; a key cannot stand in it"
	case slices.ContainsFunc(All, func(p *Provider) bool { return slices.Contains(p.AuthHeaders, header) }):
		return "" // of others it is dropped anyway
	case slices.Contains(needed, header), slices.ContainsFunc(neededPrefixes, func(begin string) bool { return strings.HasPrefix(low, begin) }):
		return "is a header that requests to other providers carry, and would be taken from them; name the one that this API reads its key from"
	case strings.HasPrefix(low, "keyward-"):
		return "is one of Keyward's own, which never leave it"
	}
	return ""
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 }

// readCustomProbe knows nothing of the provider's errors: 2xx, 401 and 403 mean what RFC 9110 says. A page for people is no API's answer.
func readCustomProbe(status int, body []byte) (Verdict, bool) {
	switch page := bytes.HasPrefix(bytes.TrimSpace(body), []byte("<")); {
	case page:
	case status >= 200 && status < 300:
		return Verdict{State: Valid}, false
	case status == 401:
		return Verdict{State: Invalid, Reason: "the provider answers 401: it does not know the key"}, false
	case status == 403:
		return Verdict{State: ValidRestricted, Reason: "the provider answers 403: it takes the key, and not for the probe"}, false
	}
	return unproven(status), false
}
