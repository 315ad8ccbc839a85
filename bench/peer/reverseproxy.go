package peer

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"
)

// serveReverseProxy is what a Go programmer would write: httputil.ReverseProxy with a transport that keeps its connections, and a pool of
// buffers.
func serveReverseProxy(u Upstream, c *tls.Config, l net.Listener) error {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = "https", u.Host, u.Host
			r.Out.Header.Set(u.Name, u.Value)
		},
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "tcp", u.Address)
			},
			TLSClientConfig: c, MaxIdleConnsPerHost: 1024, DisableCompression: true,
		},
		BufferPool: &buffers{},
	}
	return (&http.Server{Handler: proxy, ReadHeaderTimeout: time.Minute}).Serve(l)
}

type buffers struct{ p sync.Pool }

func (b *buffers) Get() []byte {
	if s, ok := b.p.Get().(*[]byte); ok {
		return *s
	}
	return make([]byte, 32<<10)
}

func (b *buffers) Put(s []byte) { b.p.Put(&s) }
