package standin

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"time"
)

// refuse answers with a status that is not the request's own fault.
func refuse(w http.ResponseWriter, r *http.Request, provider string, status int) {
	if f := refusals[provider]; f != nil {
		f(w, r, status)
		return
	}
	answer(w, status, object{"error": object{"message": http.StatusText(status)}})
}

// refusals answer with a status that is not the request's own fault, in each provider's shape.
var refusals = map[string]func(w http.ResponseWriter, r *http.Request, status int){
	Twilio:         refuseTwilio,
	Vapi:           refuseVapi,
	Resend:         refuseResend,
	ElevenLabs:     refuseElevenLabs,
	GoogleCalendar: refuseGoogle,
}

// answer writes v as JSON, with its length.
func answer(w http.ResponseWriter, status int, v any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // our own objects always encode
	}
	body := bytes.TrimSuffix(b.Bytes(), []byte("\n"))
	h := w.Header()
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "application/json; charset=utf-8")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// slow writes the pieces one by one, each at once and with the Set's pause between them. When the client goes away it breaks off: a
// return would end the answer as if it were whole.
func (s *Set) slow(w http.ResponseWriter, r *http.Request, pieces ...[]byte) {
	rc := http.NewResponseController(w)
	for i, p := range pieces {
		if i > 0 && s.opt.Pause > 0 {
			select {
			case <-time.After(s.opt.Pause):
			case <-r.Context().Done():
				panic(http.ErrAbortHandler)
			}
		}
		if _, err := w.Write(p); err != nil {
			panic(http.ErrAbortHandler)
		}
		_ = rc.Flush()
	}
}

// read reads a JSON object from the body.
func read(r *http.Request) (object, bool) {
	o := object{}
	err := json.NewDecoder(r.Body).Decode(&o)
	drain(r)
	return o, err == nil
}

// readList reads a JSON array of objects from the body.
func readList(r *http.Request) ([]object, bool) {
	var all []object
	err := json.NewDecoder(r.Body).Decode(&all)
	drain(r)
	return all, err == nil
}

// drain reads the body to its end, so that it is kept whole.
func drain(r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }

// hexID is a random id of n hexadecimal digits.
func hexID(n int) string {
	b := make([]byte, (n+1)/2)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)[:n]
}

func uuid() string {
	h := hexID(32)
	return h[:8] + "-" + h[8:12] + "-4" + h[13:16] + "-8" + h[17:20] + "-" + h[20:]
}

// number is a query parameter's value within its bounds, or its default.
func number(r *http.Request, name string, byDefault, most int) int {
	n, err := strconv.Atoi(r.URL.Query().Get(name))
	if err != nil || n < 0 {
		return byDefault
	}
	return min(n, most)
}

// text is a member of an object, or "".
func (o object) text(name string) string {
	t, _ := o[name].(string)
	return t
}

// or is the first value that is not empty.
func or(v ...any) any {
	for _, one := range v {
		if one != nil && one != "" {
			return one
		}
	}
	return nil
}

// merged is o with the members of all others, in a new object.
func merged(all ...object) object {
	m := object{}
	for _, o := range all {
		for k, v := range o {
			m[k] = v
		}
	}
	return m
}
