package standin_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/keyward/keyward/standin"
)

func TestTwilioPagesLeaveByRelativeAndAbsoluteURLs(t *testing.T) {
	g := start(t, standin.Options{})
	auth := g.auth("acme", standin.Twilio)
	base := "/2010-04-01/Accounts/" + fields("acme", standin.Twilio)["account_sid"]
	for _, text := range []string{"first", "second"} {
		res, body := g.call("POST api.twilio.com"+base+"/Messages.json", "To=%2B15550001&From=%2B15550002&Body="+text, auth, "Content-Type: application/x-www-form-urlencoded")
		if res.StatusCode != 201 || decode(t, body)["status"] != "queued" {
			t.Fatalf("%d %s", res.StatusCode, body)
		}
	}
	_, body := g.call("GET api.twilio.com"+base+"/Messages.json?PageSize=1", "", auth)
	next := decode(t, body)["next_page_uri"].(string)
	_, body = g.call("GET api.twilio.com"+next, "", auth)
	if last := decode(t, body); !strings.Contains(body, `"body":"first"`) || last["next_page_uri"] != nil {
		t.Errorf("page 2 at %s: %s", next, body)
	}
	_, body = g.call("GET verify.twilio.com/v2/Services?PageSize=2", "", auth)
	url := decode(t, body)["meta"].(map[string]any)["next_page_url"].(string)
	rest, absolute := strings.CutPrefix(url, "https://verify.twilio.com/")
	if !absolute {
		t.Fatalf("next_page_url %q", url)
	}
	if _, body = g.call("GET verify.twilio.com/"+rest, "", auth); strings.Count(body, `"sid":"VA`) != 1 {
		t.Errorf("page 2: %s", body)
	}
}

func TestVapiWantsThePublicKeyForWebCallsOnly(t *testing.T) {
	g := start(t, standin.Options{})
	public := "Authorization: Bearer " + fields("acme", standin.Vapi)["public_key"]
	private := g.auth("acme", standin.Vapi)
	for what, want := range map[[2]string]int{
		{"/call/web", public}: 201, {"/call/web", private}: 401, {"/call", public}: 401, {"/call", private}: 201,
	} {
		if res, body := g.call("POST api.vapi.ai"+what[0], `{"assistantId":"a1"}`, what[1]); res.StatusCode != want {
			t.Errorf("%v: %d %s", what, res.StatusCode, body)
		}
	}
}

func TestResendRemembersIdempotencyKeys(t *testing.T) {
	g := start(t, standin.Options{})
	send := func(body, key string) (int, string) {
		res, out := g.call("POST api.resend.com/emails", body, g.auth("acme", standin.Resend), "Idempotency-Key: "+key)
		return res.StatusCode, out
	}
	const mail = `{"from":"a@example.com","to":"b@example.com","subject":"s","text":"t"}`
	_, one := send(mail, "k1")
	if _, again := send(mail, "k1"); again != one {
		t.Errorf("the same key: %s and %s", one, again)
	}
	if _, other := send(mail, "k2"); other == one {
		t.Error("another key: the same email")
	}
	if status, body := send(`{"from":"x","to":"y"}`, "k1"); status != 409 {
		t.Errorf("the same key with another body: %d %s", status, body)
	}
}

func TestStreamsComeInPieces(t *testing.T) {
	const pause = 30 * time.Millisecond
	g := start(t, standin.Options{Pause: pause})
	pieces := func(what, body, auth string) (all []byte, reads int) {
		res, err := g.try(what, body, auth)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		buf, last := make([]byte, 1<<20), time.Now()
		for {
			n, err := res.Body.Read(buf)
			if n > 0 && time.Since(last) > pause/2 {
				reads++
				last = time.Now()
			}
			all = append(all, buf[:n]...)
			if err != nil {
				return all, reads
			}
		}
	}
	audio, n := pieces("POST api.elevenlabs.io/v1/text-to-speech/v1/stream", `{"text":"hello"}`, g.auth("acme", standin.ElevenLabs))
	if !bytes.Equal(audio, standin.Audio("hello")) || n < 3 {
		t.Errorf("%d bytes of audio in %d pieces", len(audio), n)
	}
	events, n := pieces("POST api.vapi.ai/chat", `{"input":"hi","assistantId":"a","stream":true}`, g.auth("acme", standin.Vapi))
	if bytes.Count(events, []byte("data: ")) != 5 || n < 4 {
		t.Errorf("%s in %d pieces", events, n)
	}
}

func TestUploadsAreHashed(t *testing.T) {
	g := start(t, standin.Options{})
	var body bytes.Buffer
	m := multipart.NewWriter(&body)
	_ = m.WriteField("name", "Ada")
	f, _ := m.CreateFormFile("files", "a.mp3")
	content := bytes.Repeat([]byte("sound"), 1<<18)
	_, _ = f.Write(content)
	_ = m.Close()
	auth := g.auth("acme", standin.ElevenLabs)
	res, out := g.call("POST api.elevenlabs.io/v1/voices/add", body.String(), auth, "Content-Type: "+m.FormDataContentType())
	if res.StatusCode != 200 {
		t.Fatalf("%d %s", res.StatusCode, out)
	}
	sum := sha256.Sum256(content)
	if _, out = g.call("GET api.elevenlabs.io/v1/voices", "", auth); !strings.Contains(out, hex.EncodeToString(sum[:])) {
		t.Errorf("voices: %s", out)
	}
}

