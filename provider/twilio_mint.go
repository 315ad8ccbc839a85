package provider

import (
	"encoding/json"
	"time"
)

// twilioAccessToken is what Twilio's SDKs in browsers and phones are given: https://www.twilio.com/docs/iam/access-tokens. It is signed
// with an API key of the credential's region; the account's auth token cannot sign one. Its claims are those of twilio-node's AccessToken.
var twilioAccessToken = Mint{
	Name:  "twilio-access-token",
	Help:  "For Twilio's SDKs in browsers and phones, in the place of the server SDK's `AccessToken`.",
	Key:   "api_key_secret",
	Needs: []string{"account_sid", "api_key_sid", "api_key_secret"},
	Mend: "Twilio's access tokens are signed with an API key, never with the auth token: make one in Twilio's console under API keys & tokens, " +
		"of the credential's region, and set it as api_key_sid and api_key_secret",
	Identity: true,
	Longest:  24 * time.Hour,
	Grants: []Grant{
		{Name: "voice", Help: "Calls with the Voice SDK.", Members: []Field{
			{
				Name: "outgoing_application_sid", Help: "The TwiML app that outgoing calls go to. None: it can make none.", Example: "AP0123456789abcdef0123456789abcdef",
				Pattern: sidPattern("AP"), PatternHelp: sidHelp("AP"),
			},
			{Name: "outgoing_application_params", Help: "What the TwiML app is told besides: an object of texts.", Example: `{"team":"sales"}`, Kind: Object},
			{Name: "incoming_allow", Help: "Whether it can be called, by its identity.", Example: "true", Kind: Flag},
			{
				Name: "push_credential_sid", Help: "How it is told of incoming calls.", Example: "CR0123456789abcdef0123456789abcdef",
				Pattern: sidPattern("CR"), PatternHelp: sidHelp("CR"),
			},
			twilioEndpoint,
		}},
		{Name: "video", Help: "Rooms of Video.", Members: []Field{
			{Name: "room", Help: "Name or SID of the only room that it can enter. None: any.", Example: "daily-stand-up", Pattern: identity, PatternHelp: "at most 256 characters"},
		}},
		{Name: "chat", Help: "Conversations, and Programmable Chat.", Members: []Field{
			{
				Name: "service_sid", Help: "The service.", Example: "IS0123456789abcdef0123456789abcdef",
				Pattern: sidPattern("IS"), PatternHelp: sidHelp("IS"),
			},
			twilioEndpoint,
			{
				Name: "deployment_role_sid", Help: "The role that its user gets.", Example: "RL0123456789abcdef0123456789abcdef",
				Pattern: sidPattern("RL"), PatternHelp: sidHelp("RL"),
			},
			{
				Name: "push_credential_sid", Help: "How it is told of messages.", Example: "CR0123456789abcdef0123456789abcdef",
				Pattern: sidPattern("CR"), PatternHelp: sidHelp("CR"),
			},
		}},
		{Name: "sync", Help: "Objects of Sync.", Members: []Field{
			{
				Name: "service_sid", Help: "The service.", Example: "IS0123456789abcdef0123456789abcdef",
				Pattern: pattern(`^(IS[0-9a-fA-F]{32}|default)$`), PatternHelp: sidHelp("IS") + ", or default",
			},
			twilioEndpoint,
		}},
	},
	Claims: twilioClaims,
}

var twilioEndpoint = Field{Name: "endpoint_id", Help: "Tells devices of one identity apart.", Example: "browser-1", Pattern: identifier, PatternHelp: identifierHelp}

func twilioClaims(o *Order, t Stamp, s Secret) (header, claims map[string]any) {
	header = map[string]any{"cty": "twilio-fpa;v=1"}
	if region := string(s.Field("region")); region != "" && region != twilioRegions[0] {
		header["twr"] = region
	}
	grants := map[string]any{"identity": o.Identity}
	for name, object := range o.Grants {
		switch name {
		case "voice":
			grants[name] = twilioVoice(object)
		case "sync":
			grants["data_sync"] = givenTexts(object)
		default:
			grants[name] = givenTexts(object)
		}
	}
	key := string(s.Field("api_key_sid"))
	return header, map[string]any{
		"jti": key + "-" + t.ID, "iss": key, "sub": string(s.Field("account_sid")), "iat": t.From, "exp": t.Till, "grants": grants,
	}
}

func twilioVoice(object []byte) map[string]any {
	var v struct {
		App      string            `json:"outgoing_application_sid"`
		Params   map[string]string `json:"outgoing_application_params"`
		Incoming bool              `json:"incoming_allow"`
		Push     string            `json:"push_credential_sid"`
		Endpoint string            `json:"endpoint_id"`
	}
	_ = json.Unmarshal(object, &v) // Parse has checked it
	grant := map[string]any{}
	if v.Incoming {
		grant["incoming"] = map[string]any{"allow": true}
	}
	if v.App != "" {
		outgoing := map[string]any{"application_sid": v.App}
		if v.Params != nil {
			outgoing["params"] = v.Params
		}
		grant["outgoing"] = outgoing
	}
	if v.Push != "" {
		grant["push_credential_sid"] = v.Push
	}
	if v.Endpoint != "" {
		grant["endpoint_id"] = v.Endpoint
	}
	return grant
}

// givenTexts are the members of an object of texts. None is empty: Parse refuses that.
func givenTexts(object []byte) map[string]string {
	given := map[string]string{}
	_ = json.Unmarshal(object, &given)
	return given
}
