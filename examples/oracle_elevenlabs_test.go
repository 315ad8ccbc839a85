package examples

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// A report is a delivery of ElevenLabs' in the making.
type report struct {
	*delivery
	stamp, body string
	signs       struct{ stamp, body string } // where it is not what is sent
	secret      string
	parts       []string // of the header's value
	now         time.Time
}

func newReport(r random, now time.Time, org string) *delivery {
	p := &report{delivery: newDelivery("elevenlabs", org), now: now}
	p.secret = pick(r, "wsec_"+r.of(hexDigits, 64), "s3", "with space é", r.of(letters, 100))
	p.secrets = []string{p.secret}
	p.stamp = seconds(now.Add(-time.Duration(r.IntN(40)-3) * time.Second))
	p.body = r.json(`"type":"post_call_transcription"`, `"event_timestamp":`+p.stamp, `"data":{"agent_id":"`+r.of(letters, 20)+`","transcript":`+r.value(4)+`}`)
	all := mutations(r, reportMutations)
	for _, change := range all {
		p.odd(change.trait)
		if change.before != nil {
			change.before(r, p)
		}
	}
	if p.signs.body == "" {
		p.signs.body = p.body
	}
	if p.signs.stamp == "" {
		p.signs.stamp = p.stamp
	}
	sum := hmac.New(sha256.New, []byte(p.secret))
	sum.Write([]byte(p.signs.stamp + "." + p.signs.body))
	p.parts = []string{"t=" + p.stamp, fmt.Sprintf("v0=%x", sum.Sum(nil))}
	p.delivery.body = []byte(p.body)
	p.header = [][2]string{{"Content-Type", "application/json"}, {pick(r, "ElevenLabs-Signature", "elevenlabs-signature"), ""}}
	for _, change := range all {
		if change.after != nil {
			change.after(r, p)
		}
	}
	for i, h := range p.header {
		if h[0] != "Content-Type" && h[1] == "" {
			p.header[i][1] = strings.Join(p.parts, ",")
			if slices.Contains(strings.Split(p.header[i][1], ","), "") {
				p.odd("empty part in the header")
			}
			if strings.Count(","+p.header[i][1], ",v0=") > 1 {
				p.odd("several signatures")
			}
		}
	}
	r.Shuffle(len(p.header), func(i, j int) { p.header[i], p.header[j] = p.header[j], p.header[i] })
	return p.delivery
}

