package webhook

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
)

// Errors of Sampler.Send.
var (
	// ErrNoSecret: the credential lacks what this provider's webhooks are verified with.
	ErrNoSecret = errors.New("the credential has no webhook secret")
	// ErrType: there is no sample of such a type.
	ErrType = errors.New("there is no sample of that type")
	// ErrPrivateKey: only the provider can sign such a webhook.
	ErrPrivateKey = errors.New("the provider signs with a private key that nobody else has: have it send a test itself")
	// ErrNotSent: the webhook listener does not answer.
	ErrNotSent = errors.New("the webhook listener does not answer")
)

// A Sampler sends made-up deliveries to the sidecar's own webhook listener, signed with the org's own secret, so that the whole way to the
// app can be seen to work. The secret stays in the sidecar.
type Sampler struct {
	Store     store.Reader
	Keys      *seal.Keyring
	Address   string // of the webhook listener, HOST:PORT
	PublicURL string // as Options.PublicURL
}

// A SampleAnswer is what the listener answered.
type SampleAnswer struct {
	Type   string
	Status int
	Header http.Header
	Body   []byte // at most 64 KiB of it
}

const (
	sampleHost    = "sample.invalid"
	sampleTimeout = 25 * time.Second
	maxSampleBody = 64 << 10
)

var sampleType = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// A draft is a delivery in the making.
type draft struct {
	typ    string
	url    string // as the sender knows it
	body   []byte
	header http.Header
	now    time.Time
}

// ownSamplers make and sign one of a provider with a scheme of its own; an empty type is its most common one.
var ownSamplers = map[string]func(*draft, provider.Secret) error{
	provider.Vapi.Name:   sampleVapi,
	provider.Twilio.Name: sampleTwilio,
}

// Send signs a sample and sends it to /webhooks/PROVIDER/ORG. Errors are store.ErrNotFound for a missing credential, those of opening it, and
// the ones above; an answer of whatever status is none.
func (s *Sampler) Send(ctx context.Context, org, providerName, typ string) (*SampleAnswer, error) {
	p := provider.Named(providerName)
	if p == nil || p.Webhook == nil || typ != "" && !sampleType.MatchString(typ) {
		return nil, ErrType
	}
	build := ownSamplers[providerName]
	if build == nil {
		build = func(m *draft, s provider.Secret) error { return m.make(p.Webhook, s) }
	}
	row, _, err := s.Store.Credential(ctx, store.Ref{Org: org, Provider: providerName})
	if err != nil {
		return nil, err
	}
	secret, _, err := credential.Open(s.Keys, row, nil)
	if err != nil {
		return nil, err
	}
	path := "/webhooks/" + providerName + "/" + org
	m := &draft{typ: typ, url: "https://" + sampleHost + path, header: http.Header{"User-Agent": {"keyward-webhook-test"}}, now: time.Now()}
	if s.PublicURL != "" {
		m.url = strings.TrimSuffix(s.PublicURL, "/") + path
	}
	err = build(m, secret)
	secret.Wipe()
	if err != nil {
		return nil, err
	}
	return s.send(ctx, m, path)
}

func (s *Sampler) send(ctx context.Context, m *draft, path string) (*SampleAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, sampleTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+sampleHost+path, bytes.NewReader(m.body))
	if err != nil {
		return nil, fmt.Errorf("%w: making the request", ErrNotSent)
	}
	req.Header = m.header
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", s.Address)
		},
		DisableKeepAlives: true, DisableCompression: true,
	}
	resp, err := transport.RoundTrip(req) // the error may quote a header: it is not told
	if err != nil {
		return nil, ErrNotSent
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxSampleBody))
	if err != nil {
		return nil, ErrNotSent
	}
	return &SampleAnswer{m.typ, resp.StatusCode, resp.Header, body}, nil
}

