package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"
)

// A keyKeeper keeps a keyLog: it says when this process is alone, and gives SQLite what the log has.
//
// Who answers messages on an SQLite file holds a lock on STORE.keys/alone: shared, if it tells SQLite of each key at once, or exclusively, if it
// keeps them in its log. The lock next is held by whoever wants the first or to have it exclusively: one at a time, and whoever has the
// log sees by it that somebody wants to join. It then gives SQLite what it has, and shares.
//
// The kernel gives the locks up with their process. What the log of one that was killed holds is taken over by the next to join, before
// anybody else does.
type keyKeeper struct {
	d           *DB
	l           *keyLog
	dir         *os.Root
	alone, next *os.File

	joined bool // has the lock alone, shared or exclusively
	mine   bool // exclusively
	wants  bool // has the lock next
	lapsed bool // somebody may have gone on who did not join, and have left something
	heir   bool // has the reserve of somebody else whose log may be there still: it stays until that is taken over
	asked  time.Time

	spare   *keyFile   // the other file of the log
	listed  bool       // what is moving
	rest    []keyUntil // of it
	atOnce  int        // so many at once
	puts    int        // how often something had been put in the reserve when that began; -1: the reserve stays
	left    []*keyFile // what somebody left, and is moving; emptied once SQLite has it
	turned  time.Time  // when the files last took turns
	failed  bool       // and it is in the log
	filling sync.WaitGroup
	stop    context.CancelFunc // ends filling; nil: it is not
	filled  chan error         // how that ended
}

// A keyUntil is what SQLite is told of a key: until when it is kept; negative: that the one that was kept until then is forgotten.
type keyUntil struct {
	key   logKey
	until int64
}

// joinPatience is what one has with who keeps keys by itself and does not let others join. Only tests change it.
var joinPatience = 5 * time.Second

const (
	keepEvery  = 100 * time.Millisecond // how often is seen whether somebody wants to join
	moveEvery  = 5 * time.Millisecond   // how often SQLite is given some keys, while there are any
	turnEvery  = time.Second            // how long keys are kept before it is given them
	aloneAfter = time.Second            // of being one of those who answer; and how often it is tried
	moveAtOnce = 32                     // keys in a transaction at least: others wait for it, and what is asked meanwhile for the processor
	moveWithin = 200                    // steps
)

// HoldKeys has this process be one of those that answer messages on the store: to be called before the first. While it is the only one on
// an SQLite file it keeps the keys itself, which is several times as fast; see keyLog. On PostgreSQL it does nothing.
func (d *DB) HoldKeys(ctx context.Context) error {
	if d.lite == nil {
		return nil
	}
	k := &keyKeeper{d: d, l: &d.lite.keyLog, filled: make(chan error, 1)}
	if err := k.open(); err != nil {
		return fmt.Errorf("the keys of webhooks that were answered: %w", err)
	}
	if err := k.first(ctx); err != nil {
		k.close()
		return fmt.Errorf("the keys of webhooks that were answered: %w", err)
	}
	d.feeds.Go(func() { k.run(d.closing) })
	return nil
}

func (k *keyKeeper) open() (err error) {
	if k.dir, err = k.d.lite.folder(k.d.lite.path + ".keys"); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			k.close()
		}
	}()
	if k.alone, err = k.d.lite.openOwn(k.dir, "alone"); err != nil {
		return err
	}
	if k.next, err = k.d.lite.openOwn(k.dir, "next"); err != nil {
		return err
	}
	r, err := openReserve(k.d.lite, k.dir)
	if err != nil {
		return err
	}
	k.l.mu.Lock()
	defer k.l.mu.Unlock()
	k.l.reserve, k.heir = r, r.pending()
	k.l.others.dir, k.l.others.mine = k.dir, r.slot
	return nil
}

