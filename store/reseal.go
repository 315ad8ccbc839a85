package store

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"time"
)

// countTimeout bounds a count over all rows, which no request waits for.
const countTimeout = time.Minute

// sealedTables are the tables whose rows a key of the keyring has sealed, but for webhook_deliveries, whose rows are large and are sealed in
// two parts (sealing.go). Rotating and retiring keys, and counting seals, go through all of them: a table that is in neither place loses its
// rows with the first key that is retired.
var sealedTables = []sealedTable{credentialsTable, formerTable}

// A sealedTable says how re-sealing finds its way through one table. Re-sealing is no change of what a row says, so it takes no version;
// it is written only where the row still has the version, and the key, with which it was read.
type sealedTable struct {
	name string
	// counts reads, by key id, how many rows it has sealed, and about how often it has sealed them: never less than once each.
	counts string
	// gone reads how often rows were sealed that are no more.
	gone string
	// start is the cursor before the first row: the first parameters of next.
	start []any
	// next reads the rows after the cursor that another key than the one named has sealed, in the order of the cursor.
	next string
	scan func(*sql.Rows) (*SealedRow, error)
	// swap writes the rows of a batch that have not changed since they were read, in one statement on PostgreSQL.
	swap func(t *tx, key string, rows []*SealedRow) (written []*SealedRow, err error)
}

// A SealedRow is what re-sealing sees of a row.
type SealedRow struct {
	Table  string
	Name   string // of the row, for people: "acme/twilio"
	KeyID  string // that sealed it
	Sealed []byte // the envelope; Reseal's caller replaces it by the new one

	context func(dst []byte) []byte
	cursor  []any
	args    []any  // name it for swap, with its version
	change  Change // to announce
}

// AppendContext appends what the row is sealed for: re-sealing does not change it.
func (r *SealedRow) AppendContext(dst []byte) []byte { return r.context(dst) }

// A SealCount says what one key has sealed of one table.
type SealCount struct {
	Table string
	KeyID string // empty: rows that are no more, by whatever key
	Rows  int64
	Seals int64 // about how often it has sealed: an upper bound for the rows that are there
}

// SealCounts counts what each key has sealed, by table.
func (d *DB) SealCounts(ctx context.Context) (counts []SealCount, err error) {
	for _, table := range sealedTables {
		err := d.read(ctx, countTimeout, func(ctx context.Context) error {
			var found []SealCount
			err := d.list(ctx, func(r *sql.Rows) error {
				c := SealCount{Table: table.name}
				err := r.Scan(&c.KeyID, &c.Rows, &c.Seals)
				found = append(found, c)
				return err
			}, table.counts)
			if err == nil && table.gone != "" {
				c := SealCount{Table: table.name}
				err = d.r.QueryRowContext(ctx, table.gone).Scan(&c.Seals)
				found = append(found, c)
			}
			if err == nil {
				counts = append(counts, found...)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("counting what keys have sealed: %w", err)
		}
	}
	deliveries, err := d.DeliveryKeys(ctx)
	if err != nil {
		return nil, fmt.Errorf("counting what keys have sealed: %w", err)
	}
	for _, id := range slices.Sorted(maps.Keys(deliveries)) {
		if id != "" {
			counts = append(counts, SealCount{Table: "webhook_deliveries", KeyID: id, Rows: deliveries[id]}) // sealed in bulk, which wears no key out
		}
	}
	return counts, nil
}

// A ResealCursor is how far a pass of re-sealing has come. The zero one is at the start.
type ResealCursor struct {
	table int
	after []any
}

// Reseal re-seals one batch of rows that another key than the one named has sealed, and moves the cursor behind it. For each row reseal
// replaces Sealed, or says false to leave the row as it is. Rows that were written in between are left too: whoever wrote them has sealed
// them. Done is false until the cursor is at the end of the last table. The batch is one transaction, with one audit row.
func (d *DB) Reseal(ctx context.Context, by Actor, key string, at *ResealCursor, limit int, reseal func(*SealedRow) bool) (written int, done bool, err error) {
	if at.table >= len(sealedTables) {
		return 0, true, nil
	}
	table := &sealedTables[at.table]
	after := at.after
	if after == nil {
		after = table.start
	}
	var rows []*SealedRow
	err = d.read(ctx, listTimeout, func(ctx context.Context) error {
		rows = rows[:0]
		return d.list(ctx, func(r *sql.Rows) error {
			row, err := table.scan(r)
			rows = append(rows, row)
			return err
		}, table.next, append(append([]any{}, after...), key, limit)...)
	})
	if err != nil {
		return 0, false, fmt.Errorf("reading rows to re-seal: %w", err)
	}
	if len(rows) == 0 {
		at.table, at.after = at.table+1, nil
		return 0, at.table >= len(sealedTables), nil
	}
	last := rows[len(rows)-1].cursor
	kept := rows[:0]
	for _, row := range rows {
		if reseal(row) {
			kept = append(kept, row)
		}
	}
	if len(kept) > 0 {
		if written, err = d.swap(ctx, by, table, key, kept); err != nil {
			return 0, false, fmt.Errorf("writing re-sealed rows: %w", err)
		}
	}
	at.after = last
	return written, false, nil
}

func (d *DB) swap(ctx context.Context, by Actor, table *sealedTable, key string, rows []*SealedRow) (n int, err error) {
	err = d.write(ctx, func(t *tx) error {
		n = 0
		written, err := table.swap(t, key, rows)
		if err != nil || len(written) == 0 {
			return err
		}
		n = len(written)
		for _, row := range written {
			t.changes = append(t.changes, row.change)
		}
		return t.audit(by, "key.reseal", "", key, fmt.Sprintf("%s: %d rows, %s to %s", table.name, n, rows[0].Name, rows[len(rows)-1].Name))
	})
	if err == nil && n > 0 {
		d.removed() // what the old key sealed
	}
	return n, err
}

// KeyEvent records what was done with a key: "key.add", "key.rotate", "key.retire".
func (d *DB) KeyEvent(ctx context.Context, by Actor, action, key, detail string) error {
	return d.write(ctx, func(t *tx) error { return t.audit(by, action, "", key, detail) })
}
