package assistant

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/keyward/keyward/credential"
	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// Vapi's assistants: https://docs.vapi.ai/api-reference/assistants. There are POST /assistant (201), GET, PATCH and DELETE
// /assistant/{id}, and GET /assistant?limit=&createdAtGe=&createdAtLt=, which does not filter by metadata.

const (
	listLimit = 1000        // entries of a page, the most there is
	listSlack = time.Hour   // how far Vapi's clock may be from the store's
	maxPages  = 100         // of a list
	attempts  = 6           // of what may be asked again
	patience  = time.Second // before asking again, when Vapi does not say how long
)

// A remote is an assistant as Vapi has it.
type remote struct {
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	CreatedAt string          `json:"createdAt"`
	Metadata  json.RawMessage `json:"metadata"`

	raw []byte // the whole of it
}

// mark is a member of the assistant's metadata; empty: it has none of that name.
func (r *remote) mark(name string) string {
	var all map[string]json.RawMessage
	if json.Unmarshal(r.Metadata, &all) != nil {
		return ""
	}
	var text string
	_ = json.Unmarshal(all[name], &text) // of another type: it is not ours
	return text
}

// errGone: Vapi has no such assistant.
var errGone = errors.New("vapi has no such assistant")

// errUnclear: Vapi may have done what it was asked for, or may do so yet.
var errUnclear = errors.New("whether vapi has done it is not known")

func (w *work) get(ctx context.Context, id string) (*remote, error) {
	body, err := w.do(ctx, http.MethodGet, "/assistant/"+url.PathEscape(id), nil)
	if err != nil {
		return nil, err
	}
	return readRemote(body)
}

func (w *work) update(ctx context.Context, id string, change []byte) (*remote, error) {
	body, err := w.do(ctx, http.MethodPatch, "/assistant/"+url.PathEscape(id), change)
	if err != nil {
		return nil, err
	}
	return readRemote(body)
}

// remove deletes an assistant; one that is gone already is no error.
func (w *work) remove(ctx context.Context, id string) error {
	_, err := w.do(ctx, http.MethodDelete, "/assistant/"+url.PathEscape(id), nil)
	if errors.Is(err, errGone) {
		return nil
	}
	return err
}

// create makes an assistant. errUnclear is about this one request: it is not asked again.
func (w *work) create(ctx context.Context, body []byte) (*remote, error) {
	answer, err := w.do(ctx, http.MethodPost, "/assistant", body)
	if err != nil {
		return nil, err
	}
	r, err := readRemote(answer)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnclear, err)
	}
	return r, nil
}

// ours lists the assistants that carry the claim's nonce, the oldest first.
func (w *work) ours(ctx context.Context) ([]*remote, error) {
	since := w.claim.CreatedAt.Add(-listSlack).UTC().Format("2006-01-02T15:04:05.000Z")
	var all []*remote
	seen := map[string]bool{}
	before := ""
	for range maxPages {
		path := "/assistant?limit=" + strconv.Itoa(listLimit) + "&createdAtGe=" + url.QueryEscape(since)
		if before != "" {
			path += "&createdAtLt=" + url.QueryEscape(before)
		}
		body, err := w.do(ctx, http.MethodGet, path, nil)
		if errors.Is(err, errGone) {
			err = errUnexpected
		}
		if err != nil {
			return nil, err
		}
		var page []*remote
		if err := json.Unmarshal(body, &page); err != nil {
			return nil, errUnexpected
		}
		fresh := false
		for _, r := range page {
			if r == nil || r.ID == "" || seen[r.ID] {
				continue
			}
			seen[r.ID], fresh = true, true
			if before == "" || r.CreatedAt < before {
				before = r.CreatedAt
			}
			if r.mark(markClaim) == w.claim.Nonce {
				all = append(all, r)
			}
		}
		if len(page) < listLimit || !fresh {
			break
		}
	}
	return all, nil
}

var errUnexpected = &Error{Status: http.StatusBadGateway, Code: "upstream_protocol", Detail: "Vapi's answer is not what its API describes"}

func readRemote(body []byte) (*remote, error) {
	r := &remote{}
	if err := json.Unmarshal(body, r); err != nil || !isID(r.ID) {
		return nil, errUnexpected
	}
	r.raw = body
	return r, nil
}

// isID says whether it is an id that the admin API and the proxy take.
func isID(id string) bool {
	for i := range len(id) {
		c := id[i]
		if !('0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '.' || c == '_' || c == '-') {
			return false
		}
	}
	return 0 < len(id) && len(id) <= 128
}

// do asks Vapi, again where that does nothing twice: what is no POST, and a POST that was not acted on (429, or it was never sent).
func (w *work) do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	for n := 1; ; n++ {
		r, row, err := w.ask(ctx, method, path, body)
		wait := patience / 4 << (n - 1)
		switch {
		case err != nil:
			var no *provider.NoAnswerError
			if !errors.As(err, &no) {
				return nil, err
			}
			if method == http.MethodPost && no.Sent {
				return nil, fmt.Errorf("%w: %w", errUnclear, err)
			}
			err = unreachable(no)
		case r.Status == http.StatusTooManyRequests:
			wait = max(r.RetryAfter, patience)
			err = &Error{Status: r.Status, Code: "rate_limited", Detail: "Vapi limits requests of this org now", RetryAfter: wait}
		case r.Status >= 500 || r.Status == http.StatusRequestTimeout:
			err = &Error{Status: http.StatusBadGateway, Code: "upstream_unreachable", Detail: "Vapi has trouble now (status " + strconv.Itoa(r.Status) + ")", RetryAfter: patience}
			if method == http.MethodPost {
				return nil, fmt.Errorf("%w: %w", errUnclear, err)
			}
		default:
			return w.verdict(row, r)
		}
		if deadline, _ := ctx.Deadline(); n == attempts || time.Now().Add(wait).After(deadline) {
			return nil, err
		}
		if !pause(ctx, jitter(wait)) {
			return nil, ctx.Err()
		}
	}
}

