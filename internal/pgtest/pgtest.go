// Package pgtest gives tests a real PostgreSQL: a temporary cluster from the installed binaries, reached over a unix socket, without fsync.
//
// New hands out empty databases of one cluster that all tests of a process share; Start makes a cluster of one's own, which can be
// stopped and started again. A cluster's folder and processes go when the test process ends, however it ends: a shell stands between
// the two, reads from a pipe that only the test process holds, and cleans up at its end.
package pgtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const user = "keyward"

// shared is the cluster of this process; it has no test of its own to end with.
var shared = sync.OnceValues(newServer)

var databases atomic.Int64

// New returns the URL of a new, empty database, which is dropped when the test ends.
func New(t testing.TB) string {
	t.Helper()
	return ofShared(t).New(t)
}

// Filled is New for databases that all begin with the same in them: what takes long to fill is filled once in a process, by the first test that
// asks, and copied. When fill returns, nobody may be connected any more.
func Filled(fill func(t testing.TB, url string)) func(testing.TB) string {
	var mu sync.Mutex
	model := ""
	return func(t testing.TB) string {
		t.Helper()
		s := ofShared(t)
		mu.Lock()
		defer mu.Unlock()
		if model == "" {
			name := fmt.Sprintf("model_%d", databases.Add(1))
			if err := s.copyOf("template1", name); err != nil {
				t.Fatalf("creating a database: %v", err)
			}
			fill(t, s.URL(name))
			model = name
		}
		return s.newOf(t, model)
	}
}

func ofShared(t testing.TB) *Server {
	t.Helper()
	skip(t)
	s, err := shared()
	if err != nil {
		t.Fatalf("starting PostgreSQL: %v", err)
	}
	return s
}

// A Server is a cluster of a test's own.
type Server struct {
	dir  string // data, socket and log; of the server's user, 0700
	bin  string
	cred *syscall.Credential
	wal  []string // settings

	keeper *exec.Cmd      // the shell that holds the server
	order  io.WriteCloser // how the shell is told to stop; its end is an order too
}

// Start makes a cluster and starts it; it ends with the test.
func Start(t testing.TB) *Server {
	t.Helper()
	skip(t)
	s, err := newServer()
	if err != nil {
		t.Fatalf("starting PostgreSQL: %v", err)
	}
	t.Cleanup(s.remove)
	return s
}

func skip(t testing.TB) {
	t.Helper()
	if os.Getenv("KEYWARD_TEST_NO_POSTGRES") == "1" {
		t.Skip("NOT TESTED ON POSTGRESQL: KEYWARD_TEST_NO_POSTGRES=1 is set")
	}
}

// Launch makes a cluster and starts it, for who is not a test: the benchmarks. Close ends it.
func Launch() (*Server, error) { return newServer() }

// LaunchIn is Launch with the cluster's folder in another one, as in memory, where a disk that is busy with other things is not waited for.
// The server's user must be let through to it, and its name leave room for a socket's path.
func LaunchIn(folder string) (*Server, error) { return newServerIn(folder) }

// Close stops the server and removes everything.
func (s *Server) Close() { s.remove() }

// Create returns the URL of a new, empty database of the cluster.
func (s *Server) Create(name string) (string, error) {
	return s.URL(name), s.exec("CREATE DATABASE " + name)
}

// URL is that of a database of the cluster.
func (s *Server) URL(database string) string {
	q := url.Values{"host": {s.dir}, "user": {user}}
	return "postgres:///" + database + "?" + q.Encode()
}

// Run runs statements in a database. Those that take long have a minute.
func (s *Server) Run(database, statements string) error { return run(s.URL(database), statements) }

// IsDeadlock says whether the server gave up what Run was to do because others had what it needs, and the other way round.
func IsDeadlock(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "40P01"
}

// Halt stops the server as an operator would, for who is not a test. The data stays for Resume.
func (s *Server) Halt() error { return s.stop("stop\n") }

// Resume starts a halted server again.
func (s *Server) Resume() error { return s.start() }

// Socket is the path of the unix socket.
func (s *Server) Socket() string { return filepath.Join(s.dir, ".s.PGSQL.5432") }

// New returns the URL of a new, empty database of the cluster, which is dropped when the test ends.
func (s *Server) New(t testing.TB) string {
	t.Helper()
	return s.newOf(t, "template1")
}

func (s *Server) newOf(t testing.TB, model string) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", databases.Add(1))
	if err := s.copyOf(model, name); err != nil {
		t.Fatalf("creating a database: %v", err)
	}
	t.Cleanup(func() {
		if s.keeper == nil {
			return // stopped: nobody uses it any more, and the folder goes
		}
		if err := s.exec("DROP DATABASE " + name + " WITH (FORCE)"); err != nil {
			t.Errorf("dropping a database: %v", err)
		}
	})
	return s.URL(name)
}

