package seal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"unsafe"
)

// TakeEnv takes a variable out of the environment: a copy for the caller to overwrite, and nothing left behind. Unsetting alone does not
// do it: the value stays in the block that the kernel gave the process, where /proc/PID/environ shows it, and in the copy that the Go
// runtime made of that block. It is for the start of the process, before others read the environment: a string that os.Getenv returned
// for this variable lies in what is overwritten.
func TakeEnv(name string) ([]byte, error) {
	v, ok := syscall.Getenv(name)
	if !ok {
		return nil, errors.New("it is not set")
	}
	value := []byte(v)
	if len(v) > 0 {
		// The runtime's copy, or what os.Setenv put together: on the heap in either case, so that it can be written to.
		clear(unsafe.Slice(unsafe.StringData(v), len(v)))
	}
	err := os.Unsetenv(name)
	if err == nil {
		err = eraseFromBlock(name)
	}
	if err != nil {
		clear(value)
		return nil, fmt.Errorf("taking it out of the process's environment: %w; use file:PATH", err)
	}
	return value, nil
}

// eraseFromBlock overwrites the value of every NAME=value of that name in the kernel's block.
func eraseFromBlock(name string) error {
	block, err := environmentBlock()
	if err != nil {
		return err
	}
	for len(block) > 0 {
		entry := block
		if i := bytes.IndexByte(block, 0); i >= 0 {
			entry, block = block[:i], block[i+1:]
		} else {
			block = nil
		}
		if value, ok := bytes.CutPrefix(entry, []byte(name+"=")); ok {
			clear(value)
		}
	}
	return nil
}

// environmentBlock is the memory in which the kernel put the environment: env_start and env_end of /proc/self/stat (proc(5), fields 50
// and 51). It lies above the first thread's stack, outside of everything that the Go runtime manages, and is writable.
func environmentBlock() ([]byte, error) {
	if runtime.GOOS != "linux" {
		return nil, nil // no /proc: the block is not shown there
	}
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return nil, err
	}
	s := string(b)
	fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:]) // the program's name may hold spaces; the first after it is field 3
	if len(fields) < 49 {
		return nil, errors.New("/proc/self/stat does not say where it is")
	}
	start, err1 := strconv.ParseUint(fields[47], 10, 64)
	end, err2 := strconv.ParseUint(fields[48], 10, 64)
	if err1 != nil || err2 != nil || start == 0 || end < start || end-start > 64<<20 {
		return nil, errors.New("/proc/self/stat does not say where it is")
	}
	// The address is a number that the kernel gave us; this is the form of the conversion that says so.
	address := uintptr(start)
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&address)), end-start), nil
}
