package proxy

import (
	"crypto/tls"
	"testing"

	"github.com/keyward/keyward/store"
)

// BenchmarkTunnel is what interception costs: the same request over TCP with a token, as it is and within a CONNECT that stands, from a
// provider on loopback with TLS, as providers have; and what a CONNECT costs, with a whole handshake and with a session that is taken up
// again. The app's own part of TLS is in it, which runs on the same machine. (That it allocates is crypto/tls's own doing.)
func BenchmarkTunnel(b *testing.B) {
	up := tlsBytePeer(b)
	i := newInterceptor(b, up, quiet)
	token := i.token(store.Token{ID: "t1", Name: "bench"})
	const head = "GET /assistant HTTP/1.1\r\nHost: api.vapi.ai\r\nAccept: */*\r\nUser-Agent: bench\r\n"
	b.Run("plain", func(b *testing.B) {
		do := over(b, i.dial("tcp"), head+"Keyward-Org: acme\r\nKeyward-Token: "+token+"\r\n\r\n")
		do()
		b.ReportAllocs()
		for b.Loop() {
			do()
		}
	})
	b.Run("within", func(b *testing.B) {
		do := over(b, i.within("tcp", "api.vapi.ai", basic(token, "acme")), head+"\r\n")
		do()
		b.ReportAllocs()
		for b.Loop() {
			do()
		}
	})
	for name, cache := range map[string]tls.ClientSessionCache{"handshake": nil, "resumed": tls.NewLRUClientSessionCache(1)} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				_, conn := i.connect("tcp", "api.vapi.ai:443", basic(token, "acme"))
				c, err := i.tls(conn, "api.vapi.ai", func(o *tls.Config) { o.ClientSessionCache = cache })
				if err != nil {
					b.Fatal(err)
				}
				over(b, c, head+"\r\n")()
				_ = c.Close()
			}
		})
	}
}

// tlsBytePeer is a bytePeer behind TLS.
func tlsBytePeer(t testing.TB) string {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{testCertificate()}})
	if err != nil {
		t.Fatal(err)
	}
	return serveBytes(t, l, "https://")
}
