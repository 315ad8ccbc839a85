package credential

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/keyward/keyward/provider"
	"github.com/keyward/keyward/store"
)

// An oracle answers questions in the providers' place and keeps them, as the proxy does: what is secret is overwritten once it was asked.
type oracle struct {
	mu     sync.Mutex
	asked  []string // method, host, path, the credential as it would be injected, body
	answer func(n int, q *provider.Question) (provider.Reply, error)
}

func (o *oracle) ask(_ context.Context, q *provider.Question) (provider.Reply, error) {
	r := provider.Request{Method: []byte(q.Method), Host: q.Host, Path: []byte(q.Path), Token: q.Token}
	if !q.Secret.IsZero() {
		if err := q.Provider.Inject(&r, q.Secret); err != nil {
			return provider.Reply{}, err
		}
	}
	o.mu.Lock()
	n := len(o.asked)
	o.asked = append(o.asked, fmt.Sprintf("%s %s %s %s", q.Method, r.Path, r.Value, q.Body))
	answer := o.answer
	o.mu.Unlock()
	reply, err := answer(n, q)
	q.Wipe()
	return reply, err
}

func (o *oracle) all() []string { o.mu.Lock(); defer o.mu.Unlock(); return slices.Clone(o.asked) }
func (o *oracle) count() int    { return len(o.all()) }

func says(status int, body string) func(int, *provider.Question) (provider.Reply, error) {
	return func(int, *provider.Question) (provider.Reply, error) {
		return provider.Reply{Status: status, Body: []byte(body)}, nil
	}
}

const (
	twilioKnows  = `{"account_sid":"AC0123456789abcdef0123456789abcdef","balance":"1.00","currency":"USD"}`
	twilioNever  = `{"code":20003,"message":"Authenticate","status":401}`
	googleGrants = `{"access_token":"ya29.token","expires_in":3599,"token_type":"Bearer"}`
	googleNever  = `{"error":"invalid_grant","error_description":"Token has been expired or revoked."}`
)

func newVerifier(t testing.TB, k *Keeper, o *oracle, change ...func(*VerifierOptions)) *Verifier {
	t.Helper()
	opt := VerifierOptions{Keeper: k, Ask: o.ask, Log: zerolog.New(zerolog.NewTestWriter(t))}
	for _, f := range change {
		f(&opt)
	}
	return NewVerifier(opt)
}

