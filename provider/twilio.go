package provider

import (
	"bytes"
	"slices"
	"strings"
)

// Twilio is some forty products, each at a host of its own: https://www.twilio.com/docs/usage/requests-to-twilio. A request is
// authenticated by HTTP Basic, with an API key or with the account's own auth token; either way the API of 2010 has the account's SID in
// its paths. Keys and tokens belong to a region, and a region is reached through an edge.
//
// Ids of accounts in queries and form bodies (AccountSid, SubaccountSid, TargetAccountSid of a few product APIs) go as they are sent: what
// they can reach is what the org's own credential can.
var Twilio = Provider{
	Name:        "twilio",
	Title:       "Twilio",
	Hosts:       twilioHosts(),
	DefaultHost: twilioDefaultHost,
	Fields: []Field{
		{
			Name: "account_sid", Title: "Account SID", Help: "In Twilio's console, on the account's first page. Webhooks on the path that all orgs share are resolved by it.",
			Example: "AC0123456789abcdef0123456789abcdef", Required: true, Pattern: sidPattern("AC"), PatternHelp: sidHelp("AC"), Account: canonicalSID,
		},
		{
			Name: "auth_token", Title: "Auth token",
			Help:    "Beside the account SID in the console. Not needed when there is an API key, except to verify webhooks.",
			Example: "0123456789abcdef0123456789abcdef", Secret: true, Pattern: visible, PatternHelp: visibleHelp,
		},
		{
			Name: "api_key_sid", Title: "API key SID", Help: "In the console under API keys & tokens, of the credential's region. With api_key_secret, used instead of auth_token.",
			Example: "SK0123456789abcdef0123456789abcdef", Pattern: sidPattern("SK"), PatternHelp: sidHelp("SK"),
		},
		{
			Name: "api_key_secret", Title: "API key secret", Help: "Shown once, when the API key is made.",
			Example: "0123456789abcdefghijklmnopqrstuv", Secret: true, Pattern: visible, PatternHelp: visibleHelp,
		},
		{
			Name: "from_number", Title: "From number", Help: "The sender of messages that name none.",
			Example: "+15550001111", Pattern: pattern(`^(\+[1-9][0-9]{1,14}|[0-9]{3,8}|[A-Za-z0-9 +_&-]{0,10}[A-Za-z][A-Za-z0-9 +_&-]{0,10})$`),
			PatternHelp: "a phone number like +15550001111, a short code or an alphanumeric sender id",
		},
		{
			Name: "whatsapp_number", Title: "WhatsApp number", Help: "The sender of WhatsApp messages that name none.",
			Example: "+15550002222", Pattern: pattern(`^(whatsapp:)?\+[1-9][0-9]{1,14}$`), PatternHelp: "a phone number like +15550002222",
		},
		{
			Name: "messaging_service_sid", Title: "Messaging service SID", Help: "The sender of messages that name none; it wins over from_number.",
			Example: "MG0123456789abcdef0123456789abcdef", Pattern: sidPattern("MG"), PatternHelp: sidHelp("MG"),
		},
		{
			Name: "region", Title: "Region", Help: "Where the account's data is processed. Its keys and tokens work in no other region. Default: us1.",
			Example: "ie1", Options: twilioRegions,
		},
		{
			Name: "edge", Title: "Edge", Help: "Where requests enter Twilio's network. Default: the one nearest to the region.",
			Example: "dublin", Options: twilioEdges,
		},
		{
			Name: "subaccounts", Title: "Subaccounts", Help: "SIDs of further accounts that may stand in a path.",
			Example: "ACfedcba9876543210fedcba9876543210", Kind: List, Pattern: sidPattern("AC"), PatternHelp: sidHelp("AC"),
		},
		{
			Name: "webhook_url", Title: "Webhook URL", Help: "The full public URL as it is typed at Twilio, which signs it. Default: that of the webhook listener.",
			Example: "https://hooks.acme.example/webhooks/twilio/acme", Pattern: pattern(`^https?://[!-~]+$`), PatternHelp: "a URL that begins with https:// or http://",
		},
		webhookSecret("What Twilio signs webhooks with: the account's primary auth token. Default: auth_token.", "0123456789abcdef0123456789abcdef"),
		maxTokenTTL(),
	},
	Check:       checkTwilio,
	AuthHeaders: callerHeaders(),
	Webhook:     &Webhook{Scheme: OwnScheme{}, Secret: "webhook_secret", AccountField: "account_sid"},
	Inject:      injectTwilio,
	SecretRoutes: []SecretRoute{
		{Method: "POST", Path: "/2010-04-01/accounts"},
		{Method: "POST", Path: "/2010-04-01/accounts/*/keys"},
		{Method: "POST", Path: "/2010-04-01/accounts/*/signingkeys"},
		{Method: "POST", Host: "iam", Path: "/v1/keys"},
		{Host: "accounts", Path: "/v1/authtokens/**"},
		{Host: "oauth", Path: "/*/token"},
	},
	SecretFields: []SecretFields{
		{Path: "/2010-04-01/accounts", Names: []string{"auth_token"}},
		{Path: "/2010-04-01/accounts/*", Names: []string{"auth_token"}},
		{Host: "iam", Path: "/v1/account/oauthapps/**", Names: []string{"secret", "client_secret"}},
		{Host: "verify", Path: "/v2/services/*/accesstokens", Names: []string{"token"}},
		{Path: "/**", Names: []string{"auth_token", "secondary_auth_token"}, Maybe: true},
	},
	Probe:    Probe{Paths: twilioProbes, Read: readTwilioProbe, Samples: twilioProbeSamples},
	Complete: &Completion{Match: isTwilioMessage, Append: appendTwilioSender},
	Mints:    []*Mint{&twilioAccessToken},
}

