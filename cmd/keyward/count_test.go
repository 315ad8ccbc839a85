package main

import "testing"

func TestOneThingIsNotSeveral(t *testing.T) {
	for n, want := range map[int]string{0: "0 rules", 1: "1 rule", 2: "2 rules"} {
		if got := counted(n, "rule"); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
