package provider

import (
	"encoding/json"
	"slices"
)

// Deepgram hears and speaks: https://developers.deepgram.com/reference. A key works at every region's host. WebSockets (/v1/listen,
// /v1/speak, /v1/agent/converse) are authenticated by the same header on the upgrade; the subprotocol "token", in which a browser would
// send a key, is deleted.
var Deepgram = Provider{
	Name:  "deepgram",
	Title: "Deepgram",
	Hosts: []string{deepgramHost, "api.eu.deepgram.com", "api.au.deepgram.com", "api.in.deepgram.com", "agent.deepgram.com"},
	DefaultHost: byRegion(deepgramHost, map[string]string{
		"global": deepgramHost, "eu": "api.eu.deepgram.com", "au": "api.au.deepgram.com", "in": "api.in.deepgram.com",
	}),
	Fields: []Field{
		{
			Name: "api_key", Title: "API key", Help: "In Deepgram's console under API keys; a key belongs to one project.",
			Example: "0123456789abcdef0123456789abcdef01234567", Secret: true, Required: true, Pattern: visible, PatternHelp: visibleHelp,
		},
		{
			Name: "region", Title: "Region", Help: "Where requests are processed that name no host: global (the default), eu, au or in. The key is the same.",
			Example: "eu", Options: []string{"global", "eu", "au", "in"},
		},
		deepgramSecret(),
	},
	// https://developers.deepgram.com/docs/using-the-sec-websocket-protocol
	AuthSubprotocols: []string{"token", "bearer"},
	AuthHeaders:      callerHeaders(),
	AuthParams:       []string{"token", "access_token"},
	Inject:           injectDeepgram,
	Probe: Probe{Paths: onePath("/v1/auth/token"), Read: readDeepgramProbe, Samples: []ProbeSample{
		{Valid, 200, `{"api_key_id":"01234567-89ab-4cde-8f01-23456789abcd","scopes":["usage:write"],"created":"2026-01-01T00:00:00.000Z"}`},
		{ValidRestricted, 403, `{"err_code":"INSUFFICIENT_PERMISSIONS","err_msg":"User does not have sufficient permissions.","request_id":"01234567-89ab-4cde-8f01-23456789abcd"}`},
		{Invalid, 401, `{"err_code":"INVALID_AUTH","err_msg":"Invalid credentials.","request_id":"01234567-89ab-4cde-8f01-23456789abcd"}`},
		{ValidRestricted, 403, `{"category":"INSUFFICIENT_PERMISSIONS","message":"…","details":"…","request_id":"…"}`},
	}},
	// https://developers.deepgram.com/docs/callback: user and password of the callback's URL come back as Basic. The header dg-token proves
	// nothing any more (changelog of 2026-10-27), and never was a secret.
	Webhook: &Webhook{
		Scheme: SharedToken{Header: "authorization", Basic: true}, Secret: "webhook_secret", Type: "type", Group: "metadata.request_id", SampleType: "Results",
		Sample: `{"type":"{type}","metadata":{"request_id":"{id}","created":"{time}","duration":1.0,"channels":1},"results":{"channels":[]}}`,
	},
	SecretRoutes: []SecretRoute{
		{Method: "POST", Path: "/v1/projects/*/keys"},
		{Method: "POST", Path: "/v1/projects/*/onprem/distribution/credentials"}, // for images of what runs at one's own place
		{Method: "POST", Path: "/v1/projects/*/self-hosted/distribution/credentials"},
	},
	SecretFields: []SecretFields{
		// A key just made. Tokens of /v1/auth/grant live for half a minute and are made for clients: they pass.
		{Path: "/v1/projects/*/keys/**", Names: []string{"key"}},
	},
}

const deepgramHost = "api.deepgram.com"

func deepgramSecret() Field {
	f := webhookSecret("User and password of the callback's URL, https://USER:PASSWORD@HOST/webhooks/deepgram/ORG, as USER:PASSWORD; letters and digits, long and random.", "callback:0123456789abcdefghijklmnopqrstuv")
	f.Pattern, f.PatternHelp = pattern(`^[!-9;-~]+:[!-~]+$`), "USER:PASSWORD, printable ASCII characters without a space"
	return f
}

func injectDeepgram(r *Request, s Secret) error {
	const scheme = "Token "
	key := s.Field("api_key")
	if len(key) == 0 {
		return errNoAPIKey
	}
	r.Header = "Authorization"
	r.Value = append(append(slices.Grow(r.Value, len(scheme)+len(key)), scheme...), key...)
	return nil
}

// readDeepgramProbe: https://developers.deepgram.com/docs/errors. An error is named by err_code or, by newer endpoints, category.
func readDeepgramProbe(status int, body []byte) (Verdict, bool) {
	var answer struct {
		Code     string `json:"err_code"`
		Category string `json:"category"`
		KeyID    string `json:"api_key_id"`
	}
	if passing(status) || !isJSON(body, '{') || json.Unmarshal(body, &answer) != nil {
		return unproven(status), false
	}
	for _, name := range []string{answer.Code, answer.Category} {
		switch name {
		case "INVALID_AUTH":
			return Verdict{State: Invalid, Reason: "Deepgram does not know the key: it is wrong, was deleted or ran out"}, false
		case "INSUFFICIENT_PERMISSIONS":
			return Verdict{State: ValidRestricted, Reason: "Deepgram takes the key, and does not permit it to read about itself"}, false
		}
	}
	if status == 200 && answer.KeyID != "" {
		return Verdict{State: Valid}, false
	}
	return unproven(status), false
}
