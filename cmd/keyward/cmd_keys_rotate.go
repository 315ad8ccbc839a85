package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/keyward/keyward/seal"
	"github.com/keyward/keyward/store"
	"github.com/keyward/keyward/webhook"
)

const (
	resealBatch = 25 // rows of one transaction: others wait for it, on SQLite all of them

	// resealPatience is how long the sidecars may take to seal with the new key.
	resealPatience = 30 * time.Second
	// resealAfter is how long after the last of them does so the last pass begins: what was being written then is there by now.
	resealAfter = time.Second
)

func cmdKeysRotate(ctx context.Context, f *flags, args []string, std stdio) error {
	var k keyCommand
	f.bind(&k.storage)
	to := f.String("to", "", "make this `KEY_ID` primary; without it the newest active key")
	force := f.Bool("force", false, "rotate although sidecars that run do not have the key: their orgs fail until they do")
	rate := f.Int("rate", 0, "re-seal at most so many `ROWS` a second; 0: an eighth of the time")
	asJSON := f.json()
	if err := f.parse(args); err != nil {
		return err
	}
	if *rate < 0 {
		return usagef("--rate %d: must not be negative", *rate)
	}
	if err := k.open(ctx, f); err != nil {
		return err
	}
	defer k.close()
	if k.db == nil {
		return fmt.Errorf("rotating needs the store: %w", k.noDB)
	}
	_ = harden() // credentials pass through this process
	giveWay()

	r := &resealing{keyCommand: &k, rate: *rate, std: std, watched: !*asJSON && watches(std.err)}
	if err := r.promote(ctx, *to, *force); err != nil {
		return err
	}
	defer r.ring.Wipe()
	if err := r.run(ctx); err != nil {
		return err
	}
	return r.report(*asJSON)
}

// A resealing is a rotation under way. It can be ended at any moment, and begun again: which rows are left is in the rows.
type resealing struct {
	*keyCommand
	rate    int
	std     stdio
	watched bool // somebody looks at the progress

	ring     *seal.Keyring
	key      string // the primary one
	promoted bool   // by this run
	total    int64  // rows to re-seal, as counted at the start
	done     int64
	began    time.Time
	shown    time.Time

	unreadable map[string]string // by the row's table and name → the key that it says it was sealed by
	plain      []byte
	context    []byte
}

// promote makes the next key primary, unless an earlier rotation has not come to its end, or says why there is nothing to do.
func (r *resealing) promote(ctx context.Context, to string, force bool) (err error) {
	if r.ring, err = r.keys(ctx); err != nil {
		return err
	}
	left, err := r.left(ctx)
	if err != nil {
		return err
	}
	primary, next := r.ring.PrimaryID(), to
	if next == "" && r.unfinished(left) {
		next = primary
	}
	if next == "" {
		next = r.ring.Successor()
	}
	switch {
	case next == "" && sum(left) == 0:
		return refused{fmt.Errorf("no active key is newer than the primary one, %s, and it has sealed every row: keyward keys add makes a new one", primary)}
	case next == "" || next == primary:
		r.key = primary
		return nil
	}
	if !r.has(next) {
		return notFound{fmt.Errorf("key %q: %w in %s", next, seal.ErrNoKey, r.source)}
	}
	sidecars, err := r.db.Sidecars(ctx)
	if err != nil {
		return err
	}
	if lack := without(sidecars, next); len(lack) > 0 && !force {
		return refused{fmt.Errorf("%d of %d sidecars that run do not have key %s, and could not open what it seals: %s; give them the same key source and wait for keyward keys list to show it (or --force)",
			len(lack), len(sidecars), next, named(lack))}
	}
	if err := r.update(ctx, func(keys *seal.Keyring) error { return keys.Promote(next) }); err != nil {
		return err
	}
	r.key, r.promoted = next, true
	if err := r.ring.Promote(next); err != nil {
		return err
	}
	if err := r.db.KeyEvent(ctx, cliActor(), "key.rotate", next, "primary instead of "+primary); err != nil {
		return fmt.Errorf("key %s is primary now, and rows are still to be re-sealed (begin again): %w", next, err)
	}
	return nil
}

func (r *resealing) has(id string) bool {
	for _, k := range r.ring.Keys() {
		if k.ID == id {
			return true
		}
	}
	return false
}

// unfinished says whether a retiring key still has rows: an earlier rotation was ended before it was through.
func (r *resealing) unfinished(left map[string]int64) bool {
	for _, k := range r.ring.Keys() {
		if k.State == seal.Retiring && left[k.ID] > 0 {
			return true
		}
	}
	return false
}

// left is how many rows each key but the primary has sealed.
func (r *resealing) left(ctx context.Context) (map[string]int64, error) {
	counts, err := r.db.SealCounts(ctx)
	if err != nil {
		return nil, err
	}
	rows := map[string]int64{}
	for _, c := range counts {
		if c.KeyID != "" && c.KeyID != r.ring.PrimaryID() {
			rows[c.KeyID] += c.Rows
		}
	}
	return rows, nil
}

func sum(rows map[string]int64) (n int64) {
	for _, c := range rows {
		n += c
	}
	return n
}

// run goes through all rows until none is left, and once more after the last sidecar seals with the new key.
func (r *resealing) run(ctx context.Context) error {
	left, err := r.left(ctx)
	if err != nil {
		return err
	}
	r.total, r.began = sum(left), time.Now()
	deadline := time.Now().Add(resealPatience)
	for last := false; ; {
		if err := r.pass(ctx); err != nil {
			r.clearLine()
			return fmt.Errorf("%w; %d rows are re-sealed, and keyward keys rotate goes on with the others", err, r.done)
		}
		if last {
			break
		}
		behind, err := r.behind(ctx)
		switch {
		case err != nil:
			return err
		case len(behind) > 0 && time.Now().After(deadline):
			r.clearLine()
			return fmt.Errorf("every row is re-sealed, but these sidecars still seal with an older key: %s; give them the same key source, then run keyward keys rotate again", named(behind))
		case len(behind) == 0:
			last = true
			if !r.promoted {
				break
			}
			deadline = time.Now().Add(resealPatience)
		}
		if err := sleep(ctx, resealAfter); err != nil {
			return err
		}
	}
	r.clearLine()
	return nil
}