func sampleVapi(m *draft, s provider.Secret) error {
	m.json("status-update", func() any {
		call := map[string]any{"id": sampleID(""), "status": "ended"}
		if org := s.Field("vapi_org_id"); len(org) > 0 {
			call["orgId"] = string(org)
		}
		return map[string]any{"message": map[string]any{"type": m.typ, "timestamp": m.now.UnixMilli(), "status": "ended", "call": call}}
	})
	auth, err := provider.ParseWebhookAuth(s.Field("webhook_auth"))
	secret, ok := firstSecret(s, "webhook_secret")
	if err != nil || !ok {
		return ErrNoSecret
	}
	switch auth.Type {
	case "secret":
		m.header.Set(auth.Header, string(secret))
		return nil
	case "bearer":
		value := string(secret)
		if strings.EqualFold(auth.Header, "Authorization") {
			value = "Bearer " + value
		}
		m.header.Set(auth.Header, value)
		return nil
	}
	stamp := strconv.FormatInt(m.now.Unix(), 10)
	id := ""
	if auth.IncludeTimestamp {
		m.header.Set(auth.TimestampHeader, stamp)
	}
	if auth.MessageIDHeader != "" {
		id = sampleID("")
		m.header.Set(auth.MessageIDHeader, id)
	}
	if auth.SecretIsBase64 {
		secret = decodeBase64(secret)
	}
	algorithm := algorithms[auth.Algorithm]
	if algorithm == nil || len(secret) == 0 {
		return ErrNoSecret
	}
	payload, _ := fill(auth.PayloadFormat, map[string][]byte{
		"{body}": m.body, "{timestamp}": []byte(stamp), "{method}": []byte(http.MethodPost), "{url}": []byte(m.url), "{svix-id}": []byte(id),
	})
	text := inHex(mac(algorithm, secret, payload...))
	if auth.Encoding == "base64" {
		text = inBase64(mac(algorithm, secret, payload...))
	}
	m.header.Set(auth.SignatureHeader, auth.Prefix+string(text))
	return nil
}

func sampleTwilio(m *draft, s provider.Secret) error {
	if m.typ == "" {
		m.typ = "message"
	}
	form := url.Values{
		"AccountSid": {string(s.Field("account_sid"))}, "ApiVersion": {"2010-04-01"}, "From": {"+15005550006"}, "To": {"+15005550009"},
	}
	kind, status, _ := strings.Cut(m.typ, ".")
	switch kind {
	case "message":
		form.Set("MessageSid", sampleID("SM"))
		form.Set("Body", "Sent by keyward webhooks test")
		form.Set("NumMedia", "0")
		if status != "" {
			form.Set("MessageStatus", status)
		}
	case "call":
		form.Set("CallSid", sampleID("CA"))
		form.Set("Direction", "inbound")
		if status == "" {
			status = "ringing"
		}
		form.Set("CallStatus", status)
	default:
		return ErrType
	}
	m.body = []byte(form.Encode())
	m.header.Set("Content-Type", "application/x-www-form-urlencoded; charset=UTF-8")
	m.header.Set("I-Twilio-Idempotency-Token", sampleID(""))
	secret, ok := firstSecret(s, "webhook_secret", "auth_token")
	if !ok {
		return ErrNoSecret
	}
	signed := m.url
	if typed := string(s.Field("webhook_url")); typed != "" {
		signed, _, _ = strings.Cut(typed, "#")
	}
	m.header.Set("X-Twilio-Signature", string(inBase64(mac(sha1.New, secret, []byte(signed), joinParams(form)))))
	return nil
}

// json makes the body, of the usual type unless another was asked for.
func (m *draft) json(usual string, body func() any) {
	if m.typ == "" {
		m.typ = usual
	}
	m.body, _ = json.Marshal(body()) // texts, numbers and lists always can be
	m.header.Set("Content-Type", "application/json")
}

func firstSecret(s provider.Secret, fields ...string) ([]byte, bool) {
	all, ok := secretsOf(s, fields...)
	return all[0], ok
}

// sampleID is an id that no other delivery has, in the form that providers give theirs: a prefix and 32 hex digits.
func sampleID(prefix string) string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return prefix + hex.EncodeToString(b[:])
}