// copyOf copies the model's files, which takes half as long as what PostgreSQL does from 15 on unless told otherwise: every block through
// the log. Before 15 it knows nothing else, nor the word.
func (s *Server) copyOf(model, name string) error {
	create := "CREATE DATABASE " + name + " TEMPLATE " + model
	err := s.exec(create + " STRATEGY file_copy")
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "42601" { // a syntax error
		err = s.exec(create)
	}
	return err
}

func (s *Server) exec(statement string) error { return run(s.URL("postgres"), statement) }

// Exec runs statements in a database, for tests that have no driver of their own.
func Exec(t testing.TB, url, statements string) {
	t.Helper()
	if err := run(url, statements); err != nil {
		t.Fatalf("running statements: %v", err)
	}
}

func run(url, statements string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(ctx) }()
	_, err = c.Exec(ctx, statements)
	return err
}

// Stop stops the server as an operator would, its clients being told. The data stays for Start.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if err := s.stop("stop\n"); err != nil {
		t.Fatalf("stopping PostgreSQL: %v\n%s", err, s.log())
	}
}

// Start starts a stopped server again.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	if err := s.start(); err != nil {
		t.Fatalf("starting PostgreSQL again: %v", err)
	}
}

// Not os.TempDir: a socket's path has room for 107 bytes, and the server's user may not enter another's temporary folder.
func newServer() (*Server, error) { return newServerIn("/tmp") }

func newServerIn(parent string) (*Server, error) {
	s, err := newFolder(parent)
	if err != nil {
		return nil, err
	}
	s.wal = []string{"-c", "max_wal_senders=0", "-c", "wal_level=minimal"}
	return s, s.create()
}

// newFolder is a server with nothing in it.
func newFolder(parent string) (*Server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin}
	if s.cred, err = credential(); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp(parent, "kwpg"); err != nil {
		return nil, err
	}
	if s.cred != nil {
		if err := os.Chown(s.dir, int(s.cred.Uid), int(s.cred.Gid)); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// create makes an empty cluster and starts it.
func (s *Server) create() error {
	initdb := s.command(filepath.Join(s.bin, "initdb"), "-D", filepath.Join(s.dir, "data"), "-U", user, "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
	if out, err := initdb.CombinedOutput(); err != nil {
		_ = os.RemoveAll(s.dir)
		return fmt.Errorf("running initdb: %w\n%s", err, out)
	}
	if err := s.start(); err != nil {
		s.remove()
		return err
	}
	return nil
}

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...) // no context: it outlives any
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "HOME=" + s.dir}
	// A session of its own: Ctrl-C is for the tests, and the shell cleans up after them.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred, Setsid: true}
	return cmd
}

// keep runs the server until it is told to stop or the test process has gone; then the folder goes too.
const keep = `
"$@" >>log 2>&1 </dev/null & pid=$!
read -r order
if [ "$order" = stop ]; then kill -INT $pid; else kill -QUIT $pid; fi
wait $pid
status=$?
[ "$order" = stop ] || rm -rf "$PWD"
exit $status
`

func (s *Server) start() error {
	cmd := s.command("/bin/sh", "-c", keep, "keep", filepath.Join(s.bin, "postgres"), "-D", filepath.Join(s.dir, "data"),
		"-k", s.dir, "-p", "5432", "-c", "listen_addresses=", "-c", "unix_socket_permissions=0700",
		"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "autovacuum=off",
		"-c", "shared_buffers=16MB", "-c", "max_connections=600",
		"-c", "timezone=Asia/Kathmandu", // whoever forgets a time zone is to notice
	)
	cmd.Args = append(cmd.Args, s.wal...)
	var err error
	if s.order, err = cmd.StdinPipe(); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.keeper = cmd
	deadline := time.Now().Add(time.Minute)
	for {
		err := s.exec("SELECT 1")
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no answer within a minute: %w\n%s", err, s.log())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// stop gives the order ("": by closing the pipe) and waits until the server has gone.
func (s *Server) stop(order string) error {
	if s.keeper == nil {
		return errors.New("it is not running")
	}
	_, err := io.WriteString(s.order, order)
	_ = s.order.Close()
	if wait := s.keeper.Wait(); order != "" && err == nil {
		err = wait
	}
	s.keeper = nil
	return err
}

func (s *Server) remove() {
	if s.keeper != nil {
		_ = s.stop("")
	}
	_ = os.RemoveAll(s.dir)
}

func (s *Server) log() []byte {
	b, _ := os.ReadFile(filepath.Join(s.dir, "log"))
	if lines := bytes.SplitAfter(b, []byte("\n")); len(lines) > 20 {
		b = bytes.Join(lines[len(lines)-20:], nil)
	}
	return b
}
