package main

import (
	"io"
	"os"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/rs/zerolog"
)

// newLogger writes to stderr: JSON lines for machines, or coloured ones for a person at a terminal. Times are UTC, durations are
// milliseconds. The lines of requests have a logger of their own, which does not have them wait; lines holds some of them
// back until it is closed; it is nil at a terminal.
func newLogger(c *Config, std stdio) (log, requests zerolog.Logger, lines *logBuffer) {
	zerolog.TimeFieldFormat = time.RFC3339Nano
	zerolog.DurationFieldUnit = time.Millisecond
	zerolog.TimestampFunc = func() time.Time { return time.Now().UTC() }
	setLogLevel(c.LogLevel)
	out := std.err
	format := c.LogFormat
	if format == "" && watches(out) {
		format = "console"
	}
	if format == "console" {
		out = zerolog.ConsoleWriter{Out: out, TimeFormat: "15:04:05.000"}
		log = zerolog.New(lineWriter{out}).With().Timestamp().Logger()
		return log, log, nil
	}
	b := newLogBuffer(out)
	return zerolog.New(b).With().Timestamp().Logger(), zerolog.New(requestLines{b}).With().Timestamp().Logger(), b
}

// watches says whether a person looks at what is written.
func watches(out io.Writer) bool {
	f, ok := out.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}

// lineWriter hides that the output may be a level writer: each line is one Write.
type lineWriter struct{ io.Writer }

// setLogLevel takes effect at once, everywhere. The name was checked with the configuration.
func setLogLevel(name string) {
	if l, err := zerolog.ParseLevel(name); err == nil {
		zerolog.SetGlobalLevel(l)
	}
}
