package provider

import (
	"net/url"
	"slices"
	"strings"
)

// A Consent is how an org gives a consent that its credential is made of: OAuth 2.0's authorization code (RFC 6749, section 4.1) with PKCE
// (RFC 7636). A browser is sent to Host/Path; the code that it comes back with is traded at the Exchange's host and path.
type Consent struct {
	Host, Path string
	// Params are sent besides those of the protocol.
	Params map[string]string
	// Scopes are asked for when nobody says otherwise.
	Scopes []string
	// Issuer is what the browser comes back from, where it says so (RFC 9207).
	Issuer string
}

// A ConsentRequest is what a consent is asked for with.
type ConsentRequest struct {
	Base      string // of the URL, in the place of https://Host; empty: that
	ClientID  string
	Redirect  string // where the browser is sent back to
	State     string
	Challenge string // of the code verifier, by S256
	Scopes    []string
}

// URL is where to send the browser.
func (c *Consent) URL(r ConsentRequest) string {
	q := url.Values{
		"response_type": {"code"}, "client_id": {r.ClientID}, "redirect_uri": {r.Redirect}, "scope": {strings.Join(r.Scopes, " ")},
		"state": {r.State}, "code_challenge": {r.Challenge}, "code_challenge_method": {"S256"},
	}
	for name, value := range c.Params {
		q.Set(name, value)
	}
	base := r.Base
	if base == "" {
		base = "https://" + c.Host
	}
	return strings.TrimSuffix(base, "/") + c.Path + "?" + q.Encode()
}

// AppendCode appends the form that trades a code for tokens. It grows dst first, so that no half of it stays behind.
func (c *Consent) AppendCode(dst []byte, code, verifier, redirect, clientID string, clientSecret []byte) []byte {
	dst = slices.Grow(dst, 160+3*(len(code)+len(verifier)+len(redirect)+len(clientID)+len(clientSecret)))
	dst = append(dst, "grant_type=authorization_code&code="...)
	dst = appendEscaped(dst, []byte(code))
	dst = appendEscaped(append(dst, "&code_verifier="...), []byte(verifier))
	dst = appendEscaped(append(dst, "&redirect_uri="...), []byte(redirect))
	dst = appendEscaped(append(dst, "&client_id="...), []byte(clientID))
	return appendEscaped(append(dst, "&client_secret="...), clientSecret)
}