// behind are the sidecars that do not seal with the new key yet.
func (r *resealing) behind(ctx context.Context) ([]store.Sidecar, error) {
	all, err := r.db.Sidecars(ctx)
	return sealingWith(all, func(id string) bool { return id != r.key }), err
}

// pass re-seals what it finds, from the first row to the last.
func (r *resealing) pass(ctx context.Context) error {
	var at store.ResealCursor
	r.unreadable = map[string]string{}
	for {
		began := time.Now()
		n, done, err := r.batch(ctx, &at)
		if err != nil {
			return err
		}
		r.done += int64(n)
		r.progress()
		if done {
			return r.deliveries(ctx)
		}
		rest := 7 * time.Since(began) // others have most of everything
		if r.rate > 0 {
			rest = time.Duration(n)*time.Second/time.Duration(r.rate) - time.Since(began)
		}
		if err := sleep(ctx, rest); err != nil {
			return err
		}
	}
}

// deliveries re-seals the webhooks that wait, or are kept. What cannot be opened stays, and keeps its key from being retired.
func (r *resealing) deliveries(ctx context.Context) error {
	for deadline := time.Now().Add(resealPatience); ; {
		n, err := webhook.Reseal(ctx, r.db, r.ring)
		r.done += int64(n)
		if !errors.Is(err, store.ErrUnavailable) || time.Now().After(deadline) {
			return err
		}
		if err := sleep(ctx, time.Second); err != nil {
			return err
		}
	}
}

// batch re-seals one batch. A store that is away for a moment is waited for.
func (r *resealing) batch(ctx context.Context, at *store.ResealCursor) (n int, done bool, err error) {
	limit := resealBatch
	if r.rate > 0 {
		limit = max(1, min(limit, r.rate/4))
	}
	for deadline := time.Now().Add(resealPatience); ; {
		n, done, err = r.db.Reseal(ctx, cliActor(), r.key, at, limit, r.reseal)
		if !errors.Is(err, store.ErrUnavailable) || time.Now().After(deadline) {
			return n, done, err
		}
		if err := sleep(ctx, time.Second); err != nil {
			return 0, false, err
		}
	}
}

// reseal opens a row and seals it with the primary key, for the same.
func (r *resealing) reseal(row *store.SealedRow) bool {
	r.context = row.AppendContext(r.context[:0])
	if need := len(row.Sealed); cap(r.plain) < need {
		r.plain = make([]byte, 0, 2*need)
	}
	plain, err := r.ring.Open(r.plain[:0], row.Sealed, r.context)
	if err != nil {
		id, ok := seal.SealedWith(row.Sealed)
		if !ok {
			id = row.KeyID
		}
		r.unreadable[row.Table+" "+row.Name] = id
		return false
	}
	row.Sealed = r.ring.Seal(make([]byte, 0, len(row.Sealed)+64), plain, r.context)
	clear(plain)
	return true
}

// progress shows how far it is, on a terminal.
func (r *resealing) progress() {
	if !r.watched || time.Since(r.shown) < 200*time.Millisecond {
		return
	}
	r.shown = time.Now()
	fmt.Fprintf(r.std.err, "\r%d of %d rows re-sealed, %.0f rows/s \x1b[K", r.done, max(r.total, r.done), r.speed())
}

func (r *resealing) clearLine() {
	if !r.shown.IsZero() {
		fmt.Fprint(r.std.err, "\r\x1b[K")
	}
}

func (r *resealing) speed() float64 {
	return float64(r.done) / max(time.Since(r.began).Seconds(), 1e-9)
}

// report says what was done. Rows that no key opens are an error, with the keys that they need.
func (r *resealing) report(asJSON bool) error {
	seconds, rate := time.Since(r.began).Seconds(), r.speed()
	if asJSON {
		err := printJSON(r.std.out, map[string]any{
			"key_id": r.key, "promoted": r.promoted, "resealed": r.done, "unreadable": len(r.unreadable), "seconds": seconds, "rows_per_second": rate,
		})
		if err != nil {
			return err
		}
	} else {
		if r.promoted {
			fmt.Fprintf(r.std.out, "key %s is primary\n", r.key)
		}
		fmt.Fprintf(r.std.out, "re-sealed %d rows with key %s in %.1f s (%.0f rows/s)\n", r.done, r.key, seconds, rate)
	}
	if len(r.unreadable) == 0 {
		if !asJSON && r.promoted {
			fmt.Fprintln(r.std.err, "When no backup needs the old key any more: keyward keys retire.")
		}
		return nil
	}
	keys := map[string]int{}
	var first string
	for row, id := range r.unreadable {
		keys[id]++
		if first == "" || row < first {
			first = row
		}
	}
	var words []string
	for id, n := range keys {
		words = append(words, fmt.Sprintf("%d of key %s", n, printable(id)))
	}
	return fmt.Errorf("%d rows could not be opened and are as they were (%s; the first: %s); put the key that sealed them into the key source, or set their credentials anew",
		len(r.unreadable), strings.Join(words, ", "), first)
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

const keysRotateExample = `
keyward keys rotate --data-dir .keyward
KEYWARD_STORE=postgres://keyward:…@db/keyward keyward keys rotate --key file:/etc/keyward/keys.json --rate 2000
`
