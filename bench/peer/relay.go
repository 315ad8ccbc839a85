package peer

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
)

// serveRelay is the floor for any Go program: one TLS connection for each caller's, bytes passed on as they come, the header put in at a place that is
// found once per connection. It takes each read for one request, whose first line is as long as the first request's: true of this load
// generator, and of nothing else.
func serveRelay(u Upstream, c *tls.Config, l net.Listener) error {
	header := []byte(u.Name + ": " + u.Value + "\r\n")
	for {
		caller, err := l.Accept()
		if err != nil {
			return err
		}
		go relayed(caller, u.Address, c, header)
	}
}

// relayed ends when either side does; it takes the other along.
func relayed(caller net.Conn, address string, c *tls.Config, header []byte) {
	defer func() { _ = caller.Close() }()
	provider, err := tls.Dial("tcp", address, c)
	if err != nil {
		_, _ = os.Stderr.WriteString("relay: connecting to the provider: " + err.Error() + "\n")
		return
	}
	go func() {
		_ = pass(caller, provider)
		_ = caller.Close()
	}()
	_ = splice(provider, caller, header)
	_ = provider.Close()
}

// splice passes requests on with the header after their first line, in one write each.
func splice(to io.Writer, from io.Reader, header []byte) error {
	room := make([]byte, 64<<10+len(header))
	buf := room[len(header):]
	at := 0
	for {
		n, err := from.Read(buf)
		if err != nil {
			return err
		}
		if at == 0 {
			if at = bytes.IndexByte(buf[:n], '\n') + 1; at == 0 {
				return errors.New("the first read has no whole line")
			}
		}
		at := min(at, n)
		copy(room, buf[:at])
		copy(room[at:], header)
		if _, err := to.Write(room[:len(header)+n]); err != nil {
			return err
		}
	}
}

func pass(to io.Writer, from io.Reader) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return err
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return err
		}
	}
}
