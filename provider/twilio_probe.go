package provider

import "encoding/json"

// twilioProbes: the balance is the smallest answer there is. Keys that may do less than everything (Standard, Restricted) and subaccounts
// can be refused it, with the very answer of a wrong key, so the commonest lists are asked too, for one entry. Not the account itself: its
// answer holds the auth token. https://www.twilio.com/docs/iam/api-keys
func twilioProbes(s Secret) []string {
	const account = "/2010-04-01/Accounts/ACkeyward/" // a placeholder, which Inject replaces
	paths := []string{account + "Balance.json", account + "Messages.json?PageSize=1"}
	if len(s.Field("api_key_sid")) > 0 {
		paths = append(paths, account+"Calls.json?PageSize=1", account+"IncomingPhoneNumbers.json?PageSize=1")
	}
	return paths
}

// readTwilioProbe: https://www.twilio.com/docs/api/errors/20003. With 401 Twilio does not know the pair, or it is another region's, or the
// account is suspended or closed. With 403 it knows it and does not permit the route; the code alone does not tell these apart.
func readTwilioProbe(status int, body []byte) (Verdict, bool) {
	var answer struct {
		Code    int    `json:"code"`
		Account string `json:"account_sid"`
	}
	if passing(status) || !isJSON(body, '{') || json.Unmarshal(body, &answer) != nil {
		return unproven(status), false
	}
	switch {
	case status == 200:
		return Verdict{State: Valid}, false
	case status == 401 && answer.Code == 20003:
		return Verdict{
			State: Invalid, Reason: "Twilio does not take the credential (20003): a wrong auth token or API key, one of another account or region, or an account that is suspended",
		}, true
	case status == 404 && answer.Code == 20404:
		return Verdict{State: Invalid, Reason: "Twilio finds no such account for this credential (20404)"}, true
	case status == 403 && answer.Code == 20003:
		return Verdict{State: Unproven, Reason: "Twilio permits nothing of what is asked to find out whether it takes the credential (20003)"}, true
	case status == 403 && answer.Code != 0:
		return Verdict{State: ValidRestricted, Reason: "Twilio takes the credential, and does not permit it to read the balance"}, false
	}
	return unproven(status), false
}
