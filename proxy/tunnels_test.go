package proxy

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"strings"
	"testing"
	"time"
)

// TestTunnelsAreCounted by what they are for and what became of them; requests that are no CONNECT, and those within, are none.
func TestTunnelsAreCounted(t *testing.T) {
	i := newInterceptor(t, newPeer(t, true).url)
	var down error
	i.p.dialOut = func(context.Context, string, string) (net.Conn, error) {
		if down != nil {
			return nil, down
		}
		c, _ := net.Pipe()
		return c, nil
	}
	is := func(kind, result string, do func()) {
		t.Helper()
		want := i.p.Numbers().Tunnels
		if kind != "" {
			want[Tunnel{kind, result}]++
		}
		do()
		counted := false
		for end := time.Now().Add(time.Minute); !counted && time.Now().Before(end); time.Sleep(time.Millisecond) {
			counted = maps.Equal(i.p.Numbers().Tunnels, want)
		}
		if !counted {
			t.Errorf("%s %s: %v, want %v", kind, result, i.p.Numbers().Tunnels, want)
		}
	}
	org := basic("x", "acme")
	connect := func(network, authority, headers string) func() {
		return func() { _, _ = i.connect(network, authority, headers) }
	}
	var within net.Conn
	is("intercepted", "opened", func() { within = i.within("unix", "api.resend.com", org) })
	is("", "", func() {
		_ = bodyOf(ask(t, within, "GET /domains HTTP/1.1\r\nHost: api.resend.com\r\n\r\n"))
		_ = bodyOf(ask(t, within, "CONNECT api.resend.com:443 HTTP/1.1\r\nHost: api.resend.com:443\r\n\r\n"))
	})
	is("intercepted", "refused", connect("unix", "api.resend.com:443", basic("x", "no org")))
	is("intercepted", "failed", func() {
		_, c := i.connect("unix", "api.resend.com:443", org)
		_, _ = io.WriteString(c, "no TLS at all")
		_ = c.Close()
	})
	is("passthrough", "opened", connect("unix", "files.example:443", ""))
	is("none", "refused", connect("unix", "evil.example:443", ""))
	is("none", "refused", connect("unix", "api.resend.com:80", org))
	is("none", "refused", connect("tcp", "api.resend.com:443", ""))
	is("", "", func() { i.raw("unix", "GET /nobody HTTP/1.1\r\nHost: localhost\r\n\r\n") })
	down = errors.New("down")
	is("passthrough", "failed", connect("unix", "files.example:443", ""))
	i.p.Drain()
	is("passthrough", "refused", connect("unix", "files.example:443", ""))

	w := newWorld(t, "")
	w.raw("unix", "CONNECT api.resend.com:443 HTTP/1.1\r\nHost: api.resend.com:443\r\n\r\n")
	if n := w.p.Numbers().Tunnels[Tunnel{"none", "refused"}]; n != 1 {
		t.Errorf("where nothing is intercepted: %d", n)
	}
}

