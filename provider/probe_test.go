package provider

import (
	"regexp"
	"strings"
	"testing"
)

// The bodies are the providers' own, from their documentation and from captured answers.
func TestProbesReadTheBodyNotTheStatus(t *testing.T) {
	is := func(want State, p *Provider, status int, body string) {
		t.Helper()
		v, _ := p.Probe.Read(status, []byte(body))
		if v.State != want {
			t.Errorf("%s, %d %s: %s, want %s", p.Name, status, body, v.State, want)
		}
		if (v.State != Valid) != (v.Reason != "") {
			t.Errorf("%s, %d %s: %s with the reason %q", p.Name, status, body, v.State, v.Reason)
		}
	}
	is(Valid, &Twilio, 200, `{"account_sid":"AC0123456789abcdef0123456789abcdef","balance":"1.00","currency":"USD"}`)
	is(Invalid, &Twilio, 401, `{"code":20003,"message":"Authenticate","more_info":"https://www.twilio.com/docs/errors/20003","status":401}`)
	is(Invalid, &Twilio, 401, `{"code":20003,"detail":"Your AccountSid or AuthToken was incorrect.","message":"Authentication Error - invalid username","more_info":"https://www.twilio.com/docs/errors/20003","status":401}`)
	is(Invalid, &Twilio, 401, `{"type":"about:blank","title":"Unauthorized","status":401,"code":20003}`)
	is(ValidRestricted, &Twilio, 403, `{"code":70051,"message":"Authorization Error","status":403}`)
	is(Unproven, &Twilio, 403, `{"code":20003,"message":"Permission Denied","status":403}`)
	is(Unproven, &Twilio, 401, `<html>401 Authorization Required</html>`)
	is(Unproven, &Twilio, 429, `{"code":20429,"message":"Too Many Requests","status":429}`)
	is(Unproven, &Twilio, 200, `<html>Welcome to the hotel's network</html>`)

	is(Valid, &Vapi, 200, `[]`)
	is(Valid, &Vapi, 200, `[{"id":"0d5f2a5e-0000-4000-8000-000000000001"}]`)
	is(Invalid, &Vapi, 401, `{"message":"Invalid Key. Hot tip, you may be using the private key instead of the public key, or vice versa.","error":"Unauthorized","statusCode":401}`)
	is(Invalid, &Vapi, 401, `{"message":"Unauthorized","error":"Unauthorized","statusCode":401}`)
	is(Unproven, &Vapi, 401, `<html>cloudflare</html>`)
	is(Unproven, &Vapi, 403, `<!DOCTYPE html>Attention Required!`)
	is(Unproven, &Vapi, 500, `{"message":"Internal server error","statusCode":500}`)
	is(Unproven, &Vapi, 400, `{"message":["limit must not be greater than 1000"],"error":"Bad Request","statusCode":400}`)
	is(Unproven, &Vapi, 200, `{"ok":true}`)
	is(Unproven, &Vapi, 200, `[{"id":`)

	is(Valid, &Resend, 200, `{"object":"list","data":[]}`)
	is(ValidRestricted, &Resend, 401, `{"statusCode":401,"name":"restricted_api_key","message":"This API key is restricted to only send emails"}`)
	for _, status := range []int{400, 401, 403} { // all were seen
		is(Invalid, &Resend, status, `{"statusCode":400,"message":"API key is invalid","name":"validation_error"}`)
		is(Invalid, &Resend, status, `{"statusCode":403,"name":"invalid_api_key","message":"The API key is not valid"}`)
	}
	is(Unproven, &Resend, 400, `{"statusCode":400,"name":"validation_error","message":"something else"}`)
	is(Unproven, &Resend, 403, `error code: 1010`)
	is(Unproven, &Resend, 429, `{"statusCode":429,"name":"rate_limit_exceeded","message":"Too many requests"}`)

	is(Valid, &ElevenLabs, 200, `{"subscription":{"tier":"creator"}}`)
	is(ValidRestricted, &ElevenLabs, 401, `{"detail":{"status":"missing_permissions","message":"The API key you used is missing the permission user_read to execute this operation."}}`)
	is(ValidRestricted, &ElevenLabs, 401, `{"detail":{"status":"quota_exceeded","message":"This request exceeds your quota."}}`)
	is(ValidRestricted, &ElevenLabs, 401, `{"detail":{"type":"authorization_error","code":"missing_permissions","message":"…","request_id":"r"}}`)
	is(Invalid, &ElevenLabs, 401, `{"detail":{"status":"invalid_api_key","message":"Invalid API key"}}`)
	is(Invalid, &ElevenLabs, 401, `{"detail":{"type":"authentication_error","code":"invalid_api_key","status":"invalid_api_key"}}`)
	is(Invalid, &ElevenLabs, 401, `{"detail":"Invalid API key"}`)
	is(Unproven, &ElevenLabs, 401, `{"detail":{"status":"detected_unusual_activity"}}`)
	is(Unproven, &ElevenLabs, 401, `{"detail":"Unauthorized"}`)
	is(Unproven, &ElevenLabs, 422, `{"detail":[{"loc":["query"],"msg":"Field required","type":"missing"}]}`)
	is(Unproven, &ElevenLabs, 429, `{"detail":{"status":"system_busy"}}`)
	is(Unproven, &ElevenLabs, 401, `{"detail":{"status":7}}`)

	is(Valid, &GoogleCalendar, 200, `{"kind":"calendar#calendarList"}`)
	is(Invalid, &GoogleCalendar, 401, `{"error":{"errors":[{"domain":"global","reason":"authError","message":"Invalid Credentials"}],"code":401,"message":"Invalid Credentials"}}`)
	is(ValidRestricted, &GoogleCalendar, 403, `{"error":{"errors":[{"domain":"global","reason":"insufficientPermissions","message":"Insufficient Permission"}],"code":403}}`)
	is(ValidRestricted, &GoogleCalendar, 403, `{"error":{"code":403,"status":"PERMISSION_DENIED","details":[{"reason":"ACCESS_TOKEN_SCOPE_INSUFFICIENT"}]}}`)
	is(ValidRestricted, &GoogleCalendar, 403, `{"error":{"errors":[{"domain":"usageLimits","reason":"accessNotConfigured"}],"code":403}}`)
	is(Unproven, &GoogleCalendar, 403, `{"error":{"errors":[{"domain":"usageLimits","reason":"rateLimitExceeded"}],"code":403}}`)
	is(Unproven, &GoogleCalendar, 403, `{"error":"nothing"}`)
	is(Unproven, &SendGrid, 401, `{"errors":[{"message":"Permission denied, wrong credentials"}]}`)
	is(Unproven, &SendGrid, 401, `<html>no</html>`)
	is(Unproven, &SendGrid, 429, `{"errors":[{"message":"too many requests"}]}`)
	is(Unproven, &SendGrid, 200, `{"scopes":null}`)
	is(Unproven, &Deepgram, 401, `{"err_code":"SOMETHING_NEW"}`)
	is(Unproven, &Deepgram, 200, `{}`)
	is(Unproven, &Deepgram, 402, `{"err_code":"ASR_PAYMENT_REQUIRED"}`)
	is(Unproven, &OpenAI, 401, `{"error":{"code":"ip_not_authorized"}}`)
	is(Unproven, &OpenAI, 403, `{"error":{"code":"unsupported_country_region_territory","message":"Country, region, or territory not supported"}}`)
	is(Unproven, &OpenAI, 429, `{"error":{"code":"insufficient_quota"}}`)
	is(Unproven, &Stripe, 401, `{"error":{"message":"something else"}}`)
	is(Unproven, &Stripe, 403, `{"error":{"message":"something else"}}`)
	is(Unproven, &Stripe, 400, `{"error":{"message":"Invalid API Key provided: sk_test_"}}`)
	for _, p := range All {
		is(Unproven, p, 503, `{"code":20003,"name":"invalid_api_key","detail":"Invalid API key","message":"Invalid Key"}`)
		is(Unproven, p, 401, ``)
		is(Unproven, p, 200, ``)
	}
}

