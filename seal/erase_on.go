//go:build goexperiment.runtimesecret

package seal

import "runtime/secret"

// erasing calls f and has the runtime overwrite what f leaves on the stack and in registers, and its heap memory once that is free: the
// cipher's expanded keys and its blocks of plain text. It is part of programs that are built with GOEXPERIMENT=runtimesecret.
func erasing(f func()) { secret.Do(f) }
