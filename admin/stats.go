package admin

import (
	"net/http"
	"time"

	"github.com/keyward/keyward/store"
)

// profile shows what the process does. Profiles hold names of functions and no data; who may have them may stop the process as well.
func (a *API) profile(c *call) error {
	if a.o.Profiles == nil || !c.peer.unix {
		return problemNoRoute
	}
	c.wrote = http.StatusOK
	a.o.Profiles.ServeHTTP(c.w, c.r)
	return nil
}

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
