package provider

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// GoogleCalendar is Google Calendar's REST API v3: https://developers.google.com/workspace/calendar/api/v3/reference. The credential is a
// refresh token (RFC 6749, section 6) that is exchanged for access tokens of about an hour.
var GoogleCalendar = Provider{
	Name:        "google_calendar",
	Title:       "Google Calendar",
	Hosts:       []string{googleHost, "calendar.googleapis.com", "www.mtls.googleapis.com"},
	OwnHosts:    []string{googleTokenHost, googleConsentHost},
	DefaultHost: always(googleHost),
	Fields: []Field{
		{
			Name: "client_id", Title: "Client id", Help: "Of the OAuth client, in the Google Cloud console under APIs & Services, Credentials.",
			Example:  "012345678901-0123456789abcdefghijklmnopqrstuv.apps.googleusercontent.com",
			Required: true, Pattern: visible, PatternHelp: visibleHelp,
		},
		{
			Name: "client_secret", Title: "Client secret", Help: "Of the same OAuth client. Begins with GOCSPX-.",
			Example: "GOCSPX-0123456789abcdefghijklmnopqr",
			Secret:  true, Required: true, Pattern: visible, PatternHelp: visibleHelp,
		},
		{
			Name: "refresh_token", Title: "Refresh token",
			Help:    "What the org's consent yielded, with offline access. Left out, it is what connecting yields. Google may replace it, and then Keyward keeps the new one.",
			Example: "1//0123456789abcdefghijklmnopqrstuvwxyz",
			Secret:  true, Pattern: visible, PatternHelp: visibleHelp,
		},
		{
			Name: "calendar_id", Title: "Calendar id", Help: "The org's calendar: primary, or an e-mail address.", Example: "primary",
		},
		{
			Name: "scopes", Title: "Scopes", Help: "What the consent covers: a list, or one text with spaces between them.",
			Example: "https://www.googleapis.com/auth/calendar.events", Kind: TextOrList,
		},
		{
			Name: "channel_token", Title: "Channel token",
			Help:    "The token that push channels are opened with: the only proof that a notification is Google's, so make it long and random.",
			Example: "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG",
			Secret:  true, Pattern: pattern(`^[!-~]{1,256}$`), PatternHelp: "at most 256 printable ASCII characters without a space",
		},
	},
	AuthHeaders: callerHeaders("X-Goog-Api-Key"),
	// https://cloud.google.com/apis/docs/system-parameters: each may have a $ in front. bearer_token is that of older APIs.
	AuthParams: []string{"access_token", "oauth_token", "key", "bearer_token", "$access_token", "$oauth_token", "$key", "$bearer_token"},
	Inject:     injectGoogle,
	Probe:      Probe{Paths: onePath("/calendar/v3/users/me/calendarList?maxResults=1&fields=kind"), Read: readGoogleProbe, Samples: googleProbeSamples},
	// Push notifications (https://developers.google.com/calendar/api/guides/push) carry no signature: the token that was set when the channel
	// was opened is all the proof there is. They are told apart by channel and message number.
	Webhook: &Webhook{
		Scheme: SharedToken{
			Header: "x-goog-channel-token", IDs: []string{"x-goog-channel-id", "x-goog-message-number"}, TypeHeader: "x-goog-resource-state",
		},
		Secret: "channel_token", SampleType: "exists",
	},
	Exchange: &Exchange{
		Host: googleTokenHost, Path: "/token", RefreshField: "refresh_token",
		Form: appendGoogleForm, Read: readGoogleToken,
	},
	// https://developers.google.com/identity/protocols/oauth2/web-server. Without prompt=consent a second consent yields no refresh token.
	Consent: &Consent{
		Host: googleConsentHost, Path: "/o/oauth2/v2/auth", Issuer: "https://" + googleConsentHost,
		Params: map[string]string{"access_type": "offline", "prompt": "consent"},
		Scopes: []string{"https://www.googleapis.com/auth/calendar"},
	},
}

var googleProbeSamples = []ProbeSample{
	{Valid, 200, `{"kind":"calendar#calendarList"}`},
	{ValidRestricted, 403, `{"error":{"errors":[{"domain":"global","reason":"insufficientPermissions","message":"Insufficient Permission"}],"code":403}}`},
	{Invalid, 401, `{"error":{"errors":[{"domain":"global","reason":"authError","message":"Invalid Credentials"}],"code":401,"message":"Invalid Credentials"}}`},
}

