package webhook

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// within makes the limits of questions short for a test.
func shortLimits(t *testing.T, limit time.Duration) {
	t.Helper()
	old := map[*source]map[string]time.Duration{}
	for _, src := range sources {
		old[src] = src.answers
		next := map[string]time.Duration{}
		for typ := range src.answers {
			next[typ] = limit
		}
		src.answers = next
	}
	t.Cleanup(func() {
		for src, answers := range old {
			src.answers = answers
		}
	})
}

func TestLimitsFitTheProviders(t *testing.T) {
	for _, src := range sources {
		most := 20 * time.Second // Vapi's default
		if src.provider.Name == "twilio" {
			most = 15*time.Second - time.Second
		}
		for typ, limit := range src.answers {
			if typ == "assistant-request" {
				most = 7 * time.Second
			} else if src.provider.Name == "vapi" {
				most = 20 * time.Second
			}
			if limit <= 0 || limit > most {
				t.Errorf("%s %q may take %s, at most %s does the provider wait", src.provider.Name, typ, limit, most)
			}
		}
	}
}

func TestAppAnswersAsItIs(t *testing.T) {
	w := newWorld(t)
	w.app.answers(func(rw http.ResponseWriter, _ *http.Request) {
		h := rw.Header()
		h["Content-Type"] = []string{"application/vnd.mine; x=y"}
		h["X-Many"] = []string{"1", "2"}
		h["Location"] = []string{"https://elsewhere.example/"}
		h["Connection"] = []string{"X-Hop"}
		h["X-Hop"] = []string{"1"}
		h["Keyward-Org"] = []string{"globex"}
		h["Keyward-Duplicate"] = []string{"true"}
		rw.WriteHeader(302)
		_, _ = io.WriteString(rw, "body")
	})
	s := w.post("/webhooks/vapi/acme", request("tool-calls", ""), acmeSecret)
	if s.status != 302 || s.body != "body" || s.header.Get("Content-Type") != "application/vnd.mine; x=y" || len(s.header["X-Many"]) != 2 || s.header.Get("Location") == "" {
		t.Errorf("%d %v %q", s.status, s.header, s.body)
	}
	for _, name := range []string{"X-Hop", "Keyward-Org", "Keyward-Duplicate", "Keyward-Error"} {
		if s.header.Get(name) != "" {
			t.Errorf("%s: %s came through", name, s.header.Get(name))
		}
	}
	w.app.answers(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(204) })
	if s := w.post("/webhooks/vapi/acme", request("tool-calls", `,"n":1`), acmeSecret); s.status != 204 || s.body != "" {
		t.Errorf("204: %d %q", s.status, s.body)
	}
	long := strings.Repeat("x", 3<<20)
	for i, length := range []bool{true, false} {
		w.app.answers(func(rw http.ResponseWriter, _ *http.Request) {
			if length {
				rw.Header().Set("Content-Length", fmt.Sprint(len(long)))
			}
			_, _ = io.WriteString(rw, long)
		})
		if s := w.post("/webhooks/vapi/acme", request("tool-calls", fmt.Sprintf(`,"n":"long %d"`, i)), acmeSecret); s.status != 200 || s.body != long {
			t.Errorf("long answer (with its length: %t): %d, %d bytes", length, s.status, len(s.body))
		}
	}
}

func TestAudioStreams(t *testing.T) {
	w := newWorld(t)
	for i, length := range []bool{false, true} {
		more := make(chan struct{})
		w.app.answers(func(rw http.ResponseWriter, r *http.Request) {
			if length {
				rw.Header().Set("Content-Length", "8")
			}
			_, _ = io.WriteString(rw, "PCM1")
			_ = http.NewResponseController(rw).Flush()
			<-more
			_, _ = io.WriteString(rw, "PCM2")
		})
		body := request("voice-request", fmt.Sprintf(`,"n":%d`, i))
		req, _ := http.NewRequest("POST", w.url+"/webhooks/vapi/acme", strings.NewReader(body))
		req.Header.Set("X-Vapi-Secret", "vapi_test")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		first := make([]byte, 4)
		if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "PCM1" { // while the app has not said more
			t.Fatalf("first piece: %q %v", first, err)
		}
		close(more)
		if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "PCM2" {
			t.Fatalf("rest: %q %v", rest, err)
		}
		_ = resp.Body.Close()
	}
}

