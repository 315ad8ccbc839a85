package provider

import "testing"

func TestElevenLabs(t *testing.T) {
	const want = "/v1/user Xi-Api-Key: sk_1"
	if got := inject(t, &ElevenLabs, `{"api_key":"sk_1"}`, "GET", "/v1/user"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	is := func(region, want string) {
		t.Helper()
		if got := ElevenLabs.DefaultHost(opened(t, &ElevenLabs, `{"api_key":"sk_1"`+region+`}`)); got != want {
			t.Errorf("%s: got %s, want %s", region, got, want)
		}
	}
	is(``, "api.elevenlabs.io")
	is(`,"region":"global"`, "api.elevenlabs.io")
	is(`,"region":"us"`, "api.us.elevenlabs.io")
	is(`,"region":"eu"`, "api.eu.residency.elevenlabs.io")
	is(`,"region":"in"`, "api.in.residency.elevenlabs.io")
	is(`,"region":"sg"`, "api.sg.residency.elevenlabs.io")
	if got := refused(&ElevenLabs, `{"api_key":"sk_1","region":"de"}`); got != "region must be global, us, eu, in or sg" {
		t.Errorf("got %s", got)
	}
}
