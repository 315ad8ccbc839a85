package main

import "fmt"

// counted is "1 rule" or "2 rules".
func counted(n int, one string) string { return fmt.Sprintf("%d %s", n, nouns(n, one)) }

// nouns is one thing's word as it stands behind n.
func nouns(n int, one string) string {
	if n == 1 {
		return one
	}
	return one + "s"
}
