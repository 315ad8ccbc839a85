package store

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

const childSidecar = "KEYWARD_TEST_CHILD_SIDECAR"

func attended(t *testing.T, d *DB) map[string]string {
	t.Helper()
	all, err := d.Sidecars(t.Context())
	ok(t, err)
	found := map[string]string{}
	for _, s := range all {
		found[s.ID] = s.Primary
		if age := time.Since(s.SeenAt); age < -5*time.Second || age > time.Minute {
			t.Errorf("seen at %v", s.SeenAt)
		}
	}
	return found
}

func TestSidecars(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		a, b, looks, ctx := e.open(t), e.open(t), e.open(t), t.Context()
		same(t, attended(t, looks), map[string]string{})
		began := stamp(time.Now())
		one := Sidecar{ID: "sc_1", Host: "pod-1", PID: 17, Version: "v1", Keys: []string{"k1"}, Primary: "k1", StartedAt: began}
		two := Sidecar{ID: "sc_2", Host: "pod-2", PID: 18, Version: "v1", Keys: []string{"k1"}, Primary: "k1", StartedAt: began}
		ok(t, a.Attend(ctx, &one))
		ok(t, b.Attend(ctx, &two))
		same(t, attended(t, looks), map[string]string{"sc_1": "k1", "sc_2": "k1"})

		one.Keys, one.Primary = []string{"k1", "k2"}, "k2"
		for range 3 {
			ok(t, a.Attend(ctx, &one))
		}
		same(t, attended(t, looks), map[string]string{"sc_1": "k2", "sc_2": "k1"})
		all, err := looks.Sidecars(ctx)
		ok(t, err)
		one.SeenAt = all[0].SeenAt
		same(t, all[0], one)

		ok(t, b.Leave(ctx, two.ID))
		same(t, attended(t, looks), map[string]string{"sc_1": "k2"})
		ok(t, a.Leave(ctx, one.ID))
		same(t, attended(t, looks), map[string]string{})
	})
}

// On SQLite a sidecar that was killed is gone at once; on PostgreSQL after a minute without a word.
func TestKilledSidecar(t *testing.T) {
	if url := os.Getenv(childSidecar); url != "" {
		d, err := Open(t.Context(), url, Options{})
		ok(t, err)
		ok(t, d.Attend(t.Context(), &Sidecar{ID: "sc_child", PID: os.Getpid(), Place: "here", Primary: "k1", StartedAt: time.Now()}))
		_, _ = os.Stdout.WriteString("attends\n")
		select {}
	}
	onBoth(t, func(t *testing.T, e engine) {
		d := e.open(t)
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledSidecar$")
		cmd.Env = append(os.Environ(), childSidecar+"="+e.url)
		out, err := cmd.StdoutPipe()
		ok(t, err)
		ok(t, cmd.Start())
		_, err = out.Read(make([]byte, 100))
		ok(t, err)
		same(t, attended(t, d), map[string]string{"sc_child": "k1"})
		ok(t, cmd.Process.Kill())
		_ = cmd.Wait()
		if e.name == "postgres" {
			same(t, attended(t, d), map[string]string{"sc_child": "k1"})
			_, err := d.w.ExecContext(t.Context(), "UPDATE sidecars SET seen_at = seen_at - interval '61 seconds'")
			ok(t, err)
		}
		same(t, attended(t, d), map[string]string{})
	})
}

// One that comes back where another was killed takes its place at once. Those that live, there or elsewhere, stay.
func TestSidecarTakesThePlaceOfOneThatWasKilled(t *testing.T) {
	d := engine{"postgres", engines[1].url(t)}.open(t)
	if _, err := d.MigrateUp(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone := exec.Command("true")
	ok(t, gone.Run())
	sidecar := func(id, place string, pid int) *Sidecar {
		return &Sidecar{ID: id, Place: place, PID: pid, Primary: "k1", StartedAt: time.Now()}
	}
	ok(t, d.Attend(t.Context(), sidecar("sc_killed", "here", gone.Process.Pid)))
	ok(t, d.Attend(t.Context(), sidecar("sc_elsewhere", "there", gone.Process.Pid)))
	ok(t, d.Attend(t.Context(), sidecar("sc_nowhere", "", gone.Process.Pid)))
	ok(t, d.Attend(t.Context(), sidecar("sc_hands_over", "here", os.Getppid())))
	ok(t, d.Attend(t.Context(), sidecar("sc_new", "here", os.Getpid())))
	same(t, attended(t, d), map[string]string{"sc_elsewhere": "k1", "sc_nowhere": "k1", "sc_hands_over": "k1", "sc_new": "k1"})
	ok(t, d.Attend(t.Context(), sidecar("sc_container_again", "here", os.Getpid())))
	same(t, attended(t, d), map[string]string{"sc_elsewhere": "k1", "sc_nowhere": "k1", "sc_hands_over": "k1", "sc_container_again": "k1"})
}

// A sidecar that changes what it says is never missed by who looks at that moment.
func TestSidecarIsNeverMissed(t *testing.T) {
	d := engine{"sqlite", engines[0].url(t)}.open(t)
	s := Sidecar{ID: "sc_1", Primary: "k0"}
	ok(t, d.Attend(t.Context(), &s))
	stop := make(chan struct{})
	done := make(chan error)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			s.PID = i
			if err := d.Attend(t.Context(), &s); err != nil {
				done <- err
				return
			}
		}
	}()
	for range 2000 {
		if all, err := d.Sidecars(t.Context()); err != nil || len(all) != 1 {
			t.Fatalf("%v, %v", all, err)
		}
	}
	close(stop)
	ok(t, <-done)
}