func TestRealtimeAnswersAndEchoes(t *testing.T) {
	g := start(t, standin.Options{})
	key := fields("acme", standin.ElevenLabs)["api_key"]
	c, res, err := websocket.Dial(t.Context(), g.URL()+"/v1/speech-to-text/realtime?model_id=m", &websocket.DialOptions{
		Host: "api.elevenlabs.io", HTTPHeader: http.Header{"xi-api-key": {key}}, HTTPClient: g.http,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseNow()
	said := func(want string) {
		t.Helper()
		if _, b, err := c.Read(t.Context()); err != nil || !strings.Contains(string(b), want) {
			t.Fatalf("%s, %v; want %s", b, err, want)
		}
	}
	said("session_started")
	_ = c.Write(t.Context(), websocket.MessageText, []byte(`{"message_type":"input_audio_chunk","audio_base_64":"AAAA"}`))
	said(`"partial_transcript","text":"3 bytes heard"`)
	_ = c.Write(t.Context(), websocket.MessageText, []byte(`{"message_type":"input_audio_chunk","audio_base_64":"","commit":true}`))
	said(`committed_transcript`)
	_ = c.Write(t.Context(), websocket.MessageBinary, []byte("any bytes"))
	said("any bytes")
	if q := g.Requests()[0]; q.Status != 101 || q.Label != "acme" || q.Values("xi-api-key")[0] != key || res.Header.Get(standin.LabelHeader) != "acme" {
		t.Errorf("kept %d %s", q.Status, q)
	}
	if _, res, err := websocket.Dial(t.Context(), g.URL()+"/v1/speech-to-text/realtime", &websocket.DialOptions{Host: "api.elevenlabs.io", HTTPClient: g.http}); err == nil || res.StatusCode != 401 {
		t.Errorf("without a key: %v", err)
	}
}

func TestAStreamThatItsClientLeftHasNoEnd(t *testing.T) {
	g := start(t, standin.Options{Pause: 50 * time.Millisecond})
	c, err := net.Dial("tcp", strings.TrimPrefix(g.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "POST /v1/text-to-speech/v/stream HTTP/1.1\r\nHost: api.elevenlabs.io\r\n"+g.auth("acme", standin.ElevenLabs)+
		"\r\nContent-Length: 13\r\n\r\n"+`{"text":"hi"}`)
	_ = c.(*net.TCPConn).CloseWrite()
	if all, _ := io.ReadAll(c); bytes.HasSuffix(all, []byte("\r\n0\r\n\r\n")) {
		t.Errorf("%d bytes, ended as if they were all", len(all))
	}
}

func TestRestrictedKeysAnswerAsTheProvidersDo(t *testing.T) {
	g := start(t, standin.Options{})
	for _, c := range standin.Sample("acme") {
		c.Restricted = true
		g.Expect(c)
	}
	says := func(what, provider string, status int, text string) {
		t.Helper()
		what = strings.Replace(what, "SID", fields("acme", standin.Twilio)["account_sid"], 1)
		if res, body := g.call(what, "", g.auth("acme", provider)); res.StatusCode != status || !strings.Contains(body, text) {
			t.Errorf("%s: %d %s", what, res.StatusCode, body)
		}
	}
	says("GET api.twilio.com/2010-04-01/Accounts/SID/Balance.json", standin.Twilio, 401, "20003")
	says("GET api.twilio.com/2010-04-01/Accounts/SID/Messages.json", standin.Twilio, 200, "messages")
	says(domains, standin.Resend, 401, "restricted_api_key")
	says("GET api.resend.com/emails", standin.Resend, 200, "list")
	says("GET api.elevenlabs.io/v1/user", standin.ElevenLabs, 401, "missing_permissions")
	says("GET api.elevenlabs.io/v1/models", standin.ElevenLabs, 200, "eleven_multilingual_v2")
	says(calendars, standin.GoogleCalendar, 403, "insufficientPermissions")
}

func TestVapiListsWithinBounds(t *testing.T) {
	g := start(t, standin.Options{})
	auth := g.auth("acme", standin.Vapi)
	var at []string
	for range 3 {
		_, body := g.call("POST api.vapi.ai/assistant", `{"name":"x"}`, auth)
		at = append(at, decode(t, body)["createdAt"].(string))
		time.Sleep(2 * time.Millisecond)
	}
	for query, want := range map[string]int{
		"": 3, "?limit=2": 2, "?createdAtGe=" + at[1]: 2, "?createdAtGt=" + at[1]: 1, "?createdAtLt=" + at[1]: 1, "?createdAtLe=" + at[1]: 2,
		"?createdAtGe=" + at[1] + "&createdAtLt=" + at[2]: 1,
	} {
		var all []map[string]any
		_, body := g.call("GET api.vapi.ai/assistant"+query, "", auth)
		if err := json.Unmarshal([]byte(body), &all); err != nil || len(all) != want {
			t.Errorf("%s: %d assistants, want %d: %v", query, len(all), want, err)
		}
	}
}