var reportMutations = []mutation[*report]{
	{trait: "timestamp at the edge", before: func(r random, p *report) {
		p.stamp = seconds(p.now.Add(time.Duration(pick(r, -1802, -1801, -1800, -1799, -400, 298, 299)) * time.Second))
	}},
	{trait: "timestamp far off", before: func(r random, p *report) {
		p.stamp = seconds(p.now.Add(-time.Duration(pick(r, 1900, 4000, 86400, 86400*400)) * time.Second))
	}},
	{trait: "timestamp more than 5 minutes ahead", before: func(r random, p *report) {
		p.stamp = seconds(p.now.Add(time.Duration(pick(r, 302, 303, 1800, 86400, 86400*400)) * time.Second))
	}},
	{trait: "timestamp that is no plain number", before: func(r random, p *report) { p.stamp, p.signs.stamp = r.mangled(p.stamp) }},
	{trait: "timestamp twice", after: func(r random, p *report) {
		p.parts = pick(r, append(p.parts, "t=1"), append([]string{"t=" + p.stamp}, p.parts...), append([]string{"t=1"}, p.parts...))
	}},
	{trait: "timestamp missing", after: func(r random, p *report) { p.parts[0] = pick(r, "t=", "T="+p.stamp, "x=1", "t") }},
	{trait: "signature missing", after: func(r random, p *report) {
		p.parts[1] = pick(r, "x=1", "v0", strings.Replace(p.parts[1], "v0=", "v1=", 1))
	}},
	{trait: "signature changed", after: func(r random, p *report) {
		p.parts[1] = pick(r, r.changed(p.parts[1], "0aAv=, "), strings.ToUpper(p.parts[1]), "v0="+strings.ToUpper(strings.TrimPrefix(p.parts[1], "v0=")), p.parts[1][:min(20, len(p.parts[1]))], "v0="+p.parts[1])
	}},
	{trait: "several signatures", after: func(r random, p *report) {
		for range 1 + r.IntN(2) {
			p.parts = append(p.parts, "v0="+r.of(hexDigits, 64))
		}
		r.Shuffle(len(p.parts), func(i, j int) { p.parts[i], p.parts[j] = p.parts[j], p.parts[i] })
	}},
	{trait: "other parts in the header", after: func(r random, p *report) {
		p.parts = append(p.parts, pick(r, "v1=abc", "x", "v00=1", "nonce=5"))
		r.Shuffle(len(p.parts), func(i, j int) { p.parts[i], p.parts[j] = p.parts[j], p.parts[i] })
	}},
	{trait: "empty part in the header", after: func(r random, p *report) {
		p.parts = append(p.parts, "")
		r.Shuffle(len(p.parts), func(i, j int) { p.parts[i], p.parts[j] = p.parts[j], p.parts[i] })
	}},
	{trait: "space behind a comma", after: func(r random, p *report) { p.parts[1] = " " + p.parts[1] }},
	{trait: "more than 16 parts in the header", after: func(r random, p *report) {
		var filler []string
		for range 16 + r.IntN(3) {
			filler = append(filler, "x=1")
		}
		p.parts = append(filler, p.parts...)
	}},
	{trait: "parts in another order", after: func(_ random, p *report) { p.parts[0], p.parts[1] = p.parts[1], p.parts[0] }},
	{trait: "header missing", after: func(_ random, p *report) { p.header = p.header[:1] }},
	{trait: "header twice", after: func(r random, p *report) {
		h := [2]string{"elevenlabs-signature", pick(r, "", "t=1,v0=00", "v0="+strings.Repeat("0", 64))}
		p.header = append(p.header, h)
	}},
	{trait: "other body", after: func(r random, p *report) { p.delivery.body = []byte(r.changed(p.body, " 0a{}\",\x00\xff")) }},
	{trait: "odd body", before: func(r random, p *report) { p.body = r.oddBody(p.delivery, p.body) }},
	{trait: "agent that is not a text", before: func(r random, p *report) { p.body = r.json(`"data":{"agent_id":` + pick(r, "5", "[]", "{}") + "}") }},
	{trait: "body with a key twice", before: func(r random, p *report) {
		p.body = pick(r, `{"data":{"agent_id":"a","agent_id":"b"}}`, `{"data":{"agent_id":"a"},"data":{"agent_id":"b"}}`)
	}},
	{trait: "body that is not UTF-8", before: func(r random, p *report) {
		p.body = r.json(`"x":"` + pick(r, "\xff", "a\xc3", "\xed\xa0\x80") + `"`)
		p.signs.body = pick(r, p.body, strings.ToValidUTF8(p.body, string(utf8.RuneError)))
	}},
	{trait: "several secrets", before: func(r random, p *report) {
		for range r.IntN(8) {
			p.secrets = append(p.secrets, "wsec_"+r.of(hexDigits, 64))
		}
		i := r.IntN(len(p.secrets))
		p.secrets[0], p.secrets[i] = p.secrets[i], p.secrets[0]
	}},
	{trait: "more than 8 secrets", before: func(r random, p *report) {
		for range 8 + r.IntN(3) {
			p.secrets = append([]string{"wsec_" + r.of(hexDigits, 64)}, p.secrets...)
		}
	}},
	{trait: "other secret", before: func(r random, p *report) {
		p.secrets[0] = pick(r, "wsec_"+r.of(hexDigits, 64), r.changed(p.secret, letters))
	}},
}
