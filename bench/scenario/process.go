package scenario

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cpuOf is the time that processes have used, user and system, of all their threads, those that have ended too: what /proc/PID/stat shows in ticks of
// 10 ms, read from the kernel's clock of the process in nanoseconds.
func cpuOf(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		const scheduler = 2 // CPUCLOCK_SCHED, of clock_getcpuclockid(3)
		clock := int32(^pid)<<3 | int32(scheduler)
		var ts unix.Timespec
		if err := unix.ClockGettime(clock, &ts); err != nil {
			return 0, fmt.Errorf("reading the CPU time of a process: %w", err)
		}
		sum += time.Duration(ts.Nano())
	}
	return sum, nil
}

// MemoryOf is the resident memory of processes in bytes: what they have (VmRSS), or the most they ever had (VmHWM).
func MemoryOf(pids []int, field string) (int64, error) {
	var sum int64
	for _, pid := range pids {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, fmt.Errorf("reading the memory of a process: %w", err)
		}
		_, rest, ok := strings.Cut(string(status), "\n"+field+":")
		line, _, _ := strings.Cut(rest, "\n")
		words := strings.Fields(line)
		if !ok || len(words) == 0 {
			return 0, fmt.Errorf("reading the memory of a process: no %s", field)
		}
		n, err := strconv.ParseInt(words[0], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("reading the memory of a process: %w", err)
		}
		sum += n << 10
	}
	return sum, nil
}

// forgetPeak has the peak count from now on, where this user may.
func forgetPeak(pids []int) {
	for _, pid := range pids {
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0) // proc(5): 5 resets VmHWM
	}
}
