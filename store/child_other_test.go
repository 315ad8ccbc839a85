//go:build !linux

package store

import "syscall"

// endsWithUs: a child ends when the test does.
func endsWithUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{} }
