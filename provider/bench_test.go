package provider

import "testing"

// BenchmarkField looks up the last field of a credential in which every field is set.
func BenchmarkField(b *testing.B) {
	s := opened(b, &Twilio, example(&Twilio))
	b.ReportAllocs()
	for b.Loop() {
		if s.Field("webhook_secret") == nil {
			b.Fatal("not there")
		}
	}
}

// BenchmarkInject is what each request costs: the credential into the header, and Twilio's account into the path.
func BenchmarkInject(b *testing.B) {
	for _, p := range All {
		b.Run(p.Name, func(b *testing.B) {
			benchInject(b, p, example(p), "/2010-04-01/Accounts/ACkeyward/Messages/SM00112233445566778899aabbccddeeff.json")
		})
	}
	b.Run("twilio_own_sid", func(b *testing.B) {
		benchInject(b, &Twilio, withToken, "/2010-04-01/Accounts/"+ownSID+"/Messages.json")
	})
	b.Run("twilio_escaped", func(b *testing.B) {
		benchInject(b, &Twilio, withToken, "/2010-04-01/Accounts/%41C"+subSID[2:]+"/Messages.json")
	})
}

func benchInject(b *testing.B, p *Provider, credential, at string) {
	s, path := opened(b, p, credential), []byte(at)
	r := Request{Method: []byte("POST"), Host: p.Hosts[0], Value: make([]byte, 0, 512), Scratch: make([]byte, 0, 512)}
	if p.Exchange != nil {
		r.Token = []byte("ya29.a0AfH6SMBx0123456789abcdefghijklmnopqrstuvwxyz")
	}
	b.ReportAllocs()
	for b.Loop() {
		r.Path, r.Value = path, r.Value[:0]
		if err := p.Inject(&r, s); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDefaultHost(b *testing.B) {
	s := opened(b, &Twilio, example(&Twilio))
	b.ReportAllocs()
	for b.Loop() {
		Twilio.DefaultHost(s)
	}
}

func BenchmarkTwilioSender(b *testing.B) {
	s := opened(b, &Twilio, example(&Twilio))
	body := []byte("To=%2B15550001111&StatusCallback=https%3A%2F%2Facme.example%2Fstatus&Body=Your+table+is+ready")
	dst := make([]byte, 0, 512)
	b.ReportAllocs()
	for b.Loop() {
		Twilio.Complete.Append(append(dst, body...), body, s)
	}
}
