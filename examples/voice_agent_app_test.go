package examples

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyward/keyward/internal/freeport"
	"github.com/keyward/keyward/standin"
)

// A voiceAgent is the example's backend, behind a sidecar that takes Vapi's messages for it.
type voiceAgent struct {
	*sidecar
	hooks      string            // the webhook listener
	target     string            // the backend, as the webhook listener knows it
	environ    []string          // of the backend
	reports    string            // its folder
	assistants map[string]string // :: org → the id of its assistant at Vapi
	said       lockedBuffer      // by the backend
	process    *exec.Cmd
}

func newVoiceAgent(t *testing.T, transport string) *voiceAgent {
	t.Helper()
	dir, err := os.MkdirTemp("", "kw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	v := &voiceAgent{hooks: freeport.New(t), reports: filepath.Join(dir, "reports"), assistants: map[string]string{}}
	where := ""
	if transport == "tcp" {
		listen := freeport.New(t)
		_, port, _ := strings.Cut(listen, ":")
		v.target, where = "http://"+listen+"/hooks", "APP_PORT="+port
	} else {
		socket := filepath.Join(dir, "app.sock")
		v.target, where = "unix:"+socket+":/hooks", "APP_SOCKET="+socket
	}
	v.sidecar = startSidecar(t, "--webhook-listen", v.hooks, "--webhook-target", v.target, "--webhook-backoff", "50ms")
	v.environ = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "NODE_NO_WARNINGS=1", "REPORTS=" + v.reports, where}
	token := strings.TrimSpace(v.keyward(t, "", "callers", "add", "--run-dir", v.run, "--name", "voice-agent", "--org", orgs[0], "--org", orgs[1]))
	if transport == "tcp" {
		v.environ = append(v.environ, "KEYWARD_URL="+v.url, "KEYWARD_TOKEN="+token)
	} else {
		v.environ = append(v.environ, "KEYWARD_SOCKET="+v.socket)
	}
	for _, org := range orgs {
		var made struct{ ID string }
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, v.url+"/org/"+org+"/vapi/assistant", strings.NewReader(`{"name":"Front desk"}`))
		req.Header.Set("Keyward-Token", token)
		req.Header.Set("Content-Type", "application/json")
		status, _, body := do(t, req)
		if err := json.Unmarshal(body, &made); err != nil || status != http.StatusCreated {
			t.Fatalf("making an assistant: %d %s", status, body)
		}
		v.assistants[org] = made.ID
		v.keyward(t, "", "assistants", "set", "--run-dir", v.run, made.ID, "--org", org, "--role", "inbound")
	}
	v.startApp(t)
	t.Cleanup(func() {
		v.stopApp(t)
		http.DefaultClient.CloseIdleConnections() // or the sidecar waits for what they may send
	})
	v.peers.Reset()
	return v
}

func (v *voiceAgent) startApp(t *testing.T) {
	t.Helper()
	before := strings.Count(v.said.String(), "listening\n")
	v.process = exec.Command("node", "node/voice-agent.mjs")
	v.process.Env = v.environ
	v.process.Stdout, v.process.Stderr = &v.said, &v.said
	if err := v.process.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the backend to listen", func() bool { return strings.Count(v.said.String(), "listening\n") > before })
}

// stopApp ends the backend, which must end well.
func (v *voiceAgent) stopApp(t *testing.T) {
	t.Helper()
	if v.process == nil {
		return
	}
	_ = v.process.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(time.Minute, func() { _ = v.process.Process.Kill() })
	defer kill.Stop()
	if err := v.process.Wait(); err != nil {
		t.Errorf("node voice-agent.mjs: %v\n%s", err, v.said.String())
	}
	v.process = nil
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func do(t *testing.T, req *http.Request) (int, http.Header, []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(req.Context(), time.Minute)
	defer cancel()
	resp, err := http.DefaultClient.Do(req.WithContext(ctx))
	if err != nil {
		t.Error(err)
		return 0, http.Header{}, nil
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, resp.Header, body
}

// post sends a message to the webhook listener.
func (v *voiceAgent) post(t *testing.T, body []byte, sign func(h http.Header)) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+v.hooks+"/webhooks/vapi", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	sign(req.Header)
	return do(t, req)
}

// heard counts the messages that reached the backend.
func (v *voiceAgent) heard() int { return strings.Count(v.said.String(), "\n") }

// sent are the bodies of the messages at Twilio that were authenticated as org.
func (v *voiceAgent) sent(org string) (bodies []string) {
	for _, r := range v.peers.Requests() {
		if r.Provider == standin.Twilio && r.Label == org {
			bodies = append(bodies, string(r.Body))
		}
	}
	return bodies
}
