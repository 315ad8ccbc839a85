package seal

import (
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"testing"

	"github.com/c2sp/wycheproof"
)

// TestWycheproof holds the keyring's cipher against Project Wycheproof's AES-GCM vectors, as far as they have the sizes that an envelope
// has: 256-bit keys, 96-bit nonces, 128-bit tags. Each valid one opens, in the keyring's own layout of nonce, cipher text and tag; each
// invalid one does not.
func TestWycheproof(t *testing.T) {
	b, err := fs.ReadFile(wycheproof.TestVectors, "aes_gcm_test.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		TestGroups []struct {
			KeySize, IvSize, TagSize int
			Tests                    []struct {
				TcID                               int
				Key, IV, AAD, Msg, CT, Tag, Result string
			}
		}
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	raw := func(s string) []byte {
		b, err := hex.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	valid, invalid := 0, 0
	for _, g := range file.TestGroups {
		if g.KeySize != 256 || g.IvSize != 96 || g.TagSize != 128 {
			continue
		}
		for _, tc := range g.Tests {
			k := &key{}
			k.use([keySize]byte(raw(tc.Key)))
			box := append(append(raw(tc.IV), raw(tc.CT)...), raw(tc.Tag)...)
			got, err := k.cipher().Open(nil, nil, box, raw(tc.AAD))
			switch tc.Result {
			case "valid":
				valid++
				if err != nil || hex.EncodeToString(got) != tc.Msg {
					t.Errorf("%d: %x, %v", tc.TcID, got, err)
				}
			default:
				invalid++
				if err == nil {
					t.Errorf("%d opened", tc.TcID)
				}
			}
		}
	}
	if valid < 20 || invalid < 20 {
		t.Errorf("only %d valid and %d invalid vectors were found", valid, invalid)
	}
}
