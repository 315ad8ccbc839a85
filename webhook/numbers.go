package webhook

import (
	"sync"
	"sync/atomic"
)

// A tally counts by words that are in the program. How many it takes is bounded all the same: what comes when it is full is counted as other.
type tally struct {
	mu  sync.RWMutex
	all map[[2]string]*atomic.Uint64
}

const maxTally = 128

func (t *tally) add(a, b string) {
	key := [2]string{a, b}
	t.mu.RLock()
	n := t.all[key]
	t.mu.RUnlock()
	if n == nil {
		n = t.begin(key)
	}
	n.Add(1)
}

func (t *tally) begin(key [2]string) *atomic.Uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.all == nil {
		t.all = map[[2]string]*atomic.Uint64{}
	}
	if len(t.all) >= maxTally && t.all[key] == nil {
		key = [2]string{"other", "other"}
	}
	if t.all[key] == nil {
		t.all[key] = &atomic.Uint64{}
	}
	return t.all[key]
}

func (t *tally) copied() map[[2]string]uint64 {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make(map[[2]string]uint64, len(t.all))
	for key, n := range t.all {
		all[key] = n.Load()
	}
	return all
}

// Outcomes are what may become of a webhook, as Numbers has it.
var Outcomes = []string{"answered", "accepted", "duplicate", "unverified", "refused", "failed"}

// Numbers are what became of webhooks since the start.
type Numbers struct {
	Outcomes map[[2]string]uint64 // by provider (none: not known) and outcome
	Verified map[[2]string]uint64 // by provider, whatever became of them then
	Refusals map[[2]string]uint64 // by code, and why it is not verified
}

// Numbers copies them.
func (s *Server) Numbers() Numbers {
	return Numbers{Outcomes: s.outcomes.copied(), Verified: s.verifieds.copied(), Refusals: s.refusals.copied()}
}

// count counts a webhook that is over.
func (c *call) count() {
	name := "none"
	if c.source != nil {
		name = c.source.provider.Name
	}
	c.s.outcomes.add(name, c.outcome())
	if c.verified {
		c.s.verifieds.add(name, "")
	}
}

func (c *call) outcome() string {
	switch {
	case c.duplicate, c.code == refuseReplayed.code:
		return "duplicate"
	case c.code == refuseUnverified.code:
		return "unverified"
	case c.code != "" && (c.status >= 500 || c.code == codeCut):
		return "failed"
	case c.code != "":
		return "refused"
	case c.synced:
		return "answered"
	}
	return "accepted"
}

// codeCut is logged for an app's answer that did not come whole; nobody reads it.
const codeCut = "answer_cut"
