package torture

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// What a message that needs an answer takes longer for going through the sidecar. The same messages go to the app directly and through
// the sidecar in turn, block by block, so that whatever else the machine does falls on both. The load, the app and the sidecar share the
// machine.
func TestWebhookLoad(t *testing.T) {
	for _, engine := range []string{"SQLite", "PostgreSQL"} {
		t.Run(engine, func(t *testing.T) {
			l := newHookLoad(t, engine)
			if !long { // times are measured on a machine that does nothing else
				l.closed(t, 20, 200, 1)
				return
			}
			t.Run("seed", func(t *testing.T) { l.closed(t, 100, 1000, many(4, 20)) })
			t.Run("open", func(t *testing.T) { l.open(t, 2000, many(3, 30)) })
		})
	}
}

const hookMark = time.Millisecond // that p99 may grow by

// A hookLoad is an app, and the same app behind a sidecar.
type hookLoad struct {
	engine  string
	app     string // address
	sidecar *hookSidecar
	next    atomic.Int64 // number of the next message: no two are the same
}

func newHookLoad(t *testing.T, engine string) *hookLoad {
	l := &hookLoad{engine: engine}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.app = ln.Addr().String()
	app := &fasthttp.Server{NoDefaultDate: true, Handler: func(ctx *fasthttp.RequestCtx) {
		ctx.Response.Header.SetContentType("application/json")
		ctx.SetBodyString(`{"results":[{"toolCallId":"call_abc","name":"book","result":"Booked for Tuesday at ten."}]}`)
	}}
	go func() { _ = app.Serve(ln) }()
	t.Cleanup(func() { _ = app.Shutdown() })
	var args []string
	if engine == "PostgreSQL" {
		args = onPostgres(t)
	}
	dir, err := os.MkdirTemp("", "kwt") // on a disk: what waits for it is to be seen
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l.sidecar = newHookSidecar(t, dir, "http://"+l.app+"/hooks", args...)
	l.sidecar.put("acme", "vapi", map[string]any{"api_key": secretOf("acme", "vapi"), "vapi_org_id": loadVapiOrg, "webhook_secret": "load-secret-0123456789"})
	return l
}

const loadVapiOrg = "7c3d1f2e-0000-4000-8000-00000000beef"

