package store

import (
	"context"
	"database/sql"
	"time"

	"github.com/ncruces/go-sqlite3"
)

// How long SQLite's log may become, in pages of 4 KiB.
const (
	longLog    = 4000  // from here on it is folded into the file, beside the writers: pages that are written again and again are folded once
	longestLog = 16384 // from here on they wait until it is: it begins anew only when all of it is folded, and busy writers add to it meanwhile
)

// grown is called after each commit.
func (l *lite) grown(_ *sqlite3.Conn, _ string, pages int) error {
	if pages < longLog {
		return nil
	}
	select {
	case l.long <- struct{}{}:
	default:
	}
	return nil
}

// fold folds the log into the file whenever it has become long. It is owned by the DB. It waits for the disk twice, tens of milliseconds on
// a slow one: within a commit, as SQLite does it unless told otherwise, every message that is answered at that moment would.
func (l *lite) fold(ctx context.Context, r *sql.DB) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.long:
		}
		if pages := checkpoint(ctx, r, "PASSIVE", writeTimeout); pages < longestLog || restart(ctx, r) {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(restartPause):
		}
	}
}

const (
	restartPatience = 50 * time.Millisecond // with readers of what the log held before
	restartPause    = time.Second           // until they are asked for again
)

// restart has the log begin anew, which writers wait for. Who reads what it held before is not waited for, or only for a moment: somebody
// may read for minutes, a backup for one, and the log may grow meanwhile, but writers go on.
func restart(ctx context.Context, r *sql.DB) bool {
	return checkpoint(ctx, r, "RESTART", restartPatience) > 0
}

// checkpoint returns how long the log is; 0: something went wrong, or was in the way for longer than patience. It is tried again after a
// further commit.
func checkpoint(ctx context.Context, db *sql.DB, mode string, patience time.Duration) (pages int64) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var busy, moved int64
	if err := db.QueryRowContext(ctx, "PRAGMA wal_checkpoint("+mode+")").Scan(&busy, &pages, &moved); err != nil || busy != 0 {
		return 0
	}
	return pages
}

// removed says that something sealed was taken out of the store, which SQLite's log still holds.
func (d *DB) removed() {
	if d.lite == nil {
		return
	}
	select {
	case d.lite.dirty <- struct{}{}:
	default:
	}
}

// cleanUp folds the log into the file, where secure_delete has overwritten what was removed, and empties it. It is owned by the DB. It waits
// for a quiet moment: readers keep the log from being emptied, and it must not keep writers waiting.
func (l *lite) cleanUp(ctx context.Context, w *sql.DB) {
	const patience, pause = 20 * time.Millisecond, 200 * time.Millisecond
	for {
		select {
		case <-ctx.Done():
			return // closing the last connection does the same
		case <-l.dirty:
		}
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			if l.empty(ctx, w, patience) {
				break
			}
		}
	}
}

func (l *lite) empty(ctx context.Context, w *sql.DB, patience time.Duration) bool {
	conn, err := w.Conn(ctx)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var busy, pages, moved int64
	err = conn.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &pages, &moved)
	return err == nil && busy == 0
}
