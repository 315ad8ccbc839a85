package torture

import (
	"bytes"
	"context"
	"encoding/base64"
	le "encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/keyward/keyward/internal/memdir"
)

// scanMemory looks through every mapping that can be read.
func (m *memoryTest) scanMemory() (found, size int) {
	all, saved, size := m.everywhere()
	// The key is there as long as credentials are to be opened, and whoever may read live memory may have it; it must not be anywhere
	// else, a core dump included, which coreDump looks at.
	all = slices.DeleteFunc(all, func(h hit) bool { return h.class == "THE KEY" })
	m.report(all)
	if len(saved) > 0 { // what is in them is chance
		m.t.Errorf("signals have saved the registers of %d threads; the last of them are at %#x", len(saved), saved[len(saved)-1].from)
	}
	return len(all), size
}

// everywhere finds secrets and saved registers in all mappings.
func (m *memoryTest) everywhere() (all []hit, saved []frame, size int) {
	m.find.index()
	controls := 0
	err := eachMapping(m.s.cmd.Process.Pid, func(where string, base uint64, mem []byte) {
		size += len(mem)
		here := frames(mem, base)
		for _, h := range m.find.in(where, mem, base) {
			if h.saved = h.inside(here); h.saved {
				h.where += ", registers that a signal has saved"
			}
			all = append(all, h)
		}
		saved = append(saved, sinceStart(here)...)
		for _, org := range m.orgs[:min(len(m.orgs), 20)] {
			controls += bytes.Count(mem, []byte(org))
		}
	})
	switch {
	case err != nil:
		m.t.Fatalf("reading the sidecar's memory: %v", err)
	case controls == 0:
		m.t.Fatal("not even the names of the orgs were found in memory: the search is broken")
	}
	return all, saved, size
}

// scanShown looks through what the sidecar shows of itself.
func (m *memoryTest) scanShown() int {
	proc := fmt.Sprintf("/proc/%d/", m.s.cmd.Process.Pid)
	shown := map[string][]byte{"the log": []byte(m.s.log.String())}
	for _, name := range []string{"environ", "cmdline"} {
		b, err := os.ReadFile(proc + name)
		if err != nil {
			m.t.Fatal(err)
		}
		shown[proc+name] = b
	}
	for _, path := range []string{
		"/api/stats", "/metrics", "/api/orgs", "/api/orgs/" + m.orgs[5] + "/integrations", "/api/audit?limit=500", "/readyz?verbose", "/debug/vars",
		"/debug/pprof/goroutine?debug=2", "/debug/pprof/heap?debug=1", "/debug/pprof/allocs", "/debug/pprof/cmdline",
	} {
		resp, err := m.s.admin.Get("http://keyward" + path)
		if err != nil {
			m.t.Fatal(err)
		}
		shown[path], _ = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if path == "/api/stats" && resp.StatusCode != 200 {
			m.t.Errorf("%s: %s", path, resp.Status)
		}
	}
	if !bytes.Contains(shown["the log"], []byte(m.orgs[5])) {
		m.t.Error("the log does not even name the orgs: the search is broken")
	}
	var all []hit
	for where, b := range shown {
		all = append(all, m.find.in(where, b, 0)...)
	}
	m.report(all)
	return len(all)
}

// coreDump is the same by the tool that an attacker with root would use. It has what /proc does not show: the registers of every thread,
// in which the last few bytes that were copied or encrypted still stand. The long form takes all mappings (-a), also those that the
// program asked to leave out: two gigabytes, most of them reserved and empty.
func (m *memoryTest) coreDump() {
	gcore, err := exec.LookPath("gcore")
	if err != nil {
		bars.add("gcore by root: 0 secrets or keys", "gdb is not installed (Debian: apt-get install gdb)", "NOT RUN")
		return // scanMemory has read all but the registers
	}
	file, args, bar := filepath.Join(memdir.New(m.t), "core"), []string(nil), "gcore by root, registers: 0 secrets or keys"
	if long {
		args, bar = []string{"-a"}, "gcore -a by root, registers and memory: 0 secrets or keys"
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, gcore, append(args, "-o", file, fmt.Sprint(m.s.cmd.Process.Pid))...).CombinedOutput()
	dumps, _ := filepath.Glob(file + "*")
	if err != nil || len(dumps) != 1 {
		m.t.Errorf("gcore: %v: %.300s", err, out)
		return
	}
	b, err := os.ReadFile(dumps[0])
	if err != nil {
		m.t.Fatal(err)
	}
	hits := m.find.in("core dump", b, 0)
	if long { // gcore -a is told to take what the process has asked to be left out
		hits = slices.DeleteFunc(hits, func(h hit) bool { return h.class == "THE KEY" })
	}
	switch {
	case !bytes.Contains(b, []byte("LINUX")): // the note that holds a thread's vector registers: elf(5), NT_X86_XSTATE
		m.t.Error("the core dump has no registers: the search is broken")
	case long && !bytes.Contains(b, []byte(m.orgs[5])):
		m.t.Error("not even the name of an org was found in the core dump: the search is broken")
	}
	m.report(hits)
	m.rowOf(hits, bar, "%d KiB: %d found", len(b)>>10, len(hits))
}

