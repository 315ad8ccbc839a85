package standin_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/keyward/keyward/standin"
)

const domains = "GET api.resend.com/domains"

func TestAFaultBefallsSoManyRequests(t *testing.T) {
	g := start(t, standin.Options{})
	auth := g.auth("acme", standin.Resend)
	g.Fail(standin.Fault{Provider: standin.Resend, Method: "GET", Path: "/dom", Status: 401, Times: 1})
	g.Fail(standin.Fault{Provider: standin.Vapi, Status: 500})
	for i, want := range []int{401, 200} {
		if res, body := g.call(domains, "", auth); res.StatusCode != want {
			t.Errorf("request %d: %d %s", i, res.StatusCode, body)
		}
	}
}

func TestFaultsSpeakTheProvidersLanguage(t *testing.T) {
	g := start(t, standin.Options{})
	for _, p := range probes {
		auth := g.auth("acme", p.provider)
		g.Fail(standin.Fault{Provider: p.provider, Status: 429})
		res, body := g.call(p.what, "", auth)
		if res.StatusCode != 429 || !strings.HasPrefix(body, "{") {
			t.Errorf("%s: %d %s", p.provider, res.StatusCode, body)
		}
		g.Mend()
	}
}

func TestConnectionsBreak(t *testing.T) {
	g := start(t, standin.Options{})
	auth := g.auth("acme", standin.Resend)
	for _, fault := range []string{"close", "close reset"} {
		if res, err := g.try(domains, "", auth, standin.FaultHeader+": "+fault); err == nil {
			t.Errorf("%s: %d", fault, res.StatusCode)
		}
	}
	res, err := g.try(domains, "", auth, standin.FaultHeader+": cut=10")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); len(b) != 10 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut: %q, %v", b, err)
	}
}

func TestADelayComesFirst(t *testing.T) {
	g := start(t, standin.Options{})
	from := time.Now()
	res, _ := g.call(domains, "", g.auth("acme", standin.Resend), standin.FaultHeader+": delay=60ms status=500")
	if took := time.Since(from); took < 60*time.Millisecond || res.StatusCode != 500 {
		t.Errorf("%d after %v", res.StatusCode, took)
	}
	if res, body := g.call(domains, "", standin.FaultHeader+": dealy=1s"); res.StatusCode != 400 || !strings.Contains(body, "dealy") {
		t.Errorf("a fault that is none: %d %s", res.StatusCode, body)
	}
}

// An answer that is lost is not a request that was not done.
func TestWhatIsDoneThoughTheAnswerIsLost(t *testing.T) {
	g := start(t, standin.Options{})
	auth := g.auth("acme", standin.Vapi)
	for _, fault := range []string{"acts close", "acts reset close", "acts status=500"} {
		if res, err := g.try("POST api.vapi.ai/assistant", `{"name":"x"}`, auth, standin.FaultHeader+": "+fault); err == nil {
			_ = res.Body.Close()
		}
	}
	if n := len(g.Made("acme", standin.Vapi, "assistant")); n != 3 {
		t.Errorf("%d assistants were made", n)
	}
}

func TestAFaultBefallsAShare(t *testing.T) {
	g := start(t, standin.Options{})
	auth := g.auth("acme", standin.Resend)
	g.Fail(standin.Fault{Provider: standin.Resend, Status: 500, Share: 0.5})
	failed := 0
	for range 100 {
		if res, _ := g.call(domains, "", auth); res.StatusCode == 500 {
			failed++
		}
	}
	if failed < 20 || failed > 80 {
		t.Errorf("%d of 100 failed", failed)
	}
}
