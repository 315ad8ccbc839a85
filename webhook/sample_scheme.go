package webhook

import (
	"bytes"
	"crypto/sha256"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/keyward/keyward/provider"
)

// make fills in the provider's sample and signs it by the provider's scheme.
func (m *draft) make(w *provider.Webhook, s provider.Secret) error {
	if m.typ == "" {
		m.typ = w.SampleType
	}
	if w.Sample != "" {
		m.body = []byte(m.fill(w.Sample, s))
		m.header.Set("Content-Type", "application/json")
	}
	if _, ok := w.Scheme.(provider.StampedECDSA); ok {
		return ErrPrivateKey
	}
	secret, ok := firstSecret(s, w.Secret)
	if !ok {
		return ErrNoSecret
	}
	stamp := strconv.FormatInt(m.now.Unix(), 10)
	switch scheme := w.Scheme.(type) {
	case provider.StandardWebhooks:
		key := decodeBase64(bytes.TrimPrefix(secret, []byte("whsec_")))
		if len(key) == 0 {
			return ErrNoSecret
		}
		id := sampleID("msg_")
		m.header.Set("Webhook-Id", id)
		m.header.Set("Webhook-Timestamp", stamp)
		m.header.Set("Webhook-Signature", "v1,"+string(inBase64(mac(sha256.New, key, []byte(id), dot, []byte(stamp), dot, m.body))))
	case provider.StampedHMAC:
		m.header.Set(scheme.Header, "t="+stamp+","+scheme.Version+"="+string(inHex(mac(sha256.New, secret, []byte(stamp), dot, m.body))))
	case provider.SharedToken:
		value := string(secret)
		if scheme.Basic {
			value = "Basic " + string(inBase64(secret))
		}
		m.header.Set(scheme.Header, value)
		for _, name := range scheme.IDs {
			m.header.Set(name, sampleID(""))
		}
		if scheme.TypeHeader != "" {
			m.header.Set(scheme.TypeHeader, m.typ)
		}
	}
	return nil
}

var blank = regexp.MustCompile(`\{[a-z_]+\}`)

// fill fills in what stands in braces; of a list of the credential's its first item.
func (m *draft) fill(text string, s provider.Secret) string {
	return blank.ReplaceAllStringFunc(text, func(name string) string {
		switch name = strings.Trim(name, "{}"); name {
		case "type":
			return m.typ
		case "id":
			return sampleID("")
		case "now":
			return strconv.FormatInt(m.now.Unix(), 10)
		case "time":
			return m.now.UTC().Format(time.RFC3339)
		}
		if all := s.Items(name); all.Next() {
			return string(all.Item)
		}
		return ""
	})
}
