package legacy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// What is done with a draft.
const (
	Create     = "create"     // Keyward has nothing
	Update     = "update"     // the old tables have changed since it was carried over
	Same       = "same"       // both say the same
	Kept       = "kept"       // Keyward has something else, which is not the old tables' and stays
	Broken     = "broken"     // it cannot be carried over
	Incomplete = "incomplete" // no secret of it is there: it is no credential
	Gone       = "gone"       // it was carried over, and is no more in the old tables
	Delete     = "delete"     // the same, and it goes in Keyward too
)

// An Item is what is said and done of one draft.
type Item struct {
	Org       string    `json:"org"`
	Provider  string    `json:"provider"`
	Assistant string    `json:"assistant,omitempty"`
	Action    string    `json:"action"`
	Active    bool      `json:"is_active"`
	Fields    []string  `json:"fields"`
	Problems  []Problem `json:"problems"`
	Notes     []string  `json:"notes"`

	changed bool // what was read since the last time
}

// Changed says whether the old tables say something else than the last time.
func (i *Item) Changed() bool { return i.changed }

// A Carrier compares drafts with Keyward, and carries them over.
type Carrier struct {
	Keeper *credential.Keeper // its DB nil: there is no store yet
	By     store.Actor
	Apply  bool // else nothing is written

	Overwrite bool // write over what was changed in Keyward too
	Delete    bool // delete what is gone

	ledger map[string]store.Import
	claims map[string]string // account id → the org that it is carried over for
}

// Begin reads the ledger. It is to be called before each pass.
func (c *Carrier) Begin(ctx context.Context) error {
	c.ledger, c.claims = map[string]store.Import{}, map[string]string{}
	if c.Keeper.DB == nil {
		return nil
	}
	all, err := c.Keeper.DB.Imports(ctx)
	for _, i := range all {
		c.ledger[string(i.Kind)+" "+i.ID] = i
	}
	return err
}

// kindTable is in the ledger what is no row: one of the old tables, which was there.
const kindTable store.Kind = "table"

// HadTable says whether one of the old tables was there when something was carried over, by this process or another.
func (c *Carrier) HadTable(name string) bool {
	_, had := c.ledger[string(kindTable)+" "+name]
	return had
}

// FoundTable notes that one of them is there.
func (c *Carrier) FoundTable(ctx context.Context, name string) error {
	if !c.Apply || c.HadTable(name) {
		return nil
	}
	i := store.Import{Kind: kindTable, ID: name, Digest: []byte{}, Active: true}
	if err := c.Keeper.DB.PutImport(ctx, &i); err != nil {
		return err
	}
	c.ledger[string(i.Kind)+" "+i.ID] = i
	return nil
}

// Carry deals with one draft. The error is the store's, and ends the import; what is wrong with the draft is in the item.
func (c *Carrier) Carry(ctx context.Context, d *Draft) (*Item, error) {
	item := &Item{Org: d.Org, Provider: d.Provider, Assistant: d.Assistant, Active: d.Active, Fields: []string{}, Problems: []Problem{}, Notes: []string{}}
	item.Problems, item.Notes = append(item.Problems, d.Problems...), append(item.Notes, d.Notes...)
	item.Fields = append(item.Fields, slices.Sorted(maps.Keys(d.fields))...)
	before, has := c.ledger[d.ledgerKey()]
	item.changed = !has || !bytes.Equal(before.Digest, d.Digest)
	switch {
	case len(d.Problems) > 0:
		item.Action = Broken
		return item, nil
	case d.Missing != "":
		item.Action = Incomplete
		item.Notes = append(item.Notes, "no credential: "+d.Missing+" and every secret are missing")
		return item, nil
	}
	var err error
	for attempt := 0; ; attempt++ {
		if d.Assistant != "" {
			err = c.mapping(ctx, d, item)
		} else {
			err = c.credential(ctx, d, item)
		}
		if !errors.Is(err, store.ErrConflict) || attempt == 8 {
			break
		}
	}
	var broken *brokenError
	if errors.As(err, &broken) {
		item.Action = Broken
		item.Problems = append(item.Problems, Problem{Text: broken.text})
		return item, nil
	}
	if err != nil {
		return nil, fmt.Errorf("carrying over %s: %w", d.ledgerID(), err)
	}
	return item, nil
}

// A brokenError is a draft that cannot be carried over.
type brokenError struct{ text string }

