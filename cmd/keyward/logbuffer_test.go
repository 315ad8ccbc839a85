package main

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A logReader is the other end of a log; it can stop reading.
type logReader struct {
	mu     sync.Mutex
	text   bytes.Buffer
	writes int
	stuck  chan struct{} // writes wait until it is closed; nil: they do not
}

func (r *logReader) Write(p []byte) (int, error) {
	if r.stuck != nil {
		<-r.stuck
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writes++
	return r.text.Write(p)
}

func (r *logReader) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func TestRequestLinesAreWrittenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &logReader{}
		b := newLogBuffer(r)
		defer b.close()
		for range 100 {
			_, _ = requestLines{b}.Write([]byte("request\n"))
		}
		time.Sleep(gatherLog + time.Millisecond)
		if n := strings.Count(r.String(), "request\n"); n != 100 || r.writes != 1 {
			t.Errorf("%d lines in %d writes", n, r.writes)
		}
	})
}

func TestLogKeepsItsOrder(t *testing.T) {
	r := &logReader{}
	b := newLogBuffer(r)
	_, _ = requestLines{b}.Write([]byte("1\n"))
	_, _ = b.Write([]byte("2\n"))
	_, _ = requestLines{b}.Write([]byte("3\n"))
	b.close()
	_, _ = requestLines{b}.Write([]byte("4\n"))
	if got := r.String(); got != "1\n2\n3\n4\n" {
		t.Errorf("%q", got)
	}
}

func TestRequestsDoNotWaitForTheLogsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &logReader{stuck: make(chan struct{})}
		b := newLogBuffer(r)
		line := []byte(strings.Repeat("x", 1023) + "\n")
		_, _ = requestLines{b}.Write(line)
		time.Sleep(time.Second) // the writer hangs in the first one
		const most = maxLogWaiting / 1024
		for range most + 7 { // would never return if it waited: synctest says deadlock
			_, _ = requestLines{b}.Write(line)
		}
		if n := cap(b.waiting); n > 2*maxLogWaiting {
			t.Errorf("%d bytes wait", n)
		}
		close(r.stuck)
		b.close()
		if n := strings.Count(r.String(), string(line)); n != 1+most {
			t.Errorf("%d lines, want %d", n, 1+most)
		}
		if !strings.Contains(r.String(), `"dropped":7`) {
			t.Error("the dropped lines are not counted")
		}
	})
}
