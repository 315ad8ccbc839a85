package provider

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

const (
	ownSID     = "AC0123456789abcdef0123456789abcdef"
	subSID     = "ACfedcba9876543210fedcba9876543210"
	foreignSID = "ACffffffffffffffffffffffffffffffff"
	withToken  = `{"account_sid":"` + ownSID + `","auth_token":"token","subaccounts":["` + subSID + `"]}`
	withKey    = `{"account_sid":"` + ownSID + `","auth_token":"token","api_key_sid":"SK0123456789abcdef0123456789abcdef","api_key_secret":"key"}`
)

func TestTwilioAuthenticates(t *testing.T) {
	is := func(credential, want string) {
		t.Helper()
		if got := inject(t, &Twilio, credential, "GET", "/v2/Services"); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	is(withToken, "/v2/Services Authorization: Basic QUMwMTIzNDU2Nzg5YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZjp0b2tlbg==")
	is(withKey, "/v2/Services Authorization: Basic U0swMTIzNDU2Nzg5YWJjZGVmMDEyMzQ1Njc4OWFiY2RlZjprZXk=") // the key wins

	var missing *IncompleteError
	r := &Request{Path: []byte("/v2/Services")}
	err := Twilio.Inject(r, Open(Values{"account_sid": {Text: ownSID}}.Encode(nil)))
	if !errors.As(err, &missing) || missing.Field != "auth_token" || !errors.Is(err, ErrIncomplete) {
		t.Errorf("got %v", err)
	}
}

func TestTwilioBasicLeavesNoPlainText(t *testing.T) {
	r := &Request{Path: []byte("/"), Value: make([]byte, 0, 512)}
	if err := Twilio.Inject(r, opened(t, &Twilio, withToken)); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(r.Value[:cap(r.Value)]), "token") {
		t.Error("user and password are still behind the header's value")
	}
}

func TestTwilioPath(t *testing.T) {
	becomes := func(path, want string) {
		t.Helper()
		got, _, _ := strings.Cut(inject(t, &Twilio, withToken, "POST", path), " ")
		if got != want {
			t.Errorf("%s became %s, want %s", path, got, want)
		}
	}
	stays := func(path string) { t.Helper(); becomes(path, path) }
	own := func(rest string) string { return "/2010-04-01/Accounts/" + ownSID + rest }

	becomes("/2010-04-01/Accounts/ACkeyward/Messages.json", own("/Messages.json"))
	becomes("/2010-04-01/Accounts/AC00000000000000000000000000000000/Messages.json", own("/Messages.json"))
	becomes("/2010-04-01/Accounts/ACkeyward.json", own(".json"))
	becomes("/2010-04-01/Accounts/ACkeyward", own(""))
	becomes("/2010-04-01/Accounts/ACkeyward/", own("/"))
	becomes("/2010-04-01/Accounts/%41Ckeyward.json", own(".json"))
	becomes("/2010-04-01/Accounts/ACkeyward%2Ejson", own("%2Ejson"))
	becomes("/2010-04-01/%41ccounts/ACkeyward/Calls.json", "/2010-04-01/%41ccounts/"+ownSID+"/Calls.json")
	becomes("/Organizations/OR0123456789abcdef0123456789abcdef/Accounts/ACkeyward", "/Organizations/OR0123456789abcdef0123456789abcdef/Accounts/"+ownSID)
	becomes("/2010-04-01/Accounts/ACkeyward/Addresses/ACkeyward.json", own("/Addresses/"+ownSID+".json"))

	stays(own("/Messages.json"))
	stays(own(".json"))
	stays(own("/Messages/SM00112233445566778899aabbccddeeff/Media/ME00112233445566778899aabbccddeeff"))
	stays("/2010-04-01/Accounts/" + strings.ToUpper(ownSID) + "/Messages.json")
	stays("/2010-04-01/Accounts/" + subSID + "/Messages.json")
	stays("/2010-04-01/Accounts/%41C" + ownSID[2:] + "/Messages.json")
	stays("/2010-04-01/Accounts.json")
	stays("/2010-04-01/Accounts/")
	stays("/v2/Services/VA00112233445566778899aabbccddeeff/Verifications")
	stays(own("/Outgoing%20Caller%2FIds.json"))
	stays(own("/100%/%zz"))
	stays("/")
	stays("")
}

