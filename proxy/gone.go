package proxy

// gone says whether the caller has closed or reset the connection. One that has only closed its sending side still waits for its
// answer.
func (c *callerConn) gone() bool {
	if c.raw == nil {
		return false
	}
	c.events = 0
	if err := c.raw.Control(c.checkFn); err != nil {
		return true
	}
	return c.isGone()
}
