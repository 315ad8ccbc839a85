package main

import (
	"context"
	"strings"

	"github.com/keyward/keyward/admin"
	assistants "github.com/keyward/keyward/assistant"
	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// makeVerifier makes what asks providers whether they honour a credential: on demand, when they refused one to a caller, and every
// --verify-every. It asks through the proxy, and so nobody but the providers.
func (s *sidecarProcess) makeVerifier() {
	s.verifier = credential.NewVerifier(credential.VerifierOptions{Keeper: s.keeper, Ask: s.ask, Log: s.log, Off: s.local.has, Every: s.c.VerifyEvery})
}

// makeConsents makes what asks orgs for their consents with Google. It trades codes through the proxy.
func (s *sidecarProcess) makeConsents() *credential.Consents {
	o := credential.ConsentOptions{
		Keeper: s.keeper, Ask: s.ask, Log: s.log, Redirect: s.consentRedirect,
		ClientID: s.c.GoogleClientID, ClientSecret: []byte(s.c.GoogleClientSecret.Reveal()),
	}
	if u := s.c.Upstreams[provider.GoogleCalendar.Consent.Host]; u != nil {
		o.Base = u.String()
	}
	return credential.NewConsents(o)
}

// consentRedirect is where browsers come back to: as the operator says, else where the admin API listens.
func (s *sidecarProcess) consentRedirect() string {
	switch {
	case s.c.GoogleRedirectURL != "":
		return s.c.GoogleRedirectURL
	case s.adminTCP == "", strings.HasPrefix(s.adminTCP, "0.0.0.0:"), strings.HasPrefix(s.adminTCP, "[::]:"):
		return "" // no address that a browser could come back to
	}
	return "http://" + s.adminTCP + "/api/oauth/google/callback"
}

// ask asks a provider something on Keyward's own account.
func (s *sidecarProcess) ask(ctx context.Context, q *provider.Question) (provider.Reply, error) {
	return s.proxy.Ask(ctx, q)
}

// startAssistants makes the manager of Vapi assistants. It works on demand, and ends before the proxy that it asks through.
func (s *sidecarProcess) startAssistants(context.Context) error {
	m := assistants.New(assistants.Options{Keeper: s.keeper, Ask: s.ask, Suspect: s.verifier.Suspect, Off: s.local.has, Log: s.log})
	s.stops = append(s.stops, m.Close)
	s.assistants = admin.Assistants{
		Ensure: func(ctx context.Context, by store.Actor, org, role string) (store.Assistant, string, error) {
			r, err := m.Ensure(ctx, by, org, role)
			return r.Assistant, string(r.Outcome), err
		},
		Get: func(ctx context.Context, org, role string) (admin.AssistantState, error) {
			st, err := m.Get(ctx, org, role)
			return admin.AssistantState(st), err
		},
		Delete: m.Delete,
	}
	return nil
}
