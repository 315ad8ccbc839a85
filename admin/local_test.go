package admin

import (
	"slices"
	"strings"
	"testing"

	"github.com/keyward/keyward/store"
)

// TestWhatIsOffHereCanBeEnabledWithoutItsProvider: the configuration may have lost it since; what is not off and not known stays unknown.
func TestWhatIsOffHereCanBeEnabledWithoutItsProvider(t *testing.T) {
	off := []store.Ref{{Org: "acme", Provider: "acme_api"}}
	s := newServer(t, sqliteURL(t), func(o *Options) {
		o.Local = Local{
			List: func() (all []LocalOff) {
				for _, ref := range off {
					all = append(all, LocalOff{Org: ref.Org, Provider: ref.Provider})
				}
				return all
			},
			Set: func(ref store.Ref, to bool) (bool, error) {
				before := len(off)
				off = slices.DeleteFunc(off, func(r store.Ref) bool { return r == ref && !to })
				return len(off) != before, nil
			},
		}
	})
	const at = "/api/local/disabled/acme/acme_api"
	s.refuse(404, "unknown_provider", "PUT", at, "")
	s.refuse(404, "unknown_provider", "DELETE", "/api/local/disabled/globex/acme_api", "")
	if a := s.must(200, "DELETE", at, ""); len(off) != 0 || !strings.Contains(a.body, `"changed":true`) {
		t.Errorf("still off: %v, %s", off, a.body)
	}
	s.refuse(404, "unknown_provider", "DELETE", at, "")
}