func TestCutAudioIsNoWholeAnswer(t *testing.T) {
	w := newWorld(t)
	w.app.answers(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(rw, "PCM1")
		_ = http.NewResponseController(rw).Flush()
		panic(http.ErrAbortHandler)
	})
	req, _ := http.NewRequest("POST", w.url+"/webhooks/vapi/acme", strings.NewReader(request("voice-request", "")))
	req.Header.Set("X-Vapi-Secret", "vapi_test")
	resp, err := http.DefaultClient.Do(req)
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
	}
	if err == nil {
		t.Error("a cut answer came as a whole one")
	}
	w.app.answers(nil)
	for range 1000 { // the message is forgotten once the connection is gone
		if w.post("/webhooks/vapi/acme", request("voice-request", ""), acmeSecret).status == 200 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("after an answer that was cut, the message is not welcome again")
}

func TestAppThatIsSlow(t *testing.T) {
	shortLimits(t, time.Second)
	w := newWorld(t)
	gone := make(chan struct{})
	w.app.answers(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done(); close(gone) })
	began := time.Now()
	w.refuses(w.post("/webhooks/vapi/acme", request("assistant-request", ""), acmeSecret), 504, "target_timeout")
	if took := time.Since(began); took < 900*time.Millisecond || took > 6*time.Second {
		t.Errorf("took %s", took)
	}
	select {
	case <-gone:
	case <-time.After(30 * time.Second):
		t.Error("the app was not told that nobody waits any more")
	}
	w.app.answers(nil)
	w.asks(w.post("/webhooks/vapi/acme", request("assistant-request", ""), acmeSecret)) // welcome again
}

func TestAppThatIsDownOrBroken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	answers := make(chan string, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.WriteString(c, <-answers)
			}
			_ = c.Close()
		}
	}()
	w := newWorld(t, func(o *Options) {
		o.Routes = []Route{{Target: "http://" + l.Addr().String()}, {Org: "globex", Target: "unix:/nonexistent/app.sock:/"}}
	})
	w.refuses(w.post("/webhooks/vapi/globex", request("tool-calls", ""), "X-Vapi-Secret: globex_secret"), 502, "target_unreachable")
	for answer, code := range map[string]string{
		"":                    "target_unreachable",
		"SSH-2.0-OpenSSH\r\n": "target_protocol",
		"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc":                              "target_unreachable",
		"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n": "target_protocol",
	} {
		answers <- answer
		w.refuses(w.post("/webhooks/vapi/acme", request("tool-calls", ""), acmeSecret), 502, code)
	}
}

func TestDrain(t *testing.T) {
	w := newWorld(t)
	began, release := make(chan struct{}), make(chan struct{})
	w.app.answers(func(rw http.ResponseWriter, _ *http.Request) {
		close(began)
		<-release
		_, _ = io.WriteString(rw, "late")
	})
	got := make(chan sent)
	go func() { got <- w.post("/webhooks/vapi/acme", request("tool-calls", ""), acmeSecret) }()
	<-began
	done := make(chan error)
	go func() { done <- w.s.Shutdown(t.Context()) }()
	eventually(t, "it accepts no more", func() bool {
		c, err := net.DialTimeout("tcp", strings.TrimPrefix(w.url, "http://"), time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err != nil
	})
	close(release)
	if s := <-got; s.status != 200 || s.body != "late" || !s.last {
		t.Errorf("in flight: %d %q %v", s.status, s.body, s.header)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// That the app's connection ends with its answer is the app's: the provider's goes on.
func TestAudioUntilTheEndCostsTheProviderNoConnection(t *testing.T) {
	w := newWorld(t)
	w.app.answers(func(rw http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nPCM")
		_ = c.Close()
	})
	if s := w.post("/webhooks/vapi/acme", request("voice-request", ""), acmeSecret); s.status != 200 || s.body != "PCM" || s.last {
		t.Errorf("%d %q, the connection closes: %t", s.status, s.body, s.last)
	}
}