// stacks ends the program under load by a signal that makes the runtime print every goroutine's stack, as a fatal error would.
func (m *memoryTest) stacks() {
	done := make(chan struct{})
	go func() { defer close(done); m.load(1) }()
	time.Sleep(50 * time.Millisecond)
	_ = m.s.cmd.Process.Signal(syscall.SIGQUIT)
	select {
	case err := <-m.s.ended:
		m.s.ended <- err
	case <-time.After(time.Minute):
		m.t.Error("SIGQUIT did not end the program")
	}
	<-done
	log := []byte(m.s.log.String())
	if !bytes.Contains(log, []byte("goroutine ")) {
		m.t.Error("SIGQUIT printed no stacks")
	}
	if !servesNobody.Match(log) {
		m.t.Error("the main goroutine does not keep the first thread, to which signals go, to itself")
	}
	m.find.index() // tokens that were minted meanwhile
	hits := m.find.in("the stacks of SIGQUIT", log, 0)
	m.report(hits)
	m.rowOf(hits, "stacks printed under load: 0 secrets", "%d KiB: %d found", len(log)>>10, len(hits))
}

var servesNobody = regexp.MustCompile(`(?m)^goroutine 1 .*locked to thread`)

// rowOf is a row with a verdict of its own: the test may have failed before.
func (m *memoryTest) rowOf(hits []hit, bar, figure string, args ...any) {
	bars.add(bar+" ("+filepath.Base(m.t.Name())+")", fmt.Sprintf(figure, args...), map[bool]string{true: "pass", false: "FAIL"}[len(hits) == 0])
}

// report prints the findings by class, form and place, each with a sample.
func (m *memoryTest) report(hits []hit) {
	groups := map[string][]hit{}
	for _, h := range hits {
		key := h.class + " as " + h.form + " in " + h.where
		groups[key] = append(groups[key], h)
	}
	keys := make([]string, 0, len(groups))
	for k := range groups {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int { return len(groups[b]) - len(groups[a]) })
	for i, k := range keys {
		if i == 60 {
			m.t.Errorf("… and %d kinds more", len(keys)-i)
			break
		}
		m.t.Errorf("%4d × %s; one of them: %s", len(groups[k]), k, groups[k][0])
	}
}

// A finder looks for many secrets at once, in all forms, whole or in parts of at least 16 bytes.
type finder struct {
	mu      sync.Mutex
	needles []needle
	indexed int
	secrets int
	blocks  map[uint64][]place // :: 8 bytes → where they stand in which needle
	filter  []uint64           // a bit for each hash of such a block: most of memory is none
}

type needle struct {
	class, form string
	text        []byte
}

type place struct{ needle, offset int }

type hit struct {
	class, form, where string
	at                 uint64
	part, of           int
	around             string
	saved              bool // in registers that a signal has saved
}

func (h hit) String() string {
	return fmt.Sprintf("%d of %d bytes at %#x: %s", h.part, h.of, h.at, h.around)
}

const leastRun = 16

func newFinder() *finder {
	return &finder{blocks: map[uint64][]place{}, filter: make([]uint64, 1<<24/64)}
}

func (f *finder) learn(class string, secret []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.secrets++
	escaped, _ := json.Marshal(string(secret))
	var percent, each []byte
	for _, b := range secret {
		if strings.ContainsRune("/&+=%", rune(b)) {
			percent = fmt.Appendf(percent, "%%%02X", b)
		} else {
			percent = append(percent, b)
		}
		each = fmt.Appendf(each, "%%%02X", b)
	}
	f.forms(class, secret)
	f.add(class, "JSON", bytes.Trim(escaped, `"`))
	f.add(class, "percent-encoded", percent)
	f.add(class, "percent-encoded", each)
	f.add(class, "percent-encoded", bytes.ToLower(each))
}

