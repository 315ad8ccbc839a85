package cache

import (
	"math/bits"
	"sync/atomic"
)

// maxRemembered is the longest name, in bytes, of which it is remembered that nothing has it: no name that the program itself gives out is
// longer, and one that a caller makes up should cost no memory.
const maxRemembered = 256

// A latest remembers the last entries that were put into it. Its memory is bounded by its form: each name has one slot, and a newer one takes
// it over. It is used for two things: which rows do not exist, so that a flood of made-up ids pushes out only others of its kind, never a
// real row; and the rows that the cache proper did not take when they were read.
type latest[K comparable, V any] []atomic.Pointer[entry[K, V]]

func newLatest[K comparable, V any](size int) latest[K, V] {
	return make(latest[K, V], 1<<bits.Len(uint(size-1)))
}

func (l latest[K, V]) at(p place) *atomic.Pointer[entry[K, V]] { return &l[p.row&uint64(len(l)-1)] }

func (l latest[K, V]) get(p place, key K) *entry[K, V] {
	if e := l.at(p).Load(); e != nil && e.key == key {
		return e
	}
	return nil
}

func (l latest[K, V]) put(p place, e *entry[K, V]) { l.at(p).Store(e) }