func putTwilio(t testing.TB, k *Keeper) *store.Credential {
	t.Helper()
	row, err := k.Put(t.Context(), by, acmeTwilio, twilioValues(strings.Repeat("1a", 16)), PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return row
}

func TestVerifyStoresWhatTheProviderSays(t *testing.T) {
	engines(t, func(t *testing.T, k *Keeper) {
		putTwilio(t, k)
		o := &oracle{answer: says(401, twilioNever)}
		v := newVerifier(t, k, o)
		row, verdict, err := v.Verify(t.Context(), by, acmeTwilio)
		if err != nil || verdict.State != provider.Invalid || row.Verification != store.Invalid || row.VerificationError != verdict.Reason ||
			time.Since(row.LastVerifiedAt) > time.Minute || !row.Active {
			t.Fatalf("%+v %+v %v", row, verdict, err)
		}
		if want := "GET /2010-04-01/Accounts/AC0123456789abcdef0123456789abcdef/Balance.json Basic "; !strings.HasPrefix(o.asked[0], want) || len(o.asked) != 2 {
			t.Errorf("asked %q", o.asked)
		}
		o.answer = says(200, twilioKnows)
		row, verdict, err = v.Verify(t.Context(), by, acmeTwilio)
		if err != nil || verdict.State != provider.Valid || row.Verification != store.Valid || row.VerificationError != "" {
			t.Fatalf("%+v %+v %v", row, verdict, err)
		}
	})
}

// A provider that is down says nothing: what was known stays, and the row with it.
func TestUnprovenLeavesWhatIsKnown(t *testing.T) {
	k := newKeeper(t, sqliteURL(t))
	putTwilio(t, k)
	o := &oracle{answer: says(200, twilioKnows)}
	v := newVerifier(t, k, o)
	before, _, err := v.Verify(t.Context(), by, acmeTwilio)
	if err != nil {
		t.Fatal(err)
	}
	for what, answer := range map[string]func(int, *provider.Question) (provider.Reply, error){
		"busy":   says(429, `{"code":20429}`),
		"broken": says(503, twilioNever),
		"a wall": says(200, "<html>"),
		"away": func(int, *provider.Question) (provider.Reply, error) {
			return provider.Reply{}, &provider.NoAnswerError{Code: "upstream_timeout", Detail: "the provider did not answer in time"}
		},
	} {
		o.answer = answer
		row, verdict, err := v.Verify(t.Context(), by, acmeTwilio)
		if err != nil || verdict.State != provider.Unproven || verdict.Reason == "" || row.Version != before.Version || row.Verification != store.Valid {
			t.Errorf("%s: %+v %+v %v", what, row, verdict, err)
		}
	}
	events, err := k.DB.Events(t.Context(), store.EventFilter{Newest: true, Limit: 1})
	if err != nil || len(events) != 1 || events[0].Action != "credential.verify" || events[0].Result != "unproven" {
		t.Errorf("the audit log says %+v %v", events, err)
	}
}

func TestVerifyTellsAConsentThatIsOver(t *testing.T) {
	k := newKeeper(t, sqliteURL(t))
	if _, err := k.Put(t.Context(), by, acmeGoogle, googleValues("1//first-refresh-token"), PutOptions{}); err != nil {
		t.Fatal(err)
	}
	o := &oracle{answer: says(400, googleNever)}
	row, verdict, err := newVerifier(t, k, o).Verify(t.Context(), by, acmeGoogle)
	if err != nil || !verdict.Reconnect || row.Verification != store.Reconnect || !strings.Contains(row.VerificationError, "invalid_grant") {
		t.Errorf("%+v %+v %v", row, verdict, err)
	}
	if len(o.asked) != 1 {
		t.Errorf("asked %q", o.asked)
	}
}

// The refresh token that Google gives back in the old one's place is stored, or the consent would be lost by looking at it.
func TestVerifyKeepsARotatedRefreshToken(t *testing.T) {
	engines(t, func(t *testing.T, k *Keeper) {
		if _, err := k.Put(t.Context(), by, acmeGoogle, googleValues("1//first-refresh-token"), PutOptions{}); err != nil {
			t.Fatal(err)
		}
		o := &oracle{answer: func(n int, _ *provider.Question) (provider.Reply, error) {
			if n == 0 {
				return provider.Reply{Status: 200, Body: []byte(strings.Replace(googleGrants, "{", `{"refresh_token":"1//second-refresh-token",`, 1))}, nil
			}
			return provider.Reply{Status: 200, Body: []byte(`{"kind":"calendar#calendarList"}`)}, nil
		}}
		row, verdict, err := newVerifier(t, k, o).Verify(t.Context(), by, acmeGoogle)
		if err != nil || verdict.State != provider.Valid || row.Verification != store.Valid {
			t.Fatalf("%+v %+v %v", row, verdict, err)
		}
		if got := k.refresh(t); got != "1//second-refresh-token" {
			t.Errorf("kept %s", got)
		}
		if !strings.Contains(o.asked[0], "refresh_token=1%2F%2Ffirst-refresh-token") || !strings.Contains(o.asked[1], "Bearer ya29.token") {
			t.Errorf("asked %q", o.asked)
		}
	})
}

// A verdict about what was replaced meanwhile is about nothing that is there: the new one is asked about.
func TestVerdictIsAboutWhatIsThere(t *testing.T) {
	k := newKeeper(t, sqliteURL(t))
	putTwilio(t, k)
	o := &oracle{}
	o.answer = func(n int, _ *provider.Question) (provider.Reply, error) {
		if n < 2 {
			if n == 1 {
				if _, err := k.Put(context.Background(), by, acmeTwilio, twilioValues(strings.Repeat("2b", 16)), PutOptions{}); err != nil {
					t.Error(err)
				}
			}
			return provider.Reply{Status: 401, Body: []byte(twilioNever)}, nil
		}
		return provider.Reply{Status: 200, Body: []byte(twilioKnows)}, nil
	}
	row, verdict, err := newVerifier(t, k, o).Verify(t.Context(), by, acmeTwilio)
	if err != nil || verdict.State != provider.Valid || row.Verification != store.Valid || o.count() != 3 {
		t.Errorf("%+v %+v %v, asked %d times", row, verdict, err, o.count())
	}
}

func TestVerifyRefusesWhatIsNotThere(t *testing.T) {
	k := newKeeper(t, sqliteURL(t))
	v := newVerifier(t, k, &oracle{answer: says(200, "{}")})
	if _, _, err := v.Verify(t.Context(), by, acmeTwilio); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("no credential: %v", err)
	}
	if _, _, err := v.Verify(t.Context(), by, store.Ref{Org: "acme", Provider: "nosuch"}); !errors.Is(err, ErrUnknownProvider) {
		t.Errorf("no provider: %v", err)
	}
	putTwilio(t, k)
	other := *k
	other.Keys = newKeeper(t, sqliteURL(t)).Keys
	if _, _, err := newVerifier(t, &other, &oracle{answer: says(200, "{}")}).Verify(t.Context(), by, acmeTwilio); !errors.Is(err, ErrUnreadable) {
		t.Errorf("another key: %v", err)
	}
}

