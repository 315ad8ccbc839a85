package provider

import (
	"encoding/json"
	"time"
)

// SendGrid sends e-mail: https://www.twilio.com/docs/sendgrid/api-reference. The account of a key says whether it lives in the EU, at a host
// of its own.
var SendGrid = Provider{
	Name:  "sendgrid",
	Title: "SendGrid",
	Hosts: []string{sendGridHost, "api.eu.sendgrid.com"},
	DefaultHost: byRegion(sendGridHost, map[string]string{
		"global": sendGridHost, "eu": "api.eu.sendgrid.com",
	}),
	Fields: []Field{
		{
			Name: "api_key", Title: "API key", Help: "Begins with SG. In SendGrid's settings under API keys; one with restricted access is enough for what it permits.",
			Example: "SG.0123456789abcdefghijkl.0123456789abcdefghijklmnopqrstuvwxyzABCDEFG", Secret: true, Required: true, Pattern: visible, PatternHelp: visibleHelp,
		},
		{
			Name: "region", Title: "Region", Help: "Where the account or subuser lives: global (the default) or eu.",
			Example: "eu", Options: []string{"global", "eu"},
		},
		{
			Name: "webhook_public_key", Title: "Webhook verification key",
			Help:    "In SendGrid's settings at the event webhook, under security features, signature verification. A list while it is being replaced: any of them verifies.",
			Example: "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEEDr2LjtURuePQzplybdC+u4CwrqDqBaWjcMMsTbhdbcwHBcepxo7yAQGhHPTnlvFYPAZFceEu/1FwCM/QmGUhA==",
			Kind:    TextOrList, Pattern: pattern(`^MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE[0-9A-Za-z+/]{86}==$`),
			PatternHelp: "a P-256 public key as SendGrid shows it: 124 characters that begin with MFkw",
		},
	},
	AuthHeaders: callerHeaders(),
	Inject:      bearer("api_key"),
	Probe: Probe{Paths: onePath("/v3/scopes"), Read: readSendGridProbe, Samples: []ProbeSample{
		{Valid, 200, `{"scopes":["mail.send","alerts.create","user.scheduled_sends.read"]}`},
		{ValidRestricted, 403, `{"errors":[{"field":null,"message":"access forbidden"}]}`},
		{Invalid, 401, `{"errors":[{"field":null,"message":"The provided authorization grant is invalid, expired, or revoked"}]}`},
		{Invalid, 401, `{"errors":[{"message":"authorization required","field":null,"help":null}]}`},
	}},
	// https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features. It prescribes no
	// tolerance; a batch that could not be delivered comes again for a day, with a timestamp of its own.
	Webhook: &Webhook{
		Scheme: StampedECDSA{
			Header: "x-twilio-email-event-webhook-signature", Timestamp: "x-twilio-email-event-webhook-timestamp", Past: 10 * time.Minute, Future: 5 * time.Minute,
		},
		Secret: "webhook_public_key", Type: "[].event", SampleType: "delivered",
	},
	SecretRoutes: []SecretRoute{
		{Method: "POST", Path: "/v3/api_keys"},
		{Method: "POST", Path: "/v3/user/webhooks/event/settings/*/signed"}, // not a secret, but a new key: the old one verifies no more
		{Method: "PATCH", Path: "/v3/user/webhooks/event/settings/signed/*"},
		{Method: "PATCH", Path: "/v3/user/webhooks/event/settings/signed"},
		{Method: "POST", Path: "/v3/sso/integrations/**"},
	},
	SecretFields: []SecretFields{
		// The OAuth client that SendGrid is to fetch a token with before it calls the event webhook.
		{Path: "/v3/user/webhooks/**", Names: []string{"oauth_client_secret", "api_key"}},
		{Path: "/**", Names: []string{"api_key"}, Maybe: true},
	},
}

const sendGridHost = "api.sendgrid.com"

// readSendGridProbe: https://www.twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api/errors. A wrong key and one that was
// deleted get the same 401, by its message; 403 is a key that exists and may not.
func readSendGridProbe(status int, body []byte) (Verdict, bool) {
	var answer struct {
		Scopes json.RawMessage `json:"scopes"`
		Errors []struct {
			Message string `json:"message"`
		} `json:"errors"`
	}
	if passing(status) || !isJSON(body, '{') || json.Unmarshal(body, &answer) != nil {
		return unproven(status), false
	}
	if status == 200 && isJSON(answer.Scopes, '[') {
		return Verdict{State: Valid}, false
	}
	for _, e := range answer.Errors {
		switch {
		case e.Message == "The provided authorization grant is invalid, expired, or revoked", e.Message == "authorization required":
			return Verdict{State: Invalid, Reason: "SendGrid does not know the key: it is wrong, was deleted, or is of another region"}, false
		case e.Message == "access forbidden" && status == 403:
			return Verdict{State: ValidRestricted, Reason: "SendGrid takes the key, and does not permit it to read its scopes"}, false
		}
	}
	return unproven(status), false
}
