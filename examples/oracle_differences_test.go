package examples

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A difference is one between Keyward's verdicts and an SDK's that is meant to be. docs/webhooks.md shows the same list.
type difference struct {
	wider     bool     // Keyward verifies what the SDKs refuse; the usual difference is the other way round
	sdks      []string // in which it shows
	traits    []string // of the deliveries in which it shows
	what, why string
}

const (
	nodeTwilio, goTwilio = "twilio", "twilio-go"
	nodeSvix, goSvix     = "svix", "svix-webhooks/go"
	nodeElevenLabs       = "@elevenlabs/elevenlabs-js"
)

var differences = []difference{
	{
		sdks: []string{nodeTwilio, goTwilio},
		traits: []string{
			"form written loosely", "form with a parameter without =", "form with a stray percent sign", "form with an escape that is not UTF-8", "other body",
		},
		what: "a form as no sender writes it: a parameter without `=` or an empty one, small letters or other text than UTF-8 in an escape, bytes that must be escaped",
		why:  "a signed form could be written anew and still verify",
	},
	{
		sdks: []string{nodeTwilio}, traits: []string{"body that is not signed"},
		what: "a body that is no form, without `bodySHA256`", why: "the signature does not cover it",
	},
	{
		sdks: []string{nodeTwilio, goTwilio}, traits: []string{"form without its Content-Type", "Content-Type twice"},
		what: "a form whose `Content-Type` does not say so, or stands twice", why: "the app may read it as something else than what was verified",
	},
	{
		sdks: []string{nodeTwilio, goTwilio}, traits: []string{"hash under an escaped name"},
		what: "`bodySHA256` with escapes in its name", why: "Twilio writes it plainly",
	},
	{
		sdks:   []string{nodeTwilio, goTwilio},
		traits: []string{"characters that browsers escape", "characters that browsers escape in the query", "dots in the path"},
		what:   "the URL rewritten before it was signed, in more than scheme, host, port and `'`", why: "what is signed is the URL as typed",
	},
	{
		sdks: []string{nodeTwilio}, traits: []string{"loosely written query encoded anew", "query changed"},
		what: "a query decoded and encoded anew before it was signed, that could have been written in several ways", why: "it could be changed and still verify",
	},
	{
		sdks: []string{goTwilio, nodeSvix, goSvix, nodeElevenLabs}, traits: []string{"signature twice", "timestamp twice", "id twice", "header twice"},
		what: "signature, timestamp or id twice", why: "which one counts would be a guess",
	},
	{
		sdks: []string{nodeTwilio, goTwilio, nodeSvix, goSvix, nodeElevenLabs}, traits: []string{"more than 8 secrets"},
		what: "the ninth of an org's secrets, tried one by one", why: "the work for a forged delivery is bounded",
	},
	{
		sdks: []string{nodeSvix, goSvix, nodeElevenLabs}, traits: []string{"more than 16 signatures", "more than 16 parts in the header"},
		what: "the seventeenth signature of a header", why: "the same",
	},
	{
		sdks: []string{nodeSvix, goSvix}, traits: []string{"more behind a signature"},
		what: "more behind a signature, after a comma", why: "Svix does not write it",
	},
	{
		sdks: []string{nodeSvix, goSvix}, traits: []string{"names of both kinds"},
		what: "`svix-` and `webhook-` headers mixed", why: "which one counts would be a guess",
	},
	{
		sdks: []string{nodeSvix, goSvix}, traits: []string{"empty secret"},
		what: "a signature made with an empty secret", why: "anybody can make it",
	},
	{
		sdks: []string{nodeSvix}, traits: []string{"secret with a character too many"},
		what: "a secret with a character too many", why: "it is no base64",
	},
	{
		sdks: []string{nodeSvix}, traits: []string{"timestamp less than a second too old"},
		what: "up to a second more than five minutes", why: "the SDK cuts the time of day to seconds",
	},
	{
		sdks: []string{nodeSvix, goSvix, nodeElevenLabs}, traits: []string{"timestamp that is no plain number"},
		what: "a timestamp that is no plain number (`+17…`, `017…`, `17…x`; for ElevenLabs any text)", why: "ElevenLabs' SDK takes what is no number for new enough",
	},
	{
		sdks: []string{nodeElevenLabs}, traits: []string{"timestamp more than 5 minutes ahead"},
		what: "a timestamp more than five minutes ahead", why: "the SDK sets no bound, so a delivery could be replayed for ever",
	},
	{
		sdks: []string{nodeElevenLabs}, traits: []string{"empty part in the header"},
		what: "an empty part in the header", why: "ElevenLabs does not write it",
	},
	{
		sdks:   []string{nodeSvix, goSvix, nodeElevenLabs},
		traits: []string{"body with a key twice", "body nested very deep", "type that is not a text", "agent that is not a text", "odd body"},
		what:   "a body whose type or owner stands twice or is no text, or that is nested more than a thousand deep", why: "the app may read another owner than Keyward; these SDKs do not look",
	},
	{
		sdks: []string{nodeSvix, nodeElevenLabs}, traits: []string{"body that is not UTF-8"},
		what: "a body that is not UTF-8, signed as text in which `\ufffd` stands for it", why: "several bodies would fit one signature",
	},

	{
		wider: true, sdks: []string{nodeSvix, nodeElevenLabs}, traits: []string{"body that is not UTF-8"},
		what: "a body that is not UTF-8, signed as sent", why: "Keyward goes by the bytes; these SDKs can take text only",
	},
	{
		wider: true, sdks: []string{nodeSvix, goSvix}, traits: []string{"secret in another base64"},
		what: "a secret in the URL alphabet or without padding", why: "it is the same key",
	},
	{
		wider: true, sdks: []string{nodeElevenLabs}, traits: []string{"several signatures"},
		what: "the second of several `v0=`", why: "as with Svix, for the time in which a secret is replaced",
	},
	{
		wider: true, sdks: []string{nodeTwilio}, traits: []string{"the word bodySHA256 elsewhere"},
		what: "a form to a URL in which `bodySHA256` is part of another name or value", why: "the SDK takes it for a hash and misses the body's",
	},
	{
		wider: true, sdks: []string{nodeTwilio, goTwilio}, traits: []string{"user and password not signed"},
		what: "a typed URL with user and password, signed without them", why: "Twilio's documentation leaves it open; the rest is signed as ever",
	},
	{
		wider: true, sdks: []string{goTwilio}, traits: []string{"parameter twice", "parameter twice, values that order differently"},
		what: "a repeated parameter (`MediaUrl`)", why: "twilio-go signs the first value only; Keyward does as the SDK for Node",
	},
	{
		wider: true, sdks: []string{goTwilio},
		traits: []string{"capitals in the host", "quote in the query", "characters that browsers escape", "characters that browsers escape in the query", "query encoded anew", "loosely written query encoded anew"},
		what:   "a URL in the other forms that Twilio's SDK for Node knows", why: "twilio-go knows but the port",
	},
	{
		wider: true, sdks: []string{goTwilio}, traits: []string{"IPv6 address"},
		what: "an IPv6 address with a port", why: "twilio-go cuts it at the first colon",
	},
	{
		wider: true, sdks: []string{goTwilio}, traits: []string{"form with a semicolon"},
		what: "a form with a `;`", why: "Go's parser refuses it; Node's takes it for a character like any other",
	},
}

