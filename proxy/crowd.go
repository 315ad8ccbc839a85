package proxy

import (
	"fmt"
	"time"

	"github.com/keyward/keyward/problem"
)

// Why a connection was not served at once.
const (
	uidShare = "uid_share" // its uid has all that one may have: it is answered 429
	noRoom   = "no_room"   // all are taken: it waits until another one ends
)

// othersShare of a unix listener's connections is what no uid takes from all others together: an eighth.
const othersShare = 8

// admit counts a connection as its uid's, unless that has all that one uid may have. Where the rules name one uid alone, there are no others
// to keep room for.
func (l *Listener) admit(c *callerConn) bool {
	room := l.room()
	uid, only := l.p.rules.Load().OnlyUID()
	l.mu.Lock()
	defer l.mu.Unlock()
	if alone := only && uid == c.peer.UID; !alone && l.peers[c.peer.UID] >= room-room/othersShare {
		return false
	}
	if l.peers == nil {
		l.peers = map[uint32]int64{}
	}
	l.peers[c.peer.UID]++
	c.held = true
	return true
}

// leave counts a connection no more.
func (l *Listener) leave(c *callerConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !c.held {
		return
	}
	c.held = false
	if l.peers[c.peer.UID]--; l.peers[c.peer.UID] == 0 {
		delete(l.peers, c.peer.UID)
	}
}

// tooMany is the answer to a connection beyond its uid's share. It cannot wait, as one does while all are taken: who comes after it, from
// another uid, would wait behind it.
var tooMany = func() []byte {
	const code, detail = "rate_limited", "this uid has as many connections open as one may have: use them again, or raise --max-conns"
	body := problem.Append(nil, 429, code, detail, "")
	return append(fmt.Appendf(nil, "HTTP/1.1 429 Too Many Requests\r\nContent-Type: %s\r\nContent-Length: %d\r\nKeyward-Error: %s\r\nRetry-After: 1\r\nConnection: close\r\n\r\n",
		problem.ContentType, len(body), code), body...)
}()

// turnAway answers without reading, and closes. It never waits: the answer fits into what the kernel holds for a new connection. It is
// Accept's own.
func (l *Listener) turnAway(c *callerConn) {
	if now := time.Now(); now.Sub(l.told) >= time.Second {
		l.told = now
		l.p.log.Warn().Str("listener", l.Addr().String()).Uint32("uid", c.peer.UID).
			Msg("a uid has as many connections open as one may have: further ones are answered 429")
	}
	l.p.heldUp.add(uidShare)
	_ = c.Conn.SetWriteDeadline(time.Now().Add(time.Millisecond))
	_, _ = c.Conn.Write(tooMany)
	_ = c.Close()
}
