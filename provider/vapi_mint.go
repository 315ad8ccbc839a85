package provider

import (
	"encoding/json"
	"time"
)

// vapiJWT is what Vapi's web SDK is given in the place of a key: https://docs.vapi.ai/customization/jwt-authentication. It is signed with
// the private key. A public one can start web calls alone (POST /call/web); a private one can do all that the private key can.
var vapiJWT = Mint{
	Name:    "vapi-jwt",
	Help:    "For Vapi's web SDK, in the place of a key.",
	Key:     "api_key",
	Needs:   []string{"vapi_org_id", "api_key"},
	Mend:    "Vapi's tokens name the account by it: set vapi_org_id to the organization id that Vapi's dashboard shows",
	Longest: 24 * time.Hour,
	Usual:   "public",
	Single:  true,
	Grants: []Grant{
		{Name: "public", Help: "Web calls (`POST /call/web`).", Members: []Field{
			{
				Name: "allowed_assistant_ids", Help: "The only assistants that it can call. None: any.", Example: "1cbf8c70-5fd7-4f61-a220-376ab35be1b0",
				Kind: List, Pattern: identifier, PatternHelp: identifierHelp,
			},
			{
				Name: "allowed_origins", Help: "The only origins of web pages that may use it. None: any.", Example: "https://app.example.com",
				Kind: List, Pattern: visible, PatternHelp: visibleHelp,
			},
			{
				Name: "allow_transient_assistant", Help: "Whether it can call an assistant that the request itself describes. Default: yes, without allowed_assistant_ids.",
				Example: "false", Kind: Flag,
			},
		}},
		{Name: "private", Help: "The whole API.", Whole: true},
	},
	Claims: vapiClaims,
}

func vapiClaims(o *Order, t Stamp, s Secret) (header, claims map[string]any) {
	token := map[string]any{}
	for tag, object := range o.Grants {
		token["tag"] = tag
		if restrictions := vapiRestrictions(object); restrictions != nil {
			token["restrictions"] = restrictions
		}
	}
	return map[string]any{}, map[string]any{"orgId": string(s.Field("vapi_org_id")), "token": token, "iat": t.From, "exp": t.Till}
}

// vapiRestrictions are Vapi's TokenRestrictions; nil: none. Ids of assistants without a word on transient ones rule those out, as they do at
// Vapi: it is said, so that it does not depend on Vapi.
func vapiRestrictions(object []byte) map[string]any {
	var v struct {
		Origins    []string `json:"allowed_origins"`
		Assistants []string `json:"allowed_assistant_ids"`
		Transient  *bool    `json:"allow_transient_assistant"`
	}
	_ = json.Unmarshal(object, &v) // Parse has checked it
	r := map[string]any{}
	if len(v.Origins) > 0 {
		r["allowedOrigins"] = v.Origins
	}
	if len(v.Assistants) > 0 {
		r["allowedAssistantIds"], r["allowTransientAssistant"] = v.Assistants, false
	}
	if v.Transient != nil {
		r["allowTransientAssistant"] = *v.Transient
	}
	if len(r) == 0 {
		return nil
	}
	r["enabled"] = true
	return r
}
