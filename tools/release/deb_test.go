package main

import (
	"os/exec"
	"testing"
)

func TestDebianVersions(t *testing.T) {
	for tag, want := range map[string]string{
		"v1.2.3":                  "1.2.3",
		"v1.2.3-4-gabc1234":       "1.2.3+4.gabc1234",
		"v1.2.3-4-gabc1234-dirty": "1.2.3+4.gabc1234~dirty",
		"v1.2.3-rc.1":             "1.2.3~rc.1",
		"abc1234":                 "0~abc1234",
		"1e2f3a4":                 "0~1e2f3a4",
		"dev":                     "0~dev",
	} {
		if got := debianVersion(tag); got != want {
			t.Errorf("%s: %s, want %s", tag, got, want)
		}
	}
}

// A later version is later to dpkg.
func TestDebianVersionsAreInOrder(t *testing.T) {
	dpkg, err := exec.LookPath("dpkg")
	if err != nil {
		t.Skip("dpkg IS MISSING: the order of versions is NOT TESTED here")
	}
	order := []string{"abc1234", "v0.9.0", "v1.0.0-rc.1", "v1.0.0-rc.2", "v1.0.0", "v1.0.0-4-gabc1234", "v1.0.0-12-gabc1234", "v1.0.1", "v1.10.0"}
	for i := 1; i < len(order); i++ {
		a, b := debianVersion(order[i-1]), debianVersion(order[i])
		if out, err := exec.Command(dpkg, "--compare-versions", a, "lt", b).CombinedOutput(); err != nil {
			t.Errorf("%s (%s) is not before %s (%s): %v %s", order[i-1], a, order[i], b, err, out)
		}
	}
}
