package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/keyward/keyward/bench/report"
)

// compare shows what has changed since an earlier result, and fails on a regression.
func compare(o options, files []string, out io.Writer) (int, error) {
	now := filepath.Join(o.out, "latest.json")
	if len(files) == 2 {
		now = files[1]
	}
	before, err := report.Read(files[0])
	if err != nil {
		return usage, err
	}
	after, err := report.Read(now)
	if err != nil {
		return usage, fmt.Errorf("%w; make bench writes one", err)
	}
	worse, err := report.WriteChanges(out, before, after, report.Compare(before, after))
	if err != nil || worse > 0 {
		return failed, err
	}
	return done, nil
}
