package console

import (
	"net/http"
	"net/url"
	"time"
)

// A delivery is a durable webhook, as the API shows it.
type delivery struct {
	ID, Org, Provider, Type, State string
	Attempts                       int
	NextAttemptAt                  *time.Time `json:"next_attempt_at"`
	LastError                      string     `json:"last_error"`
	CreatedAt                      *time.Time `json:"created_at"`
	Assistant, Group, Target       string
	Method, Path                   string
	BodySize                       int64      `json:"body_size"`
	UpdatedAt                      *time.Time `json:"updated_at"`
}

// Again says whether it makes sense to deliver it once more.
func (d delivery) Again() bool { return d.State != "pending" }

type webhooksPage struct {
	State, Org string
	Items      []delivery
	Older      string            // the path of the next page
	Live       map[string]string // the queue's numbers; nil: this person does not get them
}

func (c *Console) webhooks(v *visit) error {
	q := v.r.URL.Query()
	p := webhooksPage{State: q.Get("state"), Org: q.Get("org")}
	want := url.Values{"limit": {"50"}}
	for _, name := range []string{"state", "org", "cursor"} {
		if q.Get(name) != "" {
			want.Set(name, q.Get(name))
		}
	}
	var answer struct {
		Items []delivery
		Next  string `json:"next_cursor"`
	}
	if err := v.get(&answer, "/api/webhooks/deliveries?"+want.Encode()); err != nil {
		return err
	}
	p.Items = answer.Items
	if answer.Next != "" {
		want.Del("limit")
		want.Set("cursor", answer.Next)
		p.Older = "/webhooks?" + want.Encode()
	}
	if v.who.Operator() {
		s, err := v.stats()
		if err != nil {
			return err
		}
		p.Live = s.live()
	}
	return v.show(http.StatusOK, "webhooks", page{Title: "Webhooks", Nav: "webhooks", Data: p})
}

func (c *Console) delivery(v *visit) error {
	var d delivery
	if err := v.get(&d, "/api/webhooks/deliveries/", v.r.PathValue("delivery")); err != nil {
		return err
	}
	return v.show(http.StatusOK, "delivery", page{Title: "Delivery", Nav: "webhooks", Back: [2]string{"/webhooks", "Webhooks"}, Data: d})
}

func (c *Console) redeliver(v *visit) error {
	id := v.r.PathValue("delivery")
	if err := v.do(ask{method: http.MethodPost, path: path("/api/webhooks/deliveries/", id, "/redeliver")}, nil); err != nil {
		return err
	}
	v.redirect(path("/webhooks/", id), "redelivered")
	return nil
}
