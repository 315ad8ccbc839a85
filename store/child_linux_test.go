package store

import "syscall"

// endsWithUs has a child end when the tests do, however they end.
func endsWithUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} }
