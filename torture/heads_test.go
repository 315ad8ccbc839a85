package torture

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestHostileHeads(t *testing.T) {
	all := allVectors()
	if len(all) < 300 {
		t.Errorf("only %d vectors", len(all))
	}
	for name, start := range map[string]func(*testing.T) *recorder{"net-http": netHTTP, "nginx": nginx, "haproxy": haproxy, "node": node} {
		t.Run(name, func(t *testing.T) {
			r := start(t)
			s := startSidecar(t, map[string]string{"api.resend.com": r.address})
			for _, org := range []string{"acme", "globex"} {
				s.put(org, "resend", map[string]any{"api_key": secretOf(org, "resend")})
			}
			h := &heads{t: t, s: s, r: r, token: s.token()}
			h.canary("the first one")
			if r.refused != nil {
				h.refusedBefore = r.refused()
			}
			networks := []string{"unix", "tcp"}
			if name != "net-http" && !long {
				networks = networks[:1] // what the sidecar makes of the heads does not depend on what is behind it
			}
			for _, network := range networks {
				for _, v := range all {
					if network == "unix" || !v.unixOnly {
						h.try(network, v)
					}
				}
			}
			h.noneLeft()
			s.mustLive()
			row(t, "hostile heads into "+r.name+": 0 desyncs, all verdicts as required", "%d vectors over %s: %d desyncs, %d wrong verdicts, %d refused by %s itself",
				len(all), strings.Join(networks, " and "), h.desyncs, h.wrong, h.byUpstream, r.name)
		})
	}
}

// heads sends vectors through a sidecar and compares what the upstream saw with what was meant.
type heads struct {
	t             *testing.T
	s             *sidecar
	r             *recorder
	token         string
	canaries      int
	desyncs       int // the upstream saw another number of requests, or others than were meant
	wrong         int // the sidecar took what it must refuse, or the other way round, or answered it otherwise than required
	byUpstream    int // valid requests that the upstream's own parser does not take
	refusedBefore int
}

func (h *heads) desync(v vector, network, format string, args ...any) {
	h.t.Helper()
	h.desyncs++
	h.t.Errorf("DESYNC %s (%s): %s\n\tsent %.300q", v.name, network, fmt.Sprintf(format, args...), v.raw)
}

func (h *heads) mistake(v vector, network, format string, args ...any) {
	h.t.Helper()
	h.wrong++
	h.t.Errorf("%s (%s): %s\n\tsent %.300q", v.name, network, fmt.Sprintf(format, args...), v.raw)
}

// prompt is how soon an answer must be there and the connection closed. unstuck is longer than a busy machine takes, and shorter than any
// time-out of the sidecar.
const (
	prompt  = 2 * time.Second
	unstuck = 8 * time.Second
)

func (h *heads) try(network string, v vector) {
	h.t.Helper()
	raw := v.raw
	if network == "tcp" {
		raw = withToken(raw, h.token)
	}
	a := h.s.exchange(network, raw, v)
	saw := h.r.take(a.answered())
	for again := 0; a.took > prompt; again++ { // a busy machine is slow now and then, a sidecar that waits for more is slow each time
		if again == 4 {
			h.mistake(v, network, "took %v to be answered and closed", a.took)
			break
		}
		a = h.s.exchange(network, raw, v)
		saw = h.r.take(a.answered())
	}
	forwarded := v.verdict == accepted || v.verdict == either && (len(a.statuses) == 0 || !a.ours[0])
	if forwarded && len(saw) == 0 && len(a.statuses) > 0 && !a.ours[0] && a.statuses[0] >= 400 {
		h.byUpstream++
		h.canary(v.name)
		return
	}
	if !forwarded {
		switch {
		case len(saw) > 0:
			h.desync(v, network, "must be refused, but the upstream saw %v; answers %v", saw, a.statuses)
		case len(a.statuses) != 1 || !slices.Contains(v.statuses, a.statuses[0]):
			h.mistake(v, network, "must be refused with one of %v, but the answers were %v (%v)", v.statuses, a.statuses, a.err)
		case v.verdict == refused && !a.closed:
			h.mistake(v, network, "the connection must be closed behind the %d", a.statuses[0])
		}
		h.canary(v.name)
		return
	}
	switch {
	case len(saw) == 0 && len(a.statuses) > 0 && a.ours[0]:
		h.mistake(v, network, "must be forwarded, but was refused: %d %s", a.statuses[0], a.bodies[0])
		h.canary(v.name)
		return
	case !sameRequests(saw, v.wants):
		h.desync(v, network, "must be seen as %v, but was seen as %v; answers %v %v", v.wants, saw, a.statuses, a.err)
		h.canary(v.name)
		return
	}
	for i, w := range v.wants {
		if len(a.bodies) != len(v.wants) || w.Method != "HEAD" && a.bodies[i] != answerOf(w) {
			h.desync(v, network, "answers %v %q (%v), want one for each of %v", a.statuses, a.bodies, a.err, v.wants)
			break
		}
	}
	for _, s := range saw {
		if bad := wrongHeaders(s.Header, v.headers); bad != "" {
			h.mistake(v, network, "the upstream saw %s", bad)
		}
	}
	h.canary(v.name)
}

