package proxy

import (
	"errors"
	"math"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyward/keyward/internal/socket"
)

// started is what deadlines count from: by the monotonic clock, at half the price of time.Now.
var started = time.Now()

// never is no deadline.
const never = math.MaxInt64

// A readDeadline is until when reading from a connection may take. It moves several times in each request and hardly ever comes, and moving
// the runtime's timer for it costs more than a look at the clock. So the timer stays where it is as long as it is the earlier one; whoever
// it ends a read for asks again whether time is really up. The deadline itself is exact.
type readDeadline struct {
	conn net.Conn
	sock *socket.Socket // reads; nil: conn does
	want atomic.Int64   // the deadline, in nanoseconds since started
	set  atomic.Int64   // the timer's; changed under mu
	mu   sync.Mutex
}

func (d *readDeadline) over(c net.Conn, s *socket.Socket) {
	d.conn, d.sock = c, s
	d.want.Store(never)
	d.set.Store(never)
}

// move sets the deadline; the zero time is none.
func (d *readDeadline) move(to time.Time) error {
	w := int64(never)
	if !to.IsZero() {
		w = int64(to.Sub(started))
	}
	d.want.Store(w)
	if w >= d.set.Load() {
		return nil
	}
	return d.arm()
}

// arm sets the timer to the deadline as it is at that moment.
func (d *readDeadline) arm() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.want.Load()
	d.set.Store(w)
	if w == never {
		return d.conn.SetReadDeadline(time.Time{})
	}
	return d.conn.SetReadDeadline(started.Add(time.Duration(w)))
}

// early says whether a read ended before its deadline, because the timer was left where it was. The timer is right then, and the read can be
// begun again.
func (d *readDeadline) early(err error) bool {
	return err != nil && errors.Is(err, os.ErrDeadlineExceeded) && time.Since(started) < time.Duration(d.want.Load()) && d.arm() == nil
}

// read reads until the deadline.
func (d *readDeadline) read(b []byte) (int, error) {
	for {
		var n int
		var err error
		if d.sock != nil {
			n, err = d.sock.Read(b)
		} else {
			n, err = d.conn.Read(b)
		}
		if n > 0 || !d.early(err) {
			return n, err
		}
	}
}
