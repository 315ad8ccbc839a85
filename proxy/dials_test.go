package proxy

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// slowly has connections to the host take so long, and counts those that are made at the same time.
func slowly(w *world, host string, d time.Duration) (most, all *atomic.Int64) {
	most, all = new(atomic.Int64), new(atomic.Int64)
	var now atomic.Int64
	u := (*w.p.hosts.Load())[host]
	dial := u.connect
	u.connect = func(ctx context.Context, network, address string) (net.Conn, error) {
		n := now.Add(1)
		defer now.Add(-1)
		all.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(d)
		return dial(ctx, network, address)
	}
	return most, all
}

const stampede = 4 * maxDials

// TestManyAtOnceShareConnections: requests that begin together do not each make a connection, and none of them fails.
func TestManyAtOnceShareConnections(t *testing.T) {
	w := newWorld(t, bytePeer(t))
	most, all := slowly(w, "api.resend.com", 30*time.Millisecond)
	begin := make(chan struct{})
	var requests sync.WaitGroup
	for range stampede {
		requests.Go(func() {
			<-begin
			resp, err := w.tryRaw("unix", "GET /resend/emails HTTP/1.1\r\n"+orgLine+"Connection: close\r\n\r\n")
			if err != nil || resp.StatusCode != 200 {
				t.Errorf("%v %v", resp, err)
			}
		})
	}
	close(begin)
	requests.Wait()
	if most.Load() > maxDials || all.Load() >= stampede {
		t.Errorf("%d requests made %d connections, %d of them at once", stampede, all.Load(), most.Load())
	}
	u := (*w.p.hosts.Load())["api.resend.com"]
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.dials.running != 0 || len(u.dials.waiting) != 0 {
		t.Errorf("afterwards %d dials run and %d requests wait", u.dials.running, len(u.dials.waiting))
	}
}

// TestWaitingForAConnectionEnds: where connections are not made, nobody waits longer than one may take, and no turn is lost.
func TestWaitingForAConnectionEnds(t *testing.T) {
	w := newWorld(t, bytePeer(t))
	u := (*w.p.hosts.Load())["api.resend.com"]
	real := u.connect
	u.connect = func(ctx context.Context, _, _ string) (net.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	stuck, stop := context.WithCancel(t.Context())
	var dialling sync.WaitGroup
	for range maxDials {
		dialling.Go(func() { _, _ = u.obtain(stuck, "", false) })
	}
	for running := 0; running < maxDials; time.Sleep(time.Millisecond) {
		u.mu.Lock()
		running = u.dials.running
		u.mu.Unlock()
	}
	began := time.Now()
	_, err := u.obtain(t.Context(), "", false)
	if took := time.Since(began); err == nil || refusalFor(err) != refuseNoTurn || took > dialTimeout+10*time.Second {
		t.Errorf("waited %v: %v", took, err)
	}
	stop()
	dialling.Wait()
	u.connect = real
	c, err := u.obtain(t.Context(), "", false)
	if err != nil || u.dials.running != 0 {
		t.Fatalf("afterwards: %v, %d dials run", err, u.dials.running)
	}
	_ = c.Close()
}
