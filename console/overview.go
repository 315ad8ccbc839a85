package console

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// stats is what /api/stats says, as far as it is shown.
type stats struct {
	Version     string     `json:"version"`
	StartedAt   *time.Time `json:"started_at"`
	Store       string     `json:"store"`
	Orgs        int64      `json:"orgs"`
	Credentials struct {
		ByProvider map[string]int64 `json:"by_provider"`
		Disabled   int64            `json:"disabled"`
	} `json:"credentials"`
	Webhooks struct{ Pending, Dead int64 } `json:"webhooks"`
	Traffic  struct {
		Requests     float64           `json:"requests_per_second"`
		Refused      float64           `json:"refused_per_second"`
		Failed       float64           `json:"failed_per_second"`
		CacheHitRate *float64          `json:"cache_hit_rate"`
		Providers    []providerTraffic `json:"providers"`
	} `json:"traffic"`
	Cache struct {
		Entries   int64 `json:"entries"`
		StoreDown bool  `json:"store_down"`
	} `json:"cache"`
}

type providerTraffic struct {
	Provider string   `json:"provider"`
	Requests float64  `json:"requests_per_second"`
	Errors   float64  `json:"errors_per_second"`
	P50      *float64 `json:"p50_ms"`
	P99      *float64 `json:"p99_ms"`
	OwnP99   *float64 `json:"keyward_p99_ms"`
}

// A health is one line of /readyz.
type health struct{ Name, State string } // ok, degraded or failed

type overviewPage struct {
	Stats  stats
	Live   map[string]string // what the numbers of the page are, by their names there
	Health []health
	Orgs   []string
	More   string // the cursor of the next orgs
}

func (c *Console) overview(v *visit) error {
	if !v.who.Operator() {
		v.redirect(path("/orgs/", v.who.org), "")
		return nil
	}
	var p overviewPage
	var err error
	if p.Stats, err = v.stats(); err != nil {
		return err
	}
	p.Live = p.Stats.live()
	if p.Health, err = v.health(); err != nil {
		return err
	}
	if p.Orgs, p.More, err = v.listOrgs(v.r.URL.Query().Get("cursor")); err != nil {
		return err
	}
	return v.show(http.StatusOK, "overview", page{Title: "Overview", Nav: "overview", Data: p})
}

// orgs leads to the org that was typed: an org is there once something is stored under its id, so any id may be opened.
func (c *Console) orgs(v *visit) error {
	org := strings.TrimSpace(v.r.URL.Query().Get("org"))
	if org == "" {
		v.redirect("/", "")
		return nil
	}
	v.redirect(path("/orgs/", org), "")
	return nil
}

func (v *visit) listOrgs(cursor string) ([]string, string, error) {
	var answer struct {
		Items []struct{ Org string } `json:"items"`
		Next  string                 `json:"next_cursor"`
	}
	q := url.Values{"limit": {"50"}}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	if err := v.get(&answer, "/api/orgs?"+q.Encode()); err != nil {
		return nil, "", err
	}
	orgs := make([]string, len(answer.Items))
	for i, o := range answer.Items {
		orgs[i] = o.Org
	}
	return orgs, answer.Next, nil
}

func (v *visit) stats() (s stats, err error) {
	err = v.get(&s, "/api/stats")
	return s, err
}

// health asks /readyz, whose lines are "[+]store ok", "[!]change-feed failed" and, last, the sum.
func (v *visit) health() ([]health, error) {
	answer := &recorder{header: http.Header{}}
	if err := v.send(answer, ask{method: http.MethodGet, path: "/readyz?verbose"}); err != nil {
		return nil, err
	}
	var all []health
	for line := range strings.Lines(answer.body.String()) {
		sign, rest, ok := strings.Cut(line, "]")
		if !ok {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		if name == "draining" && sign == "[+" {
			continue // what does not stop is no news
		}
		all = append(all, health{name, map[string]string{"[+": "ok", "[!": "degraded", "[-": "failed"}[sign]})
	}
	return all, nil
}

// live is what the page's numbers are: the page is made with it, and so are the later ones that the script puts in their place.
func (s *stats) live() map[string]string {
	hits := "–"
	if s.Traffic.CacheHitRate != nil {
		hits = strconv.FormatFloat(100**s.Traffic.CacheHitRate, 'f', 1, 64) + " %"
	}
	storeState := "ok"
	if s.Cache.StoreDown {
		storeState = "down"
	}
	m := map[string]string{
		"requests": rate(s.Traffic.Requests), "refused": rate(s.Traffic.Refused), "failed": rate(s.Traffic.Failed),
		"hits": hits, "held": strconv.FormatInt(s.Cache.Entries, 10), "store": storeState,
		"pending": strconv.FormatInt(s.Webhooks.Pending, 10), "dead": strconv.FormatInt(s.Webhooks.Dead, 10),
		"orgs": strconv.FormatInt(s.Orgs, 10),
	}
	for _, p := range s.Traffic.Providers {
		m[p.Provider+".requests"], m[p.Provider+".errors"] = rate(p.Requests), rate(p.Errors)
		m[p.Provider+".p50"], m[p.Provider+".p99"], m[p.Provider+".own"] = millis(p.P50), millis(p.P99), millis(p.OwnP99)
	}
	return m
}

func rate(n float64) string { return strconv.FormatFloat(n, 'f', 1, 64) }

func millis(ms *float64) string {
	switch {
	case ms == nil:
		return "–"
	case *ms < 10:
		return strconv.FormatFloat(*ms, 'f', 2, 64)
	}
	return strconv.FormatFloat(*ms, 'f', 0, 64)
}

// liveEvery is how often a live page gets its numbers anew; liveMost is when its stream ends, and the browser asks for another.
const (
	liveEvery = time.Second
	liveMost  = time.Hour
)

// live is a stream of server-sent events, each the page's numbers as JSON. It asks the API each time, so that it ends with the token.
func (c *Console) live(v *visit) error {
	select {
	case c.streams <- struct{}{}:
	default:
		return &refusal{Status: http.StatusServiceUnavailable, Detail: "too many pages are live already"}
	}
	defer func() { <-c.streams }()
	control := http.NewResponseController(v.w)
	v.w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(liveEvery)
	defer tick.Stop()
	end := time.NewTimer(liveMost)
	defer end.Stop()
	for begun := false; ; begun = true {
		s, err := v.stats()
		if err != nil && begun {
			return nil //nolint:nilerr // the stream's end says enough
		}
		if err != nil {
			return err
		}
		b, err := json.Marshal(s.live())
		if err != nil {
			return err
		}
		_ = control.SetWriteDeadline(time.Now().Add(10 * time.Second)) // not every ResponseWriter has one
		if _, err := v.w.Write(append(append([]byte("data: "), b...), "\n\n"...)); err != nil {
			return nil //nolint:nilerr // the browser is gone: nobody to tell
		}
		if control.Flush() != nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-v.r.Context().Done():
			return nil
		case <-c.o.Stop:
			return nil
		case <-end.C:
			return nil
		}
		if who, _ := c.sessions.find(cookieOf(v.r), false); who == nil {
			return nil
		}
	}
}
