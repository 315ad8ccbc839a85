package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"
)

func cmdServe(ctx context.Context, _ *flags, args []string, std stdio) error {
	c, err := loadConfig(args, knownNames())
	if errors.Is(err, pflag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if c.ConfigTest {
		if _, err := c.compileRules(c.known(), nil); err != nil {
			return usagef("%w", err)
		}
		if _, err := c.roots(); err != nil {
			return usagef("%w", err)
		}
		for _, w := range c.Warnings {
			fmt.Fprintln(std.err, "keyward: "+w)
		}
		_, err := fmt.Fprintln(std.out, "the configuration is good")
		return err
	}
	signal.Ignore(syscall.SIGHUP) // survives starting anew, where the handler would not
	if err := startAnew(); err != nil {
		return fmt.Errorf("starting anew with the runtime's settings: %w", err)
	}
	signal.Notify(hangups, syscall.SIGHUP)
	// A write to a peer that has gone is an error, and need not be a signal too, which would save the registers of a thread that has just
	// written a secret (runtimeSettings). With it goes the end of the process when nobody reads its log any more.
	signal.Ignore(syscall.SIGPIPE)
	if c.Dev {
		return runDev(ctx, c, std)
	}
	return Run(ctx, c, std, nil)
}

// hangups are SIGHUPs, from the start to the very end: the default action would end the process, also while it drains.
var hangups = make(chan os.Signal, 1)

// version is set at build time by the linker.
var version = "dev"

// ownUID is the user that the sidecar runs as.
func ownUID() uint32 { return uint32(os.Geteuid()) }
