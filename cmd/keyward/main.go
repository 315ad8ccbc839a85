// Command keyward is a credential proxy that runs beside a multi-tenant app: the app calls its tenants' providers through it and
// never holds a tenant's secret.
//
// main.go starts and exits; commands.go has the table of commands; run.go is the sidecar itself; dev.go what a first try needs;
// config*.go flags, environment and file; cmd_*.go one management command each.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	syscall.Umask(0o077) // nothing that this program makes is for others to read
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(execute(ctx, os.Args[1:], stdio{os.Stdin, os.Stdout, os.Stderr}))
}
