package torture

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Of a delivery that would verify one byte is another: of a header that proves it, or of the body where the signature covers it. No
// change of any scheme verifies; what was not changed does, before and after.
func TestWebhookMutations(t *testing.T) {
	app := newHookApp(t)
	orgs, routes := hookOrgs(app.url)
	s := newHookSidecar(t, "", app.url, "--config", inFile(t, routes))
	tried, refused := 0, int64(0)
	for i, o := range orgs {
		if !o.sync {
			continue
		}
		o.put(s.sidecar)
		if r := sendHook(s.address, o.next(3*i)); !o.taken(r) {
			t.Fatalf("%s: %s", o.org, r)
		}
		fresh := o.next(3*i + 1) // never sent as it is: a change that verifies is no replay
		all := mutated(fresh, o.proof, o.covers, many(2, 24))
		var no atomic.Int64
		var senders sync.WaitGroup
		for part := range slices.Chunk(all, len(all)/32+1) { // a refusal takes its time: many at once
			senders.Go(func() {
				c := &hookConn{address: s.address}
				defer c.close()
				for _, k := range part {
					switch r := c.send(k); {
					case r.err == nil && (r.status == http.StatusUnauthorized || r.status == http.StatusBadRequest): // 400: no valid head any more
						no.Add(1)
					default:
						t.Errorf("%s: %s\n%q", o.org, r, k.bytes())
					}
				}
			})
		}
		senders.Wait()
		tried, refused = tried+len(all), refused+no.Load()
		if r := sendHook(s.address, o.next(3*i+2)); !o.taken(r) {
			t.Errorf("%s: after all the changes: %s", o.org, r)
		}
	}
	if n := len(app.all()); n != 2*len(hookSchemes) {
		t.Errorf("the app has %d deliveries of %d", n, 2*len(hookSchemes))
	}
	s.mustLive()
	row(t, "one-byte mutations of valid deliveries, through the program: none verifies", "%d schemes, %d mutations, %d verified", len(hookSchemes), tried, int64(tried)-refused)
}

// mutated are changes of one byte in what proves a delivery, up to so many at each place: each bit flipped, then other bytes.
func mutated(k hook, proof []string, covers bool, each int) (all []hook) {
	change := func(text string, put func(string)) {
		for i := range len(text) {
			left := each
			for _, c := range others(text[i]) {
				// White space around a header's value is none of it, and a line's end would make it two.
				if c == text[i] || c == '\r' || c == '\n' || (c == ' ' || c == '\t') && (i == 0 || i == len(text)-1) {
					continue
				}
				if left--; left < 0 {
					break
				}
				put(text[:i] + string([]byte{c}) + text[i+1:])
			}
		}
	}
	for i, line := range k.header {
		name, value, _ := strings.Cut(line, ": ")
		if !slices.Contains(proof, name) {
			continue
		}
		change(value, func(v string) {
			m := hook{k.target, slices.Clone(k.header), k.body}
			m.header[i] = name + ": " + v
			all = append(all, m)
		})
	}
	if covers {
		change(k.body, func(body string) { all = append(all, hook{k.target, k.header, body}) })
	}
	return all
}

// others are bytes to put in a byte's place.
func others(b byte) []byte {
	all := []byte{b ^ 1, b ^ 0x20, b + 1, b - 1}
	for bit := 1; bit < 8; bit++ {
		all = append(all, b^1<<bit)
	}
	all = append(all, "0aA&=%+,.{}\"\\"...)
	all = append(all, 0, 0xff)
	slices.Sort(all[4:])
	return append(all[:4:4], slices.Compact(all[4:])...)
}

// A hookConn is a provider's connection, made anew when the sidecar has closed it.
type hookConn struct {
	address string
	c       net.Conn
	r       *bufio.Reader
}

func (c *hookConn) send(k hook) reply { return c.sendBytes(k.bytes()) }

func (c *hookConn) sendBytes(request []byte) reply {
	if c.c == nil {
		nc, err := net.DialTimeout("tcp", c.address, 20*time.Second)
		if err != nil {
			return reply{err: err}
		}
		c.c, c.r = nc, bufio.NewReader(nc)
	}
	_ = c.c.SetDeadline(time.Now().Add(30 * time.Second))
	_, werr := c.c.Write(request)
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.close()
		return reply{err: errors.Join(werr, err)}
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.Close {
		c.close()
	}
	return reply{status: resp.StatusCode, header: resp.Header, body: fmt.Sprintf("%.200s", body), err: err}
}

func (c *hookConn) close() {
	if c.c != nil {
		_ = c.c.Close()
	}
	c.c = nil
}
