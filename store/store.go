// Package store is where sealed credentials, the mapping of assistants and account ids to orgs, caller tokens and the audit log live:
// SQLite on one machine, PostgreSQL shared by many sidecars, behind the same DB.
//
// Every query stands once, in the dialect that both speak; postgres.go and sqlite.go hold what truly differs: opening and watching.
// Every write is one transaction that also records who did it. It is announced as a Change: to watchers of this process before the write
// returns, to those of others by PostgreSQL's triggers, so that nobody can forget to, or by SQLite's data_version.
// The store never sees a plain secret: it keeps what the keyring sealed.
//
// Which webhooks were answered is in claims*.go: on SQLite a sidecar by itself keeps that in keylog*.go for a moment, before SQLite gets it.
package store

import (
	"context"
	"encoding/binary"
	"errors"
	"time"
)

// Sentinel errors: a caller of this package branches on these and on nothing else.
var (
	// ErrNotFound: there is no such row.
	ErrNotFound = errors.New("not found")
	// ErrConflict: the row changed since it was read (its version is not the expected one).
	ErrConflict = errors.New("changed since it was read")
	// ErrClaimed: an account id belongs to another org. ClaimedError says which.
	ErrClaimed = errors.New("belongs to another org")
	// ErrUnavailable: the store cannot be reached now, or does not answer in time. It wraps the cause.
	ErrUnavailable = errors.New("store unavailable")
	// ErrOldSchema: the store lacks what this program needs.
	ErrOldSchema = errors.New("the store's schema is older than this program: run keyward migrate up")
	// ErrNewerSchema: a later version of the program has migrated the store, and this one would misread it.
	ErrNewerSchema = errors.New("the store's schema is newer than this program: use the version that migrated it, or a later one")
)

// A ClaimedError names the account id that another org holds (never the other org); it is an ErrClaimed.
type ClaimedError struct{ Provider, Field, ID string }

func (e *ClaimedError) Error() string {
	return e.Field + " " + e.ID + " of " + e.Provider + " belongs to another org"
}
func (e *ClaimedError) Is(target error) bool { return target == ErrClaimed }

// IsOrg says whether s is an org id: a letter or digit, then up to 63 of A–Z a–z 0–9 . _ -
func IsOrg[T ~string | ~[]byte](s T) bool {
	if len(s) == 0 || len(s) > 64 {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && (c == '.' || c == '_' || c == '-'):
		default:
			return false
		}
	}
	return true
}

// A Ref names one credential.
type Ref struct{ Org, Provider string }

// A Credential is one org's sealed credential with one provider.
type Credential struct {
	Ref
	Sealed        []byte // the keyring's envelope
	KeyID         string // that sealed it
	Version       int64  // of the row, 1 at first; grows with every write and never repeats, deletion included
	SealedVersion int64  // the Version for which Sealed was sealed: part of its context
	Active        bool

	Verification      string    // one of the words below: what the provider said last; empty: it was never asked about this content
	LastVerifiedAt    time.Time // zero: never
	VerificationError string    // empty: none
	CreatedAt         time.Time
	UpdatedAt         time.Time

	// Previous is what this credential takes the place of, until it is promoted or taken back. Nil: nothing.
	Previous *Previous

	// Accounts are the provider's own ids that this credential claims for its org, for PutCredential; readers leave it nil.
	Accounts []Account
}

// The words of Verification.
const (
	Valid           = "valid"
	ValidRestricted = "valid_restricted" // honoured, but not for everything
	Invalid         = "invalid"
	Reconnect       = "reconnect" // invalid, and only a new consent of the org mends it
)

// A Previous is the content that a credential had before another was staged beside it.
type Previous struct {
	Sealed        []byte
	KeyID         string
	SealedVersion int64
	Until         time.Time // from then on it counts no more
}