func (f *finder) learnKey(key []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.secrets++
	f.forms("THE KEY", key)
}

// forms are those of any bytes. Base64 has three, by what stands before the secret.
func (f *finder) forms(class string, b []byte) {
	f.add(class, "raw", b)
	f.add(class, "hex", []byte(hex.EncodeToString(b)))
	f.add(class, "hex", bytes.ToUpper([]byte(hex.EncodeToString(b))))
	for skip := range 3 {
		whole := b[skip : skip+(len(b)-skip)/3*3]
		f.add(class, "base64", []byte(base64.StdEncoding.EncodeToString(whole)))
		f.add(class, "base64url", []byte(base64.URLEncoding.EncodeToString(whole)))
	}
}

func (f *finder) add(class, form string, text []byte) {
	f.needles = append(f.needles, needle{class, form, slices.Clone(text)})
}

// index makes what was learnt findable. Every run of 15 bytes has one whole block in it.
func (f *finder) index() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ; f.indexed < len(f.needles); f.indexed++ {
		text := f.needles[f.indexed].text
		for i := 0; i+8 <= len(text); i += 8 {
			v := le.LittleEndian.Uint64(text[i:])
			f.blocks[v] = append(f.blocks[v], place{f.indexed, i})
			h := hash(v)
			f.filter[h/64] |= 1 << (h % 64)
		}
	}
}

func hash(v uint64) uint64 { return v * 0x9e3779b97f4a7c15 >> 40 }

func (f *finder) in(where string, mem []byte, base uint64) []hit {
	f.mu.Lock()
	defer f.mu.Unlock()
	var hits []hit
	for _, i := range candidates(mem, f.filter) {
		v := le.LittleEndian.Uint64(mem[i:])
		for _, p := range f.blocks[v] {
			n := f.needles[p.needle]
			from, to := 0, 8
			for p.offset+from > 0 && i+from > 0 && mem[i+from-1] == n.text[p.offset+from-1] {
				from--
			}
			for p.offset+to < len(n.text) && i+to < len(mem) && mem[i+to] == n.text[p.offset+to] {
				to++
			}
			if to-from >= leastRun {
				hits = append(hits, hit{n.class, n.form, where, base + uint64(i+from), to - from, len(n.text), around(mem, i+from, i+to), false})
			}
		}
	}
	return distinct(hits)
}

// candidates are the places that the filter lets through. It looks at every byte of a process and shares nothing: under the race detector
// it would take a minute.
//
//go:norace
func candidates(mem []byte, filter []uint64) (at []int) {
	for i := 0; i+8 <= len(mem); i++ {
		h := le.LittleEndian.Uint64(mem[i:]) * 0x9e3779b97f4a7c15 >> 40
		if filter[h/64]&(1<<(h%64)) != 0 {
			at = append(at, i)
		}
	}
	return at
}

// distinct leaves one finding of those that overlap: forms agree on what needs no escape.
func distinct(hits []hit) []hit {
	slices.SortStableFunc(hits, func(a, b hit) int { return b.part - a.part })
	var out []hit
	for _, h := range hits {
		if !slices.ContainsFunc(out, func(o hit) bool { return h.at < o.at+uint64(o.part) && o.at < h.at+uint64(h.part) }) {
			out = append(out, h)
		}
	}
	return out
}

func around(mem []byte, from, to int) string {
	b := slices.Clone(mem[max(0, from-256):min(len(mem), to+256)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '.'
		}
	}
	return string(b)
}

// eachMapping reads every mapping of a process that can be read, pages that cannot left as zeros.
func eachMapping(pid int, fn func(where string, base uint64, mem []byte)) error {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return err
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for line := range strings.Lines(string(maps)) {
		var from, to, offset, inode uint64
		var perms, device, name string
		if n, _ := fmt.Sscanf(line, "%x-%x %s %x %s %d %s", &from, &to, &perms, &offset, &device, &inode, &name); n < 6 {
			return fmt.Errorf("unknown line in maps: %q", line)
		}
		if perms[0] != 'r' || strings.HasPrefix(name, "[v") {
			continue
		}
		mem := make([]byte, to-from)
		const page = 4096
		for i := 0; i < len(mem); {
			n, err := f.ReadAt(mem[i:min(len(mem), i+1<<20)], int64(from)+int64(i))
			i += n
			if err != nil && n == 0 {
				i = i/page*page + page
			}
		}
		where := fmt.Sprintf("%s %s", perms, name)
		if name == "" {
			where = perms + " anonymous"
		}
		fn(where, from, mem)
	}
	return nil
}
