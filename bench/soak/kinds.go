package soak

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/keyward/keyward/bench/provider"
	"github.com/keyward/keyward/bench/scenario"
)

// Which orgs do what. All have the usual credential; those from firstCold on are asked for so seldom that the cache has few of them.
const (
	hotOrgs      = 50  // are always in use: no fault of the store befalls them
	speechOrgs   = 20  // of those, the ones that stream
	voiceOrgs    = 100 // have a key for speech, an assistant, and webhooks
	firstRotated = voiceOrgs
	rotatedOrgs  = 20
	firstCold    = firstRotated + rotatedOrgs
)

// A kind is a kind of call: its share of all, and what one does. It returns good or what went wrong.
type kind struct {
	name  string
	share int // of 1000
	about string
	do    func(ctx context.Context, f *field, n *node) string
}

const syncType = "tool-calls"

// kinds are all of them; the shares make 1000.
var kinds = []kind{
	{"hit", 500, "a warm org's request, with a body", func(_ context.Context, f *field, n *node) string {
		return f.email(n, scenario.OrgName(rand.IntN(hotOrgs)))
	}},
	{"miss", 200, "a request of any of the orgs", func(_ context.Context, f *field, n *node) string {
		return f.email(n, scenario.OrgName(firstCold+rand.IntN(f.orgs-firstCold)))
	}},
	{"assistant", 90, "a request whose org is found by an assistant", assistantCall},
	{"rotated", 50, "a request of an org whose credential is replaced all the time", rotatedCall},
	{"stream", 35, "chunked audio, 20 pieces in 200 ms", streamCall},
	{"webhook", 60, "a tool call, whose answer is the app's", func(_ context.Context, f *field, n *node) string { return f.hook(n, syncType) }},
	{"durable", 35, "a message that is stored, acknowledged, and delivered", func(_ context.Context, f *field, n *node) string { return f.hook(n, "status-update") }},
	{"websocket", 8, "an open socket for some seconds, with echoes", websocketCall},
	{"upload", 7, "a multipart body of 2 MiB", uploadCall},
	{"admin", 15, "credentials replaced, assistants mapped, callers made and revoked, lists read", adminCall},
}

// pick is the nth call's kind. Steps of the golden section lie evenly, however many they are, so that each kind has its share of short runs
// too: drawn by lot, one of a hundred runs of some seconds would lack a rare one.
func pick(nth int) *kind {
	_, at := math.Modf(float64(nth) * (math.Phi - 1))
	n := int(1000 * at)
	for i := range kinds {
		if n -= kinds[i].share; n < 0 {
			return &kinds[i]
		}
	}
	return &kinds[0]
}

// mostInFlight bounds what waits: beyond it the harness has no room, and holds calls back rather than blame the sidecar.
const mostInFlight = 6000

// load sends calls at a constant rate, in due batches, each on its own. It waits for those that are under way at the end.
func (f *field) load(ctx context.Context, rate float64) {
	start, sent := time.Now(), 0
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			f.busy.Wait()
			return
		case <-tick.C:
		}
		for due := int(time.Since(start).Seconds() * rate); sent < due; sent++ {
			if f.inFlight.Load() > mostInFlight {
				f.held.Add(1)
				continue
			}
			k, n := pick(sent), f.nodes[rand.IntN(len(f.nodes))]
			f.inFlight.Add(1)
			f.busy.Go(func() {
				defer f.inFlight.Add(-1)
				begin := time.Now()
				outcome := k.do(ctx, f, n)
				f.judge.took(k.name, n.name, outcome, begin, time.Now())
			})
		}
	}
}

