package proxy

import (
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"time"
)

// A panic that nobody recovers ends the process for every org, and the runtime prints its value, which may hold anything. So each place
// where code of ours begins to run, in a goroutine of its own or because the server library or TLS calls a connection, has a guard here;
// and a guard does nothing that could panic again without one of its own.

var errPanic = errors.New("panic")

// panicked notes a panic. The stack is logged, the panic's value is not: it may hold bytes of the request.
func (p *Proxy) panicked(id []byte, v any) {
	p.stats.Panics.Add(1)
	defer func() {
		if recover() != nil {
			p.stats.Panics.Add(1) // of the log itself
		}
	}()
	p.log.Error().Bytes("request_id", id).Str("type", fmt.Sprintf("%T", v)).Bytes("stack", debug.Stack()).Msg("panic while serving a request")
}

// recover turns a panic into a 500 for this request.
func (p *Proxy) recover(c *call) {
	if v := recover(); v != nil {
		p.panicked(c.id[:], v)
		defer p.drop(c)
		c.abandon()
		c.refuse(refusePanic)
	}
}

// drop ends a call that could not even be refused: its connection ends with it, and nobody uses its memory again.
func (p *Proxy) drop(c *call) {
	if v := recover(); v != nil {
		p.panicked(c.id[:], v)
		c.leave()
		c.wipe()
		if c.up != nil {
			_ = c.up.Close()
		}
		c.answer = answer{}
		c.conn.reset()
	}
}

// guard keeps a panic in a goroutine of a call's own from ending the process: its caller's connection ends instead.
func (p *Proxy) guard(c *call) {
	if v := recover(); v != nil {
		p.panicked(c.id[:], v)
		_ = c.conn.Close()
	}
}

// guardTunnel does the same in what copies a tunnel's bytes.
func (p *Proxy) guardTunnel(id []byte, c *callerConn) {
	if v := recover(); v != nil {
		p.panicked(id, v)
		_ = c.Close()
	}
}

// guard turns a panic within a caller's connection into the end of the connection.
func (c *callerConn) guard(err *error) {
	if v := recover(); v != nil {
		c.at.p.panicked(nil, v)
		*err = errPanic
		_ = quietly(c.Conn)
	}
}

// quietly closes a connection, whatever its Close does.
func quietly(c net.Conn) (err error) {
	defer func() {
		if recover() != nil {
			err = errPanic
		}
	}()
	return c.Close()
}

// The server library sets deadlines outside of any handler too.

func (c *callerConn) SetDeadline(t time.Time) (err error) {
	defer c.guard(&err)
	c.renewed = 0 // the next Write sets its own
	return errors.Join(c.deadline.move(t), c.Conn.SetWriteDeadline(t))
}

// SetReadDeadline costs next to nothing: see readDeadline.
func (c *callerConn) SetReadDeadline(t time.Time) (err error) {
	defer c.guard(&err)
	return c.deadline.move(t)
}

func (c *callerConn) SetWriteDeadline(t time.Time) (err error) {
	defer c.guard(&err)
	return c.Conn.SetWriteDeadline(t)
}
