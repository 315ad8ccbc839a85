package cache

import (
	"sync"
	"sync/atomic"
)

// slots is how many generations a fence keeps. Owners share them by hash, so that the number of orgs costs no memory; that two orgs meet
// in one slot only means that a change to one makes the other be read again; where the store cannot be reached, last tells them apart.
const slots = 4096

// A fence says which rows still count. A row is read after its stamp was taken and counts only while the stamp stands, so a row that was
// read before a change, however late it arrives, is never taken for one that was read after it.
type fence struct {
	all atomic.Uint64        // raised when anyone's rows may have changed
	own [slots]atomic.Uint64 // hash of the owner → raised when this owner's have

	mu   sync.Mutex           // of raise
	last [slots]atomic.Uint64 // the owner for whom own was raised last
}

// A stamp is the generation of one owner at one moment.
type stamp struct{ all, own uint64 }

func (f *fence) at(owner uint64) stamp {
	return stamp{f.all.Load(), f.own[owner%slots].Load()}
}

// stands: no change has been heard of since.
func (f *fence) stands(s stamp, owner uint64) bool { return f.at(owner) == s }

// unnamed: no change has named this owner since. That anyone's rows may have changed leaves room for doubt, which a store that can be
// reached would settle. One change that named another owner of the same slot leaves none; two might have named anybody.
func (f *fence) unnamed(s stamp, owner uint64) bool {
	own, last := &f.own[owner%slots], &f.last[owner%slots]
	now := own.Load()
	return now == s.own || now == s.own+1 && last.Load() != owner && own.Load() == now // the last one: it is still that change's owner
}

// raise makes the generation known before its owner: who reads them the other way round, and the generation again, is never told of another owner
// than that generation's, once its raise has returned.
func (f *fence) raise(owner uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.own[owner%slots].Add(1)
	f.last[owner%slots].Store(owner)
}

func (f *fence) raiseAll() { f.all.Add(1) }

// before says that s was surely taken before t.
func (s stamp) before(t stamp) bool { return s.all < t.all || s.own < t.own }
