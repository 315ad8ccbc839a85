// Command bench measures what Keyward costs against the same work without it: the built program beside direct TLS, nginx, HAProxy, Go's
// ReverseProxy and a plain relay of bytes, in turn, in one run, on one machine. See README.md.
//
//	go run ./bench                  everything, at most fifteen minutes
//	go run ./bench --quick          everything, at most two
//	go run ./bench --scenario hit   one scenario
//	go run ./bench soak             an hour of everything, with a fault every minute; ends with 1 when something failed or did not come back
//	go run ./bench compare BASE     the last result against an earlier one; ends with 1 on a regression beyond the noise
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/pflag"

	"github.com/keyward/keyward/bench/role"
)

func main() {
	role.Dispatch()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code) //nolint:forbidigo // this is main
}

// Exit codes.
const (
	done   = 0
	failed = 1 // also: a regression
	usage  = 2
)

func execute(ctx context.Context, args []string, out, progress io.Writer) int {
	o := options{}
	f := o.flags(out)
	if err := f.Parse(args); errors.Is(err, pflag.ErrHelp) {
		return done
	} else if err != nil {
		fmt.Fprintln(progress, "bench:", err)
		return usage
	}
	var (
		code int
		err  error
	)
	switch rest := f.Args(); {
	case len(rest) == 0:
		code, err = measure(ctx, o, out, progress)
	case rest[0] == "compare" && (len(rest) == 2 || len(rest) == 3):
		code, err = compare(o, rest[1:], out)
	case rest[0] == "soak" && len(rest) == 1:
		code, err = soaked(ctx, o, out, progress)
	default:
		fmt.Fprintf(progress, "bench: %q: there is only compare BASE [RESULT], and soak\n", strings.Join(rest, " "))
		return usage
	}
	if err != nil {
		fmt.Fprintln(progress, "bench:", err)
	}
	return code
}
