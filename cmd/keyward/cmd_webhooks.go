package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/keyward/keyward/admin"
	"github.com/keyward/keyward/store"
	"github.com/keyward/keyward/webhook"
)

// A delivery is a durable webhook as the admin API shows it.
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
	Assistant     string     `json:"assistant"`
	Group         string     `json:"group"`
	Target        string     `json:"target"`
	Method        string     `json:"method"`
	Path          string     `json:"path"`
	BodySize      int64      `json:"body_size"`
	UpdatedAt     *time.Time `json:"updated_at"`
}

const deliveriesPath = "/api/webhooks/deliveries"

// deliveryFilter adds the flags that say which deliveries.
func deliveryFilter(f *flags) (query func() url.Values) {
	state := f.String("state", "", "only those in this `STATE`: pending, delivered or dead")
	org := f.String("org", "", "only those of this org `ID`")
	return func() url.Values {
		q := url.Values{}
		if *state != "" {
			q.Set("state", *state)
		}
		if *org != "" {
			q.Set("org", *org)
		}
		return q
	}
}

// deliveries reads pages until there are n, or no more; n 0: all. It leaves the cursor to go on from.
func (s *sidecar) deliveries(ctx context.Context, q url.Values, n int) (listing, error) {
	all := listing{Items: []json.RawMessage{}}
	for {
		size := 1000
		if n > 0 {
			size = min(size, n-len(all.Items))
		}
		q.Set("limit", strconv.Itoa(size))
		q.Set("cursor", all.NextCursor)
		var page listing
		if err := s.do(ctx, http.MethodGet, deliveriesPath+"?"+q.Encode(), nil, &page); err != nil {
			return all, err
		}
		all.Items = append(all.Items, page.Items...)
		if all.NextCursor = page.NextCursor; all.NextCursor == "" || len(all.Items) == n {
			return all, nil
		}
	}
}

func cmdWebhooksList(ctx context.Context, f *flags, args []string, std stdio) error {
	s := reach(f)
	filter := deliveryFilter(f)
	n := f.Int("limit", 100, "how many of the newest; 0: all")
	asJSON := f.json()
	if err := f.parse(args); err != nil {
		return err
	}
	if *n < 0 {
		return usagef("--limit must not be negative")
	}
	l, err := s.deliveries(ctx, filter(), *n)
	if err != nil {
		return err
	}
	if *asJSON {
		return printJSON(std.out, l)
	}
	err = printTable(std, l, "no durable webhooks", "ID ORG PROVIDER TYPE STATE ATTEMPTS NEXT ACCEPTED PROBLEM", func(d delivery) []string {
		return []string{d.ID, d.Org, d.Provider, d.Type, d.State, strconv.Itoa(d.Attempts), ago(d.NextAttemptAt), ago(d.CreatedAt), d.LastError}
	})
	if err == nil && l.NextCursor != "" {
		fmt.Fprintf(std.err, "These are the newest %d; --limit shows more.\n", len(l.Items))
	}
	return err
}

func cmdWebhooksShow(ctx context.Context, f *flags, args []string, std stdio) error {
	s := reach(f)
	asJSON := f.json()
	if err := f.parse(args, "DELIVERY_ID"); err != nil {
		return err
	}
	var answer json.RawMessage
	if err := s.do(ctx, http.MethodGet, deliveriesPath+"/"+segment(f.Arg(0)), nil, &answer); err != nil {
		return err
	}
	if *asJSON {
		return printJSON(std.out, answer)
	}
	var d delivery
	if err := json.Unmarshal(answer, &d); err != nil {
		return fmt.Errorf("reading the sidecar's answer: %w", err)
	}
	for _, line := range [][2]string{
		{"id", d.ID},
		{"org", d.Org},
		{"provider", d.Provider},
		{"type", d.Type},
		{"assistant", d.Assistant},
		{"ordered by", d.Group},
		{"state", d.State},
		{"attempts", strconv.Itoa(d.Attempts)},
		{"next attempt", ago(d.NextAttemptAt)},
		{"problem", d.LastError},
		{"accepted", ago(d.CreatedAt)},
		{"changed", ago(d.UpdatedAt)},
		{"received as", d.Method + " " + d.Path},
		{"target", d.Target},
		{"body", strconv.FormatInt(d.BodySize, 10) + " bytes"},
	} {
		if _, err := fmt.Fprintf(std.out, "%-13s %s\n", line[0], printable(line[1])); err != nil {
			return err
		}
	}
	return nil
}

