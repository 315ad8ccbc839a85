package soak

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/keyward/keyward/bench/scenario"
)

// A Sample is what one sidecar had at one moment. -1: it could not be read.
type Sample struct {
	At          float64 `json:"at"` // seconds since the run's start
	Sidecar     string  `json:"sidecar"`
	RSS         int64   `json:"rss"`  // bytes
	Heap        int64   `json:"heap"` // bytes of objects, garbage included
	Descriptors int64   `json:"descriptors"`
	Goroutines  int64   `json:"goroutines"`
}

// A figure is one of them, and how far its end may lie above its start.
type figure struct {
	name, unit string
	of         func(s *Sample) int64
	// least: of several samples the least counts (the heap between two collections is garbage in part); else the median.
	least bool
	share float64 // allowed above the start, of it
	more  int64   // and besides
}

var figures = []figure{
	{"memory (RSS)", "MiB", func(s *Sample) int64 { return s.RSS }, false, 0.25, 8 << 20},
	{"live heap", "MiB", func(s *Sample) int64 { return s.Heap }, true, 0.25, 3 << 20},
	{"descriptors", "", func(s *Sample) int64 { return s.Descriptors }, false, 0.2, 32},
	{"goroutines", "", func(s *Sample) int64 { return s.Goroutines }, false, 0.2, 32},
}

// lateness notes how much later than it wanted a goroutine of the harness ran, at the worst: how busy the machine was with other things.
func (f *field) lateness(ctx context.Context) {
	const every = 20 * time.Millisecond
	for {
		begun := time.Now()
		if sleep(ctx, every) != nil {
			return
		}
		if late := int64(time.Since(begun) - every); late > f.late.Load() {
			f.late.Store(late)
		}
	}
}

// watched are the samples.
type watched struct {
	mu  sync.Mutex
	all []Sample
}

// watch measures all sidecars again and again, and says how far the run is.
func (f *field) watch(ctx context.Context, every time.Duration, o Options) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	lastLine := time.Now()
	for {
		at := time.Since(f.judge.begun)
		var now []string
		for _, n := range f.nodes {
			s := n.sample(at)
			f.watched.mu.Lock()
			f.watched.all = append(f.watched.all, s)
			f.watched.mu.Unlock()
			now = append(now, fmt.Sprintf("%s %d MiB %d fds %d goroutines", n.name, s.RSS>>20, s.Descriptors, s.Goroutines))
		}
		sent, unexpected, fault := f.judge.totals()
		line := fmt.Sprintf("soak: %v of %v, %d calls, %d under way, %d unexpected, %d webhooks to come; %s; %s", at.Round(time.Second), o.Time, sent, f.inFlight.Load(), unexpected,
			f.app.missing(), strings.Join(now, ", "), or(fault, "no fault"))
		o.Say("%s", line)
		if time.Since(lastLine) >= time.Minute {
			lastLine = time.Now()
			o.Line(line)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func or(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}

func (n *node) sample(at time.Duration) Sample {
	s := Sample{At: at.Seconds(), Sidecar: n.name, RSS: -1, Heap: -1, Descriptors: -1, Goroutines: -1}
	if v, err := scenario.MemoryOf(n.PIDs(), "VmRSS"); err == nil {
		s.RSS = v
	}
	if all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", n.PIDs()[0])); err == nil { // for root alone: the process cannot be dumped
		s.Descriptors = int64(len(all))
	}
	if m, err := n.metrics("go_goroutines", "go_memstats_heap_alloc_bytes"); err == nil {
		s.Goroutines, s.Heap = m[0], m[1]
	}
	return s
}

// metrics reads some of /metrics.
func (n *node) metrics(names ...string) ([]int64, error) {
	resp, err := n.admin.Do(request(http.MethodGet, "http://keyward/metrics", "", nil))
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	found := make([]int64, len(names))
	missing := len(names)
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if i := slices.Index(names, name); i >= 0 {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return nil, fmt.Errorf("reading %s: %w", name, err)
			}
			found[i] = int64(v)
			missing--
		}
	}
	if missing > 0 {
		return nil, errors.New("the metrics do not have all of them")
	}
	return found, nil
}

// between is a sidecar's figure over a time; ok is false where it could not be read.
func (w *watched) between(sidecar string, f *figure, from, to float64) (v int64, ok bool) {
	var all []int64
	for i := range w.all {
		if s := &w.all[i]; s.Sidecar == sidecar && s.At >= from && s.At <= to && f.of(s) >= 0 {
			all = append(all, f.of(s))
		}
	}
	if len(all) == 0 {
		return -1, false
	}
	slices.Sort(all)
	if f.least {
		return all[0], true
	}
	return all[len(all)/2], true
}