// Former is the row as it was, while another credential takes its place: to be opened, never to be written. Nil: there is none, or not
// any more.
func (c *Credential) Former(now time.Time) *Credential {
	if c.Previous == nil || !now.Before(c.Previous.Until) {
		return nil
	}
	old := *c
	old.Sealed, old.KeyID, old.SealedVersion, old.Previous = c.Previous.Sealed, c.Previous.KeyID, c.Previous.SealedVersion, nil
	return &old
}

// A Verification is what a provider said of a credential.
type Verification struct {
	At      time.Time
	State   string // Valid, ValidRestricted, Invalid or Reconnect
	Problem string // empty: none
}

// An Account is a provider's own id that shared webhook paths are resolved by: each belongs to one org.
type Account struct{ Field, ID string } // Field: account_sid, vapi_org_id, phone_number_ids, agent_ids

// AppendContext appends what the credential is sealed for, length-prefixed: opening it as another table's row, another org's, another
// provider's or another version's fails. The keyring adds format version and key id.
func (c *Credential) AppendContext(dst []byte) []byte {
	for _, part := range [...]string{"org_credentials", c.Org, c.Provider} {
		dst = binary.BigEndian.AppendUint32(dst, uint32(len(part)))
		dst = append(dst, part...)
	}
	return binary.BigEndian.AppendUint64(dst, uint64(c.SealedVersion))
}

// An Assistant is a Vapi assistant: it maps to exactly one org.
type Assistant struct {
	ID   string
	Org  string
	Role string // "inbound", "outbound" or the app's own word; may be empty
	Name string

	Version    int64
	LastUsedAt time.Time // to the second, up to a minute late (Usage); zero: never
	UseCount   int64     // requests and webhooks that were let through, as late
	CreatedAt  time.Time
	UpdatedAt  time.Time
}

// A Token is a caller token's row; the token itself is printed once and never stored.
type Token struct {
	ID           string   // "ct_" and 16 base32 characters; names it in listings
	Name         string   // unique among the tokens that are not revoked
	Hash         [32]byte // SHA-256 of the token
	Orgs         []string // "*": any
	Providers    []string // "*": any
	Allow        []string // method and path globs; empty: all
	Rate         string   // "50/s" or "50/s burst 200"; empty: no limit
	SecretRoutes bool
	CreatedAt    time.Time
	LastUsedAt   time.Time // to the second, up to a minute late (Usage); zero: never
	UseCount     int64     // requests that showed it, refused ones too, as late
}

// An Actor is who made a change and from where, for the audit log.
type Actor struct {
	Name string // "uid 1000 (app)", "cli", "dev", "sidecar"
	From string // "admin socket", "127.0.0.1:51234", "process"
}

// An Event is one row of the audit log.
type Event struct {
	ID     int64
	At     time.Time
	Actor  Actor
	Action string // "credential.put", "credential.disable", "assistant.delete", …
	Org    string // may be empty
	Target string // provider, assistant id or token name
	Result string // "ok" or the refusal's code
	Detail string // field names and versions; never a value of a secret field
}

// Kind says what sort of row a Change is about.
type Kind string

// The kinds of Change. The zero Change has none: anyone's rows may have changed.
const (
	KindCredential Kind = "credential" // ID: the org
	KindAssistant  Kind = "assistant"  // ID: the assistant id
	KindToken      Kind = "token"      // ID: the hash in lower-case hex
)

// A Change says whose rows may be stale. The zero Change means that anyone's may be: after a gap in the feed, the first connection
// included.
type Change struct {
	Kind Kind
	ID   string
}

// Reader is what serving a request needs. DB and cache.Cache are both one. Errors are ErrNotFound for a row that does not exist, and
// ErrUnavailable. Rows are shared: never change one. The arguments may refer to a request's own memory: keep a copy, not the string.
type Reader interface {
	// Credential's second result says whether it came out of a cache.
	Credential(ctx context.Context, ref Ref) (*Credential, bool, error)
	Assistant(ctx context.Context, id string) (*Assistant, error)
	Token(ctx context.Context, hash [32]byte) (*Token, error)
}
