package main

import (
	"context"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/provider"
)

// makeVerifier makes what asks providers whether they honour a credential: on demand, when they refused one to a caller, and every
// --verify-every. It asks through the proxy, and so nobody but the providers.
func (s *sidecarProcess) makeVerifier() {
	s.verifier = credential.NewVerifier(credential.VerifierOptions{Keeper: s.keeper, Ask: s.ask, Log: s.log, Every: s.c.VerifyEvery})
}

// ask asks a provider something on Keyward's own account.
func (s *sidecarProcess) ask(ctx context.Context, q *provider.Question) (provider.Reply, error) {
	return s.proxy.Ask(ctx, q)
}
