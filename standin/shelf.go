package standin

import "sync"

// things are what an account made: messages, assistants, events and so on, by kind.
type things struct {
	mu      sync.Mutex
	shelves map[string]*shelf // :: kind
}

// An object is one JSON object of an answer.
type object map[string]any

// A shelf keeps the newest objects of one kind, oldest first.
type shelf struct{ items []object }

const shelfSize = 1000

func (t *things) shelf(kind string) *shelf {
	s := t.shelves[kind]
	if s == nil {
		s = &shelf{}
		t.shelves[kind] = s
	}
	return s
}

// add puts o on the shelf of that kind.
func (t *things) add(kind string, o object) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.shelf(kind)
	s.items = append(s.items, o)
	if len(s.items) > shelfSize {
		s.items = append(s.items[:0:0], s.items[1:]...)
	}
}

// list is a copy of the shelf of that kind, newest first.
func (t *things) list(kind string) []object {
	t.mu.Lock()
	defer t.mu.Unlock()
	items := t.shelf(kind).items
	out := make([]object, 0, len(items))
	for i := len(items) - 1; i >= 0; i-- {
		out = append(out, items[i])
	}
	return out
}

// find is the object whose member key has that value, or nil.
func (t *things) find(kind, key, value string) object {
	for _, o := range t.list(kind) {
		if o[key] == value {
			return o
		}
	}
	return nil
}

// replace puts o in the place of the object with the same member key; nil o removes it. It says whether there was one.
func (t *things) replace(kind, key, value string, o object) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.shelf(kind)
	for i, old := range s.items {
		if old[key] == value {
			items := append([]object(nil), s.items[:i]...)
			if o != nil {
				items = append(items, o)
			}
			s.items = append(items, s.items[i+1:]...)
			return true
		}
	}
	return false
}

// Made is a copy of what an account of that label made: "assistant", "call", "message", "email" and so on, newest first.
func (s *Set) Made(label, provider, kind string) []map[string]any {
	a := s.accounts.labelled(provider, label)
	if a == nil {
		return nil
	}
	var all []map[string]any
	for _, o := range a.list(kind) {
		all = append(all, o)
	}
	return all
}