// canary is another org's request over the connection that the vector may have spoilt: it must be seen, and answered, as itself.
func (h *heads) canary(after string) {
	h.t.Helper()
	h.canaries++
	v := vector{name: "the canary behind " + after, verdict: accepted, wants: []seen{{Method: "GET", Target: fmt.Sprintf("/canary/%d", h.canaries)}}}
	v.raw = "GET " + v.wants[0].Target + " HTTP/1.1\r\n" + hostLine + "Keyward-Org: globex\r\n\r\n"
	a := h.s.exchange("unix", v.raw, v)
	if a.took > unstuck {
		h.mistake(v, "unix", "took %v", a.took)
	}
	saw := h.r.take(a.answered())
	if !sameRequests(saw, v.wants) || len(a.bodies) != 1 || a.bodies[0] != answerOf(v.wants[0]) {
		h.desync(v, "unix", "seen as %v, answers %v %q (%v)", saw, a.statuses, a.bodies, a.err)
	}
}

// noneLeft looks for requests that came late, and for any that only the upstream's log knows of.
func (h *heads) noneLeft() {
	h.t.Helper()
	time.Sleep(100 * time.Millisecond)
	if saw := h.r.take(0); len(saw) > 0 {
		h.desyncs += len(saw)
		h.t.Errorf("DESYNC: the upstream saw more than was sent: %v", saw)
	}
	if h.r.refused == nil {
		return
	}
	if n := h.r.refused() - h.refusedBefore; n > h.byUpstream {
		h.desyncs++
		h.t.Errorf("DESYNC: %s refused %d requests by itself, but only %d were answered so", h.r.name, n, h.byUpstream)
	}
}

func sameRequests(got, want []seen) bool {
	return slices.EqualFunc(got, want, func(g, w seen) bool { return g.Method == w.Method && g.Target == w.Target && g.Body == w.Body })
}

// wrongHeaders says what is wrong with the headers that an upstream saw: the credential must be acme's, once; nothing of ours may be
// there; and what the vector names must be, or must not.
func wrongHeaders(h http.Header, checks []string) string {
	if got, want := h.Values("Authorization"), "Bearer "+secretOf("acme", "resend"); len(got) != 1 || got[0] != want {
		return fmt.Sprintf("Authorization %q, want only %q", got, want)
	}
	for name := range h {
		if strings.HasPrefix(strings.ToLower(name), "keyward-") || strings.HasPrefix(name, "Trailer-") {
			return fmt.Sprintf("%s %q", name, h[name])
		}
	}
	for _, c := range checks {
		if name, not := strings.CutPrefix(c, "!"); not {
			if got := h.Values(name); len(got) > 0 {
				return fmt.Sprintf("%s %q, which must not go further", name, got)
			}
			continue
		}
		name, want, _ := strings.Cut(c, "=")
		if got := strings.Join(h.Values(name), "|"); got != want {
			return fmt.Sprintf("%s %q, want %q", name, got, want)
		}
	}
	return ""
}

