package provider

import "bytes"

// What SDKs are given in the place of an account SID.
const (
	placeholderSID   = "AC00000000000000000000000000000000"
	placeholderShort = "ACkeyward"
	sidLen           = len(placeholderSID)
)

// fitAccount sees to it that the only accounts in the path are the org's. A placeholder becomes the org's own SID; the org's own and its
// listed subaccounts stay as they were sent; anything else that stands where an account belongs, and any other account's SID wherever it
// stands, is ErrForeignAccount. The path is read as Twilio reads it, percent-decoded once.
//
// An account belongs behind a segment Accounts: in all paths of 2010-04-01, often with .json at its end, and in preview-iam's
// /Organizations/{sid}/Accounts/{sid}.
func fitAccount(r *Request, s Secret) error {
	own := s.Field("account_sid")
	if len(own) == 0 {
		return errNoAccountSID
	}
	path, out, copied := r.Path, r.Scratch[:0], 0
	behindAccounts := false
	var buf [sidLen]byte
	for i := 0; i < len(path); {
		if path[i] == '/' {
			i++
			continue // an empty segment is none: behindAccounts stays
		}
		end := len(path)
		if n := bytes.IndexByte(path[i:], '/'); n >= 0 {
			end = i + n
		}
		segment := path[i:end]
		var stem []byte
		if c := segment[0]; behindAccounts || c|0x20 == 'a' || c == '%' { // most segments are none of our business
			var n int
			stem, n = stemOf(segment, &buf)
			switch {
			case string(stem) == placeholderSID || string(stem) == placeholderShort:
				out = append(append(out, path[copied:i]...), own...)
				copied = i + n
				segment = segment[n:]
			case !behindAccounts:
			case !isOwn(stem, own, s):
				return ErrForeignAccount
			default:
				segment = segment[n:]
			}
		}
		if namesForeign(segment, own, s) {
			return ErrForeignAccount
		}
		behindAccounts = len(stem) == len(accounts) && bytes.EqualFold(stem, accounts)
		i = end
	}
	if copied > 0 {
		out = append(out, path[copied:]...)
		r.Path, r.Scratch = out, out
	}
	return nil
}

var accounts = []byte("Accounts")

// stemOf is the decoded segment up to its first dot, and how many bytes of it that is. The stem is nil where it is longer than any SID.
func stemOf(segment []byte, buf *[sidLen]byte) (stem []byte, n int) {
	if bytes.IndexByte(segment, '%') < 0 {
		if n = bytes.IndexByte(segment, '.'); n < 0 {
			n = len(segment)
		}
		return segment[:n:n], n
	}
	length := 0
	for n < len(segment) {
		c, used := decodeAt(segment, n)
		if c == '.' {
			break
		}
		if length == len(buf) {
			return nil, n
		}
		buf[length] = c
		length++
		n += used
	}
	return buf[:length], n
}

// isOwn says whether sid is the org's account or one of its listed subaccounts. Hexadecimal digits are the same in either case.
func isOwn(sid, own []byte, s Secret) bool {
	if len(sid) != sidLen {
		return false
	}
	if bytes.Equal(sid, own) || bytes.EqualFold(sid, own) {
		return true
	}
	for all := s.Items("subaccounts"); all.Next(); {
		if bytes.EqualFold(sid, all.Item) {
			return true
		}
	}
	return false
}

// namesForeign says whether there is an account's SID in the segment that is not the org's: AC and 32 hexadecimal digits, wherever they
// begin, each byte as it is or percent-encoded.
func namesForeign(segment, own []byte, s Secret) bool {
	var sid [sidLen]byte
	for i := 0; i+sidLen <= len(segment); i++ {
		if c := segment[i]; c|0x20 != 'a' && c != '%' {
			continue
		}
		if readSID(segment[i:], &sid) && !isOwn(sid[:], own, s) {
			return true
		}
	}
	return false
}

// readSID decodes the SID that b begins with, if it does.
func readSID(b []byte, sid *[sidLen]byte) bool {
	for n := range sid {
		if len(b) == 0 {
			return false
		}
		c, used := decodeAt(b, 0)
		if n == 0 && c|0x20 != 'a' || n == 1 && c|0x20 != 'c' || n > 1 && unhex(c) < 0 {
			return false
		}
		sid[n] = c
		b = b[used:]
	}
	return true
}
