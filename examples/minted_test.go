package examples

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twilio/twilio-go/client/jwt"
)

// A minting is a token that is asked for, and what the vendors' libraries need to make the same by themselves.
type minting struct {
	Vendor  string          `json:"vendor"`
	Name    string          `json:"-"` // in the path
	Order   json.RawMessage `json:"order"`
	Account string          `json:"account"`
	KeySID  string          `json:"keySID"`
	Key     string          `json:"key"`
	Region  string          `json:"region,omitempty"`
	Token   string          `json:"token"`
}

const (
	mintAccount, mintKeySID = "AC0123456789abcdef0123456789abcdef", "SK0123456789abcdef0123456789abcdef"
	mintKey                 = "kWm0ZsQ3r8tYpL2vNc7xBd4fGh6jUe9a"
	mintVapiOrg             = "00112233-4455-4677-8899-aabbccddeeff"
	mintVapiKey             = "7d1f0c52-93be-4a06-8e2f-5b6c7d8e9fa0"
)

// mintings are tokens of every kind, with every member.
func mintings() []*minting {
	twilio := func(region, order string) *minting {
		return &minting{Vendor: "twilio", Name: "twilio-access-token", Order: json.RawMessage(order), Account: mintAccount, KeySID: mintKeySID, Key: mintKey, Region: region}
	}
	vapi := func(order string) *minting {
		return &minting{Vendor: "vapi", Name: "vapi-jwt", Order: json.RawMessage(order), Account: mintVapiOrg, Key: mintVapiKey}
	}
	const sid = "0123456789abcdef0123456789abcdef"
	return []*minting{
		twilio("", `{"identity":"alice","ttl":60,"grants":{"voice":{"outgoing_application_sid":"AP`+sid+`","outgoing_application_params":{"team":"sales & <ops>"},"incoming_allow":true,"push_credential_sid":"CR`+sid+`","endpoint_id":"e1"}}}`),
		twilio("", `{"identity":"zoë 😀","ttl":3600,"grants":{"video":{"room":"daily \"stand-up\""}}}`),
		twilio("", `{"identity":"alice","ttl":900,"grants":{"chat":{"service_sid":"IS`+sid+`","endpoint_id":"e1","deployment_role_sid":"RL`+sid+`","push_credential_sid":"CR`+sid+`"}}}`),
		twilio("", `{"identity":"alice","ttl":900,"grants":{"sync":{"service_sid":"IS`+sid+`","endpoint_id":"e1"}}}`),
		twilio("ie1", `{"identity":"alice","ttl":900,"grants":{"voice":{"incoming_allow":false},"video":{},"chat":{},"sync":{}}}`),
		vapi(`{"ttl":60,"grants":{"public":{}}}`),
		vapi(`{"ttl":3600,"grants":{"public":{"allowed_origins":["https://app.example.com"],"allowed_assistant_ids":["1cbf8c70-5fd7-4f61-a220-376ab35be1b0"],"allow_transient_assistant":false}}}`),
	}
}

// mintedTokens lets tokens be minted for an org that has what it takes, and asks the vendors' libraries whether they are what they would have
// made themselves. Afterwards nothing that was written holds one.
func (s *sidecar) mintedTokens(t *testing.T, node bool) {
	const org = "initech"
	setTwilio := func(region string) {
		s.keyward(t, `{"account_sid":"`+mintAccount+`","api_key_sid":"`+mintKeySID+`","api_key_secret":"`+mintKey+`"`+region+`}`,
			"credentials", "set", "--run-dir", s.run, "--org", org, "--provider", "twilio")
	}
	setTwilio("")
	s.keyward(t, `{"api_key":"`+mintVapiKey+`","vapi_org_id":"`+mintVapiOrg+`"}`, "credentials", "set", "--run-dir", s.run, "--org", org, "--provider", "vapi")
	all := mintings()
	for _, m := range all {
		if m.Region != "" {
			setTwilio(`,"region":"` + m.Region + `"`)
		}
		m.Token = s.mint(t, org, m.Name, m.Order)
		if m.Vendor == "twilio" {
			m.asTwilioGoReadsIt(t)
		}
	}
	if node {
		asNodeReadsThem(t, all)
	}
	metrics, err := s.get(filepath.Join(s.run, "admin.sock"), "http://keyward/metrics")
	if err != nil || len(metrics) == 0 {
		t.Fatalf("reading the metrics: %v", err)
	}
	audit := s.keyward(t, "", "audit", "--run-dir", s.run, "--org", org, "--json")
	if n := strings.Count(audit, `"token.mint"`); n != len(all) {
		t.Errorf("%d of %d tokens are in the audit log:\n%s", n, len(all), audit)
	}
	for _, m := range all {
		signature := m.Token[strings.LastIndexByte(m.Token, '.')+1:]
		for where, text := range map[string]string{"log": s.log.String(), "audit log": audit, "metrics": string(metrics)} {
			if strings.Contains(text, signature) || strings.Contains(text, m.Key) {
				t.Errorf("the %s holds a token or its key", where)
			}
		}
	}
}

