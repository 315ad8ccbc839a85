package peer

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const org = "acme"

// sidecar is Keyward as it is deployed: the built program, SQLite, one org with the credential, and what is on by default (caller check, access log, metrics,
// change feed).
type sidecar struct {
	binary  string
	process *process
}

func (s *sidecar) Name() string { return Keyward }

func (s *sidecar) PIDs() []int { return s.process.all() }

func (s *sidecar) Stop() error { return s.process.stop() }

func (s *sidecar) Start(ctx context.Context, u Upstream) (Endpoint, error) {
	dir, err := u.folder(Keyward)
	if err != nil {
		return Endpoint{}, err
	}
	provider, fields, err := u.credential()
	if err != nil {
		return Endpoint{}, err
	}
	socket := filepath.Join(dir, "caller.sock")
	cmd := exec.Command(s.binary, "serve", "--data-dir", filepath.Join(dir, "data"), "--run-dir", dir, "--listen", "", "--admin-listen", "", "--webhook-listen", "",
		"--upstream", u.Host+"=https://"+u.Address, "--upstream-ca", u.CAFile)
	// The program starts itself again, to have these settings, from a thread that does not have the wish to end with its parent. With them set there
	// is no second start; nothing else differs.
	cmd.Env = append(os.Environ(), "GODEBUG=clobberfree=1,asyncpreemptoff=1")
	if s.process, err = launch(ctx, Keyward, cmd, socket, u.Value, 0); err != nil {
		return Endpoint{}, err
	}
	if err := s.manage(ctx, nil, "wait", "--run-dir", dir, "--max", "1m"); err != nil {
		return Endpoint{}, err
	}
	if err := s.manage(ctx, fields, "credentials", "set", "--run-dir", dir, "--org", org, "--provider", provider); err != nil {
		return Endpoint{}, err
	}
	return Endpoint{Network: "unix", Address: socket, Header: "Keyward-Org: " + org + "\r\n"}, nil
}

// manage runs another command of the program. What it says of a credential is masked by itself.
func (s *sidecar) manage(ctx context.Context, in []byte, args ...string) error {
	cmd := exec.CommandContext(ctx, s.binary, args...)
	cmd.Stdin = bytes.NewReader(in)
	if out, err := cmd.CombinedOutput(); err != nil {
		_ = s.process.stop()
		return fmt.Errorf("keyward %s: %w: %s", args[0], err, bytes.TrimSpace(out))
	}
	return nil
}

// credential is the header as Keyward stores it: the fields from which it makes that header itself.
func (u Upstream) credential() (provider string, fields []byte, err error) {
	key, value := "api_key", u.Value
	switch u.Host {
	case "api.resend.com":
		provider, value = "resend", strings.TrimPrefix(u.Value, "Bearer ")
	case "api.vapi.ai":
		provider, value = "vapi", strings.TrimPrefix(u.Value, "Bearer ")
	case "api.elevenlabs.io":
		provider = "elevenlabs"
	default:
		return "", nil, fmt.Errorf("starting keyward: no provider with one static header has the host %q", u.Host)
	}
	fields, err = json.Marshal(map[string]string{key: value})
	return provider, fields, err
}