var twilioProbeSamples = []ProbeSample{
	{Valid, 200, `{"account_sid":"AC0123456789abcdef0123456789abcdef","balance":"1.00","currency":"USD"}`},
	{ValidRestricted, 403, `{"code":70051,"message":"Authorization Error","status":403}`},
	{Invalid, 401, `{"code":20003,"message":"Authenticate","more_info":"https://www.twilio.com/docs/errors/20003","status":401}`},
}

func sidPattern(prefix string) *Pattern {
	return pattern("^" + prefix + "[0-9a-fA-F]{32}$")
}

func sidHelp(prefix string) string { return prefix + " and 32 hexadecimal digits" }

// canonicalSID is a SID as Twilio writes it.
func canonicalSID(sid string) string {
	if len(sid) < 2 {
		return sid
	}
	return sid[:2] + strings.ToLower(sid[2:])
}

// checkTwilio: auth_token, or both parts of an API key.
func checkTwilio(v Values) []FieldError {
	_, token := v["auth_token"]
	_, sid := v["api_key_sid"]
	_, secret := v["api_key_secret"]
	switch {
	case sid && !secret:
		return []FieldError{{"api_key_secret", "is missing: api_key_sid is nothing without it"}}
	case secret && !sid:
		return []FieldError{{"api_key_sid", "is missing: api_key_secret is nothing without it"}}
	case !token && !sid:
		return []FieldError{{"auth_token", "is missing: give auth_token, or api_key_sid and api_key_secret"}}
	}
	return nil
}

func injectTwilio(r *Request, s Secret) error {
	if err := fitAccount(r, s); err != nil {
		return err
	}
	user, password := s.Field("api_key_sid"), s.Field("api_key_secret")
	if len(user) == 0 || len(password) == 0 {
		user, password = s.Field("account_sid"), s.Field("auth_token")
	}
	if len(password) == 0 {
		return errNoAuthToken
	}
	setBasic(r, user, password)
	return nil
}

var (
	errNoAccountSID = &IncompleteError{"account_sid"}
	errNoAuthToken  = &IncompleteError{"auth_token"}
)

// isTwilioMessage: POST /2010-04-01/Accounts/{sid}/Messages.json, at the API's host in any region.
func isTwilioMessage(method []byte, host string, path []byte) bool {
	if string(method) != "POST" || !strings.HasPrefix(host, "api.") {
		return false
	}
	rest, ok := cutDecoded(path, "/2010-04-01/Accounts/")
	i := bytes.IndexByte(rest, '/')
	return ok && i > 0 && (pathIs(rest[i:], "/Messages.json") || pathIs(rest[i:], "/Messages"))
}

