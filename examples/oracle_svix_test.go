package examples

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"time"
	"unicode/utf8"
)

// A mail is a delivery of Resend's in the making, signed with Svix.
type mail struct {
	*delivery
	names           string // of the headers, their prefix
	key             []byte
	id, stamp, body string
	signs           struct{ id, stamp, body string } // where it is not what is sent
	signatures      []string
	now             time.Time
}

func newMail(r random, now time.Time, org string) *delivery {
	m := &mail{delivery: newDelivery("resend", org), names: pick(r, "svix-", "svix-", "Svix-", "webhook-"), now: now}
	m.key = r.bytes(pick(r, 24, 24, 32, 64, 1, 100))
	m.secrets = []string{"whsec_" + base64.StdEncoding.EncodeToString(m.key)}
	m.id = pick(r, "msg_"+r.of(letters, 27), "m", "a.b.c", "with space")
	m.stamp = seconds(now.Add(-time.Duration(r.IntN(20)-3) * time.Second))
	m.body = r.json(`"type":"email.`+pick(r, "sent", "bounced", "delivered")+`"`, `"data":`+r.value(4))
	all := mutations(r, mailMutations)
	for _, change := range all {
		if change.trait != "" {
			m.odd(change.trait)
		}
		if change.before != nil {
			change.before(r, m)
		}
	}
	if m.signs.body == "" {
		m.signs.body = m.body
	}
	if m.signs.id == "" {
		m.signs.id = m.id
	}
	if m.signs.stamp == "" {
		m.signs.stamp = m.stamp
	}
	sum := hmac.New(sha256.New, m.key)
	sum.Write([]byte(m.signs.id + "." + m.signs.stamp + "." + m.signs.body))
	m.signatures = []string{"v1," + base64.StdEncoding.EncodeToString(sum.Sum(nil))}
	if r.in(4) {
		other := "v1," + base64.StdEncoding.EncodeToString(r.bytes(32))
		m.signatures = pick(r, []string{m.signatures[0], other}, []string{other, m.signatures[0]}, []string{"v1a,AAAA", m.signatures[0]})
	}
	m.delivery.body = []byte(m.body)
	m.header = [][2]string{
		{"Content-Type", "application/json"},
		{m.names + pick(r, "id", "Id"), m.id},
		{m.names + "timestamp", m.stamp},
		{m.names + "signature", strings.Join(m.signatures, " ")},
	}
	for _, change := range all {
		if change.after != nil {
			change.after(r, m)
		}
	}
	r.Shuffle(len(m.header), func(i, j int) { m.header[i], m.header[j] = m.header[j], m.header[i] })
	return m.delivery
}

// at is where the header stands whose name ends so.
func (m *mail) at(name string) int {
	for i, h := range m.header {
		if strings.HasSuffix(strings.ToLower(h[0]), name) {
			return i
		}
	}
	return 0
}

func (m *mail) set(name string, change func(string) string) {
	m.header[m.at(name)][1] = change(m.header[m.at(name)][1])
}

