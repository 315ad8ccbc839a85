package console

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// A refusal is an answer of the API that says why not, as it says it.
type refusal struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
	Errors []struct {
		Field  string `json:"field"`
		Detail string `json:"detail"`
	} `json:"errors"`
}

func (e *refusal) Error() string { return e.Detail }

// field is what is wrong with one field of the request.
func (e *refusal) field(name string) string {
	if e == nil {
		return ""
	}
	for _, f := range e.Errors {
		if f.Field == name || strings.HasPrefix(f.Field, name+"[") || strings.HasPrefix(f.Field, name+".") {
			return f.Detail
		}
	}
	return ""
}

// An ask is one request to the API.
type ask struct {
	method, path string
	body         []byte // JSON; overwritten when it is answered
	ifMatch      string // a version
	ifNone       bool   // only if there is none yet
	navigates    bool   // the browser goes where the answer leads
}

// do asks the API as the person who is logged in and reads the answer into out (nil: it is not read). A refusal is a *refusal.
func (v *visit) do(a ask, out any) error {
	_, err := v.ask(a, out)
	return err
}

// get reads what is at the path, which is made of its parts: every second one is text that a person may have typed.
func (v *visit) get(out any, parts ...string) error {
	return v.do(ask{method: http.MethodGet, path: path(parts...)}, out)
}

func (v *visit) ask(a ask, out any) (http.Header, error) {
	defer clear(a.body)
	answer := &recorder{header: http.Header{}}
	if err := v.send(answer, a); err != nil {
		return nil, err
	}
	switch {
	case answer.status >= 300 && answer.status < 400:
		return answer.header, nil
	case answer.status >= 300:
		r := &refusal{}
		if json.Unmarshal(answer.body.Bytes(), r) != nil || r.Code == "" {
			return nil, fmt.Errorf("unexpected answer %d", answer.status)
		}
		return answer.header, r
	}
	if out != nil {
		if text, ok := out.(*string); ok {
			*text = answer.body.String()
			return answer.header, nil
		}
		if err := json.Unmarshal(answer.body.Bytes(), out); err != nil {
			return nil, fmt.Errorf("reading the API's answer: %w", err)
		}
	}
	return answer.header, nil
}

// send lets the API write its answer to w.
func (v *visit) send(w http.ResponseWriter, a ask) error {
	req, err := http.NewRequestWithContext(v.r.Context(), a.method, "http://console"+a.path, bytes.NewReader(a.body))
	if err != nil {
		return fmt.Errorf("making the request: %w", err)
	}
	req.Host, req.RemoteAddr = v.r.Host, v.r.RemoteAddr
	req.Header.Set("Authorization", "Bearer "+v.token)
	if a.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if a.ifMatch != "" {
		req.Header.Set("If-Match", `"`+a.ifMatch+`"`)
	}
	if a.ifNone {
		req.Header.Set("If-None-Match", "*")
	}
	if a.navigates {
		req.Header.Set("Sec-Fetch-Mode", "navigate") // the console's browser itself, whatever it says of that
	}
	v.c.o.API.ServeHTTP(w, req)
	return nil
}

// path joins its parts, of which every second one is escaped: path("/api/orgs/", org, "/agents").
func path(parts ...string) string {
	var b strings.Builder
	for i, p := range parts {
		if i%2 == 1 {
			p = url.PathEscape(p)
		}
		b.WriteString(p)
	}
	return b.String()
}

// A recorder keeps an answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *recorder) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	return r.body.Write(b)
}

var _ http.ResponseWriter = (*recorder)(nil)
