package scenario

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"github.com/keyward/keyward/bench/load"
)

// directTLS is the caller's own TLS to the provider.
func directTLS(ca []byte, host string) (*tls.Config, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("the provider's certificate cannot be read")
	}
	return &tls.Config{RootCAs: roots, ServerName: host, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}, nil
}

// A line is a connection for what is not one short answer per request: streams, sockets, uploads.
type line struct {
	net.Conn
	r *bufio.Reader
}

func dial(ctx context.Context, t load.Target) (*line, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, t.Network, t.Address)
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if t.TLS != nil {
		over := tls.Client(c, t.TLS)
		if err := over.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c = over
	}
	return &line{c, bufio.NewReaderSize(c, 64<<10)}, nil
}

// head reads the head of an answer, which must have this status.
func (l *line) head(status int) (http.Header, error) {
	text := textproto.NewReader(l.r)
	first, err := text.ReadLine()
	if err != nil {
		return nil, err
	}
	h, err := text.ReadMIMEHeader()
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(first, "HTTP/1.1 "+strconv.Itoa(status)+" ") {
		rest := make([]byte, min(l.r.Buffered(), 300))
		_, _ = l.r.Read(rest)
		return nil, fmt.Errorf("answered %q with %s", first, rest)
	}
	return http.Header(h), nil
}