// toolCall is a message of Vapi's as they are: most of it is the conversation so far.
func (l *hookLoad) toolCall() []byte {
	n := l.next.Add(1)
	var b strings.Builder
	fmt.Fprintf(&b, `{"message":{"timestamp":%d,"type":"tool-calls","toolCalls":[{"id":"call_%d","type":"function","function":{"name":"book","arguments":{"day":"tuesday","time":"10:00"}}}],"artifact":{"messages":[`, time.Now().UnixMilli(), n)
	for i := range 24 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"role":"%s","message":"I would like an appointment on Tuesday, in the morning if you can.","time":17395372%d,"secondsFromStart":%d.5}`, []string{"user", "bot"}[i%2], i, i)
	}
	fmt.Fprintf(&b, `]},"call":{"id":"0193-%d","orgId":%q,"type":"inboundPhoneCall","status":"in-progress"},"assistant":{"name":"Front desk","model":{"provider":"openai","model":"gpt-4o"}}}}`, n, loadVapiOrg)
	return hook{"/webhooks/vapi", []string{"Content-Type: application/json", "X-Vapi-Secret: load-secret-0123456789"}, b.String()}.bytes()
}

// A loadConn is a kept connection that reads as little as it must of an answer.
type loadConn struct {
	net.Conn
	buf [4096]byte
}

func (l *hookLoad) dial(t *testing.T, address string, n int) chan *loadConn {
	free := make(chan *loadConn, n)
	for range n {
		c, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		free <- &loadConn{Conn: c}
	}
	return free
}

var loadEnd = []byte("ten.\"}]}")

// ask sends a request and reads its answer to the end.
func (c *loadConn) ask(request []byte) error {
	if _, err := c.Write(request); err != nil {
		return err
	}
	for n := 0; ; {
		m, err := c.Read(c.buf[n:])
		if err != nil {
			return err
		}
		if n += m; bytes.HasSuffix(c.buf[:n], loadEnd) {
			if !bytes.HasPrefix(c.buf[:n], []byte("HTTP/1.1 200 ")) {
				return fmt.Errorf("answer %.200q", c.buf[:n])
			}
			return nil
		}
		if n >= 12 && c.buf[9] != '2' {
			return fmt.Errorf("answer %.300q", c.buf[:n])
		}
	}
}

// A side is one of the two ways, with what was measured on it.
type side struct {
	conns  chan *loadConn
	took   []time.Duration
	failed atomic.Int64
	first  atomic.Pointer[error]
}

func (s *side) fail(err error) {
	s.failed.Add(1)
	s.first.CompareAndSwap(nil, &err)
}

func (s *side) at(q float64) time.Duration {
	return s.took[min(len(s.took)-1, int(q*float64(len(s.took))))]
}

// closed asks as fast as answers come, so many at a time: what it costs with the machine full.
func (l *hookLoad) closed(t *testing.T, at, each, blocks int) {
	sides := [2]*side{{conns: l.dial(t, l.app, at)}, {conns: l.dial(t, l.sidecar.address, at)}}
	var busy [2]time.Duration
	for block := range 2 * (blocks + 1) {
		s := sides[block%2]
		requests := make([][]byte, each)
		for i := range requests {
			requests[i] = l.toolCall()
		}
		took := make([]time.Duration, each)
		runtime.GC() // of what the block before left, not within this one
		var next atomic.Int64
		var all sync.WaitGroup
		begun := time.Now()
		for range at {
			all.Go(func() {
				c := <-s.conns
				for i := int(next.Add(1)) - 1; i < each; i = int(next.Add(1)) - 1 {
					start := time.Now()
					if err := c.ask(requests[i]); err != nil {
						s.fail(err)
						return
					}
					took[i] = time.Since(start)
				}
				s.conns <- c
			})
		}
		all.Wait()
		if block > 1 { // the first of each warms up
			busy[block%2] += time.Since(begun)
			s.took = append(s.took, took...)
		}
	}
	l.report(t, sides, fmt.Sprintf("%d at once, %d requests, %d times", at, each, blocks), false)
	t.Logf("requests/s: %.0f directly, %.0f through the sidecar", float64(blocks*each)/busy[0].Seconds(), float64(blocks*each)/busy[1].Seconds())
}

// open asks at a rate, whatever the answers do. What a request takes counts from when it was due.
func (l *hookLoad) open(t *testing.T, perSecond, seconds int) {
	const conns = 256
	sides := [2]*side{{conns: l.dial(t, l.app, conns)}, {conns: l.dial(t, l.sidecar.address, conns)}}
	var cpu, sent time.Duration
	for block := range 2 * (seconds + 1) {
		s := sides[block%2]
		requests := make([][]byte, perSecond)
		for i := range requests {
			requests[i] = l.toolCall()
		}
		took := make([]time.Duration, perSecond)
		runtime.GC()
		before := l.cpu(t)
		l.pace(s, requests, took, time.Second/time.Duration(perSecond))
		if block > 1 {
			s.took = append(s.took, took...)
			if block%2 == 1 {
				cpu += l.cpu(t) - before
				sent += time.Duration(perSecond)
			}
		}
	}
	l.report(t, sides, fmt.Sprintf("%d/s for %d s", perSecond, seconds), true)
	t.Logf("%s: the sidecar took %d µs of CPU for each", l.engine, (cpu / sent).Microseconds())
}

// pace sends each request when it is due. The thread sleeps by the kernel's clock: Go's own timers are coarse.
func (l *hookLoad) pace(s *side, requests [][]byte, took []time.Duration, every time.Duration) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all sync.WaitGroup
	start := time.Now().Add(5 * time.Millisecond)
	for i, request := range requests {
		due := start.Add(time.Duration(i) * every)
		if left := time.Until(due); left > 0 {
			ts := syscall.NsecToTimespec(int64(left))
			_ = syscall.Nanosleep(&ts, nil)
		}
		all.Go(func() {
			c := <-s.conns
			if err := c.ask(request); err != nil {
				s.fail(err)
				return
			}
			took[i] = time.Since(due)
			s.conns <- c
		})
	}
	all.Wait()
}

// cpu is what the sidecar's process has used, user and system (proc_pid_stat(5)).
func (l *hookLoad) cpu(t *testing.T) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", l.sidecar.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+2:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

func (l *hookLoad) report(t *testing.T, sides [2]*side, load string, bar bool) {
	t.Helper()
	var p [2][4]time.Duration
	for i, s := range sides {
		if n := s.failed.Load(); n > 0 {
			t.Errorf("%d failed: %v", n, *s.first.Load())
		}
		slices.Sort(s.took)
		for j, q := range []float64{0.5, 0.9, 0.99, 0.999} {
			p[i][j] = s.at(q).Round(time.Microsecond)
		}
	}
	t.Logf("%s: directly p50, p90, p99, p99.9 %v, through the sidecar %v", load, p[0], p[1])
	added := p[1][2] - p[0][2]
	name := fmt.Sprintf("webhooks that are answered, %s, %s: p99 added < %s, 0 errors", load, l.engine, hookMark)
	if !bar {
		name = fmt.Sprintf("webhooks that are answered, %s, %s: p99 < 50ms in all, 0 errors", load, l.engine)
	}
	if long && (bar && added >= hookMark || !bar && p[1][2] >= 50*time.Millisecond) { // on a machine that does nothing else
		t.Errorf("p99 is %s through the sidecar and %s directly", p[1][2], p[0][2])
	}
	row(t, name, "p50 %s + %s, p99 %s + %s; %d errors", p[0][0], p[1][0]-p[0][0], p[0][2], added, sides[0].failed.Load()+sides[1].failed.Load())
}
