package pgtest

import (
	"net/url"
	"path/filepath"
	"testing"
)

// StartPair makes a cluster, and one that follows it as a standby; both end with the test.
func StartPair(t testing.TB) (primary, standby *Server) {
	t.Helper()
	skip(t)
	primary, standby = folder(t), folder(t)
	if err := primary.create(); err != nil {
		t.Fatalf("starting PostgreSQL: %v", err)
	}
	copying := standby.command(filepath.Join(standby.bin, "pg_basebackup"), "-h", primary.dir, "-U", user, "-D", filepath.Join(standby.dir, "data"),
		"--write-recovery-conf", "--checkpoint=fast", "--no-sync")
	if out, err := copying.CombinedOutput(); err != nil {
		t.Fatalf("copying the primary: %v\n%s", err, out)
	}
	if err := standby.start(); err != nil {
		t.Fatalf("starting the standby: %v", err)
	}
	return primary, standby
}

func folder(t testing.TB) *Server {
	t.Helper()
	s, err := newFolder("/tmp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.remove)
	return s
}

// PairURL is that of a database on either of them.
func PairURL(a, b *Server, database string) string {
	q := url.Values{"host": {a.dir + "," + b.dir}, "user": {user}}
	return "postgres:///" + database + "?" + q.Encode()
}

// Crash ends the server without a word to anybody, and its data are gone.
func (s *Server) Crash() { s.remove() }

// Promote makes a primary of a standby.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	Exec(t, s.URL("postgres"), "SELECT pg_promote(true, 20)")
}
