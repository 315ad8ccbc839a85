package torture

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// A keptConn is a caller with one keep-alive connection, dialled anew when the sidecar has closed it.
type keptConn struct {
	s       *sidecar
	network string
	c       net.Conn
	in      *bufio.Reader
}

// A reply is what a caller got. err is set when it could not take the answer for a whole one.
type reply struct {
	status int
	header http.Header
	body   string
	err    error
}

func (r reply) ours() bool { return r.header.Get("Keyward-Error") != "" }

func (r reply) String() string {
	return fmt.Sprintf("%d %s %.120q %v", r.status, r.header.Get("Keyward-Error"), r.body, r.err)
}

// do sends a request and reads the answer.
func (k *keptConn) do(method, raw string) reply {
	if k.c == nil {
		c, err := k.s.tryDial(k.network)
		if err != nil {
			return reply{err: err}
		}
		k.c, k.in = c, bufio.NewReaderSize(c, 16<<10)
	}
	_ = k.c.SetDeadline(time.Now().Add(25 * time.Second))
	_, werr := io.WriteString(k.c, raw)
	for {
		resp, err := http.ReadResponse(k.in, &http.Request{Method: method})
		if err != nil {
			k.close()
			if werr != nil {
				err = fmt.Errorf("%w (writing: %w)", err, werr)
			}
			return reply{err: err}
		}
		if resp.StatusCode/100 == 1 && resp.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.Close {
			k.close()
		}
		return reply{status: resp.StatusCode, header: resp.Header, body: string(b), err: err}
	}
}

func (k *keptConn) close() {
	if k.c != nil {
		_ = k.c.Close()
		k.c = nil
	}
}
