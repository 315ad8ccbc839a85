package examples

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	svix "github.com/svix/svix-webhooks/go"
	"github.com/twilio/twilio-go/client"
)

// An oracle is a vendor's own verifier. Vapi and Google ship none in their SDKs: what Vapi sends is each org's own setting, and Google's
// notifications carry no signature.
type oracle struct {
	name     string // the package's
	provider string
	ask      func(t *testing.T, now time.Time, all []*delivery) []bool
}

// oracles are all that there are.
func oracles(t *testing.T) []oracle {
	all := []oracle{
		{name: "twilio-go", provider: "twilio", ask: askTwilioGo},
		{name: "svix-webhooks/go", provider: "resend", ask: askSvixGo},
	}
	if !nodeInstalled(t) {
		t.Log("KEYWARD_TEST_NO_NODE=1: the Node SDKs are not asked")
		return all
	}
	n := startNode(t)
	return append(all,
		oracle{name: "twilio", provider: "twilio", ask: n.ask},
		oracle{name: "svix", provider: "resend", ask: n.ask},
		oracle{name: "@elevenlabs/elevenlabs-js", provider: "elevenlabs", ask: n.ask},
	)
}

// askTwilioGo does what a handler does with it: the header's first value, the body as it is. The SDK knows one secret; an app tries each.
func askTwilioGo(_ *testing.T, _ time.Time, all []*delivery) []bool {
	verdicts := make([]bool, len(all))
	for i, d := range all {
		for _, secret := range d.secrets {
			v := client.NewRequestValidator(secret)
			verdicts[i] = verdicts[i] || v.ValidateBody(d.url, d.body, d.headers().Get("X-Twilio-Signature"))
		}
	}
	return verdicts
}

// askSvixGo holds the clock still, at the moment of the deliveries: the SDK reads the real one.
func askSvixGo(t *testing.T, now time.Time, all []*delivery) []bool {
	verdicts := make([]bool, len(all))
	synctest.Test(t, func(*testing.T) {
		time.Sleep(time.Until(now))
		for i, d := range all {
			for _, secret := range d.secrets {
				v, err := svix.NewWebhook(secret)
				verdicts[i] = verdicts[i] || err == nil && v.Verify(d.body, d.headers()) == nil
			}
		}
	})
	return verdicts
}

// headers are a delivery's as Go's server hands them to an app.
func (d *delivery) headers() http.Header {
	h := http.Header{}
	for _, f := range d.header {
		h.Add(f[0], strings.TrimSpace(f[1]))
	}
	return h
}

// A node is one process that asks the Node SDKs.
type node struct {
	in  *json.Encoder
	out *bufio.Scanner
}

func startNode(t *testing.T) *node {
	t.Helper()
	c := exec.Command("node", "node/oracle/oracle.mjs")
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "NODE_NO_WARNINGS=1"}
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // its end
		if err := c.Wait(); err != nil {
			t.Errorf("node oracle.mjs: %v", err)
		}
	})
	return &node{json.NewEncoder(in), bufio.NewScanner(out)}
}

func (n *node) ask(t *testing.T, now time.Time, all []*delivery) []bool {
	t.Helper()
	type question struct {
		Provider string      `json:"provider"`
		URL      string      `json:"url"`
		Secrets  []string    `json:"secrets"`
		Headers  [][2]string `json:"headers"`
		Body     string      `json:"body"`
		Now      int64       `json:"now"`
	}
	asked := make(chan error, 1)
	go func() {
		var err error
		for _, d := range all {
			trimmed := make([][2]string, len(d.header))
			for i, h := range d.header {
				trimmed[i] = [2]string{h[0], strings.TrimSpace(h[1])}
			}
			q := question{d.provider, d.url, d.secrets, trimmed, base64.StdEncoding.EncodeToString(d.body), now.UnixMilli()}
			if err == nil {
				err = n.in.Encode(q)
			}
		}
		asked <- err
	}()
	verdicts := make([]bool, len(all))
	for i := range all {
		if !n.out.Scan() {
			t.Fatalf("node oracle.mjs ended at delivery %d: %v, %v", i, n.out.Err(), <-asked)
		}
		verdicts[i] = n.out.Text() == "true"
		if !verdicts[i] && n.out.Text() != "false" {
			t.Fatalf("node oracle.mjs says %q", n.out.Text())
		}
	}
	if err := <-asked; err != nil {
		t.Fatal(fmt.Errorf("asking node oracle.mjs: %w", err))
	}
	return verdicts
}
