package provider

import "time"

// An Exchange is a token request: POST to https://Host/Path with a form body. The proxy sends it, caches the token (sealed) and
// stores a rotated refresh token.
type Exchange struct {
	Host, Path string
	// Form appends the form body. It holds secrets: the proxy overwrites it after sending.
	Form func(dst []byte, s Secret) []byte
	// Read reads the answer. ErrRejected: permanent, the org must consent again or the client be mended; any other error may pass.
	Read func(status int, body []byte) (Token, error)
	// RefreshField is the credential's field that a rotated Token.Refresh replaces.
	RefreshField string
}

// A Token is what an Exchange yields.
type Token struct {
	Access  []byte
	Refresh []byte        // a new refresh token, when the provider rotated it
	Life    time.Duration // how long Access lives, counted from the answer
	Scope   string        // what it is good for, as the provider says; empty: it does not
}
