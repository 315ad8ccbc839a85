package proxy

import (
	"bytes"
	"encoding/base64"
	"hash/maphash"
	"strings"

	"github.com/keyward/keyward/mask"
)

// A fingerprint finds a secret in a stream without holding the secret: how it begins, how long it is, and a hash of it under a key that
// only this process has. The plain value lives while its request is written and no longer; its answer may take hours.
type fingerprint struct {
	begin [fingerprintBegin]byte
	n     int
	hash  uint64

	// A user name that has the secret in it is not a secret: where it stands as a whole, it stays.
	before   int    // bytes of the name in front of the secret
	within   int    // length of the name; 0: it does not have the secret in it
	ordinary uint64 // the name's hash
}

const (
	fingerprintBegin = 4
	maxForms         = 12
	minSecret        = 8       // what is shorter is not looked for: it would be found by chance
	maxSecret        = 4 << 10 // the longest form that is looked for
)

var fingerprintSeed = maphash.MakeSeed()

// forms are the fingerprints of what was injected: as it is, and as an answer may render it.
type forms struct {
	list    [maxForms]fingerprint
	n       int
	longest int
	found   bool // something was overwritten
}

func (f *forms) add(secret []byte) {
	if len(secret) < minSecret || len(secret) > maxSecret || f.n == maxForms {
		return
	}
	p := fingerprint{n: len(secret), hash: maphash.Bytes(fingerprintSeed, secret)}
	copy(p.begin[:], secret)
	for _, have := range f.list[:f.n] {
		if have == p {
			return
		}
	}
	f.list[f.n] = p
	f.n++
	f.longest = max(f.longest, len(secret))
}

// learn takes the fingerprints of an injected header value: of what follows "Bearer ", or of what "Basic " encodes, the password alone
// included. Percent-encoded and JSON-escaped forms count where they differ. scratch is wiped by the caller.
func (f *forms) learn(value, scratch []byte) {
	*f = forms{}
	scheme, secret, two := bytes.Cut(value, []byte(" "))
	if !two {
		secret = value
	}
	f.rendered(secret, scratch)
	if two && equalFold(scheme, "basic") {
		n := base64.StdEncoding.DecodedLen(len(secret))
		if n > cap(scratch) {
			return
		}
		plain := scratch[:n]
		if n, err := base64.StdEncoding.Decode(plain, secret); err == nil {
			plain = plain[:n]
			f.add(plain)
			user, password, _ := bytes.Cut(plain, []byte(":"))
			known := f.n
			f.rendered(password, scratch[len(plain):len(plain)])
			if at := bytes.Index(user, password); at >= 0 && len(password) > 0 && f.n > known {
				p := &f.list[known] // the password as it is
				p.before, p.within, p.ordinary = at, len(user), maphash.Bytes(fingerprintSeed, user)
			}
		}
	}
}

// rendered adds a secret and those renderings of it that differ.
func (f *forms) rendered(secret, scratch []byte) {
	f.add(secret)
	if special(secret) && 6*len(secret) <= cap(scratch) {
		f.add(appendPercent(scratch[:0], secret, ""))
		f.add(appendPercent(scratch[:0], secret, "!$&'()*+,;=:@"))
		f.add(appendEscaped(scratch[:0], secret))
	}
}

// special says whether any rendering would change the secret.
func special(b []byte) bool {
	for _, c := range b {
		if !isUnreserved(c) {
			return true
		}
	}
	return false
}

// appendPercent appends b percent-encoded (RFC 3986): all but unreserved characters as in a query, or those of a path segment too.
func appendPercent(dst, b []byte, besides string) []byte {
	const hex = "0123456789ABCDEF"
	for _, c := range b {
		if isUnreserved(c) || strings.IndexByte(besides, c) >= 0 {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		}
	}
	return dst
}

