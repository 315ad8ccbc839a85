package proxy

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyward/keyward/trace"
)

const (
	sampledParent   = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	unsampledParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
)

// A tracedWorld is a proxy that traces, and a provider that says what it was told.
type tracedWorld struct {
	*world
	mu      sync.Mutex
	spans   []trace.Span
	told    []http.Header
	answers func(w http.ResponseWriter, n int)
}

func newTracedWorld(t *testing.T, share float64) *tracedWorld {
	t.Helper()
	x := &tracedWorld{}
	peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x.mu.Lock()
		x.told = append(x.told, r.Header.Clone())
		n := len(x.told)
		x.mu.Unlock()
		if x.answers != nil {
			x.answers(w, n)
		}
	}))
	t.Cleanup(peer.Close)
	x.world = newWorld(t, peer.URL, func(o *Options) {
		o.Tracer = trace.New(share, func(s trace.Span) {
			x.mu.Lock()
			defer x.mu.Unlock()
			x.spans = append(x.spans, s)
		})
	})
	return x
}

// get asks for something with further header lines, and returns what the provider was told and the spans that resulted.
func (x *tracedWorld) get(lines ...string) (told []http.Header, spans []trace.Span) {
	x.t.Helper()
	head := "GET /vapi/assistant?token=hunter2hunter2 HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: acme\r\n"
	for _, l := range lines {
		head += l + "\r\n"
	}
	x.raw("unix", head+"\r\n")
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if x.p.inflight.providers[x.p.names["vapi"]].Load() == 0 {
			break
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	told, spans = x.told, x.spans
	x.told, x.spans = nil, nil
	return told, spans
}

func TestWhatIsNotTracedPassesUntouched(t *testing.T) {
	x := newTracedWorld(t, 0)
	for _, lines := range [][]string{
		nil,
		{"traceparent: " + unsampledParent, "tracestate: a=1,b=2"},
		{"traceparent: nonsense", "tracestate: a=1"},
		{"Traceparent: " + sampledParent, "traceparent: " + sampledParent}, // two of them are none
	} {
		told, spans := x.get(lines...)
		if len(spans) > 0 {
			t.Errorf("%q: %d spans", lines, len(spans))
		}
		var want []string
		for _, l := range lines {
			if name, value, _ := strings.Cut(l, ": "); strings.EqualFold(name, "traceparent") {
				want = append(want, value)
			}
		}
		if len(told) != 1 || !slices.Equal(told[0].Values("traceparent"), want) {
			t.Errorf("%q: the provider was told %q", lines, told)
		}
	}
}

// Whoever reaches the port could otherwise have everything traced, and crowd out what callers sent.
func TestUnknownCallersDecideNothing(t *testing.T) {
	x := newTracedWorld(t, 0)
	resp := x.raw("tcp", "GET /vapi/assistant HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: acme\r\ntraceparent: "+sampledParent+"\r\n\r\n")
	if problemCode(resp) != "caller_unauthenticated" {
		t.Fatalf("answered %s", resp.Status)
	}
	if _, spans := x.get(); len(spans) > 0 {
		t.Errorf("%d spans", len(spans))
	}
}

func TestTracedCallersRequestIsFollowed(t *testing.T) {
	x := newTracedWorld(t, 0)
	told, spans := x.get("traceparent: "+sampledParent, "tracestate: a=1,b=2")
	if len(told) != 1 || len(spans) != 2 {
		t.Fatalf("%d requests, %d spans", len(told), len(spans))
	}
	parent, _ := trace.Parse([]byte(sampledParent))
	server, client := spans[0], spans[1]
	if server.Kind != trace.Server || server.Name != "vapi" || server.Own.Trace != parent.Trace || server.Parent != parent.Span || !server.Remote || server.State != "a=1,b=2" {
		t.Errorf("the request's span: %+v", server)
	}
	if client.Kind != trace.Client || client.Own.Trace != parent.Trace || client.Parent != server.Own.Span || client.Failed {
		t.Errorf("the span of what was sent on: %+v", client)
	}
	if got := told[0].Values("traceparent"); !slices.Equal(got, []string{string(client.Own.Append(nil))}) || told[0].Get("tracestate") != "a=1,b=2" {
		t.Errorf("the provider was told %q", told[0])
	}
	if client.Start.Before(server.Start) || client.End.After(server.End) || client.End.Before(client.Start) {
		t.Errorf("from %v to %v, within %v to %v", client.Start, client.End, server.Start, server.End)
	}
	if got := attributeOf(server, "keyward.org"); got != "acme" {
		t.Errorf("of org %q", got)
	}
	if !strings.Contains(x.logs.String(), `"trace_id":"4bf92f3577b34da6a3ce929d0e0e4736"`) {
		t.Error("the log does not name the trace")
	}
}

func TestSpansHoldNoQueryAndNoSecret(t *testing.T) {
	x := newTracedWorld(t, 1)
	_, spans := x.get("Authorization: Bearer caller-secret-0123456789")
	if len(spans) != 2 {
		t.Fatalf("%d spans", len(spans))
	}
	for _, s := range spans {
		for _, a := range s.Attributes {
			for _, secret := range []string{"hunter2", "token", "caller-secret", "vapi-private-acme"} {
				if strings.Contains(a.Text, secret) {
					t.Errorf("%s: %s is %q", s.Name, a.Name, a.Text)
				}
			}
		}
	}
}

func TestNewTracesBeginWithoutForeignState(t *testing.T) {
	x := newTracedWorld(t, 1)
	for _, lines := range [][]string{nil, {"traceparent: nonsense", "tracestate: a=1"}} {
		told, spans := x.get(lines...)
		if len(spans) != 2 || spans[0].Parent != (trace.SpanID{}) || len(told) != 1 || told[0].Get("traceparent") != string(spans[1].Own.Append(nil)) || told[0].Get("tracestate") != "" {
			t.Errorf("%q: told %q, spans %+v", lines, told, spans)
		}
	}
}

func TestRefusedRequestsAreTracedToo(t *testing.T) {
	x := newTracedWorld(t, 1)
	x.raw("unix", "GET /nobody/assistant HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: acme\r\n\r\n")
	_, spans := x.get()
	if len(spans) != 3 || spans[0].Name != "none" || attributeOf(spans[0], "error.type") != "unknown_upstream" || spans[0].Failed {
		t.Errorf("%+v", spans)
	}
}

// What was closed while it waited is tried again: a span for each.
func TestEveryAttemptIsASpan(t *testing.T) {
	x := newTracedWorld(t, 1)
	x.answers = func(w http.ResponseWriter, n int) {
		if n == 1 {
			panic(http.ErrAbortHandler)
		}
	}
	told, spans := x.get()
	if len(told) != 2 || len(spans) != 3 {
		t.Fatalf("%d requests, %d spans", len(told), len(spans))
	}
	first, second := spans[1], spans[2]
	if !first.Failed || attributeOf(first, "error.type") != "upstream_unreachable" || second.Failed || first.Own.Span == second.Own.Span {
		t.Errorf("%+v, then %+v", first, second)
	}
	for i, s := range []trace.Span{first, second} {
		if told[i].Get("traceparent") != string(s.Own.Append(nil)) {
			t.Errorf("attempt %d: the provider was told %q", i, told[i].Get("traceparent"))
		}
	}
}

func TestMeasuredRequestsHaveExamples(t *testing.T) {
	x := newTracedWorld(t, 0)
	x.get("traceparent: " + sampledParent)
	for _, p := range x.p.Numbers().Providers {
		found := p.Classes[classOf(200)].Examples
		if p.Provider == "vapi" && (len(found) != 1 || found[0].Trace.Trace.String() != "4bf92f3577b34da6a3ce929d0e0e4736" || found[0].Took <= 0) {
			t.Errorf("%+v", found)
		}
	}
}

func attributeOf(s trace.Span, name string) string {
	for _, a := range s.Attributes {
		if a.Name == name {
			return a.Text
		}
	}
	return ""
}

// TestHitAllocatesNothingWithTracing: a request that is not traced costs nothing more where others are.
func TestHitAllocatesNothingWithTracing(t *testing.T) {
	for _, request := range []string{hitRequest, strings.Replace(hitRequest, "Accept", "traceparent: "+unsampledParent+"\r\nAccept", 1)} {
		w := newWorld(t, bytePeer(t), quiet, func(o *Options) { o.Tracer = trace.New(1e-9, func(trace.Span) {}) })
		do := roundTripper(t, w, request)
		for range 50 {
			do()
		}
		if n := testing.AllocsPerRun(500, do); n >= 1 {
			t.Errorf("%v allocations per request", n)
		}
	}
}
