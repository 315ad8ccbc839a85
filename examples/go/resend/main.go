// Command resend sends an email with Resend's own SDK, through Keyward.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/keyward/keyward/examples/go/sidecar"
	"github.com/resend/resend-go/v3"
)

func main() {
	client := resend.NewCustomClient(sidecar.Client(), sidecar.Token())

	sent, err := client.Emails.SendWithOptions(context.Background(), &resend.SendEmailRequest{
		From:    "Acme <hello@example.com>",
		To:      []string{"ada@example.com"},
		Subject: "Hello",
		Text:    "Hello from Go",
	}, &resend.SendEmailOptions{IdempotencyKey: "order-1002"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("sent", sent.Id)

	domains, err := client.Domains.List()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(domains.Data), "domains")
}
