package admin

import (
	"net/netip"
	"sync"
	"time"
)

// How often a wrong token may be tried. A token has 256 random bits, so nobody finds one in this way; the limits keep those who try from
// costing more than an answer.
const (
	guessesPerPeer = 10 // at once, and then one every peerPause
	peerPause      = 6 * time.Second
	guessesInAll   = 100
	allPause       = 600 * time.Millisecond
	maxGuessers    = 4096 // whose tries are remembered
	maxGood        = 4096 // tokens that are remembered to have been right
)

// guesses limit how often tokens are tried: by each address and by all. A token that was right lately is not counted, so that nobody can
// keep a person who is logged in out by guessing from the same address.
type guesses struct {
	mu    sync.Mutex
	peers map[string]*bucket // :: address, or an IPv6 network → its tries
	all   bucket
	good  map[[32]byte]struct{} // hashes; nothing is allowed by being in here, only asked
	told  time.Time             // when the audit log last had a line about it
}

// tellEvery is how often the audit log gets a line about guessing, by however many: it cannot be filled with them.
const tellEvery = time.Minute

// tell says whether it is time for a line.
func (g *guesses) tell(now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Sub(g.told) < tellEvery {
		return false
	}
	g.told = now
	return true
}

// A bucket holds tries that were made and not forgotten yet.
type bucket struct {
	made float64
	at   time.Time // when made was right
}

func newGuesses() *guesses {
	return &guesses{peers: map[string]*bucket{}, good: map[[32]byte]struct{}{}}
}

// try counts a try of from, before it is known whether the token is right. When there were too many it says how long to wait, and then
// the token is not to be looked at.
func (g *guesses) try(from string, hash [32]byte, now time.Time) (wait time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.good[hash]; ok {
		return 0
	}
	b := g.peers[from]
	if b == nil {
		b = &bucket{}
	}
	b.forget(now, peerPause)
	g.all.forget(now, allPause)
	wait = max(b.wait(guessesPerPeer, peerPause), g.all.wait(guessesInAll, allPause))
	if wait > 0 {
		return wait
	}
	b.made++
	g.all.made++
	if len(g.peers) >= maxGuessers {
		g.makeRoom(now)
	}
	g.peers[from] = b
	return 0
}

// right takes the try back, and remembers the token.
func (g *guesses) right(from string, hash [32]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.good[hash]; ok {
		return
	}
	g.takeBack(from)
	for h := range g.good {
		if len(g.good) < maxGood {
			break
		}
		delete(g.good, h)
	}
	g.good[hash] = struct{}{}
}

// undecided takes the try back: whether the token is right could not be found out.
func (g *guesses) undecided(from string, hash [32]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.good[hash]; !ok {
		g.takeBack(from)
	}
}

// wrong forgets a token that was right until it was revoked.
func (g *guesses) wrong(hash [32]byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.good, hash)
}

func (g *guesses) takeBack(from string) {
	if b := g.peers[from]; b != nil {
		b.made = max(b.made-1, 0)
	}
	g.all.made = max(g.all.made-1, 0)
}

// makeRoom forgets whose tries are forgiven, and when there is nobody of that kind, any one: the limit of all holds in any case.
func (g *guesses) makeRoom(now time.Time) {
	for from, b := range g.peers {
		if b.forget(now, peerPause); b.made == 0 {
			delete(g.peers, from)
		}
	}
	for from := range g.peers {
		if len(g.peers) < maxGuessers {
			return
		}
		delete(g.peers, from)
	}
}

// forget takes out what is forgiven by now: one try for every pause.
func (b *bucket) forget(now time.Time, pause time.Duration) {
	if passed := now.Sub(b.at); passed > 0 {
		b.made = max(b.made-float64(passed)/float64(pause), 0)
		b.at = now
	}
}

// wait is how long it takes until there is room for one more.
func (b *bucket) wait(most float64, pause time.Duration) time.Duration {
	if b.made+1 <= most {
		return 0
	}
	return time.Duration((b.made + 1 - most) * float64(pause))
}

// guesser is the address that tries are counted by: of IPv6 the network, which one machine has whole.
func guesser(address string) string {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return address
	}
	ip := at.Addr().Unmap().WithZone("")
	if ip.Is4() {
		return ip.String()
	}
	network, _ := ip.Prefix(64) // it has more bits
	return network.String()
}
