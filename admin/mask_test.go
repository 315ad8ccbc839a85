package admin

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/keyward/keyward/store"
)

// No answer, log line or audit row holds five characters in a row of a secret, but for the last four of a long one.
func TestMaskNeverShowsASecret(t *testing.T) {
	s := newServer(t, sqliteURL(t))
	// Lower-case letters with a digit in every third place: nothing else that is shown looks so (times, request ids, versions, words), and
	// a part of a secret cannot be there by chance.
	rng := rand.New(rand.NewPCG(1, 2))
	random := func(letters string, n int) string {
		b := make([]byte, n)
		for i := range b {
			if b[i] = letters[rng.IntN(len(letters))]; i%3 == 2 {
				b[i] = '0' + byte(rng.IntN(10))
			}
		}
		return string(b)
	}
	const hex, word = "abcdef", "abcdefghijkmnopqrstuvwxyz"

	var seen strings.Builder // every answer
	var secrets []string
	secret := func(v string) string { secrets = append(secrets, v); return v }
	send := func(method, path, body string) {
		a := s.ask(method, path, body)
		fmt.Fprintln(&seen, a.status, a.header, a.body)
	}
	for i := range 20 {
		org := "/api/orgs/org" + fmt.Sprint(i) + "/integrations/"
		sid := "AC" + fmt.Sprintf("%032d", i)
		bodies := map[string]string{
			"twilio":          `{"account_sid":"` + sid + `","auth_token":"` + secret(random(hex, 32)) + `","webhook_secret":["` + secret(random(word, 6+i)) + `","` + secret(random(word, 30)) + `"]}`,
			"vapi":            `{"api_key":"` + secret(random(word, 36)) + `","public_key":"` + secret(random(word, 36)) + `","webhook_secret":"` + secret(random(word, 6+i)) + `"}`,
			"resend":          `{"api_key":"re_` + secret(random(word, 8)+"_"+random(word, 24)) + `"}`,
			"elevenlabs":      `{"api_key":"sk_` + secret(random(hex, 48)) + `","webhook_secret":"` + secret("wsec_"+random(hex, 64)) + `"}`,
			"google_calendar": `{"client_id":"1234-x.apps.googleusercontent.com","client_secret":"GOCSPX-` + secret(random(word, 28)) + `","refresh_token":"1//` + secret(random(word, 90)) + `","channel_token":"` + secret(random(word, 5+i)) + `"}`,
		}
		for p, fields := range bodies {
			send("PUT", org+p, `{"credentials":`+fields+`}`)
			send("GET", org+p, "")
			// Refused, with secrets in every wrong place.
			send("PUT", org+p, `{"credentials":`+fields+`,"verify":true}`)
			send("PUT", org+p, `{"credentials":`+fields+`,"more":1}`)
			send("PUT", org+p, `{"credentials":`+fields)
			send("PUT", org+p, `{"credentials":`+strings.Replace(fields, "}", `,"unknown":"`+secret(random(word, 20))+`"}`, 1)+`}`)
			send("PATCH", org+p, `{"credentials":{"account_sid":"`+secret(random(word, 34))+`","api_key":["`+secret(random(word, 20))+`"],"auth_token":"`+secret(random(word, 31)+" ")+`","webhook_secret":5}}`)
			send("PUT", org+p, `"`+secret(random(word, 40))+`"`)
			send("PUT", org+p, secret(random(word, 40)))
			send("GET", org+p+"?"+secret(random(word, 3)), "")
		}
		send("GET", strings.TrimSuffix(org, "/"), "")
		send("GET", "/api/audit?tail=1000", "")
	}
	if !strings.Contains(seen.String(), "201 ") {
		t.Fatal("nothing was stored")
	}
	events, err := s.db.Events(t.Context(), store.EventFilter{Limit: 100000})
	if err != nil {
		t.Fatal(err)
	}
	places := map[string]string{"the answers": seen.String(), "the log": s.log.String(), "the audit log": fmt.Sprint(events)}
	for where, text := range places {
		holds := map[string]bool{}
		for i := 0; i+5 <= len(text); i++ {
			holds[text[i:i+5]] = true
		}
		for _, v := range secrets {
			for i := 0; i+5 <= len(v); i++ {
				if part := v[i : i+5]; holds[part] {
					t.Errorf("%s hold %q of a secret", where, part)
				}
			}
			if len(v) < 12 && len(v) >= 4 && where == "the answers" && strings.Contains(text, "…"+v[len(v)-4:]) {
				t.Errorf("%s show the end of a secret of %d characters", where, len(v))
			}
		}
	}
}
