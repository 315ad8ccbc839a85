package webhook

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/store"
)

// freshMemory knows no message.
type freshMemory struct{}

func (freshMemory) ClaimSeen(context.Context, string) (store.Claim, error) { return store.Fresh, nil }
func (freshMemory) RenewClaims(context.Context, []string) error            { return nil }
func (freshMemory) ConfirmSeen(context.Context, string, time.Time) (bool, error) {
	return false, nil
}
func (freshMemory) Unclaim(context.Context, string, time.Time) error { return nil }

// What a message costs that needs an answer, from its sender's write to the answer's last byte, without the store. Both ends are in the
// process too, and allocate nothing.
func BenchmarkAnswered(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	go barestApp(l)
	w := newWorld(b, func(o *Options) {
		o.Memory, o.Log, o.Now = freshMemory{}, zerolog.Nop(), time.Now
		o.Routes = []Route{{Target: "http://" + l.Addr().String() + "/hooks"}}
	})
	c, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	request := benchedMessage()
	answer := make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(request); err != nil {
			b.Fatal(err)
		}
		n := 0
		for !bytes.HasSuffix(answer[:n], []byte(`ten."}]}`)) {
			m, err := c.Read(answer[n:])
			if err != nil {
				b.Fatal(err)
			}
			if n += m; !bytes.HasPrefix(answer[:n], []byte("HTTP/1.1 200 ")) {
				b.Fatalf("%q", answer[:n])
			}
		}
	}
}

// barestApp reads requests by their Content-Length and gives each the same answer.
func barestApp(l net.Listener) {
	const body = `{"results":[{"toolCallId":"call_abc","name":"book","result":"Booked for Tuesday at ten."}]}`
	answer := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = c.Close() }()
			b, n := make([]byte, 16<<10), 0
			for {
				m, err := c.Read(b[n:])
				if err != nil {
					return
				}
				n += m
				head, rest, whole := bytes.Cut(b[:n], []byte("\r\n\r\n"))
				if !whole {
					continue
				}
				_, length, _ := bytes.Cut(head, []byte("Content-Length: "))
				length, _, _ = bytes.Cut(length, []byte("\r"))
				if want, err := strconv.Atoi(string(length)); err != nil || len(rest) < want {
					continue
				}
				n = 0
				if _, err := c.Write(answer); err != nil {
					return
				}
			}
		}()
	}
}

// benchedMessage is a tool call as Vapi sends them: most of it is the conversation so far.
func benchedMessage() []byte {
	var body strings.Builder
	body.WriteString(`{"message":{"timestamp":1739537297000,"type":"tool-calls","toolCalls":[{"id":"call_1","type":"function","function":{"name":"book","arguments":{"day":"tuesday","time":"10:00"}}}],"artifact":{"messages":[`)
	for i := range 24 {
		if i > 0 {
			body.WriteByte(',')
		}
		fmt.Fprintf(&body, `{"role":"%s","message":"I would like an appointment on Tuesday, in the morning if you can.","time":17395372%d,"secondsFromStart":%d.5}`, []string{"user", "bot"}[i%2], i, i)
	}
	fmt.Fprintf(&body, `]},"call":{"id":"0193-1","orgId":%q,"type":"inboundPhoneCall","status":"in-progress"},"assistant":{"name":"Front desk","model":{"provider":"openai","model":"gpt-4o"}}}}`, vapiOrg)
	var b bytes.Buffer
	req, _ := http.NewRequest(http.MethodPost, "http://keyward.test/webhooks/vapi", strings.NewReader(body.String()))
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Vapi-Secret", "vapi_test")
	_ = req.Write(&b)
	return b.Bytes()
}

func BenchmarkScan(b *testing.B) {
	_, body, _ := bytes.Cut(benchedMessage(), []byte("\r\n\r\n"))
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	found := 0
	for b.Loop() {
		if p := scan(body, vapiTree, func(int, []byte) { found++ }); p != "" {
			b.Fatal(p)
		}
	}
	if found == 0 {
		b.Fatal("nothing found")
	}
}
