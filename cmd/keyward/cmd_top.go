package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
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
		for _, line := range shot.picture(0) {
			if _, err := io.WriteString(std.out, text(line, 0, false)+"\n"); err != nil {
				return err
			}
		}
		return nil
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
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, unix.SIGWINCH)
	defer signal.Stop(resized)
	colours := os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" // https://no-color.org
	for {
		var shot snapshot
		err := s.client.Do(ctx, http.MethodGet, statsPath, nil, &shot)
		columns, rows := sizeOf(screen)
		lines := shot.picture(columns)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, admin.ErrUnreachable):
			lines = [][]span{{{"The sidecar does not answer; it may be starting anew.", alarm}}, nil, {{printable(err.Error()), plain}}}
		case err != nil:
			return err
		}
		if _, err := io.WriteString(screen, frame(lines, columns, rows, colours)); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-resized:
		case <-tick.C:
		}
	}
}

func sizeOf(screen *os.File) (columns, rows int) {
	if size, err := unix.IoctlGetWinsize(int(screen.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 && size.Row > 0 {
		return int(size.Col), int(size.Row)
	}
	return 80, 24
}

// frame draws lines over what was there before, as far as the terminal has room, and below them how to end it.
func frame(lines [][]span, columns, rows int, colours bool) string {
	lines = lines[:min(len(lines), max(rows-1, 0))]
	if len(lines)+1 < rows {
		lines = append(lines, nil)
	}
	lines = append(lines, []span{{"q ends it", faint}})
	var b strings.Builder
	b.WriteString(topLeft)
	for i, line := range lines {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(text(line, columns, colours))
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
