// Clobbered says whether the garbage collector overwrites what it frees.
package main

import (
	"bytes"
	"fmt"
	"runtime"
	"unsafe"
)

const size = 1 << 10

//go:noinline
func leave() uintptr {
	b := bytes.Repeat([]byte{0x5a}, size)
	return uintptr(unsafe.Pointer(&b[0]))
}

func main() {
	var left []uintptr
	for range 64 {
		left = append(left, leave())
	}
	runtime.GC()
	runtime.GC() // which ends the sweep of the one before
	kept := 0
	for _, at := range left {
		if bytes.Contains(unsafe.Slice(*(**byte)(unsafe.Pointer(&at)), size), bytes.Repeat([]byte{0x5a}, 32)) {
			kept++
		}
	}
	fmt.Println(kept < 8) // something else may lie in some of them by now
}
