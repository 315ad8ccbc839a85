package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// A Client calls the API of a running sidecar over its admin socket. It is what the management commands are made of.
type Client struct {
	socket string
	http   *http.Client
}

// ErrUnreachable: nobody answers on the admin socket. It wraps the cause.
var ErrUnreachable = errors.New("no sidecar answers")

// NewClient makes a client of the sidecar whose admin socket is at path. Nothing is dialled yet.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	return &Client{path, &http.Client{
		Transport:     &http.Transport{DialContext: dial, MaxIdleConns: 1, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       30 * time.Second,
	}}
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Do sends body as JSON (nil: none) and reads the answer into out (nil: it is not read). A refusal is a *Problem; no answer at all is
// an ErrUnreachable.
func (c *Client) Do(ctx context.Context, method, path string, body, out any) error {
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encoding the request: %w", err)
		}
		defer clear(b)
		payload = bytes.NewReader(b)
	}
	status, answer, err := c.send(ctx, method, path, payload)
	if err != nil {
		return err
	}
	if status >= 300 {
		return c.refusal(status, answer)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("reading the sidecar's answer: %w", err)
	}
	return nil
}

// Stream copies the answer to out as it comes, however long that takes. What was cut off is an error.
func (c *Client) Stream(ctx context.Context, path string, out io.Writer) error {
	resp, err := c.open(ctx, &http.Client{Transport: c.http.Transport, CheckRedirect: c.http.CheckRedirect}, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode >= 300 {
		answer, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
		if err != nil {
			return fmt.Errorf("reading the sidecar's answer: %w", err)
		}
		return c.refusal(resp.StatusCode, answer)
	}
	if _, err := io.Copy(out, resp.Body); err != nil {
		return fmt.Errorf("the sidecar's answer was cut off: %w", err)
	}
	return nil
}

// refusal is an answer that is none of the good ones.
func (c *Client) refusal(status int, answer []byte) error {
	var p Problem
	if json.Unmarshal(answer, &p) != nil || p.Code == "" {
		return fmt.Errorf("unexpected answer %d from %s", status, c.socket)
	}
	return &p
}

// Ready asks /readyz and returns what it says. A *Problem means that it will never answer us.
func (c *Client) Ready(ctx context.Context) (ready bool, says string, err error) {
	return c.well(ctx, "/readyz?verbose")
}

// Alive asks /healthz in the same way.
func (c *Client) Alive(ctx context.Context) (alive bool, says string, err error) {
	return c.well(ctx, "/healthz")
}

func (c *Client) well(ctx context.Context, path string) (well bool, says string, err error) {
	status, answer, err := c.send(ctx, http.MethodGet, path, nil)
	var p Problem
	if err == nil && status != http.StatusOK && json.Unmarshal(answer, &p) == nil && p.Code != "" {
		return false, "", &p
	}
	return status == http.StatusOK, string(answer), err
}

func (c *Client) send(ctx context.Context, method, path string, body io.Reader) (int, []byte, error) {
	resp, err := c.open(ctx, c.http, method, path, body)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, fmt.Errorf("reading the sidecar's answer: %w", err)
	}
	return resp.StatusCode, answer, nil
}

// open sends a request; the caller reads and closes the answer's body.
func (c *Client) open(ctx context.Context, client *http.Client, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://keyward"+path, body)
	if err != nil {
		return nil, fmt.Errorf("making the request: %w", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w on %s: %w", ErrUnreachable, c.socket, errors.Unwrap(err))
	}
	return resp, nil
}
