package provider

import (
	"bytes"
	"encoding/json"
	"time"
)

// ElevenLabs makes speech: https://elevenlabs.io/docs/api-reference/introduction. A workspace with data residency is one of its own, with
// keys of its own, at a host of its own. WebSockets are authenticated by the same header on the upgrade.
var ElevenLabs = Provider{
	Name:  "elevenlabs",
	Title: "ElevenLabs",
	Hosts: []string{
		elevenLabsHost, "api.us.elevenlabs.io", "api.eu.residency.elevenlabs.io", "api.in.residency.elevenlabs.io", "api.sg.residency.elevenlabs.io",
	},
	DefaultHost: byRegion(elevenLabsHost, map[string]string{
		"global": elevenLabsHost, "us": "api.us.elevenlabs.io", "eu": "api.eu.residency.elevenlabs.io",
		"in": "api.in.residency.elevenlabs.io", "sg": "api.sg.residency.elevenlabs.io",
	}),
	Fields: []Field{
		{
			Name: "api_key", Title: "API key", Help: "Begins with sk_. In ElevenLabs' settings under API keys; a key belongs to one workspace.",
			Example: "sk_0123456789abcdef0123456789abcdef0123456789abcdef", Secret: true, Required: true, Pattern: visible, PatternHelp: visibleHelp,
		},
		{
			Name: "region", Title: "Region", Help: "Where the workspace lives: global (the default, the nearest servers), us, or with data residency eu, in, sg.",
			Example: "eu", Options: []string{"global", "us", "eu", "in", "sg"},
		},
		{
			Name: "agent_ids", Title: "Agent ids", Help: "The org's agents. Webhooks on the path that all orgs share are resolved by them.",
			Example: "agent_0123456789abcdefghijklmnop", Kind: List, Pattern: identifier, PatternHelp: identifierHelp, Account: asTyped,
		},
		webhookSecret("Begins with wsec_. Shown once, when the webhook is made in ElevenLabs' settings.", "wsec_0123456789abcdef0123456789abcdef"),
	},
	AuthHeaders: callerHeaders("Xi-Api-Key"),
	AuthParams:  []string{"authorization", "xi-api-key", "xi_api_key"},
	Probe:       Probe{Paths: onePath("/v1/user"), Read: readElevenLabsProbe, Samples: elevenLabsProbeSamples},
	Inject:      injectElevenLabs,
	Webhook: &Webhook{
		// https://elevenlabs.io/docs, post-call webhooks. Their SDKs set no bound to the future.
		Scheme: StampedHMAC{Header: "elevenlabs-signature", Version: "v0", Past: 30 * time.Minute, Future: 5 * time.Minute},
		Secret: "webhook_secret", Type: "type", Account: "data.agent_id", AccountField: "agent_ids", SampleType: "post_call_transcription",
		Sample: `{"type":"{type}","event_timestamp":{now},"data":{"conversation_id":"conv_{id}","status":"done","agent_id":"{agent_ids}"}}`,
	},
	SecretRoutes: []SecretRoute{
		{Method: "POST", Path: "/v1/service-accounts/*/api-keys"},
		{Method: "POST", Path: "/v1/workspace/webhooks"},
	},
	SecretFields: []SecretFields{
		{Path: "/v1/user", Names: []string{"xi_api_key"}},
		{Path: "/**", Names: []string{"xi_api_key", "xi-api-key", "webhook_secret"}, Maybe: true},
	},
}

var elevenLabsProbeSamples = []ProbeSample{
	{Valid, 200, `{"subscription":{"tier":"creator"}}`},
	{ValidRestricted, 401, `{"detail":{"status":"missing_permissions","message":"The API key you used is missing the permission user_read to execute this operation."}}`},
	{Invalid, 401, `{"detail":{"status":"invalid_api_key","message":"Invalid API key"}}`},
}

const elevenLabsHost = "api.elevenlabs.io"

func injectElevenLabs(r *Request, s Secret) error {
	key := s.Field("api_key")
	if len(key) == 0 {
		return errNoAPIKey
	}
	setBare(r, "Xi-Api-Key", key)
	return nil
}

var errNoAPIKey = &IncompleteError{"api_key"}

func asTyped(id string) string { return id }

// readElevenLabsProbe: https://elevenlabs.io/docs/developers/resources/errors. 401 stands for a wrong key, for one that lacks a permission
// and for one without credits; detail is an object with a code, or the older status, or a bare text.
func readElevenLabsProbe(status int, body []byte) (Verdict, bool) {
	if passing(status) || !isJSON(body, '{') {
		return unproven(status), false
	}
	if status == 200 {
		return Verdict{State: Valid}, false
	}
	var answer struct {
		Detail json.RawMessage `json:"detail"`
	}
	_ = json.Unmarshal(body, &answer) // it is an object; a detail of any form fits
	var detail struct {
		Code   string `json:"code"`
		Status string `json:"status"`
	}
	if isJSON(answer.Detail, '{') {
		_ = json.Unmarshal(answer.Detail, &detail) // of another form: it names nothing
	}
	bare, _ := unquote(answer.Detail)
	for _, name := range []string{detail.Code, detail.Status} {
		switch name {
		case "missing_permissions":
			return Verdict{State: ValidRestricted, Reason: "ElevenLabs takes the key, and does not permit it to read the account"}, false
		case "quota_exceeded":
			return Verdict{State: ValidRestricted, Reason: "ElevenLabs takes the key, and its credits are used up"}, false
		case "invalid_api_key":
			return Verdict{State: Invalid, Reason: "ElevenLabs does not know the key: a wrong or deleted one, or one of another region"}, false
		}
	}
	if bytes.EqualFold(bare, []byte("Invalid API key")) {
		return Verdict{State: Invalid, Reason: "ElevenLabs does not know the key: a wrong or deleted one, or one of another region"}, false
	}
	return unproven(status), false
}