// asTwilioGoReadsIt verifies a token with twilio-go.
func (m *minting) asTwilioGoReadsIt(t *testing.T) {
	t.Helper()
	var reader jwt.AccessToken
	got, err := reader.FromJwt(m.Token, m.Key)
	if err != nil {
		t.Fatalf("twilio-go on %s: %v", m.Order, err)
	}
	var order struct {
		Identity string                     `json:"identity"`
		Grants   map[string]json.RawMessage `json:"grants"`
	}
	if err := json.Unmarshal(m.Order, &order); err != nil {
		t.Fatal(err)
	}
	if got.AccountSid != mintAccount || got.SigningKeySid != mintKeySID || got.Identity != order.Identity || len(got.Grants) != len(order.Grants) {
		t.Errorf("twilio-go reads %+v out of what was asked for as %s", got, m.Order)
	}
	if _, err := reader.FromJwt(m.Token, m.Key+"x"); err == nil {
		t.Error("twilio-go takes it with another key")
	}
}

// asNodeReadsThem compares each token with the one that the vendor's own way makes, and has it verified.
func asNodeReadsThem(t *testing.T, all []*minting) {
	t.Helper()
	var in bytes.Buffer
	for _, m := range all {
		if err := json.NewEncoder(&in).Encode(m); err != nil {
			t.Fatal(err)
		}
	}
	c := exec.Command("node", "node/oracle/minted.mjs")
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "NODE_NO_WARNINGS=1"}
	c.Stdin, c.Stderr = &in, os.Stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("node minted.mjs: %v\n%s", err, out)
	}
	answers := json.NewDecoder(bytes.NewReader(out))
	for _, m := range all {
		type read struct {
			Header  map[string]any `json:"header"`
			Payload map[string]any `json:"payload"`
		}
		var a struct {
			Minted, Own                read
			Now, Last, After, OtherKey string
		}
		if err := answers.Decode(&a); err != nil {
			t.Fatal(err)
		}
		if a.Now != "good" || a.Last != "good" || a.After != "jwt expired" || a.OtherKey != "invalid signature" {
			t.Errorf("%s: jsonwebtoken says %q now, %q at its last second, %q after its end, %q with another key", m.Order, a.Now, a.Last, a.After, a.OtherKey)
		}
		for _, p := range []map[string]any{a.Minted.Payload, a.Own.Payload} {
			from, _ := p["iat"].(float64)
			till, _ := p["exp"].(float64)
			p["life"] = till - from
			for _, name := range []string{"iat", "exp", "jti"} { // they differ from token to token
				delete(p, name)
			}
		}
		if diff := cmp.Diff(a.Own, a.Minted); diff != "" {
			t.Errorf("%s: the vendor's own token differs (-own +minted):\n%s", m.Order, diff)
		}
	}
}

// mint asks for a token over the unix socket.
func (s *sidecar) mint(t *testing.T, org, name string, order []byte) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/keyward/mint/"+name, bytes.NewReader(order))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Keyward-Org", org)
	body, err := s.do(s.socket, r)
	if err != nil {
		t.Fatalf("minting %s: %v\n%s", order, err, body)
	}
	var answer struct{ Token string }
	if err := json.Unmarshal(body, &answer); err != nil || answer.Token == "" {
		t.Fatalf("minting %s: %v\n%s", order, err, body)
	}
	return answer.Token
}

func (s *sidecar) get(socket, url string) ([]byte, error) {
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	return s.do(socket, r)
}

// do sends one request to a socket; an answer that is no 200 is an error.
func (s *sidecar) do(socket string, r *http.Request) ([]byte, error) {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	defer tr.CloseIdleConnections()
	resp, err := (&http.Client{Transport: tr, Timeout: time.Minute}).Do(r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answers %s", r.URL.Path, resp.Status)
	}
	return body, err
}
