package cache

import (
	"math/bits"
	"sync/atomic"
)

// maxRemembered is the longest name, in bytes, of which it is remembered that nothing has it: no name that the program itself gives out is
// longer, and one that a caller makes up should cost no memory.
const maxRemembered = 256

// A negatives remembers which rows do not exist. Its memory is bounded by its form: each name has one slot, and a newer one takes it over.
// A flood of made-up ids therefore pushes out only others of its kind, never a real row.
type negatives[K comparable, V any] []atomic.Pointer[entry[K, V]]

func newNegatives[K comparable, V any](size int) negatives[K, V] {
	return make(negatives[K, V], 1<<bits.Len(uint(size-1)))
}

func (n negatives[K, V]) at(p place) *atomic.Pointer[entry[K, V]] { return &n[p.row&uint64(len(n)-1)] }

func (n negatives[K, V]) get(p place, key K) *entry[K, V] {
	if e := n.at(p).Load(); e != nil && e.key == key {
		return e
	}
	return nil
}

func (n negatives[K, V]) put(p place, e *entry[K, V]) { n.at(p).Store(e) }
