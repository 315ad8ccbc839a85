package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"github.com/keyward/keyward/provider"
)

// knownNames is what the configuration is checked against.
func knownNames() Known {
	var k Known
	for _, p := range provider.All {
		k.Providers = append(k.Providers, p.Name)
		k.Hosts = append(k.Hosts, p.Hosts...)
		k.OwnHosts = append(k.OwnHosts, p.OwnHosts...)
	}
	return k
}

func cmdServe(ctx context.Context, _ *flags, args []string, std stdio) error {
	c, err := loadConfig(args, knownNames())
	if errors.Is(err, pflag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if c.ConfigTest {
		if _, err := c.compileRules(knownNames(), nil); err != nil {
			return usagef("%w", err)
		}
		if _, err := c.roots(); err != nil {
			return usagef("%w", err)
		}
		_, err := fmt.Fprintln(std.out, "the configuration is good")
		return err
	}
	if err := startAnew(); err != nil {
		return fmt.Errorf("starting anew with the collector's setting: %w", err)
	}
	if c.Dev {
		return runDev(ctx, c, std)
	}
	return Run(ctx, c, std, nil)
}

// version is set at build time by the linker.
var version = "dev"

// ownUID is the user that the sidecar runs as.
func ownUID() uint32 { return uint32(os.Geteuid()) }