var mailMutations = []mutation[*mail]{
	{trait: "timestamp at the edge", before: func(r random, m *mail) {
		at := m.now.Add(time.Duration(pick(r, -302, -301, -300, -299, 299, 300, 301, 302)) * time.Second)
		m.stamp = seconds(at)
		if age := m.now.Sub(at.Truncate(time.Second)); age > 300*time.Second && age < 301*time.Second {
			m.odd("timestamp less than a second too old")
		}
	}},
	{trait: "timestamp far off", before: func(r random, m *mail) {
		m.stamp = seconds(m.now.Add(time.Duration(pick(r, -1, 1)*pick(r, 400, 4000, 86400, 86400*400)) * time.Second))
	}},
	{trait: "timestamp that is no plain number", before: func(r random, m *mail) { m.stamp, m.signs.stamp = r.mangled(m.stamp) }},
	{trait: "timestamp twice", after: func(r random, m *mail) {
		m.header = append(m.header, [2]string{m.header[m.at("timestamp")][0], pick(r, m.stamp, "1")})
	}},
	{trait: "id twice", after: func(r random, m *mail) {
		m.header = append(m.header, [2]string{m.header[m.at("id")][0], pick(r, m.id, "msg_other")})
	}},
	{trait: "another id signed", before: func(r random, m *mail) { m.signs.id = r.changed(m.id, letters) }},
	{trait: "header missing", after: func(r random, m *mail) {
		i := m.at(pick(r, "id", "timestamp", "signature"))
		m.header = append(m.header[:i:i], m.header[i+1:]...)
	}},
	{trait: "header empty", after: func(r random, m *mail) {
		m.header[m.at(pick(r, "id", "timestamp", "signature"))][1] = ""
	}},
	{trait: "names of both kinds", after: func(r random, m *mail) {
		for _, name := range []string{"id", "timestamp", "signature"} {
			i := m.at(name)
			h := [2]string{map[bool]string{true: "svix-", false: "webhook-"}[m.names == "webhook-"] + name, m.header[i][1]}
			switch r.IntN(4) {
			case 0:
				m.header[i] = h
			case 1:
				m.header = append(m.header, h)
			case 2:
				m.header = append(m.header, [2]string{h[0], pick(r, "", "1", "v1,AAAA")})
			}
		}
	}},
	{trait: "other body", after: func(r random, m *mail) { m.delivery.body = []byte(r.changed(m.body, " 0a{}\",\x00\xff")) }},
	{trait: "odd body", before: func(r random, m *mail) { m.body = r.oddBody(m.delivery, m.body) }},
	{trait: "body that is not UTF-8", before: func(r random, m *mail) {
		m.body = r.json(`"x":"` + pick(r, "\xff", "a\xc3", "\xed\xa0\x80") + `"`)
		m.signs.body = pick(r, m.body, strings.ToValidUTF8(m.body, string(utf8.RuneError)))
	}},
	{trait: "signature changed", after: func(r random, m *mail) {
		m.set("signature", func(s string) string {
			return pick(r, r.changed(s, "Aa0+/=,. v1"), strings.TrimPrefix(s, "v1,"), strings.Replace(s, "v1", "v2", 1), strings.Replace(s, "v1", "V1", 1), strings.Replace(s, "v1,", "v1=", 1), " ,"+s, "v1,"+s, strings.TrimRight(s, "="), s+"=", strings.NewReplacer("+", "-", "/", "_").Replace(s), strings.ToLower(s))
		})
	}},
	{trait: "more behind a signature", after: func(r random, m *mail) {
		m.set("signature", func(s string) string { return s + pick(r, ",", ",x", ",v1,AAAA") })
	}},
	{trait: "signatures parted otherwise", after: func(r random, m *mail) {
		m.set("signature", func(s string) string {
			return "v1,AAAA" + pick(r, "  ", ",", ", ", ";", "\t", " \t") + s + pick(r, "", "  v1,AAAA")
		})
	}},
	{trait: "more than 16 signatures", after: func(r random, m *mail) {
		m.set("signature", func(s string) string { return strings.Repeat("v1,AAAA ", 16+r.IntN(3)) + s })
	}},
	{trait: "signature twice", after: func(r random, m *mail) {
		i := m.at("signature")
		h := m.header[i]
		if r.in(2) {
			h[1] = "v1,AAAA"
		}
		m.header = append(m.header, h)
	}},
	{trait: "several secrets", before: func(r random, m *mail) {
		n := r.IntN(8)
		for range n {
			m.secrets = append(m.secrets, "whsec_"+base64.StdEncoding.EncodeToString(r.bytes(24)))
		}
		i := r.IntN(len(m.secrets))
		m.secrets[0], m.secrets[i] = m.secrets[i], m.secrets[0]
	}},
	{trait: "more than 8 secrets", before: func(r random, m *mail) {
		for range 8 + r.IntN(3) {
			m.secrets = append([]string{"whsec_" + base64.StdEncoding.EncodeToString(r.bytes(24))}, m.secrets...)
		}
	}},
	{trait: "other secret", before: func(r random, m *mail) {
		m.secrets[0] = pick(r, "whsec_"+base64.StdEncoding.EncodeToString(r.bytes(24)), r.changed(m.secrets[0], letters))
		text := strings.TrimPrefix(m.secrets[0], "whsec_")
		if len(text)%4 != 0 { // it may still be the same key, to who does not look
			m.odd("secret in another base64")
			if len(strings.TrimRight(text, "="))%4 == 1 {
				m.odd("secret with a character too many")
			}
		}
	}},
	{trait: "secret with a character too many", before: func(r random, m *mail) {
		m.key = r.bytes(24)
		m.secrets[0] = "whsec_" + base64.StdEncoding.EncodeToString(m.key) + r.of(letters, 1)
	}},
	{trait: "secret without whsec_", before: func(_ random, m *mail) {
		if text := strings.TrimPrefix(m.secrets[0], "whsec_"); text != "" {
			m.secrets[0] = text
		}
	}},
	{trait: "secret in another base64", before: func(r random, m *mail) {
		m.key = append(r.bytes(22), 0xfb, 0xef, 0xbe, byte(r.Uint32())) // has characters in which the alphabets differ, and padding
		m.secrets[0] = "whsec_" + pick(r, base64.URLEncoding, base64.RawURLEncoding, base64.RawStdEncoding).EncodeToString(m.key)
	}},
	{trait: "secret that is no base64", before: func(r random, m *mail) {
		m.key = pick(r, []byte("plain*secret"), []byte{})
		m.secrets[0] = pick(r, "whsec_plain*secret", "plain*secret", "whsec_whsec_AAAA", "whsec_*")
	}},
	{trait: "empty secret", before: func(_ random, m *mail) { m.key, m.secrets[0] = nil, "whsec_" }},
}
