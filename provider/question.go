package provider

import (
	"errors"
	"time"
)

// A Question is a small request that Keyward itself makes of a provider: whether it honours a credential, to make an assistant, to trade a
// consent for a token. Asking uses it up: what may be secret in it is overwritten as soon as it has been sent.
type Question struct {
	Provider *Provider
	Host     string // one of Hosts or OwnHosts; empty: where the secret's region is
	Method   string
	Path     string // with its query
	Type     string // of the body
	Body     []byte
	Secret   Secret // goes in as into an app's request; the zero Secret: nothing does
	Token    []byte // that the secret was traded for, with an Exchange
}

// Wipe overwrites what may be secret.
func (q *Question) Wipe() {
	q.Secret.Wipe()
	clear(q.Body)
	clear(q.Token)
}

// A Reply is the answer to a Question. Body is the asker's own memory.
type Reply struct {
	Status     int
	RetryAfter time.Duration // that the provider asks for; 0: it does not
	Body       []byte
}

// ErrNoAnswer: the provider did not answer a Question. NoAnswerError says why.
var ErrNoAnswer = errors.New("provider gave no answer")

// A NoAnswerError says why there is no answer; it is an ErrNoAnswer.
type NoAnswerError struct {
	Code   string // as of the proxy's own refusals: "upstream_unreachable", "upstream_tls", "upstream_timeout", "upstream_protocol"
	Detail string
	Sent   bool // the question may have reached the provider, which may have acted on it
}

func (e *NoAnswerError) Error() string        { return ErrNoAnswer.Error() + ": " + e.Detail }
func (e *NoAnswerError) Is(target error) bool { return target == ErrNoAnswer }
