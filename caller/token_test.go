package caller

import (
	"crypto/sha256"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestNewToken(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		token, hash := NewToken()
		if !IsToken([]byte(token)) || len(token) != 46 {
			t.Fatalf("%d characters, of the wrong form", len(token))
		}
		if hash != sha256.Sum256([]byte(token)) || hash != HashToken([]byte(token)) {
			t.Fatal("wrong hash")
		}
		if seen[token] {
			t.Fatal("the same token twice")
		}
		seen[token] = true
	}
}

func TestAdminTokenIsNoCallersToken(t *testing.T) {
	token, hash := NewAdminToken()
	other, _ := NewToken()
	if !IsAdminToken([]byte(token)) || IsToken([]byte(token)) || IsAdminToken([]byte(other)) || hash != HashToken([]byte(token)) {
		t.Errorf("%d characters, of the wrong form", len(token))
	}
}

// Every number has a token of its own, of the same length: no bit is lost.
func TestTokenHoldsAllBits(t *testing.T) {
	cases := [][32]byte{{}, {31: 1}}
	var all [32]byte
	for i := range all {
		all[i] = 0xFF
	}
	cases = append(cases, all)
	for range 1000 {
		var b [32]byte
		for i := range b {
			b[i] = byte(rand.Uint32())
		}
		cases = append(cases, b)
	}
	for _, bits := range cases {
		token := encodeToken(tokenPrefix, bits)
		n := new(big.Int)
		for _, c := range token[3:] {
			n.Mul(n, big.NewInt(62)).Add(n, big.NewInt(int64(strings.IndexByte(base62, c))))
		}
		if string(n.FillBytes(make([]byte, 32))) != string(bits[:]) {
			t.Errorf("%x became %s", bits, token)
		}
	}
}

func TestIsTokenRefuses(t *testing.T) {
	good, _ := NewToken()
	for what, s := range map[string]string{
		"empty":        "",
		"prefix alone": "kwt",
		"short":        good[:45],
		"long":         good + "0",
		"upper prefix": "KWT" + good[3:],
		"other prefix": "kws" + good[3:],
		"dash":         good[:45] + "-",
		"underscore":   good[:20] + "_" + good[21:],
		"zero byte":    good[:45] + "\x00",
		"not ASCII":    good[:44] + "é",
	} {
		if IsToken([]byte(s)) {
			t.Errorf("%s is accepted", what)
		}
	}
}
