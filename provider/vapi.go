package provider

import (
	"bytes"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
)

// Vapi makes voice calls: https://docs.vapi.ai/api-reference. There are two keys: the private one for the API, the public one for
// POST /call/web alone. No id of the account stands in any path.
var Vapi = Provider{
	Name:        "vapi",
	Title:       "Vapi",
	Hosts:       []string{vapiHost, vapiHostEU, "mcp.vapi.ai"},
	DefaultHost: byRegion(vapiHost, map[string]string{"us": vapiHost, "eu": vapiHostEU}),
	Fields: []Field{
		{
			Name: "api_key", Title: "Private key", Help: "In Vapi's dashboard under API keys, the private one.",
			Example: "01234567-89ab-4cde-8f01-23456789abcd", Secret: true, Required: true, Pattern: visible, PatternHelp: visibleHelp,
		},
		{
			Name: "public_key", Title: "Public key", Help: "In Vapi's dashboard under API keys, the public one. Needed for web calls (POST /call/web) only.",
			Example: "fedcba98-7654-4321-8fed-cba987654321", Secret: true, Pattern: visible, PatternHelp: visibleHelp,
		},
		{
			Name: "region", Title: "Region", Help: "Where the account lives: us (the default) or eu. Each has its own dashboard and keys.",
			Example: "eu", Options: []string{"us", "eu"},
		},
		{
			Name: "vapi_org_id", Title: "Vapi org id", Help: "Vapi's own id of the account. Webhooks on the path that all orgs share are resolved by it when their assistant is unknown.",
			Example: "00112233-4455-4677-8899-aabbccddeeff", Pattern: identifier, PatternHelp: identifierHelp, Account: strings.ToLower,
		},
		{
			Name: "phone_number_ids", Title: "Phone number ids", Help: "Vapi's ids of the org's phone numbers. Webhooks are resolved by them too.",
			Example: "ffeeddcc-bbaa-4988-8766-554433221100", Kind: List, Pattern: identifier, PatternHelp: identifierHelp, Account: strings.ToLower,
		},
		{
			Name: "webhook_auth", Title: "Webhook authentication",
			Help:    "How Vapi proves itself to the webhook: as its server credential was set up there. Without it, the secret in X-Vapi-Secret.",
			Example: `{"type":"hmac","algorithm":"sha256"}`, Kind: Object, Members: vapiWebhookAuth,
		},
		webhookSecret("What webhook_auth is made with.", "a-secret-of-your-own-choice"),
		maxTokenTTL(),
	},
	Check:       checkVapi,
	Probe:       Probe{Paths: onePath("/assistant?limit=1"), Read: readVapiProbe, Samples: vapiProbeSamples},
	AuthHeaders: callerHeaders(),
	Inject:      injectVapi,
	SecretRoutes: []SecretRoute{
		{Path: "/credential*/**"}, // keys of other providers; not in the published specification
	},
	SecretFields: []SecretFields{
		{Path: "/phone-number*/**", Names: vapiSecrets},
		{Path: "/v2/phone-number*/**", Names: vapiSecrets},
		{Path: "/org*/**", Names: vapiSecrets},
		{Path: "/assistant*/**", Names: vapiSecrets},
		{Path: "/v2/assistant*/**", Names: vapiSecrets},
		{Path: "/tool*/**", Names: vapiSecrets},
		{Path: "/**", Names: vapiSecrets, Maybe: true},
	},
	Webhook:       &Webhook{Scheme: OwnScheme{}, Secret: "webhook_secret", AccountField: "vapi_org_id"},
	WebhookFields: vapiWebhookFields,
	Mints:         []*Mint{&vapiJWT},
}

var vapiProbeSamples = []ProbeSample{
	{Valid, 200, `[]`},
	{Invalid, 401, `{"message":"Invalid Key. Hot tip, you may be using the private key instead of the public key, or vice versa.","error":"Unauthorized","statusCode":401}`},
}

const (
	vapiHost   = "api.vapi.ai"
	vapiHostEU = "api.eu.vapi.ai"
)

