// Command elevenlabs streams speech and uploads a voice, through Keyward.
package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"mime/multipart"
	"net/http"
	"os"
	"strings"

	"github.com/keyward/keyward/examples/go/sidecar"
)

var client = sidecar.Client()

func main() {
	// Speech comes as a stream of chunks.
	n := post("/v1/text-to-speech/21m00Tcm4TlvDq8ikWAM/stream", "application/json",
		strings.NewReader(`{"text":"Hello from Go","model_id":"eleven_multilingual_v2"}`), io.Discard)
	fmt.Println("audio", n, "bytes")

	// A voice is uploaded as a multipart form.
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	_ = w.WriteField("name", "Ada")
	file, _ := w.CreateFormFile("files", "ada.mp3")
	_, _ = file.Write([]byte("pretend that this is audio"))
	_ = w.Close()
	post("/v1/voices/add", w.FormDataContentType(), &form, os.Stdout)
}

// post sends a request to ElevenLabs' own address, which the client sends to the sidecar, and copies the answer as it comes.
func post(path, contentType string, body io.Reader, to io.Writer) int64 {
	r, err := http.NewRequest(http.MethodPost, "https://api.elevenlabs.io"+path, body)
	if err != nil {
		log.Fatal(err)
	}
	r.Header.Set("xi-api-key", sidecar.Token())
	r.Header.Set("Content-Type", contentType)
	res, err := client.Do(r)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	if res.StatusCode >= 300 {
		log.Fatal(path, ": ", res.Status)
	}
	n, err := io.Copy(to, res.Body)
	if err != nil {
		log.Fatal(err)
	}
	return n
}