// cmdWebhooksRedeliver sends one again, or all that match.
func cmdWebhooksRedeliver(ctx context.Context, f *flags, args []string, std stdio) error {
	s := reach(f)
	filter := deliveryFilter(f)
	if err := f.parse(args, "[DELIVERY_ID]"); err != nil {
		return err
	}
	ids := f.Args()
	switch q := filter(); {
	case len(ids) == 1 && len(q) == 0:
	case len(ids) == 0 && q.Get("state") != "":
		l, err := s.deliveries(ctx, q, 0)
		if err != nil {
			return err
		}
		for i := len(l.Items) - 1; i >= 0; i-- { // the oldest first
			var d delivery
			if err := json.Unmarshal(l.Items[i], &d); err != nil {
				return fmt.Errorf("reading the sidecar's answer: %w", err)
			}
			ids = append(ids, d.ID)
		}
	default:
		return usagef("webhooks redeliver needs either the id of one webhook, or --state (and --org) to say which")
	}
	for _, id := range ids {
		if err := s.do(ctx, http.MethodPost, deliveriesPath+"/"+segment(id)+"/redeliver", nil, nil); err != nil {
			return err
		}
		if _, err := fmt.Fprintf(std.out, "%s: due now\n", id); err != nil {
			return err
		}
	}
	if len(ids) == 0 {
		fmt.Fprintln(std.err, "no such webhooks")
	}
	return nil
}

// cmdWebhooksTest has the sidecar sign a sample and send it to itself. Signing there keeps the secret there.
func cmdWebhooksTest(ctx context.Context, f *flags, args []string, std stdio) error {
	s := reach(f)
	org := f.String("org", "", "the org's `ID`")
	provider := f.String("provider", "", "the `PROVIDER` that it seems to come from")
	body := struct {
		Type string `json:"type,omitempty"`
	}{}
	f.StringVar(&body.Type, "type", "", "the `TYPE` of the message, as the provider names it; twilio: message, call, or with a status as call.completed; none: a usual one")
	asJSON := f.json()
	if err := f.parse(args); err != nil {
		return err
	}
	if err := required(f, "org", "provider"); err != nil {
		return err
	}
	path := "/api/orgs/" + segment(*org) + "/integrations/" + segment(*provider) + "/webhook-test"
	var answer json.RawMessage
	if err := s.do(ctx, http.MethodPost, path, body, &answer); err != nil {
		return err
	}
	var got struct {
		Type     string `json:"type"`
		Status   int    `json:"status"`
		Error    string `json:"error"`
		Delivery string `json:"delivery"`
		Body     string `json:"body"`
	}
	if err := json.Unmarshal(answer, &got); err != nil {
		return fmt.Errorf("reading the sidecar's answer: %w", err)
	}
	failed := error(nil)
	if got.Status < 200 || got.Status > 299 {
		failed = fmt.Errorf("the %s of %s was answered %d %s", got.Type, *provider, got.Status, got.Error)
	}
	if *asJSON {
		return errors.Join(printJSON(std.out, answer), failed)
	}
	switch {
	case failed == nil && got.Delivery != "":
		fmt.Fprintf(std.err, "%s %s of %s: acknowledged, to be delivered; whether the app took it: keyward webhooks show %s\n", *provider, got.Type, *org, got.Delivery)
	case failed == nil:
		fmt.Fprintf(std.err, "%s %s of %s: the app answered %d\n", *provider, got.Type, *org, got.Status)
	}
	if got.Body != "" {
		if _, err := fmt.Fprintln(std.out, strings.TrimRight(got.Body, "\n")); err != nil {
			return err
		}
	}
	return failed
}

// testWebhook is admin.Webhooks.Test: a Sampler's answers and errors, as the admin API says them.
func testWebhook(s *webhook.Sampler) func(context.Context, string, string, string) (*admin.WebhookAnswer, error) {
	return func(ctx context.Context, org, provider, typ string) (*admin.WebhookAnswer, error) {
		noSecret := fmt.Sprintf("the credential of org %s with %s has no webhook secret: put the field webhook_secret into it (google_calendar: channel_token)", org, provider)
		a, err := s.Send(ctx, org, provider, typ)
		for _, known := range []struct {
			is      error
			problem *admin.Problem
		}{
			{store.ErrNotFound, &admin.Problem{Status: http.StatusNotFound, Code: "not_found", Detail: fmt.Sprintf("org %s has no credential with %s: keyward credentials set", org, provider)}},
			{webhook.ErrNoSecret, &admin.Problem{Status: http.StatusFailedDependency, Code: "credential_incomplete", Detail: noSecret}},
			{webhook.ErrType, &admin.Problem{Status: http.StatusBadRequest, Code: "bad_request", Detail: webhook.ErrType.Error()}},
			{webhook.ErrPrivateKey, &admin.Problem{Status: http.StatusBadRequest, Code: "bad_request", Detail: webhook.ErrPrivateKey.Error()}},
			{webhook.ErrNotSent, &admin.Problem{Status: http.StatusBadGateway, Code: "not_sent", Detail: webhook.ErrNotSent.Error()}},
		} {
			if errors.Is(err, known.is) {
				return nil, known.problem
			}
		}
		if err != nil {
			return nil, err
		}
		return &admin.WebhookAnswer{Type: a.Type, Status: a.Status, Header: a.Header, Body: a.Body}, nil
	}
}
