package torture

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// A fault is what a hostile provider does in place of answering. The caller names it in X-Fault, which the sidecar passes on.
type fault struct {
	name  string
	do    func(c *upstreamSide, r *rawRequest, x *answering)
	whole outcome
	// secure is what it may be taken for under TLS, when that differs.
	secure outcome
	// form is how the injected credential comes back behind the body; nil: it does not. basic: it was injected as HTTP Basic.
	form  func(org string) string
	basic bool
}

// outcome is what the caller may take it for.
type outcome int

const (
	wholeAnswer  outcome = iota // the true answer, whole
	brokenAnswer                // no answer: the sidecar's 502 or 504, or an answer that breaks off
	eitherAnswer                // one of the two
)

// answering is what an answer is made of.
type answering struct {
	*rand.Rand
	id, body string // the body holds the id again and again, so that whose a byte is can be told
	org      string // whose credential was injected
	calm     *sync.RWMutex
}

const bait = "FOREIGN "

// foreignAnswer is a whole answer that nobody asked for: it must reach no caller.
func foreignAnswer(x *answering) string { return plainAnswer(bait + x.body) }

func chunkedAnswer(chunks ...string) string {
	var b strings.Builder
	b.WriteString("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
	for _, c := range chunks {
		fmt.Fprintf(&b, "%x\r\n%s\r\n", len(c), c)
	}
	return b.String()
}

func statusAnswer(status, lines, body string) string {
	return "HTTP/1.1 " + status + "\r\n" + lines + "\r\n" + body
}

// later sends something after a moment, when the answer has been taken and no request is under way: callers hold calm for reading while
// one is. Bytes that come while a connection waits for its answer are that answer, to every HTTP/1.1 client there is; what can be told
// from one, and must be, are those that come while nobody waits.
func later(c *upstreamSide, x *answering, what string) {
	wait := time.Duration(x.IntN(3000)) * time.Microsecond
	go func() {
		time.Sleep(wait)
		x.calm.Lock()
		defer x.calm.Unlock()
		c.send(what)
	}()
}

func sends(what func(x *answering) string) func(*upstreamSide, *rawRequest, *answering) {
	return func(c *upstreamSide, _ *rawRequest, x *answering) { c.send(what(x)) }
}

// cuts sends something and closes or resets the connection.
func cuts(what func(x *answering) string) func(*upstreamSide, *rawRequest, *answering) {
	return func(c *upstreamSide, _ *rawRequest, x *answering) {
		c.send(what(x))
		if x.IntN(2) == 0 {
			c.reset()
		} else {
			c.end()
		}
	}
}

func lengthOf(x *answering, n int) string {
	return statusAnswer("200 OK", fmt.Sprintf("Content-Type: text/plain\r\nContent-Length: %d\r\n", n), x.body)
}

var faults = []fault{
	{name: "none", do: sends(func(x *answering) string { return plainAnswer(x.body) })},
	{name: "none, chunked", do: sends(func(x *answering) string {
		return chunkedAnswer(x.body[:len(x.body)/2], x.body[len(x.body)/2:]) + "0\r\n\r\n"
	})},
	{name: "none, until the close", do: func(c *upstreamSide, _ *rawRequest, x *answering) {
		c.send(statusAnswer("200 OK", "Connection: close\r\n", x.body))
		c.end()
	}, whole: eitherAnswer}, // where it ends is not said: a plain connection cannot show that it was cut
	{name: "none, until nothing comes", do: func(c *upstreamSide, _ *rawRequest, x *answering) {
		c.send(statusAnswer("200 OK", "Connection: close\r\n", x.body))
		c.vanish()
	}, whole: eitherAnswer, secure: brokenAnswer}, // under TLS an end without close_notify is none
	{name: "none, in pieces", do: func(c *upstreamSide, _ *rawRequest, x *answering) {
		all := plainAnswer(x.body)
		cut := 1 + x.IntN(len(all)-1)
		c.send(all[:cut])
		time.Sleep(time.Millisecond)
		c.send(all[cut:])
	}},
	{name: "interim answers", do: sends(func(x *answering) string {
		return "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\nX-A: b\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" + plainAnswer(x.body)
	})},

	{name: "surplus at once", do: sends(func(x *answering) string { return plainAnswer(x.body) + foreignAnswer(x) }), whole: eitherAnswer},
	{name: "surplus behind chunks", do: sends(func(x *answering) string {
		return chunkedAnswer(x.body) + "0\r\n\r\n" + foreignAnswer(x)
	}), whole: eitherAnswer},
	{name: "surplus of one byte", do: sends(func(x *answering) string { return plainAnswer(x.body) + "F" }), whole: eitherAnswer},
	{name: "surplus of a line break", do: sends(func(x *answering) string { return plainAnswer(x.body) + "\r\n" }), whole: eitherAnswer},
	{name: "surplus soon", do: func(c *upstreamSide, _ *rawRequest, x *answering) {
		c.send(plainAnswer(x.body))
		later(c, x, foreignAnswer(x))
	}, whole: eitherAnswer},
	{name: "surplus in part", do: func(c *upstreamSide, _ *rawRequest, x *answering) {
		c.send(plainAnswer(x.body))
		later(c, x, foreignAnswer(x)[:20])
	}, whole: eitherAnswer},
	{name: "answers before the question", do: func(c *upstreamSide, _ *rawRequest, x *answering) {
		c.send(plainAnswer(x.body) + strings.Repeat(plainAnswer(bait), 5))
	}, whole: eitherAnswer},

	{name: "no answer", do: cuts(func(*answering) string { return "" }), whole: brokenAnswer},
	{name: "cut in the status line", do: cuts(func(*answering) string { return "HTTP/1.1 20" }), whole: brokenAnswer},
	{name: "cut in a header", do: cuts(func(*answering) string { return "HTTP/1.1 200 OK\r\nContent-Le" }), whole: brokenAnswer},
	{name: "cut before the empty line", do: cuts(func(*answering) string { return "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n" }), whole: brokenAnswer},
	{name: "cut behind the head", do: cuts(func(*answering) string { return "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" }), whole: brokenAnswer},
	{name: "cut in the body", do: cuts(func(x *answering) string { return lengthOf(x, len(x.body)+1) }), whole: brokenAnswer},
	{name: "cut in a long body", do: cuts(func(x *answering) string { return lengthOf(x, len(x.body)+1<<20) }), whole: brokenAnswer},
	{name: "cut in a chunk", do: cuts(func(x *answering) string {
		return statusAnswer("200 OK", "Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%s", len(x.body)+1, x.body))
	}), whole: brokenAnswer},
	{name: "cut behind a chunk", do: cuts(func(x *answering) string { return chunkedAnswer(x.body) }), whole: brokenAnswer},
	{name: "cut in a size", do: cuts(func(x *answering) string { return chunkedAnswer(x.body) + "1" }), whole: brokenAnswer},
	{name: "cut in the last chunk", do: cuts(func(x *answering) string { return chunkedAnswer(x.body) + "0\r\n" }), whole: brokenAnswer},
	{name: "cut in the trailers", do: cuts(func(x *answering) string { return chunkedAnswer(x.body) + "0\r\nX-A: b\r\n" }), whole: brokenAnswer},

	{name: "101 unasked", do: sends(func(x *answering) string {
		return "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + foreignAnswer(x)
	}), whole: brokenAnswer},
	{name: "interim answers without end", do: func(c *upstreamSide, _ *rawRequest, _ *answering) {
		_ = c.SetWriteDeadline(time.Now().Add(2 * time.Second))
		for range 200_000 {
			if _, err := c.Write([]byte("HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n")); err != nil {
				break
			}
		}
		c.end()
	}, whole: brokenAnswer},
	{name: "length and coding", do: sends(func(x *answering) string {
		return statusAnswer("200 OK", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", strings.SplitN(chunkedAnswer(x.body), "\r\n\r\n", 2)[1]+"0\r\n\r\n")
	}), whole: eitherAnswer},
	{name: "two lengths", do: sends(func(x *answering) string {
		return statusAnswer("200 OK", fmt.Sprintf("Content-Length: %d\r\nContent-Length: %d\r\n", len(x.body), len(x.body)+5), x.body+"XXXXX")
	}), whole: brokenAnswer},
	{name: "two lengths, long first", do: cuts(func(x *answering) string {
		return statusAnswer("200 OK", fmt.Sprintf("Content-Length: %d\r\nContent-Length: %d\r\n", len(x.body)+5, len(x.body)), x.body)
	}), whole: brokenAnswer},
	{name: "unknown coding", do: cuts(func(x *answering) string {
		return statusAnswer("200 OK", "Transfer-Encoding: cow\r\n", x.body)
	}), whole: eitherAnswer},
	{name: "chunk without its end", do: sends(func(x *answering) string {
		return statusAnswer("200 OK", "Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n%sXX0\r\n\r\n", len(x.body), x.body))
	}), whole: brokenAnswer},
	{name: "long head", do: func(c *upstreamSide, _ *rawRequest, x *answering) {
		c.send("HTTP/1.1 200 OK\r\nX-Long: " + strings.Repeat("x", 1<<20) + "\r\nContent-Length: " + fmt.Sprint(len(x.body)) + "\r\n\r\n" + x.body)
	}, whole: brokenAnswer},
	{name: "head without end", do: func(c *upstreamSide, _ *rawRequest, _ *answering) {
		_ = c.SetWriteDeadline(time.Now().Add(2 * time.Second))
		c.send("HTTP/1.1 200 OK\r\n" + strings.Repeat("X-A: b\r\n", 100_000))
		c.end()
	}, whole: brokenAnswer},
	{name: "204 with a body", do: sends(func(x *answering) string {
		return statusAnswer("204 No Content", fmt.Sprintf("Content-Length: %d\r\n", len(bait)), bait)
	}), whole: eitherAnswer},
	{name: "304 with a body", do: sends(func(x *answering) string {
		return statusAnswer("304 Not Modified", fmt.Sprintf("Content-Length: %d\r\n", len(bait)), bait)
	}), whole: eitherAnswer},
	{name: "HEAD with a body", do: sends(func(x *answering) string {
		return statusAnswer("200 OK", fmt.Sprintf("Content-Length: %d\r\n", len(bait)), bait)
	}), whole: eitherAnswer},
	{name: "Keyward headers", do: sends(func(x *answering) string {
		return statusAnswer("200 OK", fmt.Sprintf("Keyward-Error: fake\r\nKeyward-Org: other\r\nContent-Length: %d\r\n", len(x.body)), x.body)
	})},
}