// vapiWebhookAuth is Vapi's server.secret, and its bearer and HMACAuthenticationPlan credentials.
var vapiWebhookAuth = []Field{
	{
		Name: "type", Title: "Type", Example: "hmac", Options: []string{"secret", "bearer", "hmac"},
		Help: "secret: the bare secret in a header. bearer: the same, with Bearer in front if the header is Authorization. hmac: a signature. Default: secret.",
	},
	{
		Name: "header", Title: "Header", Example: "X-Vapi-Secret", Pattern: headerName, PatternHelp: headerNameHelp,
		Help: "Of types secret and bearer. Default: X-Vapi-Secret, of type bearer Authorization.",
	},
	{
		Name: "algorithm", Title: "Algorithm", Example: "sha256", Options: []string{"sha256", "sha512", "sha1"},
		Help: "Of type hmac. Default: sha256.",
	},
	{
		Name: "signature_header", Title: "Signature header", Example: "x-signature", Pattern: headerName, PatternHelp: headerNameHelp,
		Help: "Of type hmac. Default: x-signature.",
	},
	{
		Name: "timestamp_header", Title: "Timestamp header", Example: "x-timestamp", Pattern: headerName, PatternHelp: headerNameHelp,
		Help: "Of type hmac. Default: x-timestamp.",
	},
	{
		Name: "include_timestamp", Title: "Include timestamp", Example: "true", Kind: Flag,
		Help: "Of type hmac. Without one, nothing but the record of deliveries keeps an old message from being sent again. Default: true.",
	},
	{
		Name: "payload_format", Title: "Payload format", Example: "{timestamp}.{body}",
		Pattern: pattern(`\{body\}`), PatternHelp: "a text with {body} in it, or nothing would protect the body",
		Help: "Of type hmac: what is signed, of {body}, {timestamp}, {method}, {url} and {svix-id}. Default: {timestamp}.{body}, without a timestamp {body}.",
	},
	{
		Name: "encoding", Title: "Encoding", Example: "hex", Options: []string{"hex", "base64"},
		Help: "Of type hmac: how the signature is written. Default: hex.",
	},
	{
		Name: "prefix", Title: "Prefix", Example: "sha256=",
		Help: "Of type hmac: what stands in front of the signature. Default: nothing.",
	},
	{
		Name: "secret_is_base64", Title: "Secret is base64", Example: "false", Kind: Flag,
		Help: "Of type hmac: the key is what webhook_secret decodes to. Default: false.",
	},
	{
		Name: "message_id_header", Title: "Message id header", Example: "svix-id",
		Pattern: pattern("^$|" + headerName.String()), PatternHelp: headerNameHelp,
		Help: "Of type hmac: the header that {svix-id} stands for. Default: none.",
	},
	{
		Name: "tolerance_seconds", Title: "Tolerance", Example: "300", Kind: Number, Min: 1, Max: 86400,
		Help: "Of type hmac: how many seconds the timestamp may be off. Default: 300.",
	},
}

// A WebhookAuth is a credential's webhook_auth with its defaults filled in.
type WebhookAuth struct {
	Type             string `json:"type"`
	Header           string `json:"header"`
	Algorithm        string `json:"algorithm"`
	SignatureHeader  string `json:"signature_header"`
	TimestampHeader  string `json:"timestamp_header"`
	IncludeTimestamp bool   `json:"include_timestamp"`
	PayloadFormat    string `json:"payload_format"`
	Encoding         string `json:"encoding"`
	Prefix           string `json:"prefix"`
	SecretIsBase64   bool   `json:"secret_is_base64"`
	MessageIDHeader  string `json:"message_id_header"`
	ToleranceSeconds int    `json:"tolerance_seconds"`
}

// ParseWebhookAuth reads a webhook_auth that Validate has found good; nil is the default.
func ParseWebhookAuth(object []byte) (WebhookAuth, error) {
	a := WebhookAuth{
		Type: "secret", Algorithm: "sha256", SignatureHeader: "x-signature", TimestampHeader: "x-timestamp", IncludeTimestamp: true,
		Encoding: "hex", ToleranceSeconds: 300,
	}
	if object != nil {
		if err := json.Unmarshal(object, &a); err != nil {
			return a, err
		}
	}
	if a.Header == "" {
		a.Header = map[string]string{"secret": "X-Vapi-Secret", "bearer": "Authorization"}[a.Type]
	}
	if a.PayloadFormat == "" {
		a.PayloadFormat = map[bool]string{true: "{timestamp}.{body}", false: "{body}"}[a.IncludeTimestamp]
	}
	return a, nil
}

var placeholder = regexp.MustCompile(`\{[a-z-]*\}`)

