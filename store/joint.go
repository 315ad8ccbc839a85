package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
)

// maxJoint is how many writes share a transaction at most.
const maxJoint = 64

// A joint lets writes that come while another one is under way share the next transaction. SQLite has one writer, and what takes its time
// is the disk at the end of each transaction: a hundred webhooks at once wait for it twice, not a hundred times.
type joint struct {
	mu      sync.Mutex
	busy    bool    // a transaction is under way, or somebody was told to begin the next
	waiting []*part // in the order of their coming
}

// errUnwritten: writing panicked.
var errUnwritten = errors.New("writing to the store panicked")

// A part is one of the writes of a transaction.
type part struct {
	change  func(*tx) error
	relaxed bool
	keep    func(*keyWriter) error // instead of change, in the joint of keys
	err     error
	turn    chan bool // true: begin the next transaction; false: it is done, and err says how
}

// together is write, or writeRelaxed, for what comes often and is small. PostgreSQL makes commits share the disk by itself. The change is made whole or not
// at all, whatever becomes of those that it shares the transaction with; it may run more than once.
func (d *DB) together(ctx context.Context, relaxed bool, change func(*tx) error) error {
	if d.lite == nil {
		return d.writeAs(ctx, relaxed, change)
	}
	return d.joint.join(ctx, &part{change: change, relaxed: relaxed}, d.writeParts)
}

// join has a part written, by write or with those of another call of it, and returns its error.
func (j *joint) join(ctx context.Context, p *part, write func([]*part)) error {
	p.turn = make(chan bool, 1)
	j.mu.Lock()
	j.waiting = append(j.waiting, p)
	lead := !j.busy
	j.busy = true
	j.mu.Unlock()
	for !lead {
		select {
		case lead = <-p.turn:
			if !lead {
				return p.err
			}
		case <-ctx.Done():
			if j.withdraw(p) {
				return fmt.Errorf("asking the store: %w", ctx.Err())
			}
			ctx = context.Background() // it is being written, or is to begin: either ends
		}
	}
	parts := j.take()
	written := false
	defer func() { // also when writing panics: the others must not wait for ever
		for _, p := range parts {
			if !written {
				p.err = errUnwritten
			}
		}
		j.pass(parts)
	}()
	write(parts)
	written = true
	return p.err
}

// withdraw takes a part out that nobody has begun to write.
func (j *joint) withdraw(p *part) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	i := slices.Index(j.waiting, p)
	if i < 0 || len(p.turn) > 0 {
		return false
	}
	j.waiting = slices.Delete(j.waiting, i, i+1)
	return true
}

// take takes the parts of the next transaction out. The first is that of the caller, whose turn it is.
func (j *joint) take() []*part {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := min(len(j.waiting), maxJoint)
	parts := slices.Clone(j.waiting[:n])
	j.waiting = slices.Delete(j.waiting, 0, n)
	return parts
}

// writeParts writes the parts in one transaction.
func (d *DB) writeParts(parts []*part) {
	relaxed := !slices.ContainsFunc(parts, func(p *part) bool { return !p.relaxed })
	// Not with the context of one of them, which must not end the others' transaction; write has its own limit.
	err := d.writeAs(context.Background(), relaxed, func(t *tx) error {
		for _, p := range parts {
			if err := p.change(t); err != nil {
				return err
			}
		}
		return nil
	})
	for _, p := range parts {
		if p.err = err; err != nil && len(parts) > 1 && !errors.Is(err, ErrUnavailable) {
			p.err = d.writeAs(context.Background(), p.relaxed, p.change) // one of them is at fault: not the others
		}
	}
}

// pass tells those whose parts were written, but for the first, and lets the next begin.
func (j *joint) pass(written []*part) {
	for _, p := range written[1:] {
		p.turn <- false
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.busy = len(j.waiting) > 0; j.busy {
		j.waiting[0].turn <- true
	}
}
