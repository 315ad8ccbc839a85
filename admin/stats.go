package admin

import (
	"net/http"
	"time"

	"github.com/keyward/keyward/store"
)

// stats counts what is stored and adds the running sidecar's own numbers.
func (a *API) stats(c *call) error {
	if _, err := c.query(); err != nil {
		return err
	}
	orgs := map[string]bool{}
	byProvider := map[string]int{}
	disabled := 0
	if err := a.o.DB.EachCredential(c.r.Context(), func(row *store.Credential) error {
		orgs[row.Org] = true
		byProvider[row.Provider]++
		if !row.Active {
			disabled++
		}
		return nil
	}); err != nil {
		return err
	}
	answer := map[string]any{
		"version":     a.o.Version,
		"started_at":  moment(a.o.Started),
		"uptime":      int64(time.Since(a.o.Started).Seconds()),
		"store":       a.o.DB.Engine(),
		"orgs":        len(orgs),
		"credentials": map[string]any{"by_provider": byProvider, "disabled": disabled},
	}
	if a.o.Stats != nil {
		for section, v := range a.o.Stats() {
			answer[section] = v
		}
	}
	return c.json(http.StatusOK, answer)
}