// first joins, or has what there is to know be read by a log that somebody keeps who does not answer.
func (k *keyKeeper) first(ctx context.Context) error {
	for until := time.Now().Add(joinPatience); ; {
		err := k.join()
		switch {
		case err != nil || k.joined:
			return err
		case time.Now().After(until):
			k.d.log.Warn().Msg("another process keeps the keys of answered webhooks and does not let this one join; what it has written down is read")
			k.l.mu.Lock()
			k.l.apart = true // it may still forget one: its log is read whenever it says something
			k.l.mu.Unlock()
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// join tries to be one of those who answer. Nobody keeps a log then.
func (k *keyKeeper) join() (err error) {
	if !k.wants {
		if k.wants, err = lock(k.next, syscall.LOCK_EX); !k.wants {
			return err
		}
	}
	if k.joined, err = lock(k.alone, syscall.LOCK_SH); !k.joined {
		return err // still wanted
	}
	k.asked = time.Now()
	if err = k.takeOver(true); err != nil {
		k.joined = false
		return errors.Join(err, unlock(k.alone))
	}
	return nil
}

// run keeps the log until ctx ends, and then gives SQLite what it has.
func (k *keyKeeper) run(ctx context.Context) {
	defer k.close()
	for ctx.Err() == nil {
		k.say(k.step(ctx))
		every := keepEvery
		if k.l.moving != nil && !k.failed {
			every = moveEvery
		}
		select {
		case <-time.After(every):
		case <-ctx.Done():
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	k.say(k.moveAll(ctx))
}

// say logs when SQLite cannot be told any more, and when it can again. Nothing is lost meanwhile: the log has it.
func (k *keyKeeper) say(err error) {
	switch {
	case err != nil && !k.failed && !errors.Is(err, context.Canceled):
		k.d.log.Warn().Err(err).Msg("the keys of answered webhooks stay in their log; they will be moved to the store")
		k.failed = true
	case err == nil && k.failed:
		k.d.log.Info().Msg("the keys of answered webhooks are moved to the store again")
		k.failed = false
	}
}

// step does what is due.
func (k *keyKeeper) step(ctx context.Context) error {
	k.setAside()
	if !k.joined && !k.wants { // while SQLite cannot be told what is in the reserve, too: nobody may take themselves for alone
		var err error
		if k.wants, err = lock(k.next, syscall.LOCK_EX); err != nil {
			return err
		}
	}
	if k.mine {
		wanted, err := k.wanted()
		if err != nil {
			return err
		}
		if wanted {
			return k.yield(ctx)
		}
	}
	moving, cancel := context.WithTimeout(ctx, joinPatience/5) // SQLite that is held up must not keep others from joining
	defer cancel()
	if err := k.moveSome(moving); err != nil {
		return err
	}
	switch {
	case k.l.moving != nil:
		return nil
	case k.mine && k.lapsed:
		err := k.takeOver(false)
		k.lapsed = err != nil
		return err
	case k.mine:
		return k.keep(ctx)
	case k.pending():
		return nil
	case !k.joined:
		return k.join()
	}
	return k.beAlone(ctx)
}

// wanted says whether somebody wants to join.
func (k *keyKeeper) wanted() (bool, error) {
	asked := time.Now()
	free, err := lock(k.next, syscall.LOCK_EX)
	if err != nil || !free {
		return err == nil, err
	}
	k.l.mu.Lock()
	late := asked.After(k.l.trust)
	k.l.mu.Unlock()
	if late { // somebody may have come and gone, of whose keys the filter does not know
		k.suspend()
	}
	k.trust(asked)
	return false, unlock(k.next)
}

// suspend has the log be out of force, until the filter is made anew.
func (k *keyKeeper) suspend() {
	k.unfill()
	k.lapsed = true
	k.l.mu.Lock()
	defer k.l.mu.Unlock()
	k.l.on, k.l.filter = false, keyFilter{}
}

// trust has the log be in force for less than the patience of who begins to want to join now.
func (k *keyKeeper) trust(now time.Time) {
	k.l.mu.Lock()
	defer k.l.mu.Unlock()
	k.l.trust = now.Add(joinPatience / 2)
}

// beAlone tries to have the log.
func (k *keyKeeper) beAlone(ctx context.Context) (err error) {
	if time.Since(k.asked) < aloneAfter {
		return nil
	}
	k.asked = time.Now()
	if k.wants, err = lock(k.next, syscall.LOCK_EX); !k.wants {
		return err
	}
	k.mine, err = lock(k.alone, syscall.LOCK_EX)
	if !k.mine { // trying has cost the lock that there was (flock(2)); nobody else can have had it alone meanwhile
		if err = errors.Join(err, k.share()); err == nil {
			err = k.takeOver(false) // of one of several that was killed
		}
		return err
	}
	// Somebody else may have had it before, and been killed.
	err = k.takeOver(true)
	if err == nil {
		err = k.moveAll(ctx)
	}
	if err != nil {
		return errors.Join(err, k.share())
	}
	return errors.Join(k.begin(ctx), k.leave())
}

// begin opens the log. It is in force once the filter is made.
func (k *keyKeeper) begin(ctx context.Context) error {
	var files [len(logNames)]*keyFile
	for i, name := range logNames {
		f, err := k.d.lite.openKeyFile(k.dir, name)
		if err != nil {
			closeAll(files[:i])
			return errors.Join(err, k.share())
		}
		files[i] = f
	}
	k.l.mu.Lock()
	k.l.fresh = files[0]
	k.l.mu.Unlock()
	k.spare, k.turned, k.lapsed = files[1], time.Now(), false
	k.trust(k.turned)
	k.fill(ctx)
	return nil
}

func (k *keyKeeper) fill(ctx context.Context) {
	ctx, k.stop = context.WithCancel(ctx)
	k.filling.Go(func() { k.filled <- k.d.fillFilter(ctx) })
}

// keep has the files take turns, and makes the filter anew when it is full.
func (k *keyKeeper) keep(ctx context.Context) (err error) {
	if k.stop != nil {
		select {
		case err = <-k.filled:
			k.stop()
			k.stop = nil
		default:
		}
	}
	k.l.mu.Lock()
	defer k.l.mu.Unlock()
	if err != nil {
		k.l.filter.next, k.l.filter.room = nil, 0 // again at the next step
		return fmt.Errorf("reading which webhooks were answered: %w", err)
	}
	if k.stop == nil && (k.l.filter.all == nil || k.l.filter.room <= 0) {
		k.fill(ctx)
	}
	if k.l.reserve.pending() || k.l.fresh.next > 0 && time.Since(k.turned) >= turnEvery {
		k.turn()
	}
	return nil
}

// yield gives SQLite all there is and shares the lock.
func (k *keyKeeper) yield(ctx context.Context) error {
	k.suspend()
	if err := k.moveAll(ctx); err != nil {
		return err // tried again at the next step
	}
	k.l.mu.Lock()
	f := k.l.fresh
	k.l.fresh = nil
	k.l.mu.Unlock()
	closeAll([]*keyFile{f, k.spare})
	k.spare = nil
	return k.share()
}

// share makes an exclusive lock a shared one, so that others can join.
func (k *keyKeeper) share() (err error) {
	k.mine, k.asked = false, time.Now()
	k.joined, err = lock(k.alone, syscall.LOCK_SH)
	return err
}

// leave lets the next one join, before this one tries anew to be alone.
func (k *keyKeeper) leave() error {
	k.wants, k.asked = false, time.Now()
	return unlock(k.next)
}

func (k *keyKeeper) unfill() {
	if k.stop == nil {
		return
	}
	k.stop()
	k.filling.Wait()
	k.stop, k.filled = nil, make(chan error, 1)
}

// close gives up the locks, with their files.
func (k *keyKeeper) close() {
	k.unfill()
	k.l.mu.Lock()
	k.l.on = false
	files := append(slices.Clone(k.left), k.l.fresh, k.l.moving, k.spare)
	if k.l.reserve != nil {
		files = append(files, &keyFile{f: k.l.reserve.f})
	}
	k.l.mu.Unlock()
	k.l.others.close()
	for _, f := range files {
		if f != nil && f.f != nil {
			_ = f.f.Close()
		}
	}
	for _, f := range []*os.File{k.alone, k.next} {
		if f != nil {
			_ = f.Close()
		}
	}
	_ = k.dir.Close()
}
