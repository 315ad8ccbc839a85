// Command unchanged sends a message with twilio-go and an e-mail with resend-go, as their vendors' pages show it.
package main

import (
	"fmt"
	"log"
	"os"

	"github.com/resend/resend-go/v3"
	"github.com/twilio/twilio-go"
	api "github.com/twilio/twilio-go/rest/api/v2010"
)

func main() {
	m := &api.CreateMessageParams{}
	m.SetTo("+15550001").SetFrom("+15550002").SetBody("Hello from Go")
	message, err := twilio.NewRestClient().Api.CreateMessage(m) // from TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("sent", *message.Sid, *message.Status)

	email, err := resend.NewClient(os.Getenv("RESEND_API_KEY")).Emails.Send(&resend.SendEmailRequest{
		From: "Acme <hello@example.com>", To: []string{"someone@example.com"}, Subject: "Hello from Go", Text: "Hello",
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("sent", email.Id)
}
