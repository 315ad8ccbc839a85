package keysource

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// attemptTimeout bounds one call of a service.
const attemptTimeout = 5 * time.Second

// newClient is an HTTP client that gives up in time and follows no redirect: a token goes to no other host.
func newClient(t *http.Transport) *http.Client {
	return &http.Client{
		Transport: t, Timeout: attemptTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
		TLSHandshakeTimeout: 3 * time.Second,
		DisableKeepAlives:   true, // one call at a start, and none for days
		ForceAttemptHTTP2:   true,
	}
}

// whyNot is a network error without the URL around it.
func whyNot(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return printable(err.Error())
}

// post sends JSON and reads the answer, whatever its status.
func post(ctx context.Context, client *http.Client, url string, header http.Header, in any) (status int, body []byte, err error) {
	text, err := json.Marshal(in)
	if err != nil {
		return 0, nil, err
	}
	defer clear(text)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(text))
	if err != nil {
		return 0, nil, err
	}
	req.Header = header
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		if invalid := (*tls.CertificateVerificationError)(nil); errors.As(err, &invalid) {
			return 0, nil, fmt.Errorf("its certificate is not good: %s", printable(invalid.Err.Error()))
		}
		return 0, nil, unavailable(whyNot(err))
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return 0, nil, unavailable("its answer was cut off: " + whyNot(err))
	}
	return resp.StatusCode, body, nil
}
