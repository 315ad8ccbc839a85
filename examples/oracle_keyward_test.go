package examples

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
	"github.com/keyward/keyward/webhook"
)

// A verifier is Keyward's own webhook listener, whole, on a real socket, with an org of its own for each delivery. It has no app behind it:
// what it would hand on is answered 503 no_target, and all else 401 or 400. Nothing is remembered, so no delivery is a replay.
type verifier struct {
	address string
	keys    *seal.Keyring
	now     atomic.Pointer[time.Time]
	orgs    sync.Map // :: org → *store.Credential
}

func newVerifier(t *testing.T) *verifier {
	t.Helper()
	v := &verifier{keys: seal.Generate()}
	s, err := webhook.New(webhook.Options{
		Store: v, Keys: v.keys, Now: func() time.Time { return *v.now.Load() },
		AccountOwner: func(context.Context, string, string, string) (string, error) { return "", store.ErrNotFound },
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	v.address = l.Addr().String()
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return v
}

var _ store.Reader = (*verifier)(nil)

func (v *verifier) Credential(_ context.Context, ref store.Ref) (*store.Credential, bool, error) {
	row, ok := v.orgs.Load(ref.Org)
	if !ok || row.(*store.Credential).Provider != ref.Provider {
		return nil, false, store.ErrNotFound
	}
	return row.(*store.Credential), true, nil
}

func (v *verifier) Assistant(context.Context, string) (*store.Assistant, error) {
	return nil, store.ErrNotFound
}

func (v *verifier) Token(context.Context, [32]byte) (*store.Token, error) {
	return nil, store.ErrNotFound
}

// set gives the org of a delivery the credential that it is verified with, checked and sealed as every other.
func (v *verifier) set(d *delivery) error {
	fields := map[string]any{"webhook_secret": d.secrets}
	switch d.provider {
	case "twilio":
		fields["account_sid"], fields["auth_token"] = "AC0123456789abcdef0123456789abcdef", "unused"
		if d.typed != "" {
			fields["webhook_url"] = d.typed
		}
	default:
		fields["api_key"] = "unused"
	}
	text, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	values, bad := provider.Named(d.provider).Parse(text)
	if len(bad) > 0 {
		return fmt.Errorf("no credential can be so: %v", bad)
	}
	row := &store.Credential{Ref: store.Ref{Org: d.org, Provider: d.provider}, Version: 1, SealedVersion: 1, Active: true}
	row.Sealed = v.keys.Seal(nil, values.Encode(nil), row.AppendContext(nil))
	v.orgs.Store(d.org, row)
	return nil
}

// ask sends the deliveries, all at the same moment, over a number of connections.
func (v *verifier) ask(t *testing.T, now time.Time, all []*delivery) []bool {
	t.Helper()
	v.now.Store(&now)
	verdicts := make([]bool, len(all))
	var next atomic.Int64
	var done sync.WaitGroup
	for range min(64, len(all)) { // each refusal takes its time, so that it says nothing
		done.Go(func() {
			c := &wire{address: v.address}
			defer c.close()
			for {
				i := int(next.Add(1)) - 1
				if i >= len(all) {
					return
				}
				err := v.set(all[i])
				if err == nil {
					verdicts[i], err = c.send(all[i])
				}
				if err != nil {
					t.Errorf("%v\n%s", err, all[i])
				}
				v.orgs.Delete(all[i].org)
			}
		})
	}
	done.Wait()
	return verdicts
}

// A wire is a connection over which deliveries go out as they are written, headers in their order and as often as they stand.
type wire struct {
	address string
	conn    net.Conn
	in      *bufio.Reader
}

func (w *wire) close() {
	if w.conn != nil {
		_ = w.conn.Close()
		w.conn = nil
	}
}

func (w *wire) send(d *delivery) (verified bool, err error) {
	if w.conn == nil {
		if w.conn, err = net.Dial("tcp", w.address); err != nil {
			return false, err
		}
		w.in = bufio.NewReader(w.conn)
	}
	_ = w.conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := w.conn.Write(d.wire()); err != nil {
		return false, err
	}
	resp, err := http.ReadResponse(w.in, nil)
	if err != nil {
		return false, err
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return false, err
	}
	if resp.Close {
		w.close()
	}
	switch code := resp.Header.Get("Keyward-Error"); {
	case resp.StatusCode == http.StatusServiceUnavailable && code == "no_target":
		return true, nil
	case resp.StatusCode == http.StatusUnauthorized && code == "webhook_unverified":
		return false, nil
	default:
		return false, fmt.Errorf("the answer is %d %s, neither verified nor not", resp.StatusCode, code)
	}
}

// wire is the delivery as it is sent.
func (d *delivery) wire() []byte {
	var b bytes.Buffer
	b.WriteString("POST " + d.target() + " HTTP/1.1\r\nHost: " + d.host + "\r\nContent-Length: " + strconv.Itoa(len(d.body)) + "\r\n")
	for _, h := range d.header {
		b.WriteString(h[0] + ": " + h[1] + "\r\n")
	}
	b.WriteString("\r\n")
	b.Write(d.body)
	return b.Bytes()
}
