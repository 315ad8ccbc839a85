package provider

import (
	"encoding/json"
	"strings"
)

// OpenAI is OpenAI's API: https://developers.openai.com/api/reference. A project with data residency has keys of its own, at a host of its
// own. WebSockets (/v1/realtime, /v1/responses) are authenticated by the same header on the upgrade; the subprotocol
// "openai-insecure-api-key.KEY", in which a browser would send a key, is deleted.
var OpenAI = Provider{
	Name:  "openai",
	Title: "OpenAI",
	Hosts: []string{
		openAIHost, "us.api.openai.com", "eu.api.openai.com", "ae.api.openai.com", "au.api.openai.com", "in.api.openai.com", "jp.api.openai.com",
	},
	DefaultHost: byRegion(openAIHost, map[string]string{
		"global": openAIHost, "us": "us.api.openai.com", "eu": "eu.api.openai.com", "ae": "ae.api.openai.com", "au": "au.api.openai.com",
		"in": "in.api.openai.com", "jp": "jp.api.openai.com",
	}),
	Fields: []Field{
		{
			Name: "api_key", Title: "API key", Help: "Begins with sk-. In OpenAI's dashboard under API keys; a project's key, if need be with restricted permissions.",
			Example: "sk-proj-0123456789abcdefghijklmnopqrstuvwxyz0123456789", Secret: true, Required: true, Pattern: visible, PatternHelp: visibleHelp,
		},
		{
			Name: "region", Title: "Region", Help: "Where the project's data resides: global (the default), us, eu, ae, au, in or jp.",
			Example: "eu", Options: []string{"global", "us", "eu", "ae", "au", "in", "jp"},
		},
		webhookSecret("Begins with whsec_. Shown once, when the webhook is made in OpenAI's dashboard.", "whsec_RdvaYFYUXuIFuEbvZHwMfYFhUf7aMYjYcmM24+Aj40c="),
	},
	AuthHeaders:      callerHeaders(),
	AuthSubprotocols: []string{"openai-insecure-api-key."},
	Inject:           bearer("api_key"),
	Probe: Probe{Paths: onePath("/v1/models"), Read: readOpenAIProbe, Samples: []ProbeSample{
		{Valid, 200, `{"object":"list","data":[{"id":"gpt-4o","object":"model","created":1715367049,"owned_by":"system"}]}`},
		{ValidRestricted, 403, `{"error":{"message":"You have insufficient permissions for this operation. Missing scopes: api.model.read. Check that you have the correct role in your organization (Reader, Writer, Owner) and project (Member, Owner), and if you're using a restricted API key, that it has the necessary scopes.","type":"invalid_request_error","param":null,"code":"missing_scope"}}`},
		{Invalid, 401, `{"error":{"message":"Incorrect API key provided: sk-proj-********. You can find your API key at https://platform.openai.com/account/api-keys.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}`},
		// The same was seen with 401, and without a code.
		{ValidRestricted, 401, `{"error":{"message":"You have insufficient permissions for this operation. Missing scopes: model.request.","type":"invalid_request_error","param":null,"code":"missing_scope"}}`},
		{ValidRestricted, 403, `{"error":{"message":"You have insufficient permissions for this operation.","type":"invalid_request_error","param":null,"code":null}}`},
		{Invalid, 401, `{"error":{"message":"Your API key was disabled.","type":"invalid_request_error","code":"account_deactivated"}}`},
	}},
	// https://developers.openai.com/api/docs/guides/webhooks: Standard Webhooks.
	Webhook: &Webhook{
		Scheme: StandardWebhooks{}, Secret: "webhook_secret", Type: "type", Group: "data.id", SampleType: "response.completed",
		Sample: `{"id":"evt_{id}","object":"event","created_at":{now},"type":"{type}","data":{"id":"resp_{id}"}}`,
	},
	// The routes of openai-node 6 under admin/organization.
	SecretRoutes: []SecretRoute{
		{Method: "POST", Path: "/v1/organization/admin_api_keys"},
		{Method: "POST", Path: "/v1/organization/projects/*/service_accounts"},
		{Method: "POST", Path: "/v1/organization/projects/*/service_accounts/*/api_keys"},
	},
	SecretFields: []SecretFields{
		// Realtime client secrets (/v1/realtime/client_secrets, /v1/realtime/sessions) live for minutes and are made for clients: they pass.
		{Path: "/v1/organization/admin_api_keys/**", Names: []string{"value"}},
		{Path: "/v1/organization/projects/**", Names: []string{"api_key.value"}},
	},
}

const openAIHost = "api.openai.com"

// readOpenAIProbe: https://developers.openai.com/api/docs/guides/error-codes. 401 stands for a wrong key and, as seen, for one that lacks a
// scope; code and message tell.
func readOpenAIProbe(status int, body []byte) (Verdict, bool) {
	var answer struct {
		Object string `json:"object"`
		Error  struct {
			Code    any    `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if passing(status) || !isJSON(body, '{') || json.Unmarshal(body, &answer) != nil {
		return unproven(status), false
	}
	switch code, _ := answer.Error.Code.(string); {
	case code == "missing_scope", strings.HasPrefix(answer.Error.Message, "You have insufficient permissions for this operation"):
		return Verdict{State: ValidRestricted, Reason: "OpenAI takes the key, and does not permit it to list models"}, false
	case code == "invalid_api_key":
		return Verdict{State: Invalid, Reason: "OpenAI does not know the key: it is wrong or was deleted"}, false
	case code == "account_deactivated":
		return Verdict{State: Invalid, Reason: "OpenAI has deactivated the key's account"}, false
	case status == 200 && answer.Object == "list":
		return Verdict{State: Valid}, false
	}
	return unproven(status), false
}
