package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/keyward/keyward/ca"
)

// caEndsSoon is how long before its end the doctor warns: who has not heeded the log's warning by then has little time left.
const caEndsSoon = 30 * 24 * time.Hour

// checkCA looks at what --intercept answers apps with: whether it can be read, by whom else, how long it is good and for which hosts.
func (d *doctor) checkCA(context.Context) []finding {
	const name, rotate = "interception CA", "keyward ca rotate --data-dir "
	if !d.c.Intercept {
		return []finding{}
	}
	path := filepath.Join(d.c.DataDir, ca.KeyFile)
	a, err := ca.Load(d.c.DataDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return []finding{warn(name, path+" is not there yet", "nothing to do: the first start with --intercept makes it, and keyward ca env then says what apps need")}
	case errors.Is(err, fs.ErrPermission):
		return []finding{fail(name, err.Error(), "run this as the sidecar's own user, or give the file to that user with chown")}
	case err != nil:
		saw, mend, _ := strings.Cut(err.Error(), "; ")
		return []finding{fail(name, saw, mend)}
	}
	if f := ownerFinding(name, path); f != nil {
		return []finding{*f}
	}
	all := []finding{}
	root, again := a.Root(), rotate+d.c.DataDir+", and start the apps again"
	switch left := time.Until(root.NotAfter); {
	case left <= 0:
		all = append(all, fail(name, "it ended "+day(root.NotAfter)+": apps refuse it", again))
	case time.Now().Before(root.NotBefore):
		all = append(all, fail(name, "it begins "+day(root.NotBefore)+" only: apps refuse it until then", "set this machine's clock, or "+again))
	case left < caEndsSoon:
		all = append(all, warn(name, fmt.Sprintf("it ends %s, in %s", day(root.NotAfter), counted(int(left/(24*time.Hour)), "day")), again))
	}
	if missing := a.Uncovered(interceptedHosts(d.c.providers())); len(missing) > 0 {
		more := ""
		for _, p := range d.c.custom {
			for _, host := range a.Uncovered(p.Hosts) {
				more += " --host " + host
			}
		}
		all = append(all, fail(name, "it cannot vouch for "+few(missing)+": CONNECT to them is refused", rotate+d.c.DataDir+more+", and start the apps again"))
	}
	if len(all) == 0 {
		all = append(all, ok(name, "%s, mode 0600 or stricter; for all hosts of the providers, until %s", path, day(root.NotAfter)))
	}
	return all
}

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }
