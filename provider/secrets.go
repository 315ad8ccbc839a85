package provider

// A SecretRoute is a route whose answer is a reusable secret: a new API key, a signing key, an auth token. Globs are those of the
// callers' rules: * is one path segment, ** any rest.
type SecretRoute struct {
	Method string // empty: any
	Host   string // the host's first label, like "iam"; empty: any host of the provider
	Path   string // lower case; matched without regard to case, percent-encoding, a slash or ".json" at the end
}

// SecretFields name JSON fields of answers whose values are reusable secrets. Every text within such a value is overwritten; "a.b" is
// field b of an object that is the value of field a.
type SecretFields struct {
	Host, Path string // as in SecretRoute
	Names      []string
	// Maybe: the route's answers hardly ever have them, so that it is not worth to ask the provider for an uncompressed one.
	Maybe bool
}
