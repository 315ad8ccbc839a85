package admin

import (
	"fmt"
	"testing"
	"time"
)

func TestGuessesAreForgivenWithTime(t *testing.T) {
	g, now := newGuesses(), time.Now()
	hash := func(i int) [32]byte { return [32]byte{byte(i), byte(i >> 8)} }
	n := 0
	try := func(from string) time.Duration { n++; return g.try(from, hash(n), now) }
	for range guessesPerPeer {
		if try("1.2.3.4") != 0 {
			t.Fatal("limited too early")
		}
	}
	wait := try("1.2.3.4")
	if wait <= 0 || wait > peerPause {
		t.Errorf("wait %v", wait)
	}
	if try("1.2.3.5") != 0 {
		t.Error("one address is limited for what another did")
	}
	now = now.Add(wait)
	if try("1.2.3.4") != 0 || try("1.2.3.4") == 0 {
		t.Error("after the pause there is room for one")
	}
	now = now.Add(time.Hour)
	for i := range guessesInAll {
		if try(fmt.Sprint("10.0.0.", i)) != 0 {
			t.Fatalf("limited at %d", i)
		}
	}
	if try("10.0.1.1") == 0 {
		t.Error("many addresses are not limited in all")
	}
	if g.try("10.0.0.1", hash(1<<15), now) == 0 {
		t.Error("limited, and let through")
	}
	now = now.Add(time.Hour)
	for i := range guessesInAll * 2 {
		h := hash(20000 + i)
		if g.try("9.9.9.9", h, now) != 0 {
			t.Fatal("right tokens count as guesses")
		}
		g.right("9.9.9.9", h)
	}
	g.wrong(hash(20000))
	for range guessesPerPeer {
		try("9.9.9.9")
	}
	if g.try("9.9.9.9", hash(20001), now) != 0 || g.try("9.9.9.9", hash(20000), now) == 0 {
		t.Error("a token that was right is let through as long as it is right, and no longer")
	}
}

func TestGuessesTakeBoundedMemory(t *testing.T) {
	g, now := newGuesses(), time.Now()
	for i := range 3 * maxGuessers {
		now = now.Add(time.Second)
		g.try(fmt.Sprint(i), [32]byte{1}, now)
	}
	for i := range 3 * maxGood {
		g.right("x", [32]byte{byte(i), byte(i >> 8), byte(i >> 16)})
	}
	if len(g.peers) > maxGuessers || len(g.good) > maxGood {
		t.Errorf("%d addresses, %d tokens", len(g.peers), len(g.good))
	}
	for address, want := range map[string]string{
		"1.2.3.4:5": "1.2.3.4", "[::ffff:1.2.3.4]:5": "1.2.3.4", "[2001:db8::1]:5": "2001:db8::/64", "[2001:db8::2]:6": "2001:db8::/64", "[fe80::1%eth0]:5": "fe80::/64",
		"admin socket": "admin socket",
	} {
		if got := guesser(address); got != want {
			t.Errorf("%s is counted as %s", address, got)
		}
	}
}