func TestProbesSayWhoCanMendIt(t *testing.T) {
	v, _ := GoogleCalendar.Probe.Read(401, []byte(`{"error":{"errors":[{"reason":"authError"}]}}`))
	if !v.Reconnect {
		t.Error("a dead consent does not ask to connect again")
	}
	for code, reconnect := range map[string]bool{"invalid_grant": true, "invalid_client": false, "unauthorized_client": false} {
		if v := (&RejectedError{code}).Verdict(); v.State != Invalid || v.Reconnect != reconnect || !strings.Contains(v.Reason, code) {
			t.Errorf("%s: %+v", code, v)
		}
	}
}

// A reason is ours: not a byte of an answer gets into it, for an answer may repeat the key.
func TestReasonsRepeatNothingOfTheAnswer(t *testing.T) {
	for _, p := range All {
		for _, status := range []int{200, 400, 401, 403, 404, 429, 500} {
			for _, body := range []string{
				`{"code":20003,"message":"canary"}`, `{"name":"canary","message":"API key is invalid: canary"}`, `{"message":"Invalid Key canary","statusCode":401}`,
				`{"detail":{"status":"canary","code":"invalid_api_key","message":"canary"}}`, `{"error":{"errors":[{"reason":"canary"}]}}`, `canary`,
			} {
				if v, _ := p.Probe.Read(status, []byte(body)); strings.Contains(v.Reason, "canary") {
					t.Errorf("%s, %d %s: %q", p.Name, status, body, v.Reason)
				}
			}
		}
	}
}

