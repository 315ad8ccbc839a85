package provider

import (
	"strings"
	"testing"
)

func TestMoreProvidersInject(t *testing.T) {
	is := func(p *Provider, credential, path, want string) {
		t.Helper()
		if got := inject(t, p, credential, "GET", path); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	is(&SendGrid, `{"api_key":"SG.a.b"}`, "/v3/mail/send", "/v3/mail/send Authorization: Bearer SG.a.b")
	is(&Deepgram, `{"api_key":"dg1"}`, "/v1/listen", "/v1/listen Authorization: Token dg1")
	is(&OpenAI, `{"api_key":"sk-1"}`, "/v1/responses", "/v1/responses Authorization: Bearer sk-1")
	is(&Stripe, `{"api_key":"rk_test_1"}`, "/v1/charges", "/v1/charges Authorization: Bearer rk_test_1")
}

func TestMoreProvidersLiveWhereTheirCredentialsSay(t *testing.T) {
	is := func(p *Provider, credential, want string) {
		t.Helper()
		if got := p.DefaultHost(opened(t, p, credential)); got != want {
			t.Errorf("%s: got %s, want %s", credential, got, want)
		}
	}
	is(&SendGrid, `{"api_key":"SG.a.b","region":"eu"}`, "api.eu.sendgrid.com")
	is(&Deepgram, `{"api_key":"k","region":"au"}`, "api.au.deepgram.com")
	is(&OpenAI, `{"api_key":"k","region":"eu"}`, "eu.api.openai.com")
	is(&OpenAI, `{"api_key":"k"}`, "api.openai.com")
}

func TestMoreProvidersRefuse(t *testing.T) {
	is := func(p *Provider, credential, want string) {
		t.Helper()
		if got := refused(p, credential); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q in it", credential, got, want)
		}
	}
	is(&Stripe, `{"api_key":"pk_live_1"}`, "a publishable one (pk_) is no secret")
	is(&SendGrid, `{"api_key":"SG.a.b","webhook_public_key":"-----BEGIN PUBLIC KEY-----"}`, "124 characters")
	is(&Deepgram, `{"api_key":"k","webhook_secret":"password"}`, "USER:PASSWORD")
	is(&OpenAI, `{"api_key":"k","region":"mars"}`, "region must be")
}
