// Package proxy is the outbound path: it takes a caller's request for a provider, finds out who calls and for which org, opens the
// org's credential, puts it into the request and streams the answer back.
//
// One request, in the order of the files:
//
//	lifecycle.go           listeners served, drained and closed
//	listener.go, conn.go   accept: peer credentials of the kernel, fixed org or upstream of a listener; connections.go
//	                       knows who is there, crowd.go leaves room for others
//	headwatch.go           the bytes of the head before the library has read them
//	header.go              the head as it was received, checked and read in one pass
//	caller.go, tokens.go   who: the rule of the peer, or a token
//	route.go               where (the provider's host) and whose (the org)
//	secretroute.go         routes that hand out secrets
//	secret.go              the credential: looked up, opened, wiped
//	exchange.go            short-lived tokens that are traded for a credential (Google)
//	former.go              a credential beside the one that takes its place
//	mint.go                tokens that SDKs would sign with a secret, signed here instead
//	ask.go, suspect.go     questions of our own; who is told that a credential was refused
//	inject.go              the head that goes to the provider, built in memory of ours
//	upstream.go, guard.go  pooled connections to the provider, and what lies under their TLS
//	dials.go               how many of them are made at once, and who waits for one
//	forward.go, upload.go  sending, waiting, once more where that is safe; inflight.go bounds how much of it
//	stream.go, answer.go   the answer's head, and its body as it comes; redact.go and package mask take secrets out
//	deadline.go            until when reading may take, for the least that it can cost
//	websocket.go           upgraded connections
//	intercept.go           CONNECT, and the requests within; passthrough.go is for what nobody looks into, tunnels.go counts
//	gone.go                whether the caller is still there
//	errors.go, log.go      the answers that are Keyward's own, unreachable.go those for want of one; one decision line per request
//	measure.go, numbers.go how many, how long, by provider
//	tracing.go             those that are followed across programs
//
// The caller's side is served by fasthttp. The provider's side is our own, because no secret may stay behind in a library's buffers,
// a request whose first byte was written must never be sent again, and a connection must be known to be clean before the next org
// uses it; fasthttp's client promises none of these. It still parses the answers' heads.
package proxy
