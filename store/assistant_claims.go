package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"strings"
	"time"
)

// A AssistantClaim is one sidecar's right, for a while, to make the assistant of an org's role at the provider. There is one row for each org and
// role for which an assistant was ever made; it outlives the right, because of what it remembers.
type AssistantClaim struct {
	Org, Role string
	Owner     string
	// Nonce marks what is made under the claim: by it an assistant is found again whose maker did not live to register it.
	Nonce string
	// Unsettled is when somebody last began to make an assistant without having registered it yet, on this process's clock. Zero: nobody.
	Unsettled time.Time
	// CreatedAt is when the Nonce was made, on the store's clock: nothing is older that was made under the claim.
	CreatedAt time.Time
	// Until is when the right ends, on this process's monotonic clock, unless it is renewed.
	Until time.Time
}

const (
	// A row whose lease ended is anyone's. What it remembers stays.
	claimAssistant = `INSERT INTO assistant_claims (org_id, role, nonce, lease_owner, lease_until, unsettled, created_at)
		VALUES ($1, $2, $3, $4, $5, 0, $6)
		ON CONFLICT (org_id, role) DO UPDATE SET lease_owner = excluded.lease_owner, lease_until = excluded.lease_until
		WHERE assistant_claims.lease_until <= $6 OR assistant_claims.lease_owner = excluded.lease_owner
		RETURNING nonce, unsettled, created_at`
	// What follows holds only while the lease does.
	renewClaim    = "UPDATE assistant_claims SET lease_until = $1 WHERE org_id = $2 AND role = $3 AND lease_owner = $4 AND lease_until > $5"
	unsettleClaim = "UPDATE assistant_claims SET unsettled = $1, lease_until = $2 WHERE org_id = $3 AND role = $4 AND lease_owner = $5 AND lease_until > $1"
	settleClaim   = `UPDATE assistant_claims SET unsettled = CASE WHEN $1 = 1 THEN 0 ELSE unsettled END
		WHERE org_id = $2 AND role = $3 AND lease_owner = $4 AND lease_until > $5`
	releaseClaim = "UPDATE assistant_claims SET lease_until = 0, lease_owner = '' WHERE org_id = $1 AND role = $2 AND lease_owner = $3"
	forgetClaim  = "DELETE FROM assistant_claims WHERE org_id = $1 AND role = $2 AND lease_owner = $3 AND lease_until > $4"
)

