package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keyward/keyward/admin"
)

// waitPause is the time between two questions.
const waitPause = 50 * time.Millisecond

// cmdWait asks /readyz, or /healthz, until it is well. A sidecar that is not there yet is the reason to wait; one that will not talk to us is not.
func cmdWait(ctx context.Context, f *flags, args []string, _ stdio) error {
	s := reach(f)
	longest := f.Duration("max", time.Minute, "the longest `TIME` to wait")
	alive := f.Bool("alive", false, "be content with a sidecar that answers, ready or not: for a liveness probe")
	if err := f.parse(args); err != nil {
		return err
	}
	if *longest <= 0 {
		return usagef("%s %s: must be more than 0s", f.at("max"), *longest)
	}
	ctx, cancel := context.WithTimeout(ctx, *longest)
	defer cancel()
	client := admin.NewClient(s.socket())
	defer client.Close()

	last := fmt.Errorf("it was not asked")
	for {
		ask := client.Ready
		if *alive {
			ask = client.Alive
		}
		ready, says, err := ask(ctx)
		var problem *admin.Problem
		switch {
		case ready:
			return nil
		case errors.As(err, &problem):
			return err
		case err != nil && ctx.Err() == nil:
			last = explainReach(err, s.socket())
		case err == nil:
			last = errors.New(strings.Join(strings.Fields(says), " "))
		}
		if exitCode(last) != exitFailed {
			return last
		}
		select {
		case <-ctx.Done():
			if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return ctx.Err()
			}
			return fmt.Errorf("not ready after %s: %w", *longest, last)
		case <-time.After(waitPause):
		}
	}
}
