package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mattn/go-isatty"
	"golang.org/x/sys/unix"

	"github.com/keyward/keyward/admin"
)

const statsPath = "/api/stats"

// A snapshot is what /api/stats says, as far as top shows it.
type snapshot struct {
	Version     string `json:"version"`
	Uptime      int64  `json:"uptime"`
	Store       string `json:"store"`
	Orgs        int64  `json:"orgs"`
	Credentials struct {
		ByProvider map[string]int64 `json:"by_provider"`
		Disabled   int64            `json:"disabled"`
	} `json:"credentials"`
	Webhooks struct {
		Pending int64 `json:"pending"`
		Dead    int64 `json:"dead"`
	} `json:"webhooks"`
	Traffic admin.Traffic    `json:"traffic"`
	Proxy   map[string]int64 `json:"proxy"`
	Cache   struct {
		Entries   int64 `json:"entries"`
		StoreDown bool  `json:"store_down"`
	} `json:"cache"`
}

// cmdTop shows what goes through the sidecar, anew every second, until it is stopped. What is no terminal gets one picture.
func cmdTop(ctx context.Context, f *flags, args []string, std stdio) error {
	s := reach(f)
	every := f.Duration("interval", time.Second, "how long a `TIME` between two pictures")
	once := f.Bool("once", false, "one picture and no more")
	asJSON := f.json()
	if err := f.parse(args); err != nil {
		return err
	}
	if *every < 100*time.Millisecond {
		return usagef("--interval must be at least 100ms")
	}
	var answer json.RawMessage
	if err := s.do(ctx, http.MethodGet, statsPath, nil, &answer); err != nil {
		return err
	}
	if *asJSON {
		return printJSON(std.out, answer)
	}
	screen, ok := std.out.(*os.File)
	if *once || !ok || !isatty.IsTerminal(screen.Fd()) {
		var shot snapshot
		if err := json.Unmarshal(answer, &shot); err != nil {
			return fmt.Errorf("reading the sidecar's answer: %w", err)
		}
		_, err := io.WriteString(std.out, strings.Join(shot.picture(), "\n")+"\n")
		return err
	}
	return s.live(ctx, std, screen, *every)
}

// What a terminal is told, as ECMA-48 and xterm have it.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // another screen, no cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	topLeft     = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// live draws one picture after the other over the whole terminal, which is as it was before when it ends: with q, with Ctrl-C, or when the
// sidecar is gone for good.
func (s *sidecar) live(ctx context.Context, std stdio, screen *os.File, every time.Duration) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer keys(std.in, stop)()
	if _, err := io.WriteString(screen, enterScreen); err != nil {
		return err
	}
	defer func() { _, _ = io.WriteString(screen, leaveScreen) }()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		var shot snapshot
		err := s.client.Do(ctx, http.MethodGet, statsPath, nil, &shot)
		lines := shot.picture()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, admin.ErrUnreachable):
			lines = []string{"The sidecar does not answer; it may be starting anew.", "", printable(err.Error())}
		case err != nil:
			return err
		}
		if _, err := io.WriteString(screen, frame(append(lines, "", "q ends it"), screen)); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// frame draws lines over what was there before, as far as the terminal has room.
func frame(lines []string, screen *os.File) string {
	columns, rows := 80, 24
	if size, err := unix.IoctlGetWinsize(int(screen.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 && size.Row > 0 {
		columns, rows = int(size.Col), int(size.Row)
	}
	var b strings.Builder
	b.WriteString(topLeft)
	for i, line := range lines[:min(len(lines), rows)] {
		if i > 0 {
			b.WriteString("\r\n")
		}
		runes := []rune(line)
		b.WriteString(string(runes[:min(len(runes), columns)]))
		b.WriteString(clearLine)
	}
	b.WriteString(clearBelow)
	return b.String()
}

// keys has the terminal hand over each key as it is pressed, without showing it, and calls stop for q. What it returns puts the terminal
// back. Where there is no terminal, nobody presses keys.
func keys(in io.Reader, stop func()) (restore func()) {
	f, ok := in.(*os.File)
	if !ok {
		return func() {}
	}
	fd := int(f.Fd())
	before, err := unix.IoctlGetTermios(fd, getTerminal)
	if err != nil {
		return func() {}
	}
	raw := *before
	raw.Lflag &^= unix.ICANON | unix.ECHO // Ctrl-C stays a signal
	raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
	if unix.IoctlSetTermios(fd, setTerminal, &raw) != nil {
		return func() {}
	}
	var over atomic.Bool
	var reader sync.WaitGroup
	reader.Go(func() {
		const look = 100 // ms; a read could not be ended
		for !over.Load() {
			ready := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if n, err := unix.Poll(ready, look); n == 0 || errors.Is(err, unix.EINTR) {
				continue
			}
			var key [1]byte
			if n, err := unix.Read(fd, key[:]); n != 1 || err != nil || key[0] == 'q' || key[0] == 'Q' {
				stop()
				return
			}
		}
	})
	return func() {
		over.Store(true)
		reader.Wait()
		_ = unix.IoctlSetTermios(fd, setTerminal, before)
	}
}

// picture is the snapshot as lines of text.
func (t *snapshot) picture() []string {
	uptime := (time.Duration(t.Uptime) * time.Second).String()
	storeSays := t.Store
	if t.Cache.StoreDown {
		storeSays += " DOWN"
	}
	var stored int64
	for _, n := range t.Credentials.ByProvider {
		stored += n
	}
	hits := "-"
	if t.Traffic.CacheHitRate != nil {
		hits = strconv.FormatFloat(100**t.Traffic.CacheHitRate, 'f', 1, 64) + " %"
	}
	lines := []string{
		fmt.Sprintf("keyward %s   up %s   store %s   the last %.0f s", printable(t.Version), uptime, printable(storeSays), t.Traffic.Window),
		"",
		fmt.Sprintf("requests  %8s/s   refused %8s/s   failed %8s/s   in all %d", rate(t.Traffic.Requests), rate(t.Traffic.Refused), rate(t.Traffic.Failed), t.Proxy["requests"]),
		fmt.Sprintf("cache     %8s hit   %d held", hits, t.Cache.Entries),
		fmt.Sprintf("webhooks  %8d waiting   %d dead", t.Webhooks.Pending, t.Webhooks.Dead),
		fmt.Sprintf("stored    %8d credentials of %d orgs   %d disabled", stored, t.Orgs, t.Credentials.Disabled),
		"",
		fmt.Sprintf("%-16s %10s %10s %10s %10s %12s %12s", "PROVIDER", "REQ/S", "ERR/S", "P50 MS", "P99 MS", "OWN P50 MS", "OWN P99 MS"),
	}
	for _, p := range t.Traffic.Providers {
		lines = append(lines, fmt.Sprintf("%-16s %10s %10s %10s %10s %12s %12s", printable(p.Provider), rate(p.Requests), rate(p.Errors),
			ms(p.P50), ms(p.P99), ms(p.OwnP50), ms(p.OwnP99)))
	}
	return lines
}

func rate(n float64) string { return strconv.FormatFloat(n, 'f', 1, 64) }

// ms is a time in a table; nobody asked: a dash.
func ms(v *float64) string {
	switch {
	case v == nil:
		return "-"
	case *v < 10:
		return strconv.FormatFloat(*v, 'f', 3, 64)
	}
	return strconv.FormatFloat(*v, 'f', 1, 64)
}
