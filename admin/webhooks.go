package admin

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"time"

	"github.com/keyward/keyward/store"
)

// Webhooks is what only the running sidecar can say and do about webhooks. Nil funcs: it takes none.
type Webhooks struct {
	// Target is where a delivery of the org goes by now; empty: nowhere.
	Target func(provider, org string) string
	// Wake tells the queue that there is something to deliver.
	Wake func()
	// Test sends a sample of a type (empty: a usual one), signed with the org's own secret, to the sidecar's own webhook listener. A
	// *Problem says why there is none.
	Test func(ctx context.Context, org, provider, typ string) (*WebhookAnswer, error)
}

// A WebhookAnswer is what the webhook listener answered to a sample.
type WebhookAnswer struct {
	Type   string
	Status int
	Header http.Header
	Body   []byte
}

// A delivery is a durable webhook as it is shown: without headers and body, which may hold the tenant's secrets.
type delivery struct {
	ID            string     `json:"id"`
	Org           string     `json:"org"`
	Provider      string     `json:"provider"`
	Type          string     `json:"type"`
	State         string     `json:"state"`
	Attempts      int        `json:"attempts"`
	NextAttemptAt *time.Time `json:"next_attempt_at"`
	LastError     string     `json:"last_error"`
	CreatedAt     *time.Time `json:"created_at"`

	Assistant string     `json:"assistant"`
	Group     string     `json:"group"`
	Target    string     `json:"target"`
	Method    string     `json:"method"`
	Path      string     `json:"path"`
	BodySize  int64      `json:"body_size"`
	UpdatedAt *time.Time `json:"updated_at"`
}

func showDelivery(d *store.Delivery) delivery {
	return delivery{
		ID: d.ID, Org: d.Org, Provider: d.Provider, Type: d.Type, State: string(d.State), Attempts: d.Attempts,
		NextAttemptAt: moment(d.NextAttemptAt), LastError: d.LastError, CreatedAt: moment(d.CreatedAt),
		Assistant: d.Assistant, Group: d.Group, Target: d.Target, Method: d.Method, Path: d.Path, BodySize: d.BodySize, UpdatedAt: moment(d.UpdatedAt),
	}
}

// listDeliveries lists deliveries, newest first.
func (a *API) listDeliveries(c *call) error {
	q, err := c.query("limit", "cursor", "state", "org")
	if err != nil {
		return err
	}
	f := store.DeliveryFilter{State: store.State(q.Get("state")), Org: q.Get("org"), After: q.Get("cursor")}
	if f.Limit, err = limit(q); err != nil {
		return err
	}
	if !slices.Contains([]store.State{"", store.Pending, store.Delivered, store.Dead}, f.State) {
		return badField("state", "must be pending, delivered or dead")
	}
	if c.who.org != "" {
		if f.Org != "" && f.Org != c.who.org {
			return problemNoSuchOrg
		}
		f.Org = c.who.org
	}
	if f.Org != "" && !store.IsOrg(f.Org) {
		return badField("org", "is malformed")
	}
	rows, next, err := a.o.DB.Deliveries(c.r.Context(), f)
	if errors.Is(err, store.ErrCursor) {
		return badField("cursor", "is not one that this listing gave")
	}
	if err != nil {
		return err
	}
	items := make([]delivery, len(rows))
	for i, row := range rows {
		items[i] = showDelivery(row)
	}
	return c.json(http.StatusOK, page{items, next})
}

func (a *API) showDelivery(c *call) error {
	if _, err := c.query(); err != nil {
		return err
	}
	d, err := a.delivery(c.r.Context(), c.who, c.r.PathValue("delivery"))
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, showDelivery(d))
}

// delivery reads a delivery that is within reach.
func (a *API) delivery(ctx context.Context, who identity, id string) (*store.Delivery, error) {
	d, err := a.o.DB.Delivery(ctx, id)
	if errors.Is(err, store.ErrNotFound) || err == nil && !who.reaches(d.Org) {
		return nil, missing("there is no delivery of that id")
	}
	return d, err
}

// redeliver answers with the delivery as it stands then.
func (a *API) redeliver(c *call) error {
	if err := c.readIfAny(); err != nil {
		return err
	}
	d, err := a.redeliverNow(c.r.Context(), c.who, c.r.PathValue("delivery"))
	if err != nil {
		return err
	}
	return c.json(http.StatusOK, showDelivery(d))
}

// redeliverNow makes a delivery due now, to where the configuration sends it by now.
func (a *API) redeliverNow(ctx context.Context, who identity, id string) (*store.Delivery, error) {
	d, err := a.delivery(ctx, who, id)
	if err != nil {
		return nil, err
	}
	target := ""
	if a.o.Webhooks.Target != nil {
		target = a.o.Webhooks.Target(d.Provider, d.Org)
	}
	if err := a.o.DB.Redeliver(ctx, who.Actor, d.ID, target); err != nil {
		return nil, err
	}
	if d, err = a.delivery(ctx, who, id); err != nil {
		return nil, err
	}
	if a.o.Webhooks.Wake != nil {
		a.o.Webhooks.Wake()
	}
	return d, nil
}

// readIfAny is read for a request that needs no body.
func (c *call) readIfAny(fields ...field) error {
	if c.r.ContentLength == 0 {
		return nil
	}
	return c.read(fields...)
}

var problemNoWebhooks = &Problem{Status: http.StatusConflict, Code: "webhooks_off", Detail: "the sidecar takes no webhooks: start it with --webhook-listen and --webhook-target"}

var webhookType = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// testWebhook sends a sample to the sidecar's own webhook listener and answers with what that answered.
func (a *API) testWebhook(c *call) error {
	ref, _, err := c.ref()
	if err != nil {
		return err
	}
	typ := ""
	if err := c.readIfAny(field{"type", &typ}); err != nil {
		return err
	}
	if typ != "" && !webhookType.MatchString(typ) {
		return badField("type", "must be at most 64 letters, digits or . _ -")
	}
	if a.o.Webhooks.Test == nil {
		return problemNoWebhooks
	}
	answer, err := a.o.Webhooks.Test(c.r.Context(), ref.Org, ref.Provider, typ)
	if errors.Is(err, store.ErrNotFound) {
		return missing("org " + ref.Org + " has no credential with " + ref.Provider + ": keyward credentials set")
	}
	if err != nil {
		return err
	}
	event := store.Event{Actor: c.by, Action: "webhook.test", Org: ref.Org, Target: ref.Provider, Result: "ok", Detail: answer.Type}
	if err := a.o.DB.AddEvent(c.r.Context(), event); err != nil {
		return err
	}
	return c.json(http.StatusOK, struct {
		Type      string `json:"type"`
		Status    int    `json:"status"`
		Error     string `json:"error"`      // Keyward's own code; empty: it is the app's answer, or an acknowledgement
		RequestID string `json:"request_id"` // as the log has it
		Delivery  string `json:"delivery"`   // as which it was stored, to be delivered; empty: the app was asked at once, or it was refused
		Body      string `json:"body"`
	}{answer.Type, answer.Status, answer.Header.Get("Keyward-Error"), answer.Header.Get("Keyward-Request-Id"), answer.Header.Get("Keyward-Delivery-Id"), string(answer.Body)})
}
