package proxy

import "net/http"

// A Tunnel is what CONNECT asked for, and what became of it, as it is counted.
type Tunnel struct{ Kind, Result string }

// The kinds of tunnels: to a provider's host, whose requests are served; to one that is let through untouched; and to none of these.
const intercepted, passedThrough, noTunnel = "intercepted", "passthrough", "none"

// What becomes of them. One that failed was granted, and TLS with the app, or the connection to the host, did not come about.
const opened, refused, failed = "opened", "refused", "failed"

// tunnelsThatAre are all that can be counted.
var tunnelsThatAre = []Tunnel{
	{intercepted, opened}, {intercepted, refused}, {intercepted, failed}, {passedThrough, opened}, {passedThrough, refused}, {passedThrough, failed}, {noTunnel, refused},
}

// refusedTunnel is how a CONNECT counts that is answered with r.
func (c *call) refusedTunnel(r *refusal) Tunnel {
	switch v := c.connect; {
	case v == nil || v.kind == "":
		return Tunnel{noTunnel, refused}
	case r.status == http.StatusBadGateway, r.status == http.StatusGatewayTimeout, r.status == http.StatusInternalServerError:
		return Tunnel{v.kind, failed}
	default:
		return Tunnel{v.kind, refused}
	}
}