// appendTwilioSender names the sender of a message that names none.
func appendTwilioSender(dst, body []byte, s Secret) []byte {
	if _, ok := formValue(body, "From"); ok {
		return dst
	}
	if _, ok := formValue(body, "MessagingServiceSid"); ok {
		return dst
	}
	const whatsapp = "whatsapp:"
	to, _ := formValue(body, "To")
	if _, ok := cutDecoded(to, whatsapp); ok {
		if number := s.Field("whatsapp_number"); len(number) > 0 {
			dst = append(separated(dst, body), "From="...)
			if !bytes.HasPrefix(number, []byte(whatsapp)) {
				dst = appendEscaped(dst, []byte(whatsapp))
			}
			return appendEscaped(dst, number)
		}
	}
	if service := s.Field("messaging_service_sid"); len(service) > 0 {
		return appendEscaped(append(separated(dst, body), "MessagingServiceSid="...), service)
	}
	number := s.Field("from_number")
	if len(number) == 0 || isChannel(to) {
		return dst
	}
	return appendEscaped(append(separated(dst, body), "From="...), number)
}

// isChannel says whether a recipient is on another channel than SMS, like messenger:123: a phone number cannot send there.
func isChannel(to []byte) bool {
	for i := 0; i < len(to); {
		c, n := decodeAt(to, i)
		if c == ':' {
			return true
		}
		i += n
	}
	return false
}

// separated is dst ready for a further pair behind body.
func separated(dst, body []byte) []byte {
	if len(body) == 0 || body[len(body)-1] == '&' {
		return dst
	}
	return append(dst, '&')
}

// twilioHosts is the closed list: every product, with and without an edge and a region, the SDKs' test of TLS and the uploads of
// Serverless. Media are at hosts of others, reached by redirect, and never see a credential.
func twilioHosts() []string {
	const domain = ".twilio.com"
	products := strings.Fields(`accounts api assistants bulkexports chat content conversations events flex-api frontline-api iam insights
		intelligence ip-messaging knowledge lookups marketplace memory messaging monitor notify numbers oauth preview preview-iam pricing
		proxy routes serverless studio supersim sync taskrouter trunking trusthub verify video voice wireless`)
	hosts := []string{twilioHost, "api.us1" + domain, "tls-test" + domain, "serverless-upload" + domain}
	for _, p := range products {
		if p != "api" {
			hosts = append(hosts, p+domain)
		}
	}
	for _, p := range products {
		for _, region := range twilioRegions {
			for _, edge := range twilioEdges {
				hosts = append(hosts, p+"."+edge+"."+region+domain)
			}
		}
	}
	return hosts
}

const twilioHost = "api.twilio.com"

var (
	twilioRegions = []string{"us1", "ie1", "au1"}
	twilioEdges   = []string{"ashburn", "dublin", "frankfurt", "osaka", "sao-paulo", "singapore", "sydney", "tokyo", "umatilla"}
	// nearest is each region's edge: hosts with a region and no edge ended on 2026-04-28.
	nearest = []string{"ashburn", "dublin", "sydney"}
	// twilioAPI has the API's host for each region and edge.
	twilioAPI = func() (hosts [][]string) {
		for _, region := range twilioRegions {
			row := make([]string, len(twilioEdges))
			for i, edge := range twilioEdges {
				row[i] = "api." + edge + "." + region + ".twilio.com"
			}
			hosts = append(hosts, row)
		}
		return hosts
	}()
)

func twilioDefaultHost(s Secret) string {
	region, edge := indexOf(twilioRegions, s.Field("region")), indexOf(twilioEdges, s.Field("edge"))
	if region <= 0 && edge < 0 {
		return twilioHost
	}
	region = max(region, 0)
	if edge < 0 {
		edge = slices.Index(twilioEdges, nearest[region])
	}
	return twilioAPI[region][edge]
}

// indexOf is slices.Index without a copy.
func indexOf(all []string, b []byte) int {
	for i, s := range all {
		if string(b) == s {
			return i
		}
	}
	return -1
}
