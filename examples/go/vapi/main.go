// Command vapi makes an assistant, starts a call and streams a chat, through Keyward.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"strings"

	"github.com/keyward/keyward/examples/go/sidecar"
)

var client = sidecar.Client()

func main() {
	var assistant, call struct{ ID, Status string }
	post("/assistant", `{"name":"Front desk","firstMessage":"Hello!"}`, &assistant)
	post("/call", `{"assistantId":"`+assistant.ID+`","customer":{"number":"+15550001"}}`, &call)
	fmt.Println("call", call.ID, call.Status)

	// A chat streams as server-sent events, each as Vapi sends it.
	res := request("/chat", `{"assistantId":"`+assistant.ID+`","input":"Hi","stream":true}`)
	defer func() { _ = res.Body.Close() }()
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		if lines.Text() != "" {
			fmt.Println(lines.Text())
		}
	}
}

func post(path, body string, into any) {
	res := request(path, body)
	defer func() { _ = res.Body.Close() }()
	if err := json.NewDecoder(res.Body).Decode(into); err != nil {
		log.Fatal(err)
	}
}

// request sends JSON to Vapi's own address; the client sees to it that it goes to the sidecar.
func request(path, body string) *http.Response {
	r, err := http.NewRequest(http.MethodPost, "https://api.vapi.ai"+path, strings.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+sidecar.Token())
	r.Header.Set("Content-Type", "application/json")
	res, err := client.Do(r)
	if err != nil {
		log.Fatal(err)
	}
	if res.StatusCode >= 300 {
		log.Fatal(path, ": ", res.Status)
	}
	return res
}
