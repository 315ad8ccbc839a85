package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/keyward/keyward/bench/soak"
)

// soaked runs the soak, and writes soak-DATE.json, .md and .svg into the folder of --out.
func soaked(ctx context.Context, o options, out, progress io.Writer) (code int, err error) {
	if o.time == 0 {
		o.time = time.Hour
	}
	if o.time < 5*time.Second || o.orgs < 1 || o.rate < 1 {
		return usage, fmt.Errorf("--time %v, --orgs %d, --rate %g: at least 5s, 1 and 1", o.time, o.orgs, o.rate)
	}
	dir, err := scratch()
	if err != nil {
		return failed, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	binary, err := o.program(ctx, dir)
	if err != nil {
		return failed, err
	}
	show := newProgress(progress)
	begun := time.Now().UTC().Truncate(time.Second)
	revision := commit(ctx) // of what was built, whatever is committed meanwhile
	r, err := soak.Run(ctx, soak.Options{Binary: binary, Dir: dir, Time: o.time, Orgs: o.orgs, Rate: o.rate, Faults: o.faults, Say: show.say, Line: show.line})
	show.clear()
	if err != nil {
		return failed, err
	}
	r.Machine, r.Commit, r.Date = machine(), revision, begun
	if err := writeSoak(o.out, r); err != nil {
		return failed, err
	}
	if err := r.WriteSummary(out); err != nil {
		return failed, err
	}
	if !r.Passed {
		return failed, errors.Join(show.err)
	}
	return done, show.err
}

func writeSoak(dir string, r *soak.Report) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	name := "soak-" + r.Date.Format(time.DateOnly)
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	var text, chart bytes.Buffer
	if err := errors.Join(r.WriteMarkdown(&text, name+".svg"), r.WriteChart(&chart)); err != nil {
		return err
	}
	at := filepath.Join(dir, name)
	return errors.Join(os.WriteFile(at+".json", append(b, '\n'), 0o644), os.WriteFile(at+".md", text.Bytes(), 0o644), os.WriteFile(at+".svg", chart.Bytes(), 0o644))
}