// TestAConnectWhoseHeadCannotBeParsedIsCounted, whoever finds it, and nothing else that cannot be parsed is.
func TestAConnectWhoseHeadCannotBeParsedIsCounted(t *testing.T) {
	const line, host = "CONNECT files.example:443 HTTP/1.1\r\n", "Host: files.example:443\r\n"
	for name, c := range map[string]struct {
		sent    string
		counted uint64
	}{
		"a bare LF behind the request line": {"CONNECT files.example:443 HTTP/1.1\n" + host + "\r\n", 1},
		"a bare CR within it":               {"CONNECT files.exa\rmple:443 HTTP/1.1\r\n" + host + "\r\n", 1},
		"a bare LF behind a header":         {line + "X: 1\n" + host + "\r\n", 1},
		"no version":                        {"CONNECT files.example:443\r\n" + host + "\r\n", 1},
		"another version":                   {"CONNECT files.example:443 HTTP/2.0\r\n" + host + "\r\n", 1},
		"no Host":                           {line + "\r\n", 1},
		"a header without a name":           {line + host + ": x\r\n\r\n", 1},
		"too long a head":                   {line + host + "X: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", 1},
		"an empty line before it":           {"\r\nCONNECT files.example:443\r\n" + host + "\r\n", 1},
		"in small letters":                  {"connect files.example:443 HTTP/1.1\n" + host + "\r\n", 1},
		"another method":                    {"GET connect HTTP/1.1\n" + host + "\r\n", 0},
		"a method that begins like it":      {"CONNECTED files.example:443 HTTP/1.1\n" + host + "\r\n", 0},
		"CONNECT at another place":          {"GET / HTTP/1.1\r\nCONNECT x\n" + host + "\r\n", 0},
		"another one right behind it":       {"CONNECT evil.example:443 HTTP/1.1\r\n" + host + "\r\nGET / HTTP/3.0\r\n" + host + "\r\n", 1},
	} {
		t.Run(name, func(t *testing.T) {
			i := newInterceptor(t, "")
			conn := i.dial("unix")
			go func() { _, _ = io.WriteString(conn, c.sent) }() // a head that is too long is not read to its end
			_, _ = io.Copy(io.Discard, conn)
			want := i.p.Numbers().Tunnels
			for kind := range want {
				want[kind] = 0
			}
			want[Tunnel{"none", "refused"}] = c.counted
			if got := i.p.Numbers().Tunnels; !maps.Equal(got, want) {
				t.Errorf("counted %v", got)
			}
		})
	}
}

// TestConnectionsThatWaitForRoomAreCounted: who comes while all are taken is, and who comes before or after is not.
func TestConnectionsThatWaitForRoomAreCounted(t *testing.T) {
	const request = "GET /vapi/x HTTP/1.1\r\n" + orgLine + "\r\n"
	w := newWorld(t, newPeer(t, true).url, func(o *Options) { o.MaxConns = 1 })
	counted := func() uint64 { return w.p.Numbers().HeldUp[noRoom] }
	first := w.dial("unix")
	_ = bodyOf(ask(t, first, request))
	if n := counted(); n != 0 {
		t.Errorf("the first one: %d", n)
	}
	waitFor(t, func() bool { return strings.Contains(w.logs.String(), "connections wait") })
	second := w.dial("unix")
	if _, err := io.WriteString(second, request); err != nil {
		t.Fatal(err)
	}
	_ = first.Close()
	b := make([]byte, 1)
	if _, err := second.Read(b); err != nil {
		t.Fatal(err)
	}
	if n := counted(); n != 1 {
		t.Errorf("one that waited: %d", n)
	}
	_ = second.Close()
	for try := 0; ; try++ { // one that comes while the listener wakes up has found no room, too
		waitFor(t, func() bool { return w.p.Numbers().Connections == 0 })
		time.Sleep(50 * time.Millisecond)
		before := counted()
		c := w.dial("unix")
		_ = bodyOf(ask(t, c, request))
		_ = c.Close()
		if counted() == before {
			break
		}
		if try == 20 {
			t.Fatal("one that found room is counted, each time")
		}
	}
}

// TestAllWhoWaitedForRoomAreCounted, each once, also when there is room for several of them at the same time.
func TestAllWhoWaitedForRoomAreCounted(t *testing.T) {
	const waiting = 5
	w := newWorld(t, newPeer(t, true).url, func(o *Options) { o.MaxConns = 1 })
	_ = bodyOf(ask(t, w.dial("unix"), "GET /vapi/x HTTP/1.1\r\n"+orgLine+"\r\n"))
	waitFor(t, func() bool { return strings.Contains(w.logs.String(), "connections wait") })
	for range waiting {
		w.dial("unix")
	}
	w.p.SetLimits(Limits{MaxConns: 100})
	waitFor(t, func() bool { return w.p.Numbers().Connections == 1+waiting })
	if n := w.p.Numbers().HeldUp[noRoom]; n != waiting {
		t.Errorf("%d are counted of %d that waited", n, waiting)
	}
}
