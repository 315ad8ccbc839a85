package main

import (
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

const (
	// gatherLog is how long a request's line may wait for others to be written with it: one system call for all of them.
	gatherLog = 2 * time.Millisecond
	// maxLogWaiting is how much may wait for a reader of the log that does not read, in bytes.
	maxLogWaiting = 1 << 20
)

// A logBuffer has the lines of requests written off their path, so that no request waits for whoever reads the log. They are gathered for a
// moment; when the reader is slow, they wait, and when too much waits, they are dropped and counted. Every other line is written at once,
// behind those that came before it.
type logBuffer struct {
	out io.Writer

	mu      sync.Mutex // held for as long as it takes to append a line
	waiting []byte
	dropped int
	closed  bool
	lost    atomic.Uint64 // all that were ever dropped

	writing sync.Mutex // held while lines are written; taken before mu
	spare   []byte     // takes waiting's place meanwhile
	wake    chan struct{}
	done    chan struct{}
}

func newLogBuffer(out io.Writer) *logBuffer {
	b := &logBuffer{out: out, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go b.run()
	return b
}

func (b *logBuffer) run() {
	defer close(b.done)
	for range b.wake {
		time.Sleep(gatherLog)
		b.writing.Lock()
		b.flush()
		b.writing.Unlock()
	}
}

// Write writes a line at once.
func (b *logBuffer) Write(line []byte) (int, error) {
	b.writing.Lock()
	defer b.writing.Unlock()
	b.flush()
	return b.out.Write(line)
}

// close writes what waits. Lines that come later are written at once.
func (b *logBuffer) close() {
	if b == nil {
		return
	}
	b.mu.Lock()
	again := b.closed
	b.closed = true
	b.mu.Unlock()
	if !again {
		close(b.wake) // nobody sends any more: see requestLines
	}
	<-b.done
	b.writing.Lock()
	defer b.writing.Unlock()
	b.flush()
}

// flush writes what waits. writing is held.
func (b *logBuffer) flush() {
	b.mu.Lock()
	lines, dropped := b.waiting, b.dropped
	b.waiting, b.dropped = b.spare[:0], 0
	b.mu.Unlock()
	if len(lines) > 0 {
		_, _ = b.out.Write(lines)
	}
	b.spare = lines
	if dropped > 0 {
		l := zerolog.New(b.out).With().Timestamp().Logger()
		l.Warn().Int("dropped", dropped).Msg("lines of requests were dropped: whoever reads the log is too slow")
	}
}

// requestLines is where the lines of requests go: what is written to it does not wait for the log's reader.
type requestLines struct{ b *logBuffer }

func (r requestLines) Write(line []byte) (int, error) {
	b := r.b
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return b.Write(line)
	}
	if len(b.waiting)+len(line) > maxLogWaiting {
		b.dropped++
		b.lost.Add(1)
		b.mu.Unlock()
		return len(line), nil
	}
	first := len(b.waiting) == 0
	b.waiting = append(b.waiting, line...)
	if first {
		select {
		case b.wake <- struct{}{}: // under mu, so that it is not closed meanwhile
		default:
		}
	}
	b.mu.Unlock()
	return len(line), nil
}