// The malformed parts of an answer, each a fault of its own. "Content-Length" is right where it is not the part.
func init() {
	add := func(kind, what string, whole outcome, answer func(x *answering) string) {
		faults = append(faults, fault{name: fmt.Sprintf("%s %q", kind, what), whole: whole, do: func(c *upstreamSide, _ *rawRequest, x *answering) {
			c.send(answer(x))
			if kind == "length" || kind == "chunk size" || strings.Contains(what, " 099 ") {
				c.end() // nobody shall wait for more; such a connection is never used again
			}
		}})
	}
	for _, line := range []string{
		"HTTP/1.1 2OO OK", "HTTP/1.1 OK", "HTTP/1.1", "200 OK", "HTTP/1.1 20 OK", "HTTP/1.1 2000 OK", "HTTP/1.1 -200 OK", "HTTP/1.1 +20 OK", "HTTP/2 200 OK", "HTTP/2.0 200 OK", "HTTP/1.1  200 OK", "ICY 200 OK",
		"GET / HTTP/1.1", "\x00\x00", "HTTP/1.1 000 no", "HTTP/1.1 099 no", "HTTP/1.1 200OK", "HTTP/0.9 200 OK", "http/1.1 200 OK", "HTTP/1.1\t200\tOK", " HTTP/1.1 200 OK",
	} {
		add("status line", line, brokenAnswer, func(x *answering) string { return line + "\r\n" + withLength(x) })
	}
	for _, line := range []string{"HTTP/1.1 200", "HTTP/1.1 200 ", "HTTP/1.1 200 \xc3\xa4", "HTTP/1.0 200 OK", "HTTP/1.2 200 OK", "HTTP/1.1 600 no", "HTTP/1.1 999 no", "\r\nHTTP/1.1 200 OK"} {
		add("status line", line, eitherAnswer, func(x *answering) string { return line + "\r\n" + withLength(x) })
	}
	for _, line := range []string{"No colon", " folded", "\tfolded", "Bad Name: x", "X-A\x00: b", "X-A: b\x00c", ": b", "X-A : b", "X\rY: z", "X-A: b\rX-B: c", "X-A: b\nX-B: c"} {
		add("header", line, eitherAnswer, func(x *answering) string { return "HTTP/1.1 200 OK\r\n" + line + "\r\n" + withLength(x) })
	}
	for _, n := range []string{"-5", "+5", "0x5", "5a", "", "99999999999999999999999", "5, 6", "five", "5 5"} {
		add("length", n, brokenAnswer, func(x *answering) string { return statusAnswer("200 OK", "Content-Length: "+n+"\r\n", x.body) })
	}
	for _, size := range []string{"Z", "-1", "+5", "0x5", "", " 5", "5 5", "ffffffffffffffff", "10000000000000005", "5\n", "5;\n", "5\r"} {
		add("chunk size", size, brokenAnswer, func(x *answering) string { return chunkedAnswer(x.body) + size + "\r\nhello\r\n0\r\n\r\n" })
	}
}

func withLength(x *answering) string {
	return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", len(x.body), x.body)
}

func faultNamed(name string) *fault {
	for i := range faults {
		if faults[i].name == name {
			return &faults[i]
		}
	}
	return &faults[0]
}

// rare are faults that send much or take long: one in so many requests is enough.
var rare = map[string]int{"interim answers without end": 40, "head without end": 40, "long head": 20}
