// Package seal is the keyring: it seals credentials with AES-256-GCM under a key-encryption key and opens them again, only for what
// they were sealed for.
//
// An envelope is: format version (1 byte, 0x01), length of the key id (1 byte), key id, nonce (12 random bytes), cipher text, tag.
// The additional data is length-prefixed: format version (1 byte), then key id and the caller's context, each with its length (4 bytes,
// big-endian) in front. So an envelope opens for one context only, and its key id cannot be exchanged for another.
//
// Several keys open and one, the primary, seals. A keyset, the form in which keys are kept, is JSON:
//
//	{
//	  "version": 1,
//	  "keys": [
//	    {"id": "k20260901-4TJB2Q", "key": "…32 bytes in base64…", "state": "primary", "created": "2026-09-01T08:00:00Z"},
//	    {"id": "k20250901-WX7M3D", "key": "…", "state": "retiring", "created": "2025-09-01T08:00:00Z"}
//	  ]
//	}
//
// The states are those of a rotation: a new key is given to every sidecar as active, becomes primary when all of them have it, and is
// retiring from when its successor is primary until no row is sealed by it any more.
//
// Random nonces may repeat, and a repeated nonce breaks the cipher, so a key seals at most 2³² times (NIST SP 800-38D, section 8.3). What
// comes in numbers, as webhooks do, is sealed under keys derived from it, one for each (bulk.go).
package seal