func TestFoldJoinsTheAnswersOfSeveralPaths(t *testing.T) {
	refused, fine, unclear := Verdict{State: Invalid, Reason: "no"}, Verdict{State: Valid}, Verdict{State: Unproven, Reason: "?"}
	is := func(want Verdict, all ...Verdict) {
		t.Helper()
		if got := Fold(all); got != want {
			t.Errorf("%v: %+v, want %+v", all, got, want)
		}
	}
	is(fine, fine)
	is(Verdict{State: ValidRestricted, Reason: "no"}, refused, fine)
	is(refused, refused, refused)
	is(unclear, unclear, refused)
	is(unclear, refused, unclear)
	is(Verdict{State: ValidRestricted, Reason: "no"}, refused, refused, fine)
	if got := Fold(nil); got.State != Unproven {
		t.Errorf("of nothing: %+v", got)
	}
}

// TestProbesConform is what every provider's probe must pass.
func TestProbesConform(t *testing.T) {
	for _, p := range All {
		states := map[State]bool{}
		for _, s := range p.Probe.Samples {
			states[s.State] = true
			v, _ := p.Probe.Read(s.Status, []byte(s.Body))
			if v.State != s.State || (v.State != Valid) != (v.Reason != "") {
				t.Errorf("%s, %d %s: %s with the reason %q, want %s", p.Name, s.Status, s.Body, v.State, v.Reason, s.State)
			}
		}
		if !states[Valid] || !states[Invalid] {
			t.Errorf("%s has no sample of its answer to a good credential, or none to a bad one", p.Name)
		}
		paths := p.Probe.Paths(opened(t, p, example(p)))
		if len(paths) == 0 || p.Probe.Read == nil {
			t.Errorf("%s has no probe", p.Name)
		}
		for _, path := range paths {
			if path == "" || path[0] != '/' {
				t.Errorf("%s asks %q", p.Name, path)
			}
			if regexp.MustCompile(`^/2010-04-01/Accounts/[^/]*$`).MatchString(path) {
				t.Errorf("%s asks %s, which answers with the auth token", p.Name, path)
			}
		}
	}
}
