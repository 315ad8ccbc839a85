package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/ca"
	"github.com/keyward/keyward/provider"
)

func TestDoctorLooksAtTheCA(t *testing.T) {
	dir := t.TempDir()
	c := &Config{Intercept: true}
	c.DataDir = dir
	finds := func(status, saw, mend string) {
		t.Helper()
		all := (&doctor{c: c}).checkCA(t.Context())
		if len(all) != 1 || all[0].Status != status || !strings.Contains(all[0].Saw, saw) || !strings.Contains(all[0].Mend, mend) {
			t.Errorf("no %s with %q and %q: %+v", status, saw, mend, all)
		}
	}
	put := func(hosts []string, at time.Time) *ca.Authority {
		t.Helper()
		a, err := ca.Generate(hosts, at)
		if err == nil {
			err = a.Save(dir)
		}
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	hosts := interceptedHosts(provider.All)
	finds(isWarn, "is not there yet", "first start")
	now := time.Now()
	life := put(hosts, now).Root().NotAfter.Sub(now)
	finds(isOK, "for all hosts", "")

	path := filepath.Join(dir, ca.KeyFile)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	finds(isFail, "can be read by others (mode 0640)", "chmod 600")
	put(hosts, now.Add(9*24*time.Hour+time.Hour-life)) // certificates know whole seconds alone
	finds(isWarn, "in 9 days", "keyward ca rotate --data-dir "+dir)
	put(hosts, now.Add(-time.Hour-life))
	finds(isFail, "it ended", "keyward ca rotate --data-dir "+dir)
	put(hosts, now.Add(72*time.Hour))
	finds(isFail, "it begins", "clock")
	put(hosts[1:], now)
	finds(isFail, "cannot vouch for "+hosts[0], "keyward ca rotate --data-dir "+dir)
	put(hosts, now)
	own, problems := (&provider.Custom{Name: "acme_api", Hosts: []string{"api.acme.example"}}).Make(provider.All)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	c.custom = provider.Set{own}
	finds(isFail, "cannot vouch for api.acme.example", "--host api.acme.example")
	c.Intercept = false
	if all := (&doctor{c: c}).checkCA(t.Context()); len(all) != 0 {
		t.Errorf("nothing is intercepted: %+v", all)
	}
}
