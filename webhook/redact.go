package webhook

import (
	"github.com/keyward/keyward/mask"
	"github.com/keyward/keyward/provider"
)

// secretFields are what of a provider's bodies is the tenant's secret.
var secretFields = func() map[*provider.Provider]*mask.Fields {
	all := map[*provider.Provider]*mask.Fields{}
	for _, src := range sources {
		if names := src.provider.WebhookFields; len(names) > 0 {
			all[src.provider] = mask.NewFields(names)
		}
	}
	return all
}()

// redact overwrites them, where they stand: what the app gets and what is stored is as long as what was signed, and otherwise the same. It
// comes after the last look at the signed bytes.
func (c *call) redact() {
	if fields := secretFields[c.source.provider]; fields != nil {
		fields.Overwrite(c.message.body)
	}
}