// withToken adds a caller's token behind each line that names the vectors' org, or behind the first Host.
func withToken(raw, token string) string {
	line := "Keyward-Token: " + token + "\r\n"
	if strings.Contains(raw, orgLine) {
		return strings.ReplaceAll(raw, orgLine, orgLine+line)
	}
	if i := strings.Index(raw, hostLine); i >= 0 {
		return raw[:i+len(hostLine)] + line + raw[i+len(hostLine):]
	}
	if i := strings.Index(raw, "\r\nHost"); i >= 0 {
		return raw[:i+2] + line + raw[i+2:]
	}
	return raw
}

// answers are what came back on one connection.
type answers struct {
	statuses []int
	bodies   []string
	ours     []bool // the sidecar's own refusal
	closed   bool   // the sidecar closed the connection, without having been asked to
	took     time.Duration
	err      error
}

// answered is how many answers the upstream gave to requests that it took.
func (a *answers) answered() int {
	n := 0
	for i, status := range a.statuses {
		if status == http.StatusOK && !a.ours[i] {
			n++
		}
	}
	return n
}

// exchangeLimit is the longest that an exchange may take: every read and write of one has ended by then.
const exchangeLimit = 20 * time.Second

// exchange sends bytes on a connection of their own and reads until the sidecar closes it. What must be refused at sight has to end the
// connection by itself; behind everything else the caller's side is closed for writing.
func (s *sidecar) exchange(network, raw string, v vector) answers {
	s.t.Helper()
	c := s.dial(network)
	defer func() { _ = c.Close() }()
	began := time.Now()
	_ = c.SetDeadline(began.Add(exchangeLimit))
	half := func() {
		if cw, ok := c.(interface{ CloseWrite() error }); ok {
			_ = cw.CloseWrite()
		}
	}
	halved := v.verdict != refused || v.unfinished
	written := make(chan struct{})
	go func() {
		defer close(written)
		_, _ = io.WriteString(c, raw) // a sidecar that has refused need not read the rest
		if v.verdict != refused || v.unfinished {
			half()
		}
	}()
	defer func() { _ = c.Close(); <-written }()
	var got bytes.Buffer
	buf := make([]byte, 64<<10)
	var a answers
	for {
		// Who is refused is closed without a word of the caller's own: that it has not happened shows when the time is over.
		wait := exchangeLimit
		if !halved {
			wait = unstuck
		}
		_ = c.SetReadDeadline(began.Add(wait))
		n, err := c.Read(buf)
		got.Write(buf[:n])
		if err == nil {
			continue
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && !halved {
			half()
			halved = true
			continue
		}
		a.closed = !halved || v.unfinished
		if !errors.Is(err, io.EOF) {
			a.err = err
		}
		break
	}
	a.parse(got.Bytes(), v)
	a.took = time.Since(began)
	return a
}

// parse reads the answers; interim ones do not count.
func (a *answers) parse(b []byte, v vector) {
	in := bufio.NewReader(bytes.NewReader(b))
	for i := 0; ; {
		if _, err := in.Peek(1); err != nil {
			return
		}
		req := &http.Request{Method: "GET"}
		if i < len(v.wants) {
			req.Method = v.wants[i].Method
		} else if strings.HasPrefix(v.raw, "CONNECT ") {
			req.Method = "POST" // a refusal of CONNECT has a body
		}
		resp, err := http.ReadResponse(in, req)
		if err != nil {
			a.statuses, a.bodies, a.ours, a.err = append(a.statuses, 0), append(a.bodies, ""), append(a.ours, false), err
			return
		}
		if resp.StatusCode/100 == 1 {
			continue
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			a.err = err
		}
		a.statuses = append(a.statuses, resp.StatusCode)
		a.bodies = append(a.bodies, string(body))
		a.ours = append(a.ours, resp.Header.Get("Keyward-Error") != "")
		i++
	}
}
