package provider

import "testing"

func TestResend(t *testing.T) {
	const want = "/emails Authorization: Bearer re_1"
	if got := inject(t, &Resend, `{"api_key":"re_1"}`, "POST", "/emails"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	is := func(text, want string) {
		t.Helper()
		if got := refused(&Resend, text); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", text, got, want)
		}
	}
	is(`{"api_key":"re_1","from_email":"hello@acme.example","webhook_secret":["whsec_1","whsec_2"]}`, "")
	is(`{"api_key":"re_1","from_email":"Acme, Inc. <hello@acme.example>"}`, "")
	is(`{"from_email":"acme"}`, "api_key is missing: Resend cannot be used without it\nfrom_email must be an e-mail address, with or without a name in front of it")
	is(`{"api_key":"re 1"}`, "api_key must be printable ASCII characters without a space")
}