const (
	googleHost      = "www.googleapis.com"
	googleTokenHost = "oauth2.googleapis.com"
	// Keyward itself never calls it: browsers are sent there. It is listed so that --upstream can send them elsewhere.
	googleConsentHost = "accounts.google.com"
)

func injectGoogle(r *Request, _ Secret) error {
	if len(r.Token) == 0 {
		return errNoRefreshToken
	}
	setBearer(r, r.Token)
	return nil
}

var errNoRefreshToken = &IncompleteError{"refresh_token"}

// appendGoogleForm grows dst first, so that no half of the form stays behind in memory that nobody overwrites.
func appendGoogleForm(dst []byte, s Secret) []byte {
	fields := [...]string{"refresh_token", "client_id", "client_secret"}
	n := 128 // the names and what is no secret
	for _, name := range fields {
		n += 3 * len(s.Field(name))
	}
	dst = append(slices.Grow(dst, n), "grant_type=refresh_token"...)
	for _, name := range fields {
		dst = append(append(append(dst, '&'), name...), '=')
		dst = appendEscaped(dst, s.Field(name))
	}
	return dst
}

// Errors of the token endpoint (RFC 6749, section 5.2, and Google's own) that no repetition mends.
var googleRejects = []string{"invalid_grant", "invalid_client", "unauthorized_client", "deleted_client", "disabled_client"}

const (
	tokenLife    = 5 * time.Minute // of a token without expires_in, which Google always sends
	maxTokenLife = 24 * time.Hour
)

var errNoToken = errors.New("token endpoint gave no token")

// readGoogleToken quotes nothing of the body but the errors that it knows. The tokens are copied once, into memory that the caller
// overwrites.
func readGoogleToken(status int, body []byte) (Token, error) {
	var answer struct {
		Access  text            `json:"access_token"`
		Refresh text            `json:"refresh_token"`
		Expires json.RawMessage `json:"expires_in"`
		Type    string          `json:"token_type"`
		Scope   string          `json:"scope"`
		Error   json.RawMessage `json:"error"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		clear(answer.Access)
		clear(answer.Refresh)
		return Token{}, fmt.Errorf("%w: status %d and no JSON that is known", errNoToken, status)
	}
	if status >= 400 && status < 500 {
		code, _ := unquote(answer.Error)
		if i := slices.Index(googleRejects, string(code)); i >= 0 {
			return Token{}, &RejectedError{googleRejects[i]}
		}
	}
	usable := status == 200 && visible.Match(answer.Access) && (answer.Type == "" || strings.EqualFold(answer.Type, "Bearer")) &&
		(len(answer.Refresh) == 0 || visible.Match(answer.Refresh))
	if !usable {
		clear(answer.Access)
		clear(answer.Refresh)
		return Token{}, fmt.Errorf("%w: status %d", errNoToken, status)
	}
	t := Token{Access: answer.Access, Refresh: answer.Refresh, Life: tokenLife, Scope: answer.Scope}
	if n, err := strconv.ParseInt(strings.Trim(string(answer.Expires), `"`), 10, 64); err == nil && n > 0 {
		t.Life = time.Duration(min(n, int64(maxTokenLife/time.Second))) * time.Second
	}
	return t, nil
}

// readGoogleProbe: https://developers.google.com/workspace/calendar/api/guides/errors. The consent has just yielded a token by then, so what
// is left to find out is whether it covers the calendar.
func readGoogleProbe(status int, body []byte) (Verdict, bool) {
	if passing(status) || !isJSON(body, '{') {
		return unproven(status), false
	}
	if status == 200 {
		return Verdict{State: Valid}, false
	}
	var answer struct {
		Error struct {
			Errors []struct {
				Reason string `json:"reason"`
			} `json:"errors"`
			Details []struct {
				Reason string `json:"reason"`
			} `json:"details"`
		} `json:"error"`
	}
	_ = json.Unmarshal(body, &answer) // of another form: it gives no reason
	for _, e := range append(answer.Error.Errors, answer.Error.Details...) {
		switch e.Reason {
		case "authError":
			return Verdict{State: Invalid, Reason: "Google does not take the access tokens of this consent: connect again", Reconnect: true}, false
		case "insufficientPermissions", "ACCESS_TOKEN_SCOPE_INSUFFICIENT":
			return Verdict{State: ValidRestricted, Reason: "the consent does not cover the list of calendars"}, false
		case "accessNotConfigured", "SERVICE_DISABLED":
			return Verdict{State: ValidRestricted, Reason: "the Calendar API is not enabled for the OAuth client's project"}, false
		}
	}
	return unproven(status), false
}
