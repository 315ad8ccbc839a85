package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Two orgs in turn share a connection, or with Isolate have one each, on which no other's credential is ever sent.
func TestIsolatedUpstreams(t *testing.T) {
	for isolate, want := range map[bool]int{false: 1, true: 2} {
		t.Run(fmt.Sprintf("isolate=%v", isolate), func(t *testing.T) {
			peer := newPeer(t, true)
			var mu sync.Mutex
			var conns, mixed int
			peer.handler = func(c net.Conn, br *bufio.Reader, head string) {
				mu.Lock()
				conns++
				mu.Unlock()
				for first := headerOf(head, "Authorization"); ; {
					if headerOf(head, "Authorization") != first {
						mu.Lock()
						mixed++
						mu.Unlock()
					}
					_, _ = io.WriteString(c, okAnswer)
					var err error
					if head, err = readHead(br); err != nil {
						return
					}
				}
			}
			w := newWorld(t, peer.url, func(o *Options) { o.Isolate = isolate })
			for i := range 40 {
				org := []string{"acme", "globex"}[i%2]
				if resp := w.raw("unix", "GET /vapi/x HTTP/1.1\r\nHost: localhost\r\nKeyward-Org: "+org+"\r\n\r\n"); resp.StatusCode != 200 {
					t.Fatalf("request %d: %d", i, resp.StatusCode)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if conns != want || isolate && mixed > 0 || !isolate && mixed == 0 {
				t.Errorf("%d connections, %d requests with another credential than the first", conns, mixed)
			}
		})
	}
}

// What is full of idle connections of others lets go of the one that was idle for longest.
func TestIsolatedUpstreamsMakeRoom(t *testing.T) {
	w := newWorld(t, bytePeer(t), func(o *Options) { o.Isolate = true })
	u := (*w.p.hosts.Load())["api.resend.com"]
	for i := range maxIdlePerHost + 1 {
		c, err := u.obtain(t.Context(), fmt.Sprint("org", i), false)
		if err != nil {
			t.Fatal(err)
		}
		u.put(c, time.Now())
	}
	if len(u.idle) != maxIdlePerHost || u.idle[0].whose != "org1" {
		t.Errorf("%d are idle, the first of %s", len(u.idle), u.idle[0].whose)
	}
}
