package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/keyward/keyward/internal/memdir"
)

// A store whose file has lost its name takes no change that would go with it, and is back when the file is.
func TestSQLiteFileThatWasMoved(t *testing.T) {
	dir := memdir.New(t)
	path, aside := filepath.Join(dir, "keyward.db"), filepath.Join(dir, "aside.db")
	other := filepath.Join(memdir.New(t), "other.db")
	put(t, sqlite(t, other), acmeTwilio)
	for what, replace := range map[string]func() error{
		"removed":  func() error { return nil },
		"replaced": func() error { return copyFile(other, path) },
	} {
		d := sqlite(t, path)
		follow(t, d)
		globex := Ref{"globex", what}
		put(t, d, globex)
		ok(t, errors.Join(os.Rename(path, aside), replace()))
		is(t, second(d.SetActive(t.Context(), by, globex, false, 0)), ErrUnavailable)
		is(t, second(d.SetActive(t.Context(), by, globex, false, 0)), errMoved)
		is(t, second(d.AcceptDelivery(t.Context(), &Delivery{Org: "globex", Provider: "resend", Target: "http://127.0.0.1:1/"})), ErrUnavailable)
		eventually(t, what+": the feed is down", func() bool { return !d.FeedLive() })
		_, _, err := d.Credential(t.Context(), globex)
		is(t, err, ErrUnavailable)
		is(t, d.Ping(t.Context()), ErrUnavailable)

		ok(t, os.Rename(aside, path))
		eventually(t, what+": it is back", func() bool { return d.Ping(context.Background()) == nil && d.FeedLive() })
		_, err = d.SetActive(t.Context(), by, globex, false, 0)
		ok(t, err)
		ok(t, d.Close())
	}
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}
