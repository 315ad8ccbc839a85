package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/internal/pgtest"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
)

// TestRotationSurvivesKills: rotating is killed four times, and the sidecar every other time; no row is lost, none is unreadable, and no call
// fails while a sidecar runs. KEYWARD_TORTURE=1: twenty times, with 100,000 rows.
func TestRotationSurvivesKills(t *testing.T) {
	t.Parallel()
	rows, kills, rate := 1000, 4, 1000
	if os.Getenv("KEYWARD_TORTURE") == "1" {
		rows, kills, rate = 100_000, 20, 0
	}
	if testing.Short() {
		rows, kills = 300, 2
	}
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		killRotations(t, "sqlite:"+filepath.Join(shortDir(t), "keyward.db"), rows, kills, rate)
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		killRotations(t, pgtest.New(t), rows, kills, rate)
	})
}

func orgNumber(i int) string { return fmt.Sprintf("org-%06d", i) }

func secretNumber(i int) string { return fmt.Sprintf("re_%s_secret", orgNumber(i)) }

// fillStore writes one credential for each org, as many at a time as share a transaction.
func fillStore(t *testing.T, url, key string, rows int) {
	t.Helper()
	keys, err := seal.Load("file:" + key)
	if err != nil {
		t.Fatal(err)
	}
	db, err := store.Open(t.Context(), url, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if _, err := db.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	keeper := &credential.Keeper{DB: db, Keys: keys}
	var next atomic.Int64
	var writers sync.WaitGroup
	for range 8 {
		writers.Go(func() {
			for i := int(next.Add(1)) - 1; i < rows; i = int(next.Add(1)) - 1 {
				values := provider.Values{"api_key": {Text: secretNumber(i)}}
				if _, err := keeper.Put(t.Context(), cliActor(), store.Ref{Org: orgNumber(i), Provider: "resend"}, values, credential.PutOptions{}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	writers.Wait()
}

// A callLoad calls for orgs at random, each of which must get its own secret.
type callLoad struct {
	calls, failed atomic.Int64
	first         atomic.Pointer[string]
	slow          atomic.Int64
	pause         sync.RWMutex // held while there is no sidecar
	mu            sync.Mutex
	took          []time.Duration // since the last p99
	end           context.CancelFunc
	callers       sync.WaitGroup
}

func newLoad(t *testing.T, s func() *served, rows int) *callLoad {
	ctx, cancel := context.WithCancel(t.Context())
	l := &callLoad{end: cancel}
	for range 4 {
		l.callers.Go(func() {
			c := s().client("caller.sock")
			for ctx.Err() == nil {
				i := rand.IntN(rows)
				l.pause.RLock()
				began := time.Now()
				got, err := s().call(c, orgNumber(i))
				took := time.Since(began)
				l.pause.RUnlock()
				l.calls.Add(1)
				l.slow.Store(max(l.slow.Load(), int64(took)))
				l.mu.Lock()
				l.took = append(l.took, took)
				l.mu.Unlock()
				if want := "Bearer " + secretNumber(i); err != nil || got != want {
					why := fmt.Sprintf("%s: %q, %v", orgNumber(i), got, err)
					l.first.CompareAndSwap(nil, &why)
					l.failed.Add(1)
				}
				time.Sleep(5 * time.Millisecond)
			}
		})
	}
	return l
}

// p99 is that of the calls while something is done.
func (l *callLoad) p99(during func()) time.Duration {
	l.mu.Lock()
	l.took = nil
	l.mu.Unlock()
	during()
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.Sort(l.took)
	return l.took[len(l.took)*99/100]
}

func killRotations(t *testing.T, url string, rows, kills, rate int) {
	dir := shortDir(t)
	keys := newKeyRing(t, url)
	key := strings.TrimPrefix(keys.env[1], "KEYWARD_KEY=file:")
	began := time.Now()
	fillStore(t, url, key, rows)
	if t.Failed() {
		return
	}
	t.Logf("%d rows written in %s", rows, time.Since(began).Round(time.Millisecond))
	args := keys.with("--upstream", "api.resend.com="+echo(t), "--log-level", "warn")
	var sidecar atomic.Pointer[served]
	sidecar.Store(serve(t, dir, args...))
	l := newLoad(t, sidecar.Load, rows)
	defer func() { l.end(); l.callers.Wait() }()

	rotate := keys.with("keys", "rotate", "--rate", fmt.Sprint(rate))
	var turns int
	var slowest time.Duration
	for kill := 0; kill < kills; {
		rotation := program(rotate...)
		var said syncBuffer
		rotation.Stdout, rotation.Stderr = &said, &said
		if err := rotation.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- rotation.Wait() }()
		select {
		case <-ended:
			if code := rotation.ProcessState.ExitCode(); code == exitRefused && strings.Contains(said.String(), "keys add") {
				keys.must("add")
				turns++
			} else if code != 0 {
				t.Fatalf("exit code %d: %s", code, said.String())
			}
			continue
		case <-time.After(50*time.Millisecond + rand.N(time.Second)):
		}
		if kill++; kill%2 == 0 {
			l.pause.Lock()
			old := sidecar.Load()
			_ = old.cmd.Process.Kill()
			old.done <- <-old.done
			again := time.Now()
			sidecar.Store(serve(t, dir, args...))
			slowest = max(slowest, time.Since(again))
			l.pause.Unlock()
		}
		_ = rotation.Process.Kill()
		<-ended
	}
	out, code := keysCommand(t, keys.with("rotate", "--json")...)
	if code != 0 && code != exitRefused {
		t.Fatalf("exit code %d: %s", code, out)
	}
	keys.must("add")
	calm := l.p99(func() { time.Sleep(time.Duration(min(rows, 20_000)) * time.Second / 4000) })
	var last string
	rotating := l.p99(func() { last = keys.must("rotate") }) // all rows at once, with the load on
	keys.must("retire")
	l.end()
	l.callers.Wait()
	if l.failed.Load() > 0 {
		t.Errorf("%d of %d calls failed, as %s", l.failed.Load(), l.calls.Load(), *l.first.Load())
	}
	everyRowOpens(t, url, key, rows)
	t.Logf("p99 of the calls: %s before, %s during a rotation of all rows", calm.Round(10*time.Microsecond), rotating.Round(10*time.Microsecond))
	t.Logf("%d kills in %d rotations of %d rows: %d calls, %d failed, slowest %s; ready again after %s at most; %s", kills, turns, rows, l.calls.Load(),
		l.failed.Load(), time.Duration(l.slow.Load()).Round(time.Millisecond), slowest.Round(time.Millisecond), strings.TrimSpace(last))
}

// everyRowOpens reads every row with what the keyset holds now, and compares.
func everyRowOpens(t *testing.T, url, key string, rows int) {
	t.Helper()
	keys, err := seal.Load("file:" + key)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(keys.Keys()); n != 1 {
		t.Errorf("%d keys are left", n)
	}
	db, err := store.Open(t.Context(), url, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	keeper := &credential.Keeper{DB: db, Keys: keys}
	bad := 0
	for i := range rows {
		c, values, err := keeper.Values(t.Context(), store.Ref{Org: orgNumber(i), Provider: "resend"})
		if err != nil || values["api_key"].Text != secretNumber(i) || c.Version != 1 {
			if bad++; bad < 4 {
				t.Errorf("%s: %v", orgNumber(i), err)
			}
		}
	}
	if bad > 0 {
		t.Errorf("%d of %d rows are lost or unreadable", bad, rows)
	}
}