// ClaimAssistant takes the claim for this owner, for as long as the lease. ErrConflict: another owner has it now.
func (d *DB) ClaimAssistant(ctx context.Context, org, role, owner string, lease time.Duration) (*AssistantClaim, error) {
	if !IsOrg(org) {
		return nil, errors.New("claiming an assistant: the org id is malformed")
	}
	c := &AssistantClaim{Org: org, Role: role, Owner: owner, Until: time.Now().Add(lease)} // before the store's own clock is asked: ours ends first
	nonce := strings.ToLower(rand.Text())
	err := d.write(forOrg(ctx, org), func(t *tx) error {
		now, err := d.hold(t, "")
		if err != nil {
			return err
		}
		err = t.row(claimAssistant, org, role, nonce, owner, micros(now.Add(lease)), micros(now)).Scan(&c.Nonce, micro{&c.Unsettled}, micro{&c.CreatedAt})
		if errors.Is(err, sql.ErrNoRows) {
			return ErrConflict
		}
		if !c.Unsettled.IsZero() {
			c.Unsettled = time.Now().Add(-max(now.Sub(c.Unsettled), 0))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// RenewClaim makes the claim end later. ErrConflict: it was lost.
func (d *DB) RenewClaim(ctx context.Context, c *AssistantClaim, lease time.Duration) (until time.Time, err error) {
	until = time.Now().Add(lease)
	return until, d.claimed(ctx, func(t *tx, now int64) (int64, error) {
		return t.exec(renewClaim, now+lease.Microseconds(), c.Org, c.Role, c.Owner, now)
	})
}

// UnsettleClaim records that an assistant is about to be made, and renews the claim. Whoever has it next looks for that assistant first.
func (d *DB) UnsettleClaim(ctx context.Context, c *AssistantClaim, lease time.Duration) error {
	until := time.Now().Add(lease)
	err := d.claimed(ctx, func(t *tx, now int64) (int64, error) {
		c.Unsettled = time.Now()
		return t.exec(unsettleClaim, now, now+lease.Microseconds(), c.Org, c.Role, c.Owner)
	})
	if err == nil {
		c.Until = until
	}
	return err
}

// SettleAssistant registers the claim's assistant and removes the mappings of those that are gone, in one transaction, if the claim still
// holds: else ErrConflict. settled: nothing unregistered is left at the provider. An assistant that is mapped to another org stays so:
// ErrClaimed. Version and times of a are set. Nil a: none is registered.
func (d *DB) SettleAssistant(ctx context.Context, by Actor, c *AssistantClaim, a *Assistant, gone []string, settled bool) error {
	var next Assistant
	err := d.claimed(ctx, func(t *tx, now int64) (int64, error) {
		n, err := t.exec(settleClaim, b2i(settled), c.Org, c.Role, c.Owner, now)
		if err != nil || n == 0 {
			return n, err
		}
		if a != nil {
			if next, err = t.registerAssistant(by, *a); err != nil {
				return 0, err
			}
		}
		for _, id := range gone {
			if old, err := scanAssistant(t.row(selectAssistant, id)); err == nil && old.Org == c.Org && (a == nil || id != a.ID) {
				if err := t.deleteAssistant(by, id, 0); err != nil {
					return 0, err
				}
			}
		}
		return n, nil
	})
	if err == nil {
		if a != nil {
			*a = next
		}
		if settled {
			c.Unsettled = time.Time{}
		}
	}
	return err
}

// registerAssistant maps the assistant unless it is mapped so already.
func (t *tx) registerAssistant(by Actor, a Assistant) (Assistant, error) {
	switch old, err := scanAssistant(t.row(selectAssistant, a.ID)); {
	case errors.Is(err, sql.ErrNoRows):
		return t.putAssistant(by, a, -1)
	case err != nil:
		return a, err
	case old.Org != a.Org:
		return a, ErrClaimed
	case old.Role == a.Role && old.Name == a.Name:
		return *old, nil
	}
	return t.putAssistant(by, a, -1)
}

// ReleaseClaim gives the claim back before its time. One that was lost is somebody else's already.
func (d *DB) ReleaseClaim(ctx context.Context, c *AssistantClaim) error {
	return d.write(forOrg(ctx, c.Org), func(t *tx) error {
		_, err := t.exec(releaseClaim, c.Org, c.Role, c.Owner)
		return err
	})
}

// ForgetClaim removes the mappings of those that are gone from the provider, and the claim with all that it remembers. ErrConflict: it
// was lost.
func (d *DB) ForgetClaim(ctx context.Context, by Actor, c *AssistantClaim, gone []string) error {
	return d.claimed(ctx, func(t *tx, now int64) (int64, error) {
		n, err := t.exec(forgetClaim, c.Org, c.Role, c.Owner, now)
		for i := 0; err == nil && n > 0 && i < len(gone); i++ {
			if err = t.deleteAssistant(by, gone[i], 0); errors.Is(err, ErrNotFound) {
				err = nil
			}
		}
		return n, err
	})
}

// claimed runs a write that must meet the claim's row, at the moment on the clock that all sidecars share.
func (d *DB) claimed(ctx context.Context, change func(t *tx, now int64) (int64, error)) error {
	return d.write(ctx, func(t *tx) error {
		now, err := d.hold(t, "")
		if err != nil {
			return err
		}
		n, err := change(t, micros(now))
		if err == nil && n == 0 {
			err = ErrConflict
		}
		return err
	})
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