func TestTwilioForeignAccount(t *testing.T) {
	refuses := func(path string) {
		t.Helper()
		r := &Request{Method: []byte("GET"), Path: []byte(path)}
		if err := Twilio.Inject(r, opened(t, &Twilio, withToken)); !errors.Is(err, ErrForeignAccount) {
			t.Errorf("%s went out as %s: %v", path, r.Path, err)
		}
		if len(r.Value) > 0 {
			t.Errorf("%s: a refused request has a credential", path)
		}
	}
	refuses("/2010-04-01/Accounts/" + foreignSID + "/Messages.json")
	refuses("/2010-04-01/Accounts/" + foreignSID + ".json")
	refuses("/2010-04-01/Accounts/" + foreignSID)
	refuses("/2010-04-01/accounts/" + strings.ToLower(foreignSID))
	refuses("/2010-04-01/Accounts/ACsomeone/Messages.json")
	refuses("/2010-04-01/Accounts/" + ownSID + "0/Messages.json")
	refuses("/2010-04-01/Accounts/" + ownSID + ";v=1/Messages.json")
	refuses("/2010-04-01/Accounts//" + foreignSID + "/Messages.json")
	refuses("/2010-04-01/Accounts//ACsomeone")
	refuses("/2010-04-01/Accounts/./" + foreignSID)
	refuses("/2010-04-01/Accounts/" + ownSID + "/../" + foreignSID + "/Messages.json")
	refuses("/2010-04-01/Accounts/ACkeyward/../" + foreignSID + ".json")
	refuses("/2010-04-01/Accounts/%41%43" + foreignSID[2:] + "/Messages.json")
	refuses("/2010-04-01/Accounts%2F" + foreignSID + "%2FMessages.json")
	refuses("/2010-04-01/Accounts/ACkeyward%2F..%2F" + foreignSID)
	refuses("/2010-04-01/Accounts/ACkeyward." + foreignSID)
	refuses("/2010-04-01/%61ccounts/ACsomeone")
	refuses("/Organizations/OR0123456789abcdef0123456789abcdef/Accounts/" + foreignSID)
	refuses("/v1/Anything/" + foreignSID)
	refuses("/v1/Anything/x" + foreignSID + "x")
	refuses("/v1/Anything/AA" + foreignSID[1:])
}

func TestTwilioDefaultHost(t *testing.T) {
	is := func(fields, want string) {
		t.Helper()
		if got := Twilio.DefaultHost(opened(t, &Twilio, `{"account_sid":"`+ownSID+`","auth_token":"t"`+fields+`}`)); got != want {
			t.Errorf("%s: got %s, want %s", fields, got, want)
		}
	}
	is(``, "api.twilio.com")
	is(`,"region":"us1"`, "api.twilio.com")
	is(`,"region":"ie1"`, "api.dublin.ie1.twilio.com") // the form without an edge is gone
	is(`,"region":"au1"`, "api.sydney.au1.twilio.com")
	is(`,"region":"ie1","edge":"frankfurt"`, "api.frankfurt.ie1.twilio.com")
	is(`,"edge":"tokyo"`, "api.tokyo.us1.twilio.com")
}

func TestTwilioHosts(t *testing.T) {
	for _, h := range []string{
		"api.twilio.com", "verify.twilio.com", "oauth.twilio.com", "preview-iam.twilio.com", "ip-messaging.twilio.com", "api.us1.twilio.com",
		"api.dublin.ie1.twilio.com", "verify.sao-paulo.au1.twilio.com", "tls-test.twilio.com",
	} {
		if !slices.Contains(Twilio.Hosts, h) {
			t.Errorf("%s is missing", h)
		}
	}
	for _, h := range []string{
		"twilio.com", "www.twilio.com", "api.ie1.twilio.com", "verify.us1.twilio.com", "media.twiliocdn.com", "mms.twiliocdn.com", "s3-external-1.amazonaws.com",
	} {
		if slices.Contains(Twilio.Hosts, h) {
			t.Errorf("%s must never see a credential", h)
		}
	}
}

func TestTwilioSender(t *testing.T) {
	const all = `,"from_number":"+15550009","whatsapp_number":"+15550008","messaging_service_sid":"MG0123456789abcdef0123456789abcdef"`
	const numbers = `,"from_number":"+15550009","whatsapp_number":"+15550008"`
	is := func(fields, body, added string) {
		t.Helper()
		s := opened(t, &Twilio, `{"account_sid":"`+ownSID+`","auth_token":"t"`+fields+`}`)
		form := []byte(body)
		if got := string(Twilio.Complete.Append(form, form, s)); got != body+added { // in place, as the proxy does it
			t.Errorf("%s with %s became %s, want %s", body, fields, got, body+added)
		}
	}
	is(numbers, "To=%2B15550001&Body=Hi", "&From=%2B15550009")
	is(all, "To=%2B15550001&Body=Hi", "&MessagingServiceSid=MG0123456789abcdef0123456789abcdef") // it wins
	is(all, "To=whatsapp%3A%2B15550001&Body=Hi", "&From=whatsapp%3A%2B15550008")
	is(all, "To=whatsapp:%2B15550001", "&From=whatsapp%3A%2B15550008")
	is(all, "Body=Hi&%54o=%77hatsapp%3a%2B15550001", "&From=whatsapp%3A%2B15550008")
	is(`,"whatsapp_number":"whatsapp:+15550008"`, "To=whatsapp:1", "&From=whatsapp%3A%2B15550008")
	is(`,"from_number":"My Shop"`, "To=%2B1", "&From=My%20Shop")
	is(numbers, "", "From=%2B15550009")
	is(numbers, "To=%2B1&", "From=%2B15550009")

	is(all, "To=%2B1&From=%2B15550007", "")
	is(all, "To=%2B1&%46rom=%2B15550007", "")
	is(all, "MessagingServiceSid=MG1&To=%2B1", "")
	is(all, "To=%2B1&From=", "") // said, and the provider's to judge
	is(all, "To=%2B1&XFrom=1&From2=2&Body=From=", "&MessagingServiceSid=MG0123456789abcdef0123456789abcdef")
	is(``, "To=%2B1", "")
	is(`,"from_number":"+15550009"`, "To=whatsapp%3A%2B1", "") // a number for SMS cannot send there
	is(`,"from_number":"+15550009"`, "To=messenger%3A1", "")
	is(all, "To=messenger:1", "&MessagingServiceSid=MG0123456789abcdef0123456789abcdef")
	is(`,"messaging_service_sid":"MG0123456789abcdef0123456789abcdef"`, "To=whatsapp:1", "&MessagingServiceSid=MG0123456789abcdef0123456789abcdef")
}

