package admin

import (
	"context"
	"maps"
	"net/http"
	"time"
)

// A Traffic is what went through the sidecar in the last seconds.
type Traffic struct {
	Window       float64           `json:"window_seconds"` // over which the rates and times are taken; 0: nothing was measured yet
	Requests     float64           `json:"requests_per_second"`
	Refused      float64           `json:"refused_per_second"` // by Keyward itself
	Failed       float64           `json:"failed_per_second"`  // no answer could be got from the provider
	CacheHitRate *float64          `json:"cache_hit_rate"`     // from 0 to 1; null: nothing was asked of the cache
	Providers    []ProviderTraffic `json:"providers"`          // all, in the order in which people see them
}

// A ProviderTraffic is that of one provider. Times are in milliseconds; null: nobody asked.
type ProviderTraffic struct {
	Provider string   `json:"provider"`
	Requests float64  `json:"requests_per_second"`
	Errors   float64  `json:"errors_per_second"` // answered 5xx, by the provider or in its place
	P50      *float64 `json:"p50_ms"`            // to the head of the answer
	P99      *float64 `json:"p99_ms"`
	OwnP50   *float64 `json:"keyward_p50_ms"` // of that, what Keyward itself took
	OwnP99   *float64 `json:"keyward_p99_ms"`
}

// profile shows what the process does. Profiles hold names of functions and no data; who may have them may stop the process as well.
func (a *API) profile(c *call) error {
	if a.o.Profiles == nil || !c.peer.unix {
		return problemNoRoute
	}
	c.wrote = http.StatusOK
	a.o.Profiles.ServeHTTP(c.w, c.r)
	return nil
}

func (a *API) stats(c *call) error {
	if _, err := c.query(); err != nil {
		return err
	}
	answer, err := a.numbers(c.r.Context())
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, answer)
}

// numbers are the counts of what is stored and the running sidecar's own numbers.
func (a *API) numbers(ctx context.Context) (map[string]any, error) {
	n, err := a.o.DB.Counts(ctx)
	if err != nil {
		return nil, err
	}
	byProvider := maps.Clone(n.Active)
	var disabled int64
	for provider, d := range n.Disabled {
		byProvider[provider] += d
		disabled += d
	}
	answer := map[string]any{
		"version":     a.o.Version,
		"started_at":  moment(a.o.Started),
		"uptime":      int64(time.Since(a.o.Started).Seconds()),
		"store":       a.o.DB.Engine(),
		"orgs":        n.Orgs,
		"credentials": map[string]any{"by_provider": byProvider, "disabled": disabled},
		"webhooks":    map[string]int64{"pending": n.Pending, "dead": n.Dead},
	}
	if a.o.Traffic != nil {
		answer["traffic"] = a.o.Traffic()
	}
	if a.o.Stats != nil {
		maps.Copy(answer, a.o.Stats())
	}
	return answer, nil
}
