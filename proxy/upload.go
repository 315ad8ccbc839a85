package proxy

import (
	"errors"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// An upload sends a streamed body to the provider while the answer is awaited: a provider may answer, and stop reading, at any time.
type upload struct {
	done chan struct{}
	stop atomic.Bool
	at   time.Time // when it was done
	err  error
	bad  *refusal // what was wrong with the caller's side, if that ended it
}

// uploadBuffers are what bodies pass through.
var uploadBuffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// startUpload begins to send the body. What was already read of it goes first.
func (c *call) startUpload(u *upstreamConn) {
	up := &upload{done: make(chan struct{})}
	c.upload = up
	in := c.ctx.RequestBodyStream()
	go func() {
		defer close(up.done)
		defer func() {
			if v := recover(); v != nil {
				c.p.panicked(c.id[:], v)
				up.bad, up.err = refusePanic, errStopped
				_ = u.Close()
			}
		}()
		up.err = c.pump(up, u, in)
		up.at = time.Now()
		if up.bad != nil {
			_ = u.Close() // the provider must not take half a body for a whole one
		}
	}()
}

func (c *call) pump(up *upload, u *upstreamConn, in io.Reader) error {
	chunked := c.head.chunked
	pb := uploadBuffers.Get().(*[]byte)
	defer uploadBuffers.Put(pb)
	buf := *pb
	const room = 8 // for a chunk's size line in front: at most 4 hex digits and CRLF, see chunkHead
	write := func(n int) error {
		if n == 0 {
			return nil
		}
		c.sent += int64(n)
		u.writesUntil(time.Now(), c.p.idle())
		b := buf[room : room+n]
		if chunked {
			start := chunkHead(buf[:room], n)
			copy(buf[room+n:], "\r\n")
			b = buf[start : room+n+2]
		}
		_, err := u.Write(b)
		return err
	}
	space := len(buf) - room - 2
	for rest := c.body; len(rest) > 0; {
		n := copy(buf[room:room+space], rest)
		rest = rest[n:]
		if err := write(n); err != nil {
			return err
		}
	}
	for {
		_ = c.conn.SetReadDeadline(time.Now().Add(c.p.idle()))
		if up.stop.Load() { // after the deadline was moved: stopUpload does the two in the other order
			return errStopped
		}
		n, err := in.Read(buf[room : room+space])
		if c.p.overBody(c.sent + int64(n)) {
			up.bad = refuseBodySize
			return errLong
		}
		if werr := write(n); werr != nil {
			return werr
		}
		switch {
		case err == io.EOF && chunked:
			if hasTrailers(c.ctx) {
				up.bad = refuseHead(errTrailers)
				return up.bad
			}
			_, err = u.Write([]byte("0\r\n\r\n"))
			return err
		case err == io.EOF:
			if c.sent != c.head.length {
				up.bad = refuseShort
				return io.ErrUnexpectedEOF
			}
			return nil
		case err != nil && up.stop.Load():
			return errStopped
		case err != nil:
			up.bad = refuseShort
			return err
		}
	}
}

// chunkHead writes a chunk's size line so that it ends where b ends, and returns where it starts.
func chunkHead(b []byte, n int) int {
	var line [8]byte
	l := strconv.AppendInt(line[:0], int64(n), 16)
	l = append(l, '\r', '\n')
	start := len(b) - len(l)
	copy(b[start:], l)
	return start
}

func (up *upload) finished() bool {
	select {
	case <-up.done:
		return true
	default:
		return false
	}
}

// ends says whether the upload is over, or is so in a moment: a provider that has all of the body may answer before its end was noticed.
func (up *upload) ends() bool {
	if up.finished() {
		return true
	}
	moment := time.NewTimer(time.Millisecond)
	defer moment.Stop()
	select {
	case <-up.done:
		return true
	case <-moment.C:
		return false
	}
}

// stopUpload ends an upload that still runs and waits for it; both connections are done with then. It returns what the caller did
// wrong, if that is what ended the upload.
func (c *call) stopUpload() *refusal {
	up := c.upload
	if up == nil {
		return nil
	}
	if !up.finished() {
		up.stop.Store(true)
		_ = c.conn.SetReadDeadline(time.Unix(1, 0))
		if c.up != nil {
			_ = c.up.Close()
		}
		<-up.done
	}
	return up.bad
}

var errStopped = errors.New("upload stopped")