func TestPutWithCheckWritesOnlyWhatIsValid(t *testing.T) {
	engines(t, func(t *testing.T, k *Keeper) {
		before := putTwilio(t, k)
		o := &oracle{answer: says(401, twilioNever)}
		check := PutOptions{Check: newVerifier(t, k, o).Check}
		refused := func(want provider.State, err error) {
			t.Helper()
			var r *RefusedError
			if !errors.As(err, &r) || r.Verdict.State != want {
				t.Errorf("%v, want %s", err, want)
			}
		}
		bad := twilioValues(strings.Repeat("2b", 16))
		_, err := k.Put(t.Context(), by, acmeTwilio, bad, check)
		refused(provider.Invalid, err)
		_, err = k.Patch(t.Context(), by, acmeTwilio, Patch{Fields: []byte(`{"auth_token":"` + strings.Repeat("3c", 16) + `"}`), PutOptions: check})
		refused(provider.Invalid, err)
		_, err = k.Patch(t.Context(), by, acmeTwilio, Patch{PutOptions: check})
		refused(provider.Invalid, err)
		o.answer = says(500, "")
		_, err = k.Put(t.Context(), by, acmeTwilio, bad, check)
		refused(provider.Unproven, err)
		row, values, err := k.Values(t.Context(), acmeTwilio)
		if err != nil || row.Version != before.Version || values["auth_token"].Text != strings.Repeat("1a", 16) {
			t.Errorf("something was written: %+v %v", row, err)
		}

		o.answer = says(200, twilioKnows)
		row, err = k.Put(t.Context(), by, acmeTwilio, bad, check)
		if err != nil || row.Verification != store.Valid || row.LastVerifiedAt.IsZero() {
			t.Errorf("%+v %v", row, err)
		}
		stale := int64(1)
		check.IfVersion = &stale
		n := o.count()
		if _, err := k.Put(t.Context(), by, acmeTwilio, bad, check); !errors.Is(err, store.ErrConflict) || o.count() != n {
			t.Errorf("%v; a write that cannot be was asked about %d times", err, o.count()-n)
		}
	})
}

func TestCheckKeepsARotatedRefreshToken(t *testing.T) {
	k := newKeeper(t, sqliteURL(t))
	o := &oracle{answer: func(n int, _ *provider.Question) (provider.Reply, error) {
		if n == 0 {
			return provider.Reply{Status: 200, Body: []byte(strings.Replace(googleGrants, "{", `{"refresh_token":"1//second-refresh-token",`, 1))}, nil
		}
		return provider.Reply{Status: 200, Body: []byte(`{"kind":"calendar#calendarList"}`)}, nil
	}}
	row, err := k.Put(t.Context(), by, acmeGoogle, googleValues("1//first-refresh-token"), PutOptions{Check: newVerifier(t, k, o).Check})
	if err != nil || row.Verification != store.Valid || k.refresh(t) != "1//second-refresh-token" {
		t.Errorf("%+v %v, kept %s", row, err, k.refresh(t))
	}
}

// run runs the background part for the time of the test.
func run(t *testing.T, v *Verifier) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { v.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if holds() {
			return
		}
	}
	t.Fatalf("never: %s", what)
}

