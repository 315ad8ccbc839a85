package torture

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// keyOf is the key of a hostile provider's org: it looks different in each of the forms that an answer may render it in.
func keyOf(org string) string { return "ours/" + org + `+"0123456789"=abcdef` }

// basicOf is what HTTP Basic makes of it.
func basicOf(org string) string {
	return base64.StdEncoding.EncodeToString([]byte(sidOf(org) + ":" + keyOf(org)))
}

// The forms of a key that an echo may have.
var echoForms = []struct {
	name string
	of   func(org string) string
}{
	{"as it is", keyOf},
	{"percent-encoded", func(org string) string { return url.QueryEscape(keyOf(org)) }},
	{"in a path", func(org string) string { return url.PathEscape(keyOf(org)) }},
	{"JSON-escaped", func(org string) string { return strings.NewReplacer(`/`, `\/`, `"`, `\"`).Replace(keyOf(org)) }},
	{"Basic", basicOf},
}

// Faults by which the injected credential comes back: in a header and in the body, at once and across the borders of chunks and writes.
func init() {
	for _, e := range echoForms {
		name, form, basic := e.name, e.of, e.name == "Basic"
		faults = append(faults,
			fault{name: "echo, " + name, form: form, basic: basic, do: sends(func(x *answering) string {
				secret := form(x.org)
				return statusAnswer("200 OK", fmt.Sprintf("Content-Type: text/plain\r\nX-Echo: a %s b\r\nContent-Length: %d\r\n", secret, len(x.body)+len(secret)), x.body+secret)
			})},
			fault{name: "echo in chunks, " + name, form: form, basic: basic, do: func(c *upstreamSide, _ *rawRequest, x *answering) {
				secret := form(x.org)
				cut := 1 + x.IntN(len(secret)-1)
				c.send(chunkedAnswer(x.body, secret[:cut]))
				if x.IntN(2) == 0 {
					time.Sleep(time.Millisecond)
				}
				for rest := secret[cut:]; rest != ""; {
					n := 1 + x.IntN(len(rest))
					c.send(fmt.Sprintf("%x\r\n%s\r\n", n, rest[:n]))
					rest = rest[n:]
				}
				c.send("0\r\n\r\n")
			}},
			fault{name: "echo in pieces, " + name, form: form, basic: basic, do: func(c *upstreamSide, _ *rawRequest, x *answering) {
				secret := form(x.org)
				c.send(statusAnswer("200 OK", fmt.Sprintf("Content-Type: text/plain\r\nContent-Length: %d\r\n", len(x.body)+len(secret)), x.body))
				for rest := secret; rest != ""; {
					n := 1 + x.IntN(len(rest))
					c.send(rest[:n])
					rest = rest[n:]
					if x.IntN(4) == 0 {
						time.Sleep(time.Millisecond)
					}
				}
			}})
	}
}