func (e *brokenError) Error() string { return e.text }

func broken(format string, args ...any) error { return &brokenError{fmt.Sprintf(format, args...)} }

func (d *Draft) kind() store.Kind {
	if d.Assistant != "" {
		return store.KindAssistant
	}
	return store.KindCredential
}

func (d *Draft) ledgerID() string {
	if d.Assistant != "" {
		return d.Assistant
	}
	return d.Ref.Key()
}

func (d *Draft) ledgerKey() string { return string(d.kind()) + " " + d.ledgerID() }

// record writes the ledger. What it says is what decides the next time, so it comes last.
func (c *Carrier) record(ctx context.Context, d *Draft, version int64, active bool) error {
	if !c.Apply {
		return nil
	}
	i := store.Import{Kind: d.kind(), ID: d.ledgerID(), Digest: d.Digest, Version: version, Active: active}
	if before, has := c.ledger[d.ledgerKey()]; has && before.Version == version && before.Active == active && bytes.Equal(before.Digest, d.Digest) {
		return nil
	}
	if err := c.Keeper.DB.PutImport(ctx, &i); err != nil {
		return err
	}
	c.ledger[d.ledgerKey()] = i
	return nil
}

// there is what Keyward has: nil, nil if nothing.
func (c *Carrier) there(ctx context.Context, ref store.Ref) (*store.Credential, provider.Values, error) {
	if c.Keeper.DB == nil {
		return nil, nil, nil
	}
	row, values, err := c.Keeper.Values(ctx, ref)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, nil, nil
	case errors.Is(err, credential.ErrUnreadable):
		return nil, nil, broken("Keyward has a credential that no key opens; delete it, or give the key that sealed it")
	}
	return row, values, err
}

func (c *Carrier) credential(ctx context.Context, d *Draft, item *Item) error {
	row, values, err := c.there(ctx, d.Ref)
	if err != nil {
		return err
	}
	defer values.Wipe()
	before, has := c.ledger[d.ledgerKey()]
	var expect int64
	item.Action = Create
	active := &d.Active
	if row != nil {
		expect = row.Version
		same := equal(values, d.Values)
		ours := has && before.Version == row.SealedVersion // nobody has written another content since
		if ours && before.Active == d.Active {
			active = nil // whoever has enabled or disabled it here, had a reason
		}
		switch {
		case same && (active == nil || row.Active == d.Active):
			item.Action = Same
			return c.record(ctx, d, row.SealedVersion, d.Active)
		case c.Overwrite, ours && !bytes.Equal(before.Digest, d.Digest):
			item.Action = Update
		default:
			item.Action = Kept
			item.Notes = append(item.Notes, keptBecause(has))
			return nil
		}
	} else if has && !c.Overwrite {
		item.Action = Kept
		item.Notes = append(item.Notes, "deleted in Keyward since it was carried over")
		return nil
	}
	if err := c.claim(ctx, d); err != nil || !c.Apply {
		return err
	}
	written, err := c.Keeper.Put(ctx, c.By, d.Ref, d.Values, credential.PutOptions{IfVersion: &expect, Active: active})
	var claimed *store.ClaimedError
	var invalid *credential.InvalidError
	switch {
	case errors.As(err, &claimed):
		return broken("%s is another org's already", claimed.Field)
	case errors.As(err, &invalid):
		return broken("%s", invalid.Error())
	case err != nil:
		return err
	}
	if err := c.verify(ctx, d); err != nil {
		return err
	}
	return c.record(ctx, d, written.SealedVersion, d.Active)
}

func keptBecause(imported bool) string {
	if imported {
		return "changed in Keyward since it was carried over"
	}
	return "Keyward had another one before"
}

// verify opens what was written.
func (c *Carrier) verify(ctx context.Context, d *Draft) error {
	_, values, err := c.Keeper.Values(ctx, d.Ref)
	defer values.Wipe()
	switch {
	case errors.Is(err, credential.ErrUnreadable), errors.Is(err, store.ErrNotFound):
		return broken("what was written could not be opened")
	case err != nil:
		return err
	case !equal(values, d.Values):
		return store.ErrConflict // somebody has written in between
	}
	return nil
}