// checkVapi finds members of webhook_auth that do not go together, and secrets that do not go with it.
func checkVapi(v Values) []FieldError {
	object := v["webhook_auth"].Object
	a, err := ParseWebhookAuth(object)
	if err != nil || object == nil {
		return nil // not set, or a member is wrong, which is said already
	}
	var errs []FieldError
	say := func(member, problem string) { errs = append(errs, FieldError{"webhook_auth." + member, problem}) }
	eachMember(object, func(name string, _ []byte) {
		switch {
		case name == "type" || named(vapiWebhookAuth, name) == nil:
		case name == "header" && a.Type == "hmac":
			say(name, "does not belong to type hmac: use signature_header")
		case name != "header" && (a.Type == "secret" || a.Type == "bearer"):
			say(name, `belongs to type hmac: set "type": "hmac" or remove it`)
		}
	})
	if a.Type != "hmac" {
		return errs
	}
	for _, p := range placeholder.FindAllString(a.PayloadFormat, -1) {
		switch p {
		case "{body}", "{method}", "{url}":
		case "{timestamp}":
			if !a.IncludeTimestamp {
				say("payload_format", "has {timestamp} in it although include_timestamp is false")
			}
		case "{svix-id}":
			if a.MessageIDHeader == "" {
				say("payload_format", "has {svix-id} in it: message_id_header must say which header that is")
			}
		default:
			say("payload_format", "has an unknown placeholder in it; known are {body}, {timestamp}, {method}, {url} and {svix-id}")
		}
	}
	if a.SecretIsBase64 {
		secret, all := v["webhook_secret"], true
		for _, item := range secret.List {
			all = all && isBase64(item)
		}
		if !all || secret.Text != "" && !isBase64(secret.Text) {
			errs = append(errs, FieldError{"webhook_secret", "must be base64, since webhook_auth.secret_is_base64 is true"})
		}
	}
	return errs
}

// isBase64 takes either alphabet, padded or not, as Node's decoder does.
func isBase64(s string) bool {
	return base64ish.MatchString(s) && len(strings.TrimRight(s, "="))%4 != 1
}

var base64ish = pattern(`^[A-Za-z0-9+/_-]+={0,2}$`)

// readVapiProbe: https://docs.vapi.ai/security-and-privacy/api-keys. Errors are {"message": text or list, "error", "statusCode"}; what a
// bot rule in front of Vapi says is HTML, and nothing about the key.
func readVapiProbe(status int, body []byte) (Verdict, bool) {
	if status == 200 && isJSON(body, '[') {
		return Verdict{State: Valid}, false
	}
	var answer struct {
		Message json.RawMessage `json:"message"`
		Error   string          `json:"error"`
		Status  int             `json:"statusCode"`
	}
	if passing(status) || !isJSON(body, '{') || json.Unmarshal(body, &answer) != nil {
		return unproven(status), false
	}
	message, _ := unquote(answer.Message)
	if bytes.HasPrefix(message, []byte("Invalid Key")) || answer.Status == 401 && answer.Error == "Unauthorized" {
		return Verdict{State: Invalid, Reason: "Vapi does not know the key: a wrong or deleted one, the public key in the private one's place, or one of another region"}, false
	}
	return unproven(status), false
}

func injectVapi(r *Request, s Secret) error {
	key, missing := s.Field("api_key"), errNoAPIKey
	if string(r.Method) == "POST" && pathIs(r.Path, "/call/web") {
		key, missing = s.Field("public_key"), errNoPublicKey
	}
	if len(key) == 0 {
		return missing
	}
	setBearer(r, key)
	return nil
}

var errNoPublicKey = &IncompleteError{"public_key"}

// vapiSecrets are the fields in which Vapi shows what it was given: other providers' keys, and what its webhooks prove themselves with.
var vapiSecrets = []string{
	"twilioAuthToken", "twilioApiKey", "twilioApiSecret", "jwtSecret", "serverUrlSecret", "server.secret", "server.headers", "credentials",
}

// vapiWebhookFields are the same in the phone number, assistant and tools that a webhook is about, and the keys of Vapi's credentials
// wherever they stand. A bare "token" or "secret" is not among them: it may be an argument of the app's own tools.
var vapiWebhookFields = append(slices.Clone(vapiSecrets), "apiKey", "authToken", "secretKey", "clientSecret", "privateKey")
