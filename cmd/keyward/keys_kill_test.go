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
	"github.com/keyward/keyward/internal/memdir"
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
		killRotations(t, "sqlite:"+filepath.Join(memdir.New(t), "keyward.db"), rows, kills, rate)
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

// during are how long the calls took while something was done.
func (l *callLoad) during(do func()) []time.Duration {
	l.mu.Lock()
	l.took = nil
	l.mu.Unlock()
	do()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.took
}

func p99(took []time.Duration) time.Duration {
	slices.Sort(took)
	return took[len(took)*99/100].Round(10 * time.Microsecond)
}

func killRotations(t *testing.T, url string, rows, kills, rate int) {
	dir := memdir.New(t)
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
				keys.add()
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
	keys.add()
	if rate == 0 {
		l.turns(t, rotate)
		keys.add()
	}
	whole := keys.must("rotate", "--rate", fmt.Sprint(rate))
	keys.must("retire")
	l.end()
	l.callers.Wait()
	if l.failed.Load() > 0 {
		t.Errorf("%d of %d calls failed, as %s", l.failed.Load(), l.calls.Load(), *l.first.Load())
	}
	everyRowOpens(t, url, key, rows)
	t.Logf("%d kills in %d rotations of %d rows: %d calls, %d failed, slowest %s; ready again after %s at most; %s", kills, turns, rows, l.calls.Load(),
		l.failed.Load(), time.Duration(l.slow.Load()).Round(time.Millisecond), slowest.Round(time.Millisecond), strings.TrimSpace(whole))
}

// turns rotates all rows with calls going on, in turns with nothing: a machine's moods then fall on both.
func (l *callLoad) turns(t *testing.T, rotate []string) {
	var calm, rotating []time.Duration
	const turn = 1500 * time.Millisecond
	for ended := false; !ended; {
		calm = append(calm, l.during(func() { time.Sleep(turn) })...)
		rotation := program(rotate...)
		var said syncBuffer
		rotation.Stdout, rotation.Stderr = &said, &said
		rotating = append(rotating, l.during(func() {
			if err := rotation.Start(); err != nil {
				t.Fatal(err)
			}
			stop := time.AfterFunc(turn, func() { _ = rotation.Process.Kill() })
			_ = rotation.Wait()
			ended = stop.Stop()
		})...)
		last := said.String()
		if code := rotation.ProcessState.ExitCode(); ended && code != 0 && !(code == exitRefused && strings.Contains(last, "keys add")) { // killed when all was done
			t.Fatalf("exit code %d: %s", code, last)
		}
	}
	t.Logf("p99 of %d calls beside no rotation %s, of %d during one of all rows %s", len(calm), p99(calm), len(rotating), p99(rotating))
	if p99(rotating) > p99(calm)*12/10 {
		t.Error("more than 1.2 times")
	}
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
