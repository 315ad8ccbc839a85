package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A loop is one run: its connections, who of them is free, and what is due.
type loop struct {
	o     Options
	epoll int
	slots []*slot
	free  []*slot
	begun time.Time
	r     *Result

	next    int64 // arrivals that have come due
	begins  int64 // requests sent
	waiting queue // intended starts of arrivals that found no free connection
	flying  int
	out     []byte // the request being sent
	ended   bool   // no request is begun any more
}

// A slot is a place for one request in flight.
type slot struct {
	c        *conn
	a        answer
	intended int64 // ns since begun
	busy     bool
}

func newLoop(o Options) (*loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("making an event loop: %w", err)
	}
	l := &loop{o: o, epoll: fd, out: make([]byte, 0, 4096)}
	for i := range o.Conns {
		s := &slot{a: answer{buf: make([]byte, 8192)}}
		l.slots = append(l.slots, s)
		if err := l.connect(s, i); err != nil {
			l.close()
			return nil, err
		}
	}
	return l, nil
}

func (l *loop) connect(s *slot, i int) error {
	c, err := dial(l.o.Target)
	if err != nil {
		return err
	}
	s.c = c
	s.a.reset()
	if err := unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, c.fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}); err != nil {
		return fmt.Errorf("watching a connection: %w", err)
	}
	return nil
}

func (l *loop) close() {
	for _, s := range l.slots {
		if s.c != nil {
			s.c.close()
		}
	}
	_ = unix.Close(l.epoll)
}

func (l *loop) now() int64 { return int64(time.Since(l.begun)) }

// run holds its thread, whose timers it makes exact.
func (l *loop) run(ctx context.Context) (*Result, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0); err == nil {
		defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) }() // 0: the default again
	}
	if counted := l.o; counted.Warm > 0 {
		l.o.Rate, l.o.Requests, l.o.Duration = 0, 0, counted.Warm
		if err := l.phase(ctx); err != nil {
			return nil, err
		}
		if l.r.Errors > 0 {
			return l.r, nil // it would not be better counted
		}
		l.o = counted
	}
	if l.o.Begin != nil {
		l.o.Begin()
	}
	if err := l.phase(ctx); err != nil {
		return nil, err
	}
	if l.o.End != nil {
		l.o.End()
	}
	return l.r, nil
}

// phase makes requests until it is over and all answers are there.
func (l *loop) phase(ctx context.Context) error {
	l.r = &Result{Latency: NewHistogram(), Lag: NewHistogram(), Statuses: map[int]int64{}}
	l.next, l.begins, l.ended, l.free = 0, 0, false, l.free[:0]
	l.begun = time.Now()
	end := int64(l.o.Duration)
	for _, s := range l.slots {
		if l.o.Rate > 0 || l.full() {
			l.free = append(l.free, s)
			continue
		}
		if err := l.send(s, l.now()); err != nil {
			return err
		}
	}
	events := make([]unix.EpollEvent, l.o.Conns)
	for n := 0; ; n++ {
		now := l.now()
		if n&63 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		if err := l.arrivals(now, end); err != nil {
			return err
		}
		if l.ended = l.ended || l.full() || now >= end && l.o.Rate == 0; l.ended && l.flying == 0 && l.waiting.empty() {
			break
		}
		if now >= end+int64(l.o.Drain) {
			l.giveUp(now)
			break
		}
		got, err := l.wait(events, l.untilDue(now))
		if err != nil {
			return err
		}
		for _, e := range events[:got] {
			if err := l.ready(int(e.Fd)); err != nil {
				return err
			}
		}
	}
	l.r.Seconds = float64(l.now()) / 1e9
	return nil
}

func (l *loop) full() bool { return l.o.Requests > 0 && l.begins >= l.o.Requests }

// due is the intended start of arrival i: by multiplication, so that no rounding adds up.
func (l *loop) due(i int64) int64 { return int64(float64(i) * (1e9 / l.o.Rate)) }

// arrivals begins, or queues, what has come due.
func (l *loop) arrivals(now, end int64) error {
	if l.o.Rate == 0 {
		return nil
	}
	for !l.ended {
		at := l.due(l.next)
		if at > now {
			return nil
		}
		if at >= end || l.o.Requests > 0 && l.next >= l.o.Requests {
			l.ended = true
			return nil
		}
		l.next++
		if len(l.free) == 0 {
			l.waiting.push(at)
			continue
		}
		s := l.free[len(l.free)-1]
		l.free = l.free[:len(l.free)-1]
		Record(l.r.Lag, time.Duration(l.now()-at))
		if err := l.send(s, at); err != nil {
			return err
		}
	}
	return nil
}

