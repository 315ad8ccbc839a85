// Clobbered says whether the garbage collector overwrites what it frees.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"unsafe"
)

const size = 1 << 10

// overwritten is what the runtime's clobberfree writes, word by word. Looking for what was there before would not tell: the runtime may
// use the memory again.
var overwritten = bytes.Repeat(binary.NativeEndian.AppendUint32(nil, 0xdeadbeef), 8)

func main() {
	var kept [][]byte // one for each that is left: they lie among one another, so that the memory stays the runtime's
	var left []uintptr
	for range 256 {
		kept = append(kept, make([]byte, size))
		left = append(left, leave())
	}
	runtime.GC()
	runtime.GC() // which ends the sweep of the one before
	fmt.Println(slices.ContainsFunc(left, func(at uintptr) bool {
		return bytes.Contains(unsafe.Slice(*(**byte)(unsafe.Pointer(&at)), size), overwritten)
	}))
	runtime.KeepAlive(kept)
}

//go:noinline
func leave() uintptr {
	return uintptr(unsafe.Pointer(&bytes.Repeat([]byte{0x5a}, size)[0]))
}
