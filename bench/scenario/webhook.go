package scenario

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/keyward/keyward/bench/load"
	"github.com/keyward/keyward/bench/provider"
	"github.com/keyward/keyward/internal/freeport"
)

const (
	vapiOrg       = "3f0e7c1a-6f0b-4f7b-9a51-0c1d2e3f4a5b"
	vapiAssistant = "9b2f6f3e-51c4-4c8e-8f0e-2a7d1c9e4b10"
	vapiSecret    = "bench-webhook-secret-0123456789abcdef"
)

// webhook is a tool call of Vapi on its way to the app, against the app called directly: the sidecar finds out whose it is, verifies it with that
// org's secret, has not seen it before, forwards it and passes the app's answer back. The last load is 100 at once, 1,000 in all.
func webhook(ctx context.Context, e *Env) error {
	app, err := provider.Launch(provider.Options{Plain: true, Open: true})
	if err != nil {
		return err
	}
	e.atEnd(app.Close)
	address, release, err := freeport.Take()
	if err != nil {
		return err
	}
	e.atEnd(func() error { release(); return nil })
	s, err := e.sidecar(ctx, "--webhook-listen", address, "--webhook-target", "http://"+app.Address()+"/hooks")
	if err != nil {
		return err
	}
	if err := s.SetCredential(ctx, org, "vapi", map[string]any{"api_key": provider.KeyOf(org), "webhook_secret": vapiSecret, "vapi_org_id": vapiOrg}); err != nil {
		return err
	}
	if err := s.Do(ctx, "PUT", "/api/assistants/"+vapiAssistant, map[string]any{"org": org, "role": "inbound", "name": "bench"}, nil); err != nil {
		return err
	}
	next := toolCalls()
	to := func(address string) load.Target { return load.Target{Network: "tcp", Address: address} }
	straight := contender{name: direct, target: to(app.Address()), request: next}
	through := s.contender(keyward, next)
	through.target = to(address)
	if _, err := e.inTurn(ctx, "webhook", []shape{{conns: 1}, {conns: 16}}, straight, through); err != nil {
		return err
	}
	_, err = e.inTurn(ctx, "webhook", []shape{{conns: 100, requests: 1000}}, straight, through)
	return err
}

// toolCalls makes requests with a call id of their own each: one that came before would be a replay. The body has the members that Vapi sends
// with a tool call (https://docs.vapi.ai/server-url/events): the tool and its call, the call, the assistant and what was said so far.
func toolCalls() func([]byte) []byte {
	const mark = "call_00000000"
	said := make([]string, 0, 12)
	for i := range 12 {
		role := []string{"user", "bot"}[i%2]
		said = append(said, fmt.Sprintf(`{"role":%q,"message":"Could you tell me whether Thursday at half past nine is still free for two people?","time":%d,"endTime":%d,"secondsFromStart":%d.32,"duration":2180}`,
			role, 1764000000000+i*4000, 1764000002180+i*4000, i*4))
	}
	arguments := `{"date":"2026-11-26","time":"09:30","people":2,"name":"Ada Example"}`
	call := `{"id":"` + mark + `","type":"function","function":{"name":"book_table","arguments":` + arguments + `}}`
	body := `{"message":{"timestamp":1764000048000,"type":"tool-calls","toolCalls":[` + call + `],"toolCallList":[` + call + `],` +
		`"toolWithToolCallList":[{"type":"function","function":{"name":"book_table","description":"Books a table.","parameters":{"type":"object","properties":{` +
		`"date":{"type":"string"},"time":{"type":"string"},"people":{"type":"number"},"name":{"type":"string"}},"required":["date","time","people"]}},` +
		`"server":{"url":"https://hooks.acme.example/webhooks/vapi"},"toolCall":` + call + `}],` +
		`"artifact":{"messages":[` + strings.Join(said, ",") + `]},` +
		`"call":{"id":"0b4f5f7e-0000-7000-8000-0a1b2c3d4e5f","orgId":"` + vapiOrg + `","createdAt":"2026-11-25T09:00:00.000Z","updatedAt":"2026-11-25T09:00:48.000Z",` +
		`"type":"inboundPhoneCall","status":"in-progress","phoneCallProvider":"twilio","assistantId":"` + vapiAssistant + `","customer":{"number":"+15550001"}},` +
		`"assistant":{"id":"` + vapiAssistant + `","orgId":"` + vapiOrg + `","name":"Front desk","model":{"provider":"openai","model":"gpt-4o","temperature":0.3,` +
		`"messages":[{"role":"system","content":"You answer the phone of a restaurant. Be brief and kind. Never promise a table that the tool has not booked."}]},` +
		`"voice":{"provider":"11labs","voiceId":"rachel"},"firstMessage":"Good morning, how can I help?"}}}`
	template := []byte("POST /webhooks/vapi HTTP/1.1\r\nHost: hooks.acme.example\r\nContent-Type: application/json\r\nUser-Agent: axios/1.7.9\r\nX-Vapi-Secret: " + vapiSecret +
		"\r\nX-Call-Id: 0b4f5f7e-0000-7000-8000-0a1b2c3d4e5f\r\nContent-Length: " + fmt.Sprint(len(body)) + "\r\n\r\n" + body)
	var places []int
	for from := 0; ; {
		at := bytes.Index(template[from:], []byte(mark))
		if at < 0 {
			break
		}
		places = append(places, from+at+len("call_"))
		from += at + len(mark)
	}
	n := 0
	return func(dst []byte) []byte {
		start := len(dst)
		dst = append(dst, template...)
		n++
		for _, at := range places {
			digits := dst[start+at : start+at+len("00000000")]
			for i, rest := len(digits)-1, n; i >= 0; i-- {
				digits[i] = byte('0' + rest%10)
				rest /= 10
			}
		}
		return dst
	}
}