// untilDue is how long there is nothing to begin; negative: until an answer comes.
func (l *loop) untilDue(now int64) int64 {
	if l.o.Rate == 0 || l.ended {
		return int64(100 * time.Millisecond) // to see whether the drain's time is over
	}
	return max(l.due(l.next)-now, 0)
}

// spin is how long before an arrival the loop stops sleeping: a wake-up takes about this long.
const spin = int64(30 * time.Microsecond)

// wait waits for answers, at most for d ns. The last of it is spun, so that an arrival finds the thread awake.
func (l *loop) wait(events []unix.EpollEvent, d int64) (int, error) {
	if d <= spin {
		d = 0
	} else {
		d -= spin
	}
	ts := unix.NsecToTimespec(d)
	for {
		var n uintptr
		var errno unix.Errno
		if d == 0 { // returns at once: the scheduler need not know
			n, _, errno = unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
		} else {
			n, _, errno = unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(unsafe.Pointer(&ts)), 0, 0)
		}
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			return 0, nil
		case unix.ENOSYS: // before Linux 5.11: spin
			d = 0
		default:
			return 0, fmt.Errorf("waiting for answers: %w", errno)
		}
	}
}

// send begins a request that should have begun at the given time.
func (l *loop) send(s *slot, intended int64) error {
	l.out = l.o.Request(l.out[:0])
	l.begins++
	l.flying++
	s.intended, s.busy = intended, true
	s.a.reset()
	if err := s.c.write(l.out); err != nil {
		return l.failed(s, err)
	}
	return nil
}

// ready reads what has come on a connection.
func (l *loop) ready(i int) error {
	s := l.slots[i]
	for {
		room := s.a.room()
		n, err := s.c.read(room)
		if errors.Is(err, errAgain) {
			return nil
		}
		if err != nil {
			return l.failed(s, err)
		}
		if !s.busy {
			return l.failed(s, errOverlong)
		}
		whole, err := s.a.more(n)
		if err != nil {
			return l.failed(s, err)
		}
		if whole {
			return l.finished(s)
		}
		if s.c.tls == nil && n < len(room) {
			return nil // the socket is empty
		}
	}
}

func (l *loop) finished(s *slot) error {
	l.count(s)
	if !l.o.Good(s.a.status) {
		l.r.Errors++
		l.r.Statuses[s.a.status]++
		if l.r.FirstError == nil {
			l.r.FirstError = fmt.Errorf("answered %.400q", s.a.buf[:s.a.n])
		}
	}
	return l.onward(s)
}

// failed counts a request whose connection broke, and connects anew.
func (l *loop) failed(s *slot, err error) error {
	busy := s.busy
	if busy {
		l.count(s)
		l.r.Errors++
		if l.r.FirstError == nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			l.r.FirstError = err
		}
	}
	i := 0
	for l.slots[i] != s {
		i++
	}
	s.c.close()
	if err := l.connect(s, i); err != nil {
		s.c = nil
		return errors.Join(l.r.FirstError, err)
	}
	if !busy {
		return nil // it stands among the free ones
	}
	return l.onward(s)
}

// count ends a request.
func (l *loop) count(s *slot) {
	Record(l.r.Latency, time.Duration(l.now()-s.intended))
	l.r.Requests++
	l.flying--
	s.busy = false
}

// onward gives the connection its next request, if there is one.
func (l *loop) onward(s *slot) error {
	switch {
	case l.o.Rate > 0 && !l.waiting.empty():
		return l.send(s, l.waiting.pop())
	case l.o.Rate == 0 && !l.full() && l.now() < int64(l.o.Duration):
		return l.send(s, l.now())
	}
	l.free = append(l.free, s)
	return nil
}

// giveUp counts what never came.
func (l *loop) giveUp(now int64) {
	lost := func(intended int64) {
		Record(l.r.Latency, time.Duration(now-intended))
		l.r.Requests++
		l.r.Errors++
	}
	for _, s := range l.slots {
		if s.busy {
			lost(s.intended)
		}
	}
	for !l.waiting.empty() {
		lost(l.waiting.pop())
	}
	if l.r.FirstError == nil {
		l.r.FirstError = fmt.Errorf("no answer within %v after the end", l.o.Drain)
	}
}

// A queue is first in, first out.
type queue struct {
	items []int64
	head  int
}

func (q *queue) empty() bool { return q.head == len(q.items) }
func (q *queue) push(v int64) {
	if q.head > 4096 && q.head*2 > len(q.items) {
		q.items = q.items[:copy(q.items, q.items[q.head:])]
		q.head = 0
	}
	q.items = append(q.items, v)
}

func (q *queue) pop() int64 {
	v := q.items[q.head]
	q.head++
	return v
}
