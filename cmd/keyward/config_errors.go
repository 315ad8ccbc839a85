package main

import (
	"fmt"
	"strings"
)

// A usageError is a bad flag, variable, file or argument: all that is wrong, on one line. The program ends with exit code 2.
type usageError struct{ problems []error }

func (e *usageError) Error() string {
	texts := make([]string, len(e.problems))
	for i, p := range e.problems {
		texts[i] = strings.Join(strings.Fields(p.Error()), " ")
	}
	return strings.Join(texts, "; ")
}

func (e *usageError) Unwrap() []error { return e.problems }

// ExitCode is what the program ends with.
func (e *usageError) ExitCode() int { return 2 }

// usagef is a usage error of one problem.
func usagef(format string, args ...any) error {
	return &usageError{[]error{fmt.Errorf(format, args...)}}
}

// problems collects what is wrong, so that everything can be mended in one go.
type problems []error

// add takes one more; nil is none, and joined errors are each one.
func (p *problems) add(err error) {
	if err == nil {
		return
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			p.add(e)
		}
		return
	}
	*p = append(*p, err)
}

func (p *problems) addf(format string, args ...any) { *p = append(*p, fmt.Errorf(format, args...)) }

// err is nil without problems, else a *usageError.
func (p problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return &usageError{p}
}

// suggest is "did you mean --listen?" when a name is near, else the other advice.
func suggest(name string, names []string, prefix, otherwise string) string {
	best, least := "", max(1, len(name)/3) // a third of it may be mistyped, one letter in any case
	for _, n := range names {
		if d := distance(name, n); d <= least && (best == "" || d < distance(name, best)) {
			best = n
		}
	}
	if best == "" {
		return otherwise
	}
	return "did you mean " + prefix + best + "?"
}

// distance is how many letters to insert, delete or change (Levenshtein).
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
