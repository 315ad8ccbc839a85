package standin

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/coder/websocket"
)

// elevenlabs stands in for api.elevenlabs.io.
func (s *Set) elevenlabs() http.Handler {
	mux := http.NewServeMux()
	on := func(pattern string, f func(w http.ResponseWriter, r *http.Request, a *account)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { s.asElevenLabs(w, r, f) })
	}
	on("POST /v1/text-to-speech/{voice}", s.speak)
	on("POST /v1/text-to-speech/{voice}/stream", s.speak)
	on("GET /v1/speech-to-text/realtime", s.transcribe)
	on("POST /v1/voices/add", s.addVoice)
	on("GET /v1/voices", func(w http.ResponseWriter, _ *http.Request, a *account) {
		answer(w, http.StatusOK, object{"voices": append(a.list("voice"), object{
			"voice_id": "21m00Tcm4TlvDq8ikWAM", "name": "Rachel", "category": "premade", "labels": object{},
		})})
	})
	on("GET /v1/models", func(w http.ResponseWriter, _ *http.Request, _ *account) {
		answer(w, http.StatusOK, []object{{"model_id": "eleven_multilingual_v2", "name": "Eleven Multilingual v2", "can_do_text_to_speech": true}})
	})
	on("GET /v1/user", func(w http.ResponseWriter, _ *http.Request, a *account) {
		answer(w, http.StatusOK, object{
			"user_id": "user-of-" + a.Label, "subscription": object{"tier": "creator", "character_count": 17, "character_limit": 100000},
			"is_new_user": false, "xi_api_key": a.Fields["api_key"], // as ElevenLabs did until 2025
		})
	})
	on("GET /v1/convai/conversation/get-signed-url", func(w http.ResponseWriter, r *http.Request, _ *account) {
		answer(w, http.StatusOK, object{
			"signed_url": "wss://" + hostOf(r) + "/v1/convai/conversation?agent_id=" + r.URL.Query().Get("agent_id") + "&conversation_signature=cvtkn_" + hexID(24),
		})
	})
	on("/", func(w http.ResponseWriter, r *http.Request, _ *account) {
		drain(r)
		refuseElevenLabs(w, r, http.StatusNotFound)
	})
	return mux
}

func (s *Set) asElevenLabs(w http.ResponseWriter, r *http.Request, f func(http.ResponseWriter, *http.Request, *account)) {
	h := w.Header()
	h.Set("Request-Id", hexID(20))
	h.Set("Current-Concurrent-Requests", "1")
	h.Set("Maximum-Concurrent-Requests", "5")
	var a *account
	if keys := r.Header.Values("Xi-Api-Key"); len(keys) == 1 {
		a = s.accounts.proven(ElevenLabs, "key", keys[0])
	}
	if a == nil {
		refuseElevenLabs(w, r, http.StatusUnauthorized)
		return
	}
	authenticated(w, r, a)
	if a.Restricted && r.URL.Path == "/v1/user" {
		answer(w, http.StatusUnauthorized, object{"detail": object{
			"status": "missing_permissions", "message": "The API key you used is missing the permission user_read to execute this operation.",
		}})
		return
	}
	f(w, r, a)
}

// Audio is what text-to-speech answers for a text: so many bytes that look like an MP3 stream, the same for the same text.
func Audio(text string) []byte {
	frame := append([]byte{0xff, 0xfb, 0x90, 0x64}, text...)
	return bytes.Repeat(frame, 1+8192/len(frame))
}

