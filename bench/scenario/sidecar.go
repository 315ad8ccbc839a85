package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/keyward/keyward/bench/load"
)

// A Sidecar is the built program as a user runs it, everything on: caller check, access log, metrics, change feed. Its log goes to a file.
type Sidecar struct {
	Dir   string // run and data folder
	cmd   *exec.Cmd
	log   *os.File
	admin *http.Client
	ended chan struct{}
	once  sync.Once

	profiled bool
}

// SidecarOptions say what differs from the defaults.
type SidecarOptions struct {
	Binary string
	Dir    string // an existing folder, private; what is stored in it stays
	Args   []string
	// Log takes what the program logs; nil: the file "log" in Dir.
	Log io.Writer
	// Profile is the file of a CPU profile of the whole run; empty: none.
	Profile string
}

// StartSidecar starts the program and waits until it is ready.
func StartSidecar(ctx context.Context, o SidecarOptions) (*Sidecar, error) {
	s, err := launchSidecar(o)
	if err != nil {
		return nil, err
	}
	out, err := exec.CommandContext(ctx, o.Binary, "wait", "--run-dir", o.Dir, "--max", "1m").CombinedOutput()
	if err != nil {
		_ = s.Stop()
		log, _ := os.ReadFile(filepath.Join(o.Dir, "log"))
		return nil, fmt.Errorf("starting keyward: %w: %s\n%s", err, bytes.TrimSpace(out), log)
	}
	return s, nil
}

// launchSidecar starts the program without waiting.
func launchSidecar(o SidecarOptions) (*Sidecar, error) {
	file, err := os.OpenFile(filepath.Join(o.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	var log io.Writer = file
	if o.Log != nil {
		log = o.Log
	}
	args := append([]string{
		"serve", "--data-dir", filepath.Join(o.Dir, "data"), "--run-dir", o.Dir, "--listen", "", "--admin-listen", "", "--debug",
	}, o.Args...)
	if !strings.Contains(strings.Join(o.Args, " "), "--webhook-listen") {
		args = append(args, "--webhook-listen", "")
	}
	if o.Profile != "" {
		args = append(args, "--cpuprofile", o.Profile)
	}
	cmd := exec.Command(o.Binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("starting keyward: %w", err)
	}
	s := &Sidecar{Dir: o.Dir, cmd: cmd, log: file, ended: make(chan struct{}), profiled: o.Profile != ""}
	go func() { _ = cmd.Wait(); close(s.ended) }()
	socket := filepath.Join(o.Dir, "admin.sock")
	s.admin = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		MaxIdleConnsPerHost: 16,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	return s, nil
}

// Target is where callers connect.
func (s *Sidecar) Target() load.Target {
	return load.Target{Network: "unix", Address: filepath.Join(s.Dir, "caller.sock")}
}

// PIDs is the process.
func (s *Sidecar) PIDs() []int { return []int{s.cmd.Process.Pid} }

// Ended says whether the process has gone.
func (s *Sidecar) Ended() bool {
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// Stop ends the process at once: nothing of it is needed any more.
func (s *Sidecar) Stop() (err error) {
	s.once.Do(func() {
		s.admin.CloseIdleConnections()
		if s.profiled { // which is written at the end of a drain
			_ = s.cmd.Process.Signal(syscall.SIGTERM)
			select {
			case <-s.ended:
			case <-time.After(30 * time.Second):
			}
		}
		_ = s.cmd.Process.Kill()
		<-s.ended
		err = s.log.Close()
	})
	return err
}

// Drain ends the process as an operator would.
func (s *Sidecar) Drain() error {
	s.admin.CloseIdleConnections()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-s.ended:
		return s.Stop()
	case <-time.After(30 * time.Second):
		return errors.Join(errors.New("keyward did not end"), s.Stop())
	}
}

// Do calls the admin API; out may be nil.
func (s *Sidecar) Do(ctx context.Context, method, path string, body, out any) error {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		r = bytes.NewReader(b)
	}
	answer, err := s.call(ctx, method, path, r)
	if err != nil {
		return err
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}

func (s *Sidecar) call(ctx context.Context, method, path string, body io.Reader) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://keyward"+path, body)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := s.admin.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s %s: %s: %.200s", method, path, resp.Status, answer)
	}
	return answer, nil
}

// SetCredential stores an org's fields with a provider.
func (s *Sidecar) SetCredential(ctx context.Context, org, provider string, fields map[string]any) error {
	return s.Do(ctx, http.MethodPut, "/api/orgs/"+org+"/integrations/"+provider, map[string]any{"credentials": fields}, nil)
}

// CacheStats are of /api/stats.
type CacheStats struct {
	Hits    uint64 `json:"hits"`
	Misses  uint64 `json:"misses"`
	Loads   uint64 `json:"loads"`
	Entries int    `json:"entries"`
}

// Cache reads the counters of the cache.
func (s *Sidecar) Cache(ctx context.Context) (CacheStats, error) {
	var st struct {
		Cache CacheStats `json:"cache"`
	}
	err := s.Do(ctx, http.MethodGet, "/api/stats", nil, &st)
	return st.Cache, err
}

// Mallocs is how many objects the process has allocated since its start, from the heap profile; -1: it does not say.
func (s *Sidecar) Mallocs(ctx context.Context) float64 {
	b, err := s.call(ctx, http.MethodGet, "/debug/pprof/heap?debug=1", nil)
	if err != nil {
		return -1
	}
	_, rest, ok := strings.Cut(string(b), "# Mallocs = ")
	line, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseFloat(strings.TrimSpace(line), 64)
	if !ok || err != nil {
		return -1
	}
	return n
}
