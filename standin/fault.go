package standin

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// FaultHeader asks for a fault in one request's own header, like "delay=200ms status=429" or "cut=100": for tests that cannot reach
// the Set. Its members are those of Fault.
const FaultHeader = "Standin-Fault"

// A Fault is something that goes wrong. What is set happens in this order: Delay, then one of Close, Status, Answer, Cut.
type Fault struct {
	Provider string  // empty: any
	Method   string  // empty: any
	Path     string  // the beginning of the path; empty: any
	Times    int     // how many requests it befalls; 0: every one
	Share    float64 // which part of them it befalls, at random; 0: all

	Delay  time.Duration    // before anything is answered
	Acts   bool             // the provider does what it is asked for, and then what follows befalls its answer
	Close  bool             // the connection is closed without an answer
	Reset  bool             // with Close or Cut: by a TCP reset
	Status int              // the provider's own answer for 401, 429, 500 and so on, in its shape
	Answer http.HandlerFunc // answers in the provider's place
	Cut    int              // the connection is closed after so many bytes of the answer's body, and before its end
}

// Fail adds a fault. Faults are looked at in the order in which they were added; the first that fits befalls the request.
func (s *Set) Fail(f Fault) { s.faults.add(f) }

// Mend takes all faults away.
func (s *Set) Mend() { s.faults.clear() }

type faults struct {
	mu  sync.Mutex
	all []*Fault
}

func (f *faults) add(one Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if one.Times == 0 {
		one.Times = -1
	}
	f.all = append(f.all, &one)
}

func (f *faults) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = nil
}

// take is the fault that befalls r, or nil.
func (f *faults) take(r *http.Request, provider string) *Fault {
	if text := r.Header.Get(FaultHeader); text != "" {
		asked, err := parseFault(text)
		if err != nil {
			return &Fault{Answer: func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, err.Error(), http.StatusBadRequest)
			}}
		}
		return asked
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, one := range f.all {
		if one.Times != 0 && (one.Provider == "" || one.Provider == provider) &&
			(one.Method == "" || one.Method == r.Method) && strings.HasPrefix(r.URL.Path, one.Path) && (one.Share == 0 || rand.Float64() < one.Share) {
			if one.Times > 0 {
				one.Times--
			}
			return one
		}
	}
	return nil
}

func parseFault(text string) (*Fault, error) {
	f := &Fault{}
	for _, word := range strings.Fields(text) {
		name, value, _ := strings.Cut(word, "=")
		var err error
		switch name {
		case "delay":
			f.Delay, err = time.ParseDuration(value)
		case "status":
			f.Status, err = strconv.Atoi(value)
		case "cut":
			f.Cut, err = strconv.Atoi(value)
		case "close":
			f.Close = true
		case "reset":
			f.Reset = true
		case "acts":
			f.Acts = true
		default:
			err = fmt.Errorf("no fault is called %q", name)
		}
		if err != nil {
			return nil, fmt.Errorf("reading %s %q: %w", FaultHeader, text, err)
		}
	}
	return f, nil
}

// fail does what f says and tells whether the request is answered by that.
func (s *Set) fail(w http.ResponseWriter, r *http.Request, provider string, f *Fault) bool {
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-r.Context().Done():
			panic(http.ErrAbortHandler)
		}
	}
	if f.Acts {
		s.handlers[provider].ServeHTTP(&memory{header: http.Header{}}, r)
	}
	switch {
	case f.Close:
		hangUp(w, f.Reset)
	case f.Status != 0:
		drain(r)
		refuse(w, r, provider, f.Status)
	case f.Answer != nil:
		f.Answer(w, r)
	case f.Cut > 0:
		s.cut(w, r, provider, f)
	default:
		return false
	}
	return true
}

// cut lets the provider answer into memory and sends the head, Content-Length of the whole body included, and a part of the body.
func (s *Set) cut(w http.ResponseWriter, r *http.Request, provider string, f *Fault) {
	whole := &memory{header: http.Header{}, status: http.StatusOK}
	s.handlers[provider].ServeHTTP(whole, r)
	body := whole.body.Bytes()
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	var head bytes.Buffer
	fmt.Fprintf(&head, "HTTP/1.1 %d %s\r\n", whole.status, http.StatusText(whole.status))
	whole.header.Set("Content-Length", strconv.Itoa(len(body)))
	_ = whole.header.Write(&head)
	head.WriteString("\r\n")
	head.Write(body[:max(0, min(f.Cut, len(body)-1))])
	_, _ = c.Write(head.Bytes())
	end(c, f.Reset)
}

// memory takes an answer as a whole.
type memory struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (m *memory) Header() http.Header         { return m.header }
func (m *memory) WriteHeader(status int)      { m.status = status }
func (m *memory) Write(p []byte) (int, error) { return m.body.Write(p) }
func (m *memory) Flush()                      {}

// hangUp closes the connection without an answer.
func hangUp(w http.ResponseWriter, reset bool) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	end(c, reset)
}

// end closes the connection below TLS, so that no close_notify says that all is well.
func end(c net.Conn, reset bool) {
	for {
		switch t := c.(type) {
		case *recordingConn:
			c = t.Conn
		case interface{ NetConn() net.Conn }:
			c = t.NetConn()
		default:
			if tcp, ok := c.(*net.TCPConn); ok && reset {
				_ = tcp.SetLinger(0)
			}
			_ = c.Close()
			return
		}
	}
}