// claim finds that an account id is another org's before it is tried, so that a dry run says so too.
func (c *Carrier) claim(ctx context.Context, d *Draft) error {
	for _, a := range provider.Named(d.Provider).Accounts(d.Values) {
		key := d.Provider + " " + a.Field + " " + a.ID
		owner := c.claims[key]
		if owner == "" && c.Keeper.DB != nil {
			var err error
			if owner, err = c.Keeper.DB.AccountOwner(ctx, d.Provider, a.Field, a.ID); err != nil && !errors.Is(err, store.ErrNotFound) {
				return err
			}
		}
		if owner != "" && owner != d.Org {
			return broken("%s is org %s's too: webhooks are resolved by it, so it can be one org's only", a.Field, owner)
		}
	}
	for _, a := range provider.Named(d.Provider).Accounts(d.Values) {
		c.claims[d.Provider+" "+a.Field+" "+a.ID] = d.Org
	}
	return nil
}

func equal(a, b provider.Values) bool {
	return maps.EqualFunc(a, b, provider.Value.Equal)
}

// mapping carries over which org an assistant belongs to.
func (c *Carrier) mapping(ctx context.Context, d *Draft, item *Item) error {
	next := &store.Assistant{ID: d.Assistant, Org: d.Org, Role: d.Role, Name: d.Name}
	before, has := c.ledger[d.ledgerKey()]
	item.Action = Create
	var row *store.Assistant
	var err error
	if c.Keeper.DB != nil {
		row, err = c.Keeper.DB.Assistant(ctx, d.Assistant)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	var expect int64
	switch {
	case row == nil && has && !c.Overwrite:
		item.Action = Kept
		item.Notes = append(item.Notes, "deleted in Keyward since it was carried over")
		return nil
	case row == nil:
	case row.Org == d.Org && row.Role == d.Role && row.Name == d.Name:
		item.Action = Same
		return c.record(ctx, d, row.Version, true)
	case row.Org != d.Org && !(has && before.Version == row.Version) && !c.Overwrite:
		return broken("Keyward maps the assistant to org %s", row.Org)
	case c.Overwrite, has && before.Version == row.Version && !bytes.Equal(before.Digest, d.Digest):
		item.Action, expect = Update, row.Version
	default:
		item.Action = Kept
		item.Notes = append(item.Notes, keptBecause(has))
		return nil
	}
	if !c.Apply {
		return nil
	}
	if err := c.Keeper.DB.PutAssistant(ctx, c.By, next, expect); err != nil {
		return err
	}
	return c.record(ctx, d, next.Version, true)
}

// Finish deals with what was carried over before and is in no draft now.
func (c *Carrier) Finish(ctx context.Context, drafts []*Draft) ([]*Item, error) {
	there := map[string]bool{}
	for _, d := range drafts {
		there[d.ledgerKey()] = true
	}
	var items []*Item
	for _, key := range slices.Sorted(maps.Keys(c.ledger)) {
		i := c.ledger[key]
		if there[key] || i.Kind != store.KindCredential {
			continue
		}
		item, err := c.gone(ctx, &i)
		if err != nil {
			return items, fmt.Errorf("dealing with %s, which is gone: %w", i.ID, err)
		}
		if item != nil {
			items = append(items, item)
		}
	}
	return items, nil
}

func (c *Carrier) gone(ctx context.Context, i *store.Import) (*Item, error) {
	ref := refOf(i.ID)
	row, _, err := c.Keeper.DB.Credential(ctx, ref)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil // here too
	}
	if err != nil {
		return nil, err
	}
	item := &Item{Org: ref.Org, Provider: ref.Provider, Action: Gone, Active: row.Active, Fields: []string{}, Problems: []Problem{}, Notes: []string{}, changed: true}
	switch {
	case row.SealedVersion != i.Version:
		item.Action = Kept
		item.Notes = append(item.Notes, "gone from the old tables, and changed in Keyward since it was carried over")
		return item, nil
	case !c.Delete:
		item.Notes = append(item.Notes, "--delete deletes it in Keyward too")
		return item, nil
	}
	item.Action = Delete
	if !c.Apply {
		return item, nil
	}
	if err := c.Keeper.DB.DeleteCredential(ctx, c.By, ref, row.Version); err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	return item, c.Keeper.DB.DeleteImport(ctx, i.Kind, i.ID)
}

func refOf(id string) store.Ref {
	for i := len(id) - 1; i >= 0; i-- {
		if id[i] == '/' {
			return store.Ref{Org: id[:i], Provider: id[i+1:]}
		}
	}
	return store.Ref{Org: id}
}
