// Package legacy carries the credentials of an app's own tables over to Keyward: tables with a row for each org and provider, or with a
// column for each field, whose secrets are sealed as text under one key of the app (AES-256-GCM, "iv:tag:ciphertext" in hex or base64).
//
// The old tables are only ever read, in one read-only transaction. A Mapping says where in them each field stands. What they say of one
// org and provider becomes one Draft; a draft is compared with what Keyward has, and written where Keyward has nothing else. A ledger in
// the store (what was carried over, and as which version) tells a change in the old tables from one that was made in Keyward since: the
// first is carried over, the second is never undone. Each draft is written for itself, so that an import can be ended at any moment and
// begun again, and a second one changes nothing.
package legacy