// speak answers with audio, at once or, at /stream, in four pieces with pauses.
func (s *Set) speak(w http.ResponseWriter, r *http.Request, _ *account) {
	o, ok := read(r)
	if !ok || o.text("text") == "" {
		answer(w, http.StatusUnprocessableEntity, object{"detail": []object{{"loc": []string{"body", "text"}, "msg": "Field required", "type": "missing"}}})
		return
	}
	audio := Audio(o.text("text"))
	w.Header().Set("Content-Type", "audio/mpeg")
	w.Header().Set("Character-Cost", strconv.Itoa(len(o.text("text"))))
	if !strings.HasSuffix(r.URL.Path, "/stream") {
		w.Header().Set("Content-Length", strconv.Itoa(len(audio)))
		_, _ = w.Write(audio)
		return
	}
	quarter := len(audio) / 4
	s.slow(w, r, audio[:quarter], audio[quarter:2*quarter], audio[2*quarter:3*quarter], audio[3*quarter:])
}

// addVoice reads an upload of any size and says what arrived: the voice's description is the SHA-256 of each file.
func (s *Set) addVoice(w http.ResponseWriter, r *http.Request, a *account) {
	up, err := readUpload(r)
	if err != nil || up.fields["name"] == "" || len(up.files) == 0 {
		drain(r)
		answer(w, http.StatusUnprocessableEntity, object{"detail": []object{{"loc": []string{"body", "files"}, "msg": "Field required", "type": "missing"}}})
		return
	}
	var samples []object
	for _, f := range up.files {
		samples = append(samples, object{"sample_id": hexID(20), "file_name": f.name, "mime_type": f.kind, "size_bytes": f.size, "hash": f.sha256})
	}
	id := hexID(20)
	a.add("voice", object{"voice_id": id, "name": up.fields["name"], "category": "cloned", "labels": object{}, "samples": samples})
	answer(w, http.StatusOK, object{"voice_id": id, "requires_verification": false})
}

// transcribe speaks the realtime protocol: session_started, a partial transcript for each piece of audio and a committed one for each
// commit. The "transcript" says how many bytes of audio arrived. Any other message comes back as it is.
func (s *Set) transcribe(w http.ResponseWriter, r *http.Request, _ *account) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true})
	if err != nil {
		return // Accept has answered
	}
	defer func() { _ = c.CloseNow() }()
	c.SetReadLimit(-1)
	ctx := s.ctx
	send := func(o object) error {
		b, err := json.Marshal(o)
		if err != nil {
			return err
		}
		return c.Write(ctx, websocket.MessageText, b)
	}
	q := r.URL.Query()
	if send(object{"message_type": "session_started", "session_id": hexID(32), "config": object{"model_id": q.Get("model_id"), "audio_format": q.Get("audio_format")}}) != nil {
		return
	}
	heard := 0
	for {
		kind, data, err := c.Read(ctx)
		if err != nil {
			return
		}
		var in struct {
			Type   string `json:"message_type"`
			Audio  string `json:"audio_base_64"`
			Commit bool   `json:"commit"`
		}
		if kind != websocket.MessageText || json.Unmarshal(data, &in) != nil || in.Type != "input_audio_chunk" {
			if c.Write(ctx, kind, data) != nil {
				return
			}
			continue
		}
		audio, err := base64.StdEncoding.DecodeString(in.Audio)
		if err != nil {
			_ = send(object{"message_type": "input_error", "error": "audio_base_64 is not base64"})
			continue
		}
		heard += len(audio)
		out := object{"message_type": "partial_transcript", "text": strconv.Itoa(heard) + " bytes heard"}
		if in.Commit {
			out["message_type"] = "committed_transcript"
		}
		if send(out) != nil {
			return
		}
	}
}

func refuseElevenLabs(w http.ResponseWriter, _ *http.Request, status int) {
	name, message := "internal_server_error", http.StatusText(status)
	switch status {
	case http.StatusUnauthorized:
		name, message = "invalid_api_key", "Invalid API key"
	case http.StatusNotFound:
		answer(w, status, object{"detail": "Not Found"})
		return
	case http.StatusTooManyRequests:
		name, message = "system_busy", "The system is experiencing heavy traffic, please try again."
	}
	answer(w, status, object{"detail": object{"status": name, "message": message}})
}