// verdict is what an answer that stands means.
func (w *work) verdict(row *store.Credential, r provider.Reply) ([]byte, error) {
	switch {
	case r.Status >= 200 && r.Status < 300:
		return r.Body, nil
	case r.Status == http.StatusNotFound:
		return nil, errGone
	case r.Status == http.StatusUnauthorized:
		if w.o.Suspect != nil {
			w.o.Suspect(row)
		}
		return nil, &Error{Status: http.StatusFailedDependency, Code: "credential_rejected", Detail: "Vapi does not honour the org's credential"}
	case r.Status >= 400 && r.Status < 500:
		return nil, &Error{Status: http.StatusUnprocessableEntity, Code: "assistant_refused", Detail: "Vapi does not take the agent's configuration: " + w.said(row, r)}
	}
	return nil, errUnexpected
}

// unreachable is the answer when Vapi gave none.
func unreachable(no *provider.NoAnswerError) *Error {
	status := http.StatusBadGateway
	if no.Code == "upstream_timeout" {
		status = http.StatusGatewayTimeout
	}
	return &Error{Status: status, Code: no.Code, Detail: "Vapi: " + no.Detail, RetryAfter: patience, cause: no}
}

// ask asks once, and once more with the org's former credential while another takes its place and Vapi does not know that yet.
func (w *work) ask(ctx context.Context, method, path string, body []byte) (provider.Reply, *store.Credential, error) {
	row, _, err := w.db.Credential(ctx, store.Ref{Org: w.claim.Org, Provider: provider.Vapi.Name})
	switch {
	case errors.Is(err, store.ErrNotFound):
		return provider.Reply{}, nil, &Error{Status: http.StatusFailedDependency, Code: "credential_missing", Detail: "the org has no credential with vapi"}
	case err != nil:
		return provider.Reply{}, nil, err
	case !row.Active || w.o.Off(row.Ref):
		return provider.Reply{}, nil, &Error{Status: http.StatusFailedDependency, Code: "credential_inactive", Detail: "the org's credential with vapi is disabled"}
	}
	r, err := w.askWith(ctx, row, method, path, body)
	if old := row.Former(time.Now()); err == nil && r.Status == http.StatusUnauthorized && old != nil {
		r, err = w.askWith(ctx, old, method, path, body)
	}
	return r, row, err
}

func (w *work) askWith(ctx context.Context, row *store.Credential, method, path string, body []byte) (provider.Reply, error) {
	secret, _, err := credential.Open(w.o.Keeper.Keys, row, nil)
	if err != nil {
		return provider.Reply{}, &Error{Status: http.StatusFailedDependency, Code: "credential_unreadable", Detail: "the org's credential with vapi cannot be opened with the keys at hand", cause: err}
	}
	q := &provider.Question{Provider: &provider.Vapi, Method: method, Path: path, Secret: secret}
	if body != nil {
		q.Type, q.Body = "application/json", bytes.Clone(body)
	}
	return w.o.Ask(ctx, q)
}

// said is Vapi's own message, which is a text or a list of them: without it nobody can mend a configuration. It is short, printable, and
// does not hold the key.
func (w *work) said(row *store.Credential, r provider.Reply) string {
	const longest = 400
	var answer struct {
		Message json.RawMessage `json:"message"`
	}
	_ = json.Unmarshal(r.Body, &answer) // of another form: it says nothing
	var one string
	var list []string
	if json.Unmarshal(answer.Message, &one) != nil {
		_ = json.Unmarshal(answer.Message, &list)
		one = strings.Join(list, "; ")
	}
	one = strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || c == unicode.ReplacementChar {
			return ' '
		}
		return c
	}, one)
	if text := []rune(one); len(text) > longest {
		one = string(text[:longest]) + "…"
	}
	if one == "" || w.holdsSecret(row, one) {
		return "status " + strconv.Itoa(r.Status)
	}
	return one
}

func (w *work) holdsSecret(row *store.Credential, text string) bool {
	values, err := w.o.Keeper.Read(row)
	if err != nil {
		return true
	}
	defer values.Wipe()
	for i := range provider.Vapi.Fields {
		f := &provider.Vapi.Fields[i]
		v := values[f.Name]
		for _, secret := range append(v.List, v.Text) {
			if f.Secret && len(secret) >= 6 && strings.Contains(text, secret) {
				return true
			}
		}
	}
	return false
}

// pause waits, and says whether to go on.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// jitter is d, give or take a quarter.
func jitter(d time.Duration) time.Duration { return d - d/4 + rand.N(d/2+1) } //nolint:gosec // jitter is no secret