// explains says whether the difference is this one. One that shows only together with another oddity of the delivery counts too.
func (x *difference) explains(o oracle, d *delivery, ours bool) bool {
	return x.wider == ours && slices.Contains(x.sdks, o.name) && slices.ContainsFunc(x.traits, d.is)
}

const listPage, listMark, listEnd = "../docs/webhooks.md", "<!-- differences -->\n", "<!-- end of differences -->\n"

func TestDifferencesAreDocumented(t *testing.T) {
	page, err := os.ReadFile(listPage)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), listMark)
	_, after, ends := strings.Cut(rest, listEnd)
	if !ok || !ends {
		t.Fatalf("%s has no %q … %q", listPage, listMark, listEnd)
	}
	var b strings.Builder
	for _, wider := range []bool{false, true} {
		title := "verifies there, not here"
		if wider {
			title = "verifies here, not there"
		}
		fmt.Fprintf(&b, "\n| %s | in | why |\n|---|---|---|\n", title)
		for _, x := range differences {
			if x.wider == wider {
				fmt.Fprintf(&b, "| %s | `%s` | %s |\n", x.what, strings.Join(x.sdks, "`, `"), x.why)
			}
		}
	}
	want := before + listMark + b.String() + "\n" + listEnd + after
	if *update {
		if err := os.WriteFile(listPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(want, string(page)); d != "" {
		t.Errorf("%s (go test . -update mends it):\n%s", listPage, d)
	}
}
