package store

import "testing"

func TestLedgerOfImports(t *testing.T) {
	onBoth(t, func(t *testing.T, e engine) {
		d, ctx := e.owns(t), t.Context()
		twilio := Import{Kind: KindCredential, ID: acmeTwilio.Key(), Digest: []byte{1, 0, 255}, Version: 3, Active: true}
		asst := Import{Kind: KindAssistant, ID: acmeTwilio.Key(), Digest: []byte{}, Version: 1} // the same name, of another kind
		ok(t, d.PutImport(ctx, &twilio))
		ok(t, d.PutImport(ctx, &asst))
		twilio.Digest, twilio.Version, twilio.Active = []byte{2}, 4, false
		ok(t, d.PutImport(ctx, &twilio)) // in the place of the one before
		ledger := func() map[Kind]Import {
			all, err := d.Imports(ctx)
			ok(t, err)
			found := map[Kind]Import{}
			for _, i := range all {
				found[i.Kind] = i
			}
			same(t, len(found), len(all))
			return found
		}
		same(t, ledger(), map[Kind]Import{KindCredential: twilio, KindAssistant: asst})
		ok(t, d.DeleteImport(ctx, KindCredential, twilio.ID))
		ok(t, d.DeleteImport(ctx, KindCredential, twilio.ID)) // was gone already
		same(t, ledger(), map[Kind]Import{KindAssistant: asst})
		ok(t, d.Close())
		for _, err := range []error{d.PutImport(ctx, &asst), d.DeleteImport(ctx, asst.Kind, asst.ID), second(d.Imports(ctx))} {
			if err == nil {
				t.Error("a closed store took it")
			}
		}
	})
}
