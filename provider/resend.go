package provider

import (
	"bytes"
	"encoding/json"
)

// Resend sends e-mail: https://resend.com/docs/api-reference/introduction. One host, one key, no account id anywhere. It refuses
// requests without a User-Agent: https://resend.com/docs/api-reference/introduction#user-agent.
var Resend = Provider{
	Name:        "resend",
	Title:       "Resend",
	Hosts:       []string{resendHost},
	DefaultHost: always(resendHost),
	Fields: []Field{
		{
			Name: "api_key", Title: "API key", Help: "Begins with re_. In Resend's dashboard under API keys; one with sending access is enough to send.",
			Example: "re_0123abcd_0123456789abcdefghijklmn", Secret: true, Required: true, Pattern: visible, PatternHelp: visibleHelp,
		},
		{
			Name: "from_email", Title: "From address", Help: "The sender's address, at a domain that Resend has verified.",
			Example: "Acme <hello@acme.example>", Pattern: pattern(`^([^<>@]*<[^\s<>@]+@[^\s<>@]+>|[^\s<>@]+@[^\s<>@]+)$`),
			PatternHelp: "an e-mail address, with or without a name in front of it",
		},
		webhookSecret("Begins with whsec_. In Resend's dashboard at the webhook's endpoint.", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"),
	},
	UserAgent: true,
	Webhook: &Webhook{
		Scheme: StandardWebhooks{}, Secret: "webhook_secret", Type: "type", SampleType: "email.delivered",
		Sample: `{"type":"{type}","created_at":"{time}","data":{"email_id":"{id}","from":"sample@example.com","to":["delivered@resend.dev"],"subject":"Sent by keyward webhooks test"}}`,
	},
	Probe:       Probe{Paths: onePath("/domains"), Read: readResendProbe, Samples: resendProbeSamples},
	AuthHeaders: callerHeaders(),
	Inject:      bearer("api_key"),
	SecretRoutes: []SecretRoute{
		{Method: "POST", Path: "/api-keys"},
		{Method: "POST", Path: "/webhooks"},
		{Method: "POST", Path: "/webhooks/*/signing-secret/rotate"},
	},
	SecretFields: []SecretFields{
		{Path: "/webhooks/**", Names: []string{"signing_secret"}},
		{Path: "/logs/**", Names: []string{"request_body", "response_body"}}, // of earlier requests, those that made keys included
	},
}

var resendProbeSamples = []ProbeSample{
	{Valid, 200, `{"object":"list","data":[]}`},
	{ValidRestricted, 401, `{"statusCode":401,"name":"restricted_api_key","message":"This API key is restricted to only send emails"}`},
	{Invalid, 400, `{"statusCode":400,"message":"API key is invalid","name":"validation_error"}`},
}

const resendHost = "api.resend.com"

// readResendProbe: https://resend.com/docs/api-reference/errors. A key that may only send is refused with 401, and a wrong one with 400, 401
// or 403: the name and the message tell, the status does not.
func readResendProbe(status int, body []byte) (Verdict, bool) {
	var answer struct {
		Name    string          `json:"name"`
		Message json.RawMessage `json:"message"`
		Data    json.RawMessage `json:"data"`
	}
	if passing(status) || !isJSON(body, '{') || json.Unmarshal(body, &answer) != nil {
		return unproven(status), false
	}
	message, _ := unquote(answer.Message)
	switch {
	case answer.Name == "restricted_api_key":
		return Verdict{State: ValidRestricted, Reason: "Resend takes the key for sending only"}, false
	case answer.Name == "invalid_api_key", bytes.HasPrefix(message, []byte("API key is invalid")):
		return Verdict{State: Invalid, Reason: "Resend does not know the key: it is wrong or was deleted"}, false
	case status == 200 && len(answer.Data) > 0:
		return Verdict{State: Valid}, false
	}
	return unproven(status), false
}