// appendEscaped appends b as in a JSON string whose writer escapes slashes (RFC 8259, section 7).
func appendEscaped(dst, b []byte) []byte {
	for _, c := range b {
		switch c {
		case '"', '\\', '/':
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	return dst
}

// overwrite overwrites every whole occurrence in b. It returns from where on b may hold the beginning of one that is still to come;
// len(b): nowhere.
func (f *forms) overwrite(b []byte) (open int) {
	open = len(b)
	for i := range f.list[:f.n] {
		p := &f.list[i]
		for at := 0; ; {
			k := bytes.Index(b[at:], p.begin[:])
			if k < 0 {
				open = min(open, partial(b, p.begin[:]))
				break
			}
			at += k
			if at+p.n > len(b) {
				open = min(open, at)
				break
			}
			if maphash.Bytes(fingerprintSeed, b[at:at+p.n]) == p.hash && !p.ordinaryAt(b, at) {
				f.found = true
				for j := at; j < at+p.n; j++ {
					b[j] = '*'
				}
				at += p.n
			} else {
				at++
			}
		}
	}
	return open
}

// ordinaryAt says whether the secret at that place is part of the user name that has it in it.
func (p *fingerprint) ordinaryAt(b []byte, at int) bool {
	from, to := at-p.before, at-p.before+p.within
	return p.within > 0 && from >= 0 && to <= len(b) && maphash.Bytes(fingerprintSeed, b[from:to]) == p.ordinary
}

// partial is where in the last bytes of b a beginning of begin stands; len(b) if it does not.
func partial(b, begin []byte) int {
	for n := min(len(begin)-1, len(b)); n > 0; n-- {
		if bytes.HasPrefix(begin, b[len(b)-n:]) {
			return len(b) - n
		}
	}
	return len(b)
}

// A redactor passes a body on and overwrites in it what must not come back. It holds back only what may be the beginning of a secret:
// at most the longest form, and nothing of a body in which none begins.
type redactor struct {
	forms  forms
	masker mask.Masker
	mask   bool
	buf    []byte // what was held back, then what was added
	open   int    // from where on buf is held back
	hid    bool   // a field of a body that had arrived whole was overwritten
}

// start makes the redactor ready for a body; the forms have been learnt when the request was built.
func (r *redactor) start(fields *mask.Fields) {
	if r.mask = fields != nil; r.mask {
		r.masker = fields.New()
	}
	r.buf, r.open = r.buf[:0], 0
}

// whole is for a body that has arrived as a whole: it is changed in place.
func (r *redactor) whole(body []byte, fields *mask.Fields) {
	if fields != nil {
		r.hid = fields.Overwrite(body)
	}
	r.forms.overwrite(body)
}

// masked says whether a field's value was overwritten.
func (r *redactor) masked() bool { return r.hid || r.mask && r.masker.Found }

// feed takes the next piece and returns what can be sent: in memory of the redactor's, valid until the next call. last: nothing follows.
func (r *redactor) feed(p []byte, last bool) []byte {
	kept := copy(r.buf, r.buf[r.open:])
	r.buf = append(r.buf[:kept], p...)
	if r.mask {
		r.masker.Feed(r.buf[kept:])
	}
	r.open = r.forms.overwrite(r.buf)
	if last {
		r.open = len(r.buf)
	}
	return r.buf[:r.open]
}

// isText says whether a body of this type is read at all: compressed bodies, audio and images pass as they are.
func isText(contentType, contentEncoding []byte) bool {
	if len(contentEncoding) > 0 && !equalFold(contentEncoding, "identity") {
		return false
	}
	for _, binary := range binaryTypes {
		if hasPrefixFold(contentType, binary) {
			return false
		}
	}
	return true
}

var binaryTypes = []string{"audio/", "video/", "image/", "font/", "application/octet-stream", "application/zip", "application/gzip", "application/pdf"}

// isJSON says whether fields can be named in a body of this type: JSON, lines of it, or events that carry it.
func isJSON(contentType []byte) bool {
	t, _, _ := bytes.Cut(contentType, semicolon)
	t = trimSpace(t)
	return equalFold(t, "application/json") || equalFold(t, "text/event-stream") || equalFold(t, "application/x-ndjson") ||
		hasSuffixFold(t, "+json") || hasSuffixFold(t, "/json") || len(t) == 0
}

var semicolon = []byte(";")

func hasPrefixFold(b []byte, s string) bool { return len(b) >= len(s) && equalFold(b[:len(s)], s) }

func hasSuffixFold(b []byte, s string) bool {
	return len(b) >= len(s) && equalFold(b[len(b)-len(s):], s)
}