func TestTwilioSenderIsForMessagesOnly(t *testing.T) {
	is := func(want bool, method, host, path string) {
		t.Helper()
		if got := Twilio.Complete.Match([]byte(method), host, []byte(path)); got != want {
			t.Errorf("%s %s%s: %v", method, host, path, got)
		}
	}
	is(true, "POST", "api.twilio.com", "/2010-04-01/Accounts/ACkeyward/Messages.json")
	is(true, "POST", "api.dublin.ie1.twilio.com", "/2010-04-01/Accounts/"+ownSID+"/Messages.json/")
	is(true, "POST", "api.twilio.com", "/2010-04-01/Accounts/ACkeyward/Messages")
	is(true, "POST", "api.twilio.com", "/2010-04-01/Accounts/ACkeyward/%4dessages%2ejson")
	is(false, "GET", "api.twilio.com", "/2010-04-01/Accounts/ACkeyward/Messages.json")
	is(false, "POST", "verify.twilio.com", "/2010-04-01/Accounts/ACkeyward/Messages.json")
	is(false, "POST", "api.twilio.com", "/2010-04-01/Accounts/ACkeyward/Messages/SM00112233445566778899aabbccddeeff.json")
	is(false, "POST", "api.twilio.com", "/2010-04-01/Accounts/ACkeyward/Calls.json")
	is(false, "POST", "api.twilio.com", "/2010-04-01/Accounts/Messages.json")
	is(false, "POST", "api.twilio.com", "/2010-04-01/Accounts//Messages.json")
}

func TestTwilioCredential(t *testing.T) {
	is := func(text, want string) {
		t.Helper()
		if got := refused(&Twilio, text); got != want {
			t.Errorf("%s\ngot  %s\nwant %s", text, got, want)
		}
	}
	is(withToken, "")
	is(withKey, "")
	is(`{"account_sid":"`+ownSID+`","api_key_sid":"SK0123456789abcdef0123456789abcdef","api_key_secret":"key"}`, "")
	is(`{}`, "account_sid is missing: Twilio cannot be used without it\nauth_token is missing: give auth_token, or api_key_sid and api_key_secret")
	is(`{"account_sid":"`+ownSID+`","api_key_sid":"SK0123456789abcdef0123456789abcdef"}`, "api_key_secret is missing: api_key_sid is nothing without it")
	is(`{"account_sid":"`+ownSID+`","auth_token":"t","api_key_secret":"key"}`, "api_key_sid is missing: api_key_secret is nothing without it")
	is(`{"account_sid":"AC123","auth_token":"t"}`, "account_sid must be AC and 32 hexadecimal digits")
	is(`{"account_sid":"`+ownSID+`","auth_token":"t","from_number":"5550001111"}`, "from_number must be a phone number like +15550001111, a short code or an alphanumeric sender id")
	is(`{"account_sid":"`+ownSID+`","auth_token":"t","subaccounts":["`+subSID+`","AC1"]}`, "subaccounts item 2 must be AC and 32 hexadecimal digits")
	is(`{"account_sid":"`+ownSID+`","auth_token":"t","region":"mars","edge":"moon"}`,
		"region must be us1, ie1 or au1\nedge must be ashburn, dublin, frankfurt, osaka, sao-paulo, singapore, sydney, tokyo or umatilla")
	is(`{"account_sid":"`+ownSID+`","auth_token":"t","webhook_url":"hooks.acme.example"}`, "webhook_url must be a URL that begins with https:// or http://")
}

func TestTwilioAccountIsClaimedInOneForm(t *testing.T) {
	v := values(t, &Twilio, `{"account_sid":"AC0123456789ABCDEF0123456789ABCDEF","auth_token":"t"}`)
	if got := Twilio.Accounts(v); !slices.Equal(got, []Account{{"account_sid", ownSID}}) {
		t.Errorf("got %v", got)
	}
}

func TestTwilioWebhookURLIsShownWithoutPassword(t *testing.T) {
	v := values(t, &Twilio, `{"account_sid":"`+ownSID+`","auth_token":"t","webhook_url":"https://user:secret@hooks.acme.example/x?a=b:c@d"}`)
	if got := Twilio.Masked(v)["webhook_url"]; got != "https://user:…@hooks.acme.example/x?a=b:c@d" {
		t.Errorf("got %v", got)
	}
}
