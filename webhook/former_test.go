package webhook

import (
	"context"
	"testing"
	"time"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// While a credential is being replaced, what the provider signs with either of the two is the org's.
func TestWebhooksVerifyWithEitherCredentialMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.now = time.Unix(1739537297, 0)
	ref := store.Ref{Org: "acme", Provider: "elevenlabs"}
	values := provider.Values{"api_key": {Text: "sk_acme_2"}, "agent_ids": {List: []string{"xyz"}}, "webhook_secret": {Text: "wsec_next"}}
	if _, err := w.keeper.Stage(context.Background(), by, ref, values, time.Hour, credential.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	body := func(id string) string {
		return `{"type":"post_call_transcription","event_timestamp":1739537297,"data":{"agent_id":"xyz","conversation_id":"` + id + `"}}`
	}
	post := func(secret, id string) sent {
		sum := mac(algorithms["sha256"], []byte(secret), []byte("1739537297."), []byte(body(id)))
		return w.post("/webhooks/elevenlabs", body(id), "ElevenLabs-Signature: t=1739537297,v0="+string(inHex(sum)))
	}
	for _, secret := range []string{"wsec_test", "wsec_next"} {
		if s := post(secret, "meanwhile "+secret); s.status != 200 {
			t.Errorf("with %s: %d\n%s", secret, s.status, w.log)
		}
	}
	w.refuses(post("wsec_globex", "another"), 401, "webhook_unverified")
	if _, err := w.keeper.Promote(context.Background(), by, ref, nil); err != nil {
		t.Fatal(err)
	}
	if s := post("wsec_next", "after"); s.status != 200 {
		t.Errorf("the new one, promoted: %d", s.status)
	}
	w.refuses(post("wsec_test", "after"), 401, "webhook_unverified")
}
