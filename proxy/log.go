package proxy

import (
	"time"
)

// logDecision writes the one line that says what was asked, by whom, for whom, and what became of it. It never holds a header's value,
// a query or a body: only what Keyward itself decided on, and the path.
func (p *Proxy) logDecision(c *call) {
	e := p.requests.Info()
	if c.status >= 500 {
		e = p.requests.Warn()
	}
	if e == nil {
		return
	}
	e.Str("request_id", string(c.id[:])).Int("status", c.status)
	if c.code != "" {
		e.Str("code", c.code)
	}
	if c.reason != "" {
		e.Str("reason", c.reason)
	}
	if c.rule != nil {
		e.Str("caller", c.rule.Name())
	}
	if c.narrow != nil {
		e.Str("token", c.narrow.Name())
	}
	if c.conn != nil && c.at.unix {
		e.Uint32("uid", c.conn.peer.UID).Int32("pid", c.conn.peer.PID)
	}
	if c.traced {
		e.Str("trace_id", c.own.Trace.String())
	}
	if len(c.org) > 0 {
		e.Bytes("org", c.org)
	}
	if c.route.provider != nil {
		e.Str("provider", c.route.provider.Name)
	}
	if c.to != nil {
		e.Str("upstream", c.to.host)
	}
	if c.scanned {
		e.Bytes("method", c.head.method[:min(len(c.head.method), maxLoggedMethod)])
	}
	if c.route.path != nil {
		path := c.route.path
		if len(path) > maxLoggedPath {
			path = path[:maxLoggedPath]
		}
		e.Bytes("path", path)
	}
	if c.row != nil {
		e.Bool("cache_hit", c.hit).Int64("version", c.row.Version)
	}
	e.Int64("bytes_in", c.sent).Int64("bytes_out", c.received)
	e.RawJSON("duration_ms", c.millis(time.Since(c.start))).RawJSON("upstream_ms", c.millis(c.waited))
	e.Msg("request")
}

// millis is a duration in milliseconds, until it is called again.
func (c *call) millis(d time.Duration) []byte {
	c.basic = appendMillis(c.basic[:0], max(d, 0))
	return c.basic
}

// What a request may write into the log, at most.
const maxLoggedPath, maxLoggedMethod, maxLoggedError = 256, 32, 256
