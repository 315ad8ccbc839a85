package torture

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestHostileHeadsWithinConnect sends the same vectors through TLS within CONNECT: the requests there are read by the same rules.
func TestHostileHeadsWithinConnect(t *testing.T) {
	r := netHTTP(t)
	s := startSidecar(t, map[string]string{"api.resend.com": r.address}, "--intercept")
	for _, org := range []string{"acme", "globex"} {
		s.put(org, "resend", map[string]any{"api_key": secretOf(org, "resend")})
	}
	pem, err := os.ReadFile(filepath.Join(s.dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	s.tunnel = &tunnel{token: s.token(), tls: &tls.Config{RootCAs: roots, ServerName: "api.resend.com", ClientSessionCache: tls.NewLRUClientSessionCache(1)}}
	h := &heads{t: t, s: s, r: r}
	h.canary("the first one")
	all := allVectors()
	for _, v := range all {
		h.try("tunnel", withinConnect(v))
	}
	h.noneLeft()
	s.mustLive()
	row(t, "hostile heads within CONNECT: 0 desyncs, all verdicts as required", "%d vectors, %d requests behind them: %d desyncs, %d wrong verdicts", len(all), h.canaries, h.desyncs, h.wrong)
}

// A tunnel is how CONNECT is asked for.
type tunnel struct {
	token string
	tls   *tls.Config
}

// dial is TLS to Resend's host within CONNECT.
func (t *tunnel) dial(address string) (net.Conn, error) {
	c, err := net.DialTimeout("tcp", address, 20*time.Second)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(exchangeLimit))
	who := base64.StdEncoding.EncodeToString([]byte(t.token + ":"))
	_, err = io.WriteString(c, "CONNECT api.resend.com:443 HTTP/1.1\r\nHost: api.resend.com:443\r\nProxy-Authorization: Basic "+who+"\r\n\r\n")
	if err == nil {
		var resp *http.Response
		if resp, err = http.ReadResponse(bufio.NewReader(c), &http.Request{Method: "CONNECT"}); err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("CONNECT: %s", resp.Status)
		}
	}
	inside := tls.Client(c, t.tls)
	if err == nil {
		err = inside.Handshake()
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return inside, nil
}

// withinConnect is what must become of a vector within CONNECT to api.resend.com. There the host is settled: a request for another is
// misdirected, one in absolute form is malformed, and a path is the provider's own, whatever it begins with.
func withinConnect(v vector) vector {
	line, _, _ := strings.Cut(v.raw, "\r\n")
	words := strings.Split(line, " ")
	prefixed := len(words) == 3 && (strings.HasPrefix(words[1], "/resend/") || strings.HasPrefix(words[1], "/org/"))
	switch {
	case v.verdict == denied && prefixed: // nothing that could disagree
		v.verdict, v.wants = accepted, []seen{{Method: words[0]}}
	case v.verdict == denied, group(v.name) == "hosts":
		v.statuses = append([]int{421}, v.statuses...)
	}
	if v.verdict != accepted || len(v.wants) != 1 || len(words) != 3 {
		return v
	}
	host := ""
	for l := range strings.SplitSeq(v.raw, "\r\n") {
		if name, value, ok := strings.Cut(l, ":"); ok && strings.EqualFold(name, "host") {
			host = strings.TrimSuffix(strings.ToLower(strings.TrimSpace(value)), ":443")
			break
		}
	}
	switch target := words[1]; {
	case host != "api.resend.com":
		v.verdict, v.statuses = denied, []int{421}
	case !strings.HasPrefix(target, "/"):
		v.verdict, v.statuses = denied, []int{400}
	default:
		v.wants = []seen{{Method: v.wants[0].Method, Target: target, Body: v.wants[0].Body}}
	}
	return v
}
