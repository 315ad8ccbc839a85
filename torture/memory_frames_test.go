package torture

import (
	"bytes"
	le "encoding/binary"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
)

// What a signal interrupts lies in memory afterwards: the kernel writes all registers to the signal stack of that thread, where they stay
// until the thread's next signal, which may never come; and vector registers hold what was copied last. So the sidecar must not send
// itself any, as the Go runtime does to stop a goroutine that calls nothing, the more the busier the machine is. What others send to
// the process goes to its first thread, which serves nobody. Secrets in registers are chance; registers in memory are not, and so they
// are what is counted.
func TestSignalsSaveNoSecrets(t *testing.T) {
	if os.Geteuid() != 0 {
		leftOut(t, "no secret in the registers that a signal saves", "only root reads the memory of a process that cannot be dumped")
	}
	t.Setenv("GOGC", "1") // the collector is always at work
	m := newMemoryTest(t, many(200, 1000), "")
	stop, sent := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for tick := time.Tick(20 * time.Millisecond); ; {
			select {
			case <-stop:
				sent <- n
				return
			case <-tick:
				if m.s.firstThreadTakesSignals() {
					_ = m.s.cmd.Process.Signal(syscall.SIGWINCH)
					n++
				}
			}
		}
	}()
	m.storeAtOnce()
	m.load(many(2, 6))
	close(stop)
	signals := <-sent
	all, saved, _ := m.everywhere()
	all = slices.DeleteFunc(all, func(h hit) bool { return !h.saved })
	m.report(all)
	switch {
	case len(saved) == 0 || signals == 0:
		t.Errorf("%d signals have saved no registers: the search is broken", signals)
	case len(saved) > 1:
		t.Errorf("signals have saved the registers of %d threads, want the first thread's alone", len(saved))
	}
	row(t, "registers that signals save: 1 thread's, 0 secrets", "%d writes, %d requests, %d signals: %d threads, %d found", 2*len(m.orgs), m.served.Load(), signals, len(saved), len(all))
}

// firstThreadTakesSignals is not so while it handles one: all others are blocked then, and the kernel would choose another thread for them.
func (s *sidecar) firstThreadTakesSignals() bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid)) // of the first thread
	if err != nil {
		return false
	}
	for _, mask := range []string{"SigPnd", "ShdPnd", "SigBlk"} {
		if !bytes.Contains(b, []byte(mask+":\t0000000000000000\n")) {
			return false
		}
	}
	return true
}

// storeAtOnce gives every org credentials, many at the same time. Their bodies have a length of which a copy fills all registers: 129 to
// 256 bytes on amd64.
func (m *memoryTest) storeAtOnce() {
	orgs := make(chan string)
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			for org := range orgs {
				for provider, fields := range map[string]map[string]any{
					"resend":     {"api_key": m.secret("resend.api_key"), "webhook_secret": m.secret("resend.webhook_secret")},
					"elevenlabs": {"api_key": m.secret("elevenlabs.api_key"), "webhook_secret": m.secret("elevenlabs.webhook_secret")},
				} {
					m.valid.Store("Bearer "+fields["api_key"].(string), true)
					m.valid.Store(fields["api_key"], true)
					if status := m.admin("PUT", "/api/orgs/"+org+"/integrations/"+provider, map[string]any{"credentials": fields}); status/100 != 2 {
						m.t.Errorf("storing a credential with %s: status %d", provider, status)
					}
				}
			}
		})
	}
	for _, org := range m.orgs {
		orgs <- org
	}
	close(orgs)
	wait.Wait()
}

// A frame is where the kernel saved vector registers, for which signal: 0 if that cannot be told.
type frame struct {
	from, to uint64
	signal   int
}

// startSignal has all threads make a system call (sigPerThreadSyscall of the Go runtime, glibc's SIGSETXID): at its start, before it knows a
// secret, the sidecar has them give up gaining privileges. Whatever signal a thread takes later is saved over it.
const startSignal = 33

// sinceStart are the frames of other signals.
func sinceStart(all []frame) []frame {
	return slices.DeleteFunc(slices.Clone(all), func(f frame) bool { return f.signal == startSignal })
}

const (
	legacySize  = 512 // of the area that FXSAVE writes, which XSAVE extends
	legacyMagic = 464 // offset of what the kernel adds to it: struct _fpx_sw_bytes in asm/sigcontext.h
)

// frames are those in a mapping. They are told by the kernel's own marks, in front of and behind the extended state.
func frames(mem []byte, base uint64) (all []frame) {
	if runtime.GOARCH == "arm64" {
		return framesOfARM(mem, base)
	}
	magic1, magic2 := le.LittleEndian.AppendUint32(nil, 0x46505853), le.LittleEndian.AppendUint32(nil, 0x46505845)
	for _, at := range every(mem, magic1) {
		start := at - legacyMagic
		if start < 0 || (base+uint64(start))%64 != 0 || start+legacySize > len(mem) {
			continue
		}
		size := int(le.LittleEndian.Uint32(mem[at+16:])) // xstate_size
		if size >= legacySize && size < 1<<16 && start+size+4 <= len(mem) && bytes.Equal(mem[start+size:][:4], magic2) {
			from := base + uint64(start)
			all = append(all, frame{from, from + uint64(size), signalOf(mem[:start], from)})
		}
	}
	return all
}

// signalOf is the signal whose struct rt_sigframe of amd64, in front of the registers, points at them: uc.uc_mcontext.fpstate, and behind uc
// the siginfo, which begins with it.
func signalOf(before []byte, registers uint64) int {
	const (
		farthest  = 1024
		toSiginfo = 304 - 224 // from the pointer, 224 into uc, to the end of uc
	)
	before = before[max(0, len(before)-farthest):]
	at := bytes.LastIndex(before, le.LittleEndian.AppendUint64(nil, registers))
	if at < 0 || at+toSiginfo+4 > len(before) {
		return 0
	}
	return int(le.LittleEndian.Uint32(before[at+toSiginfo:]))
}

// framesOfARM finds struct fpsimd_context: its magic, its size, two words, 32 registers of 16 bytes.
func framesOfARM(mem []byte, base uint64) (all []frame) {
	const size = 528
	head := le.LittleEndian.AppendUint32(le.LittleEndian.AppendUint32(nil, 0x46508001), size)
	for _, at := range every(mem, head) {
		if (base+uint64(at))%16 == 0 && at+size <= len(mem) {
			all = append(all, frame{base + uint64(at), base + uint64(at+size), signalOfARM(mem[:at])})
		}
	}
	return all
}

// signalOfARM is the signal of a struct rt_sigframe of arm64, which begins with the siginfo: the registers are the first of what is reserved in
// its mcontext.
func signalOfARM(before []byte) int {
	const toRegisters = 128 + 176 + 288 // siginfo, ucontext to mcontext, mcontext to what is reserved
	if len(before) < toRegisters {
		return 0
	}
	return int(le.LittleEndian.Uint32(before[len(before)-toRegisters:]))
}

func every(mem, what []byte) (at []int) {
	for i := 0; ; {
		n := bytes.Index(mem[i:], what)
		if n < 0 {
			return at
		}
		at = append(at, i+n)
		i += n + len(what)
	}
}

// inside says whether a finding lies in saved registers.
func (h hit) inside(saved []frame) bool {
	return slices.ContainsFunc(saved, func(f frame) bool { return h.at < f.to && f.from < h.at+uint64(h.part) })
}