// An app that is refused a thousand times has its credential looked into once.
func TestRefusedCredentialIsLookedIntoOnce(t *testing.T) {
	k := newKeeper(t, sqliteURL(t))
	row := putTwilio(t, k)
	o := &oracle{answer: says(401, twilioNever)}
	v := newVerifier(t, k, o)
	for range 1000 {
		v.Suspect(row)
	}
	if !v.Suspected(row) {
		t.Error("it is not suspect before it was looked into")
	}
	run(t, v)
	eventually(t, "the verdict is stored", func() bool {
		c, _, err := k.DB.Credential(t.Context(), acmeTwilio)
		return err == nil && c.Verification == store.Invalid && !v.Suspected(row)
	})
	for range 1000 {
		v.Suspect(row)
	}
	time.Sleep(100 * time.Millisecond)
	if n := o.count(); n != 2 { // the two paths of one probe
		t.Errorf("asked %d times", n)
	}
	// A replaced credential is another matter.
	next, err := k.Put(t.Context(), by, acmeTwilio, twilioValues(strings.Repeat("2b", 16)), PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	v.Suspect(row) // a request that was under way
	if v.Suspected(next) {
		t.Error("the new credential is suspect because of the old one")
	}
	v.Suspect(next)
	eventually(t, "the new one is looked into too", func() bool { return o.count() == 4 })
}

// Several sidecars see the same 401: one of them asks.
func TestOneSidecarLooksIntoIt(t *testing.T) {
	k := newKeeper(t, sqliteURL(t))
	row := putTwilio(t, k)
	o := &oracle{answer: says(200, twilioKnows)}
	var all []*Verifier
	for range 3 {
		v := newVerifier(t, k, o)
		v.Suspect(row)
		all = append(all, v)
	}
	if _, _, err := newVerifier(t, k, o).Verify(t.Context(), by, acmeTwilio); err != nil { // the fourth
		t.Fatal(err)
	}
	for _, v := range all {
		run(t, v)
	}
	eventually(t, "nobody suspects it any more", func() bool {
		return !all[0].Suspected(row) && !all[1].Suspected(row) && !all[2].Suspected(row)
	})
	if n := o.count(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestSuspicionIsBounded(t *testing.T) {
	v := newVerifier(t, newKeeper(t, sqliteURL(t)), &oracle{})
	for i := range 5 * maxQueue {
		v.Suspect(&store.Credential{Ref: store.Ref{Org: fmt.Sprint("org", i), Provider: "twilio"}, SealedVersion: 1})
	}
	if len(v.watched) > maxQueue {
		t.Errorf("%d are remembered", len(v.watched))
	}
}

func TestPatrolVerifiesWhatHasNotBeenForLong(t *testing.T) {
	k := newKeeper(t, sqliteURL(t))
	putTwilio(t, k)
	if _, err := k.Put(t.Context(), by, store.Ref{Org: "globex", Provider: "resend"}, provider.Values{"api_key": {Text: "re_0123"}}, PutOptions{Active: new(bool)}); err != nil {
		t.Fatal(err)
	}
	here := store.Ref{Org: "initech", Provider: "resend"} // disabled in this sidecar alone
	if _, err := k.Put(t.Context(), by, here, provider.Values{"api_key": {Text: "re_4567"}}, PutOptions{}); err != nil {
		t.Fatal(err)
	}
	o := &oracle{answer: says(200, twilioKnows)}
	run(t, newVerifier(t, k, o, func(vo *VerifierOptions) {
		vo.Every, vo.Off = time.Second, func(ref store.Ref) bool { return ref == here }
	}))
	eventually(t, "it is verified twice", func() bool { return o.count() >= 2 })
	for _, q := range o.all() { // it goes on meanwhile
		if !strings.Contains(q, "Balance.json") {
			t.Errorf("a disabled credential was asked about: %q", q)
		}
	}
}

func TestNothingSecretIsLeftBehindByAVerdict(t *testing.T) {
	k := newKeeper(t, sqliteURL(t))
	putTwilio(t, k)
	var kept [][]byte
	o := &oracle{answer: says(401, twilioNever)}
	ask := func(ctx context.Context, q *provider.Question) (provider.Reply, error) {
		kept = append(kept, q.Secret.Field("auth_token"))
		return o.ask(ctx, q)
	}
	v := NewVerifier(VerifierOptions{Keeper: k, Ask: ask})
	if _, _, err := v.Verify(t.Context(), by, acmeTwilio); err != nil {
		t.Fatal(err)
	}
	for _, b := range kept {
		if len(b) == 0 || bytes.Contains(b, []byte("1a")) {
			t.Errorf("left: %q", b)
		}
	}
}
