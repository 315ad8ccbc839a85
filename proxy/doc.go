// Package proxy is the outbound path: it takes a caller's request for a provider, finds out who calls and for which org, opens the
// org's credential, puts it into the request and streams the answer back.
//
// One request, in the order of the files:
//
//	listener.go   accept: peer credentials of the kernel, fixed org or upstream of a listener
//	header.go     the head as it was received, checked and read in one pass
//	caller.go     who: the rule of the peer, or a token
//	route.go      where (the provider's host) and whose (the org)
//	secret.go     the credential: looked up, opened, wiped
//	inject.go     the head that goes to the provider, built in memory of ours
//	upstream.go   pooled connections to the provider, guard.go under their TLS
//	forward.go    sending, waiting, once more where that is safe
//	stream.go     the answer's body, as it comes
//	websocket.go  upgraded connections
//	token.go      short-lived tokens that are traded for a credential (Google)
//	errors.go     the answers that are Keyward's own
//	log.go        one decision line per request
//
// The caller's side is served by fasthttp. The provider's side is our own, because no secret may stay behind in a library's buffers,
// a request whose first byte was written must never be sent again, and a connection must be known to be clean before the next org
// uses it; fasthttp's client promises none of these. It still parses the answers' heads.
package proxy