// send carries out a request and reads its whole answer. Calls outlive the load's end: they are waited for, not cut.
func send(c *http.Client, req *http.Request) (body []byte, h http.Header, outcome string) {
	resp, err := c.Do(req)
	if err != nil {
		return nil, nil, outcomeOf(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body, err = io.ReadAll(resp.Body); err != nil {
		return nil, nil, outcomeOf(err)
	}
	if resp.StatusCode/100 == 2 {
		return body, resp.Header, good
	}
	return body, resp.Header, refused(resp, body)
}

// refused is the outcome of an answer that is an error: the status, and whose it is.
func refused(resp *http.Response, body []byte) string {
	code := resp.Header.Get("Keyward-Error")
	if code == "" {
		var p struct {
			Code string `json:"code"`
		}
		if json.Unmarshal(body, &p) == nil {
			code = p.Code
		}
	}
	if code == "" {
		code = "from the provider"
	}
	return strconv.Itoa(resp.StatusCode) + " " + code
}

// outcomeOf is an error's of the connection.
func outcomeOf(err error) string {
	var t interface{ Timeout() bool }
	if errors.As(err, &t) && t.Timeout() {
		return "timeout"
	}
	return broken
}

func request(method, url, org string, body []byte) *http.Request {
	var r io.Reader
	if body != nil {
		r = bytes.NewReader(body)
	}
	req, err := http.NewRequestWithContext(context.Background(), method, url, r)
	if err != nil {
		panic(err) // of constants
	}
	if org != "" {
		req.Header.Set("Keyward-Org", org)
		req.Header.Set("X-Bench-Org", org)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return req
}

// identify gives a request an id, which the provider's answer must repeat: an answer that is another's shows.
func (f *field) identify(req *http.Request) string {
	id := "b" + strconv.FormatInt(f.next.Add(1), 10)
	req.Header.Set("X-Bench-Id", id)
	return id
}

// touch asks once for everything that the cache is to have.
func (f *field) touch(n *node) string {
	for i := range hotOrgs {
		out := f.email(n, scenario.OrgName(i))
		if out == good {
			out = f.called(n, i)
		}
		if out == good && i < speechOrgs {
			out = f.spoken(n, i)
		}
		if out != good {
			return out
		}
	}
	return good
}

func (f *field) email(n *node, org string) string {
	req := request(http.MethodPost, "http://api.resend.com/emails", org, []byte(`{"to":"a@acme.example","text":"xxxxxxx"}`))
	id := f.identify(req)
	body, h, outcome := send(n.calls, req)
	if outcome == good && (h.Get("X-Bench-Id") != id || len(body) != 500) {
		outcome = wrong
	}
	return of(outcome, org)
}

// of says whom an outcome that is not good befell.
func of(outcome, whom string) string {
	if outcome == good {
		return good
	}
	return outcome + whoseMark + whom
}

func assistantOf(i int) string { return fmt.Sprintf("asst_soak_%04d", i) }

func assistantCall(_ context.Context, f *field, n *node) string {
	return f.called(n, rand.IntN(hotOrgs))
}

func (f *field) called(n *node, i int) string {
	req := request(http.MethodGet, "http://api.vapi.ai/call/0123456789", "", nil)
	req.Header.Set("Keyward-Assistant", assistantOf(i))
	req.Header.Set("X-Bench-Org", scenario.OrgName(i))
	id := f.identify(req)
	body, h, outcome := send(n.calls, req)
	if outcome == good && (h.Get("X-Bench-Id") != id || len(body) != 500) {
		outcome = wrong
	}
	return of(outcome, assistantOf(i))
}

func streamCall(_ context.Context, f *field, n *node) string {
	return f.spoken(n, rand.IntN(speechOrgs))
}

func (f *field) spoken(n *node, i int) string {
	req := request(http.MethodPost, "http://api.elevenlabs.io/v1/text-to-speech/voice/stream", scenario.OrgName(i), []byte(`{"text":"hello"}`))
	id := f.identify(req)
	body, h, outcome := send(n.calls, req)
	if outcome == good && (h.Get("X-Bench-Id") != id || len(body) != provider.Chunks*provider.ChunkBytes) {
		return wrong // a stream that was cut and looks whole
	}
	return outcome
}

const uploadBytes = 2 << 20

var uploadBody = func() []byte {
	b := []byte("--soak0123456789\r\nContent-Disposition: form-data; name=\"file\"; filename=\"talk.mp3\"\r\nContent-Type: audio/mpeg\r\n\r\n")
	b = append(b, bytes.Repeat([]byte{0x55}, uploadBytes)...)
	return append(b, "\r\n--soak0123456789--\r\n"...)
}()

func uploadCall(_ context.Context, f *field, n *node) string {
	req := request(http.MethodPost, "http://api.elevenlabs.io/v1/speech-to-text", scenario.OrgName(rand.IntN(speechOrgs)), uploadBody)
	req.Header.Set("Content-Type", "multipart/form-data; boundary=soak0123456789")
	id := f.identify(req)
	body, h, outcome := send(n.calls, req)
	if outcome == good && (h.Get("X-Bench-Id") != id || string(body) != "{}") {
		return wrong
	}
	return outcome
}

// websocketCall holds a socket for up to ten seconds. The end of the load ends it early, and well.
func websocketCall(ctx context.Context, _ *field, n *node) string {
	c, err := net.DialTimeout("unix", filepath.Join(n.Dir, "caller.sock"), 10*time.Second)
	if err != nil {
		return outcomeOf(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	org := scenario.OrgName(rand.IntN(speechOrgs))
	if _, err := io.WriteString(c, "GET "+provider.WebSocketPath+"?agent_id=a HTTP/1.1\r\nHost: api.elevenlabs.io\r\nKeyward-Org: "+org+"\r\nX-Bench-Org: "+org+
		"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "+provider.WebSocketKey+"\r\n\r\n"); err != nil {
		return outcomeOf(err)
	}
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return outcomeOf(err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		return refused(resp, body)
	}
	if resp.Header.Get("Sec-WebSocket-Accept") != provider.WebSocketAccept {
		return wrong
	}
	message, in := []byte(strings.Repeat("m", 60)+"0000"), []byte(nil)
	for i := range 1 + rand.IntN(20) {
		copy(message[60:], fmt.Sprintf("%04d", i))
		if _, err := c.Write(provider.AppendFrame(nil, provider.OpBinary, message, true)); err != nil {
			return outcomeOf(err)
		}
		if _, in, err = provider.ReadFrame(r, in[:0]); err != nil {
			return outcomeOf(err)
		}
		if !bytes.Equal(in, message) {
			return wrong
		}
		if sleep(ctx, time.Duration(100+rand.IntN(900))*time.Millisecond) != nil {
			break
		}
	}
	return good
}

func hookSecret(org string) string { return "soak-webhook-secret-" + org }

// hook sends one of Vapi's messages. What is acknowledged as stored must come to the app; what the app answers at once must come back.
func (f *field) hook(n *node, kind string) string {
	i := rand.IntN(voiceOrgs)
	org := scenario.OrgName(i)
	id := fmt.Sprintf("call-%s-%d", n.name, f.next.Add(1))
	call := `{"id":"` + id + `","assistantId":"` + assistantOf(i) + `"}`
	req := request(http.MethodPost, "http://hooks.acme.example/webhooks/vapi", "", []byte(`{"message":{"type":"`+kind+`","toolCallList":[{"id":"tool-`+id+
		`","type":"function","function":{"name":"book_table","arguments":{"people":2}}}],"call":`+call+`}}`))
	req.Header.Set("X-Vapi-Secret", hookSecret(org))
	body, _, outcome := send(n.hooks, req)
	if outcome != good {
		return outcome
	}
	if kind != syncType {
		f.app.acknowledged(id)
		return good
	}
	var said struct{ For, Org string }
	if json.Unmarshal(body, &said) != nil || said.For != id || said.Org != org {
		return wrong
	}
	return good
}
