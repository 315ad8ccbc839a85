package proxy

import (
	"bytes"
	"io"
	"net"
	"testing"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/trace"
)

// bytePeer is a provider that allocates nothing: it reads up to the end of a head and writes one answer.
func bytePeer(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveBytes(t, l, "http://")
}

func serveBytes(t testing.TB, l net.Listener, scheme string) string {
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				buf := make([]byte, 4096)
				answer := []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n" + string(bytes.Repeat([]byte("x"), 500)))
				for n := 0; ; {
					m, err := c.Read(buf[n:])
					if err != nil {
						return
					}
					if n += m; bytes.HasSuffix(buf[:n], []byte("\r\n\r\n")) {
						n = 0
						if _, err := c.Write(answer); err != nil {
							return
						}
					}
				}
			}()
		}
	}()
	return scheme + l.Addr().String()
}

// roundTripper is over a connection to the unix socket.
func roundTripper(t testing.TB, w *world, request string) func() {
	return over(t, w.dial("unix"), request)
}

// over writes one request over and over on c and reads its answer, without an allocation of its own.
func over(t testing.TB, c net.Conn, request string) func() {
	out := []byte(request)
	buf := make([]byte, 8192)
	end := bytes.Repeat([]byte("x"), 500)
	return func() {
		if _, err := c.Write(out); err != nil {
			t.Fatal(err)
		}
		for n := 0; !bytes.HasSuffix(buf[:n], end); {
			m, err := c.Read(buf[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += m
		}
	}
}

const hitRequest = "GET /vapi/assistant HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: acme\r\nAccept: */*\r\nUser-Agent: bench\r\n\r\n"

// TestHitAllocatesNothing: a warm org's request costs no allocation, from the caller's head to the provider's answer. The log is off,
// as its writer is not the path's.
func TestHitAllocatesNothing(t *testing.T) {
	w := newWorld(t, bytePeer(t), quiet)
	do := roundTripper(t, w, hitRequest)
	for range 50 {
		do()
	}
	if n := testing.AllocsPerRun(500, do); n >= 1 {
		t.Errorf("%v allocations per request", n)
	}
}

func quiet(o *Options) { o.Log = o.Log.Output(io.Discard).Level(zerolog.Disabled) }

// BenchmarkHit is one caller on a unix socket and a provider on loopback without TLS: what is left is the sidecar's own work and eight
// system calls.
func BenchmarkHit(b *testing.B) {
	for name, change := range map[string]func(*Options){
		"quiet":  quiet,
		"logged": func(o *Options) { o.Log = o.Log.Output(io.Discard) },
		"everything": func(o *Options) { // one in a hundred is traced
			o.Log = o.Log.Output(io.Discard)
			o.Tracer = trace.New(0.01, func(trace.Span) {})
		},
	} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b, bytePeer(b), change)
			do := roundTripper(b, w, hitRequest)
			do()
			b.ReportAllocs()
			for b.Loop() {
				do()
			}
		})
	}
}

// BenchmarkHitParallel is many callers at once.
func BenchmarkHitParallel(b *testing.B) {
	w := newWorld(b, bytePeer(b), quiet)
	b.SetParallelism(8)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		do := roundTripper(b, w, hitRequest)
		for pb.Next() {
			do()
		}
	})
}
