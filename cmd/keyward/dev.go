package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/keyward/keyward/caller"
	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/standin"
	"github.com/keyward/keyward/store"
)

const (
	devOrg       = "demo"
	devAssistant = "asst_demo"
)

// runDev is serve with everything that a first try needs, and nothing that lasts: stand-ins for the providers, a store and a key in a
// temporary folder, an org with made-up credentials, an assistant and a token. It prints commands that work when pasted.
func runDev(ctx context.Context, c *Config, std stdio) error {
	for _, name := range []string{"store", "store-file", "data-dir", "key"} {
		if c.isSet(name) {
			return usagef("%s: --dev has a store and a key of its own, which are thrown away; leave out the one or the other", c.flags.at(name))
		}
	}
	dir, err := os.MkdirTemp("", "keyward-dev-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	c.DataDir = filepath.Join(dir, "data")
	if !c.isSet("run-dir") {
		c.RunDir = filepath.Join(dir, "run")
	}
	c.resolve()

	var hosts []string
	for _, p := range c.providers() {
		hosts = append(append(hosts, p.Hosts...), p.OwnHosts...)
	}
	peers := standin.New(standin.Options{Hosts: hosts, Providers: c.providers()})
	defer func() { _ = peers.Close() }()
	peers.Expect(devSamples(c)...)
	where, err := peers.Start()
	if err != nil {
		return err
	}
	if c.Upstreams == nil {
		c.Upstreams = map[string]*url.URL{}
	}
	for host, to := range where {
		if c.Upstreams[host] != nil {
			continue // --upstream says otherwise
		}
		if c.Upstreams[host], err = url.Parse(to); err != nil {
			return err
		}
	}
	return Run(ctx, c, std, func(s *sidecarProcess) error {
		token, err := s.seedDev(ctx)
		if err != nil {
			return err
		}
		_, err = fmt.Fprint(std.out, devCommands(s, token, peers.URL()))
		return err
	})
}

// devSamples are made-up credentials of every provider that there is.
func devSamples(c *Config) []standin.Credential {
	all := standin.Sample(devOrg)
	for _, p := range c.custom {
		all = append(all, standin.SampleOf(p, devOrg))
	}
	return all
}

// seedDev fills the store as the commands of the five-minute path would.
func (s *sidecarProcess) seedDev(ctx context.Context) (token string, err error) {
	by := store.Actor{Name: "dev", From: "process"}
	for _, sample := range devSamples(s.c) {
		p := s.c.providers().Named(sample.Provider)
		values, problems := p.Parse(sample.JSON())
		if len(problems) > 0 {
			return "", fmt.Errorf("made-up credential of %s: %v", p.Name, problems)
		}
		if _, err := s.keeper.Put(ctx, by, store.Ref{Org: devOrg, Provider: p.Name}, values, credential.PutOptions{}); err != nil {
			return "", err
		}
	}
	if err := s.db.PutAssistant(ctx, by, &store.Assistant{ID: devAssistant, Org: devOrg, Role: "inbound", Name: "Front desk"}, -1); err != nil {
		return "", err
	}
	if err := s.openConsole(ctx, by); err != nil {
		return "", err
	}
	token, hash := caller.NewToken()
	if _, err := s.db.RevokeToken(ctx, by, "dev"); err != nil && !errors.Is(err, store.ErrNotFound) {
		return "", err
	}
	return token, s.db.PutToken(ctx, by, &store.Token{Name: "dev", Hash: hash, Orgs: []string{devOrg}, Providers: []string{"*"}})
}

// openConsole lets whoever reaches the console in without a log-in: it shows nothing that is not made up. What other machines may reach is
// not opened.
func (s *sidecarProcess) openConsole(ctx context.Context, by store.Actor) error {
	if s.adminTCP == "" || s.c.AllowRemote {
		return nil
	}
	token, hash := caller.NewAdminToken()
	if err := s.db.PutAdminToken(ctx, by, &store.AdminToken{Name: "dev", Hash: hash, Role: store.RoleOperator}); err != nil {
		return err
	}
	s.devToken.Store(&token)
	return nil
}

// devCommands is what a person sees first.
func devCommands(s *sidecarProcess, token, standins string) string {
	self := "keyward"
	if exe, err := os.Executable(); err == nil {
		self = exe
	}
	// The other terminal may be in another folder, and a folder's name may have a space.
	self, socket, run := quoted(self), quoted(absolute(s.c.Socket, "")), quoted(absolute(s.c.RunDir, ""))
	const message = "--data-urlencode To=+15550001111 -d Body=Hello"
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("")
	line("Keyward runs, with made-up credentials of the org %q and stand-ins for all providers.", devOrg)
	line("No command below holds a secret of a provider. Paste them into another terminal:")
	line("")
	if s.c.Socket != "" {
		line("# a message through Twilio, over the unix socket: the kernel says who calls")
		line("curl -s --unix-socket %s -H 'Keyward-Org: %s' %s http://api.twilio.com/2010-04-01/Accounts/ACkeyward/Messages.json", socket, devOrg, message)
		line("")
		line("# an e-mail through Resend; the org is found by a Vapi assistant")
		line(`curl -s --unix-socket %s -H 'Keyward-Assistant: %s' -H 'Content-Type: application/json' -d '{"from":"a@example.com","to":"b@example.com","subject":"Hi","text":"Hello"}' http://api.resend.com/emails`, socket, devAssistant)
		line("")
	}
	if s.callerTCP != "" {
		line("# the same message over TCP: a token says who calls, in the place of the SDK's own key")
		line("curl -s -u ACkeyward:%s %s http://%s/twilio/2010-04-01/Accounts/ACkeyward/Messages.json", token, message, s.callerTCP)
		line("")
		line("# speech from ElevenLabs, streamed as it is made, and a calendar of Google's with a token minted on the way")
		line("curl -sN -H 'xi-api-key: %s' -H 'Content-Type: application/json' -d '{\"text\":\"Hello\"}' http://%s/elevenlabs/v1/text-to-speech/voice/stream | wc -c", token, s.callerTCP)
		line("curl -s -H 'Authorization: Bearer %s' http://%s/google_calendar/calendar/v3/users/me/calendarList", token, s.callerTCP)
		line("")
	}
	line("# what the provider was sent: the org's credential, no token, no Keyward header")
	line("curl -s %s/requests", standins)
	line("")
	line("# what Keyward keeps, masked, and who did what")
	line("%s credentials list --run-dir %s --org %s", self, run, devOrg)
	line("%s audit --run-dir %s", self, run)
	line("")
	if s.consoleOpen() != "" {
		line("# the same in a browser, without a log-in")
		line("http://%s/", s.adminTCP)
		line("")
	}
	line("Ctrl-C ends it; nothing is kept.")
	line("")
	return b.String()
}
