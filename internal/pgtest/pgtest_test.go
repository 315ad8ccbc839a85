package pgtest

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

func TestDatabasesAreApart(t *testing.T) {
	a, b := connect(t, New(t)), connect(t, New(t))
	if _, err := a.Exec(t.Context(), "CREATE TABLE only_here (x int)"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Exec(t.Context(), "SELECT * FROM only_here"); err == nil {
		t.Fatal("one test sees the tables of another")
	}
}

func TestStopAndStart(t *testing.T) {
	s := Start(t)
	url := s.New(t)
	if _, err := connect(t, url).Exec(t.Context(), "CREATE TABLE kept (x int)"); err != nil {
		t.Fatal(err)
	}
	s.Stop(t)
	if c, err := pgx.Connect(t.Context(), url); err == nil {
		_ = c.Close(t.Context())
		t.Fatal("a stopped server answers")
	}
	s.Start(t)
	if _, err := connect(t, url).Exec(t.Context(), "SELECT * FROM kept"); err != nil {
		t.Fatal(err)
	}
}

// A killed test process must leave neither a server nor a folder.
func TestNothingStaysBehind(t *testing.T) {
	if os.Getenv("PGTEST_CHILD") != "" {
		s, err := shared()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("folder %s\n", s.dir)
		select {}
	}
	skip(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestNothingStaysBehind$")
	cmd.Env = append(os.Environ(), "PGTEST_CHILD=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	dir, ok := strings.CutPrefix(strings.TrimSpace(line), "folder ")
	if err != nil || !ok {
		t.Fatalf("%q, %v", line, err)
	}
	pid, err := os.ReadFile(dir + "/data/postmaster.pid")
	if err != nil {
		t.Fatal(err)
	}
	process, _, _ := strings.Cut(string(pid), "\n")
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		_, err1 := os.Stat(dir)
		_, err2 := os.Stat("/proc/" + process)
		if os.IsNotExist(err1) && os.IsNotExist(err2) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("folder %s: %v; process %s: %v", dir, err1, process, err2)
		}
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	c, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

// TestDeadlocksAreTold: two that lock the same tables in another order, of which the server gives one up.
func TestDeadlocksAreTold(t *testing.T) {
	url := New(t)
	if err := run(url, "CREATE TABLE one (x int); CREATE TABLE two (x int)"); err != nil {
		t.Fatal(err)
	}
	const locked = "BEGIN; LOCK TABLE %s; SELECT pg_sleep(1); LOCK TABLE %s; COMMIT"
	other := make(chan error, 1)
	go func() { other <- run(url, fmt.Sprintf(locked, "two", "one")) }()
	err := run(url, fmt.Sprintf(locked, "one", "two"))
	if gaveUp := IsDeadlock(<-other); IsDeadlock(err) == gaveUp {
		t.Errorf("%v, and the other one %v", err, gaveUp)
	}
	if IsDeadlock(run(url, "SELECT nonsense")) || IsDeadlock(nil) {
		t.Error("another error, or none, is taken for one")
	}
}
