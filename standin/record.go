package standin

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"net/http"
	"slices"
	"sort"
	"strings"
	"sync"
)

// A Request is one request as it arrived.
type Request struct {
	Provider string
	Label    string // of the credential that authenticated it; empty: none did
	Status   int    // of the answer; 0: none was sent

	Method string
	URI    string // as in the request line
	Proto  string
	Host   string
	Header []Field // in the order and case as they arrived, Host included
	Body   []byte  // decoded from chunks; the first KeepBody bytes
	Size   int64   // of the whole body, as far as it was read
	SHA256 string  // of the body as far as it was read, in hex
	Done   bool    // the answer has ended
}

// A Field is one header line.
type Field struct{ Name, Value string }

// String is the request as text: request line, header lines, an empty line, body. It holds the credential, which is the point.
func (r Request) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s %s\n", r.Method, r.URI, r.Proto)
	for _, f := range r.Header {
		fmt.Fprintf(&b, "%s: %s\n", f.Name, f.Value)
	}
	fmt.Fprintf(&b, "\n%s", r.Body)
	return b.String()
}

// Values are the values of all header lines of that name, in any case.
func (r Request) Values(name string) []string {
	var v []string
	for _, f := range r.Header {
		if strings.EqualFold(f.Name, name) {
			v = append(v, f.Value)
		}
	}
	return v
}

// Requests are the kept requests, oldest first.
func (s *Set) Requests() []Request { return s.kept.all() }

// Reset drops what was kept so far.
func (s *Set) Reset() { s.kept.reset() }

// kept are the newest requests.
type kept struct {
	mu    sync.Mutex
	limit int
	items []*keptRequest
}

// A keptRequest is a Request while it is still served.
type keptRequest struct {
	of  *kept
	sum hash.Hash // of the body so far
	r   Request
}

type keptKey struct{}

// keep starts to keep r.
func (s *Set) keep(r *http.Request, provider string) *keptRequest {
	k := &keptRequest{of: &s.kept, sum: sha256.New()}
	k.r = Request{Provider: provider, Method: r.Method, URI: r.RequestURI, Proto: r.Proto, Host: r.Host}
	if k.r.Header = parseHead(headOf(r)); k.r.Header == nil {
		k.r.Header = fieldsOf(r)
	}
	s.kept.mu.Lock()
	defer s.kept.mu.Unlock()
	if s.kept.limit < 0 {
		return k
	}
	s.kept.items = append(s.kept.items, k)
	if n := len(s.kept.items) - s.kept.limit; n > 0 {
		s.kept.items = slices.Delete(s.kept.items, 0, n)
	}
	return k
}

// with changes the request under the lock that all share.
func (k *keptRequest) with(change func(r *Request)) {
	k.of.mu.Lock()
	defer k.of.mu.Unlock()
	change(&k.r)
}

func (k *keptRequest) finish() { k.with(func(r *Request) { r.Done = true }) }

func (k *kept) all() []Request {
	k.mu.Lock()
	defer k.mu.Unlock()
	all := make([]Request, 0, len(k.items))
	for _, i := range k.items {
		r := i.r
		r.Body = bytes.Clone(r.Body)
		r.SHA256 = hex.EncodeToString(i.sum.Sum(nil))
		all = append(all, r)
	}
	return all
}

func (k *kept) reset() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.items = nil
}

// A keptBody keeps what is read of a body.
type keptBody struct {
	io.ReadCloser
	kept  *keptRequest
	limit int
}

func (b *keptBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.kept.with(func(r *Request) {
		b.kept.sum.Write(p[:n])
		r.Size += int64(n)
		if room := b.limit - len(r.Body); room > 0 {
			r.Body = append(r.Body, p[:min(n, room)]...)
		}
	})
	return n, err
}

// labelled notes the answer's status.
type labelled struct {
	http.ResponseWriter
	kept *keptRequest
}

func (l *labelled) WriteHeader(status int) {
	l.kept.with(func(r *Request) { r.Status = status })
	l.ResponseWriter.WriteHeader(status)
}

func (l *labelled) Write(p []byte) (int, error) {
	l.kept.with(func(r *Request) {
		if r.Status == 0 {
			r.Status = http.StatusOK
		}
	})
	return l.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController and the WebSocket library reach Flush and Hijack.
func (l *labelled) Unwrap() http.ResponseWriter { return l.ResponseWriter }

// authenticated says in the answer and in the kept request whose credential it was.
func authenticated(w http.ResponseWriter, r *http.Request, a *account) {
	w.Header().Set(LabelHeader, a.Label)
	if k, ok := r.Context().Value(keptKey{}).(*keptRequest); ok {
		k.with(func(r *Request) { r.Label = a.Label })
	}
}

// fieldsOf are the headers as net/http has them, for requests that came over a connection which is not ours.
func fieldsOf(r *http.Request) []Field {
	fields := []Field{{"Host", r.Host}}
	names := make([]string, 0, len(r.Header))
	for name := range r.Header {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		for _, v := range r.Header[name] {
			fields = append(fields, Field{name, v})
		}
	}
	return fields
}

// parseHead splits a head as received into its header lines.
func parseHead(head string) []Field {
	var fields []Field
	lines := strings.Split(head, "\r\n")
	for _, line := range lines[1:] {
		if name, value, ok := strings.Cut(line, ":"); ok {
			fields = append(fields, Field{name, strings.Trim(value, " \t")})
		}
	}
	return fields
}
