package provider

import (
	"encoding/base64"
	"slices"
)

// callerHeaders are the headers in which an HTTP server looks for a credential, with further ones of the provider's own.
func callerHeaders(own ...string) []string {
	return append([]string{"Authorization", "Proxy-Authorization", "Cookie"}, own...)
}

// The functions that set a header grow r.Value before anything secret is in it, so that what has to be overwritten is in one place only.

// setBare makes the header's value the secret itself.
func setBare(r *Request, header string, secret []byte) {
	r.Header = header
	r.Value = append(slices.Grow(r.Value, len(secret)), secret...)
}

// setBearer is RFC 6750.
func setBearer(r *Request, token []byte) {
	const scheme = "Bearer "
	r.Header = "Authorization"
	r.Value = append(append(slices.Grow(r.Value, len(scheme)+len(token)), scheme...), token...)
}

// setBasic is RFC 7617. User and password are put together behind the place of their base64 form, and overwritten.
func setBasic(r *Request, user, password []byte) {
	const scheme = "Basic "
	plain := len(user) + 1 + len(password)
	coded := base64.StdEncoding.EncodedLen(plain)
	r.Header = "Authorization"
	v := append(slices.Grow(r.Value, len(scheme)+coded+plain), scheme...)
	at := len(v)
	end := at + coded
	v = v[:end]
	both := append(append(append(v[end:end], user...), ':'), password...)
	base64.StdEncoding.Encode(v[at:end], both)
	clear(both)
	r.Value = v
}

// bearer is the Inject of a provider that wants the field as a bearer token.
func bearer(field string) func(*Request, Secret) error {
	missing := &IncompleteError{field}
	return func(r *Request, s Secret) error {
		key := s.Field(field)
		if len(key) == 0 {
			return missing
		}
		setBearer(r, key)
		return nil
	}
}

// always is the DefaultHost of a provider that has but one.
func always(host string) func(Secret) string { return func(Secret) string { return host } }

// byRegion is the DefaultHost of a provider whose field region says which. first is that of a credential without one.
func byRegion(first string, hosts map[string]string) func(Secret) string {
	return func(s Secret) string {
		if host, ok := hosts[string(s.Field("region"))]; ok { // no copy is made for a look-up
			return host
		}
		return first
	}
}
