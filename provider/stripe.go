package provider

import (
	"encoding/json"
	"strings"
	"time"
)

// Stripe takes payments: https://docs.stripe.com/api. A connected account is named by the header Stripe-Account, which passes.
var Stripe = Provider{
	Name:        "stripe",
	Title:       "Stripe",
	Hosts:       []string{stripeHost, "files.stripe.com", "meter-events.stripe.com"},
	DefaultHost: always(stripeHost),
	Fields: []Field{
		{
			Name: "api_key", Title: "API key", Help: "A secret key (sk_) or, better, a restricted one (rk_), live or test. In Stripe's dashboard under Developers, API keys.",
			Example: "rk_test_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOP", Secret: true, Required: true,
			Pattern: pattern(`^(sk|rk)_[!-~]+$`), PatternHelp: "a key that begins with sk_ or rk_; a publishable one (pk_) is no secret and does not do",
		},
		webhookSecret("Begins with whsec_. In Stripe's dashboard at the event destination, as signing secret.", "whsec_0123456789abcdefghijklmnopqrstuv"),
	},
	AuthHeaders: callerHeaders(),
	Inject:      bearer("api_key"),
	Probe: Probe{Paths: onePath("/v1/balance"), Read: readStripeProbe, Samples: []ProbeSample{
		{Valid, 200, `{"object":"balance","available":[{"amount":0,"currency":"eur","source_types":{"card":0}}],"livemode":false,"pending":[]}`},
		{ValidRestricted, 403, `{"error":{"code":"more_permissions_required_for_application","message":"The provided key 'rk_test_******' does not have the required permissions for this endpoint on account 'acct_1'. Having the 'rak_balance_read' permission would allow this request to continue.","type":"invalid_request_error"}}`},
		{Invalid, 401, `{"error":{"message":"Invalid API Key provided: rk_test_******","type":"invalid_request_error"}}`},
		{ValidRestricted, 403, `{"error":{"message":"The provided key 'rk_test_******' does not have the required permissions for this endpoint on account 'acct_1'.","type":"invalid_request_error"}}`},
		{Invalid, 401, `{"error":{"code":"api_key_expired","message":"Expired API Key provided: rk_test_******","type":"invalid_request_error"}}`},
	}},
	// https://docs.stripe.com/webhooks/signature: their libraries take five minutes, and set no bound to the future.
	Webhook: &Webhook{
		Scheme: StampedHMAC{Header: "stripe-signature", Version: "v1", Past: 5 * time.Minute, Future: 5 * time.Minute},
		Secret: "webhook_secret", Type: "type", Group: "data.object.id", SampleType: "payment_intent.succeeded",
		Sample: `{"id":"evt_{id}","object":"event","api_version":"2025-03-31.basil","created":{now},"type":"{type}","livemode":false,"data":{"object":{"id":"pi_{id}","object":"payment_intent"}}}`,
	},
	SecretRoutes: []SecretRoute{
		{Method: "POST", Path: "/v1/webhook_endpoints"},
		{Method: "POST", Path: "/v2/core/event_destinations"},
		{Method: "POST", Path: "/v1/ephemeral_keys"},
		{Method: "POST", Path: "/v1/apps/secrets"},
		{Method: "GET", Path: "/v1/apps/secrets/find"},
		{Path: "/v2/iam/**"}, // API keys
	},
	SecretFields: []SecretFields{
		{Path: "/v1/webhook_endpoints/**", Names: []string{"secret"}},
		{Path: "/v2/core/event_destinations/**", Names: []string{"signing_secret"}},
		{Path: "/v1/ephemeral_keys/**", Names: []string{"secret"}},
		{Path: "/v1/apps/secrets/**", Names: []string{"payload"}},
		// Client secrets (payment intents, account sessions) are made for browsers: they pass.
	},
}

const stripeHost = "api.stripe.com"

// readStripeProbe: https://docs.stripe.com/api/errors. An error's message repeats the key's ends, and tells what the code often does not.
func readStripeProbe(status int, body []byte) (Verdict, bool) {
	var answer struct {
		Object string `json:"object"`
		Error  struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if passing(status) || !isJSON(body, '{') || json.Unmarshal(body, &answer) != nil {
		return unproven(status), false
	}
	switch e := answer.Error; {
	case e.Code == "api_key_expired", strings.HasPrefix(e.Message, "Expired API Key provided"):
		return Verdict{State: Invalid, Reason: "the key ran out, or was rolled at Stripe"}, false
	case status == 401 && strings.HasPrefix(e.Message, "Invalid API Key provided"):
		return Verdict{State: Invalid, Reason: "Stripe does not know the key: it is wrong or was deleted"}, false
	case status == 403 && (e.Code == "more_permissions_required_for_application" || strings.Contains(e.Message, "does not have the required permissions")):
		return Verdict{State: ValidRestricted, Reason: "Stripe takes the key, a restricted one, and does not permit it to read the balance"}, false
	case status == 200 && answer.Object == "balance":
		return Verdict{State: Valid}, false
	}
	return unproven(status), false
}
