// Command twilio sends a message and lists Verify services with Twilio's own SDK, through Keyward.
package main

import (
	"fmt"
	"log"

	"github.com/keyward/keyward/examples/go/sidecar"
	"github.com/twilio/twilio-go"
	"github.com/twilio/twilio-go/client"
	api "github.com/twilio/twilio-go/rest/api/v2010"
	verify "github.com/twilio/twilio-go/rest/verify/v2"
)

func main() {
	// ACkeyward stands for the org's own account SID.
	c := &client.Client{Credentials: client.NewCredentials("ACkeyward", sidecar.Token()), HTTPClient: sidecar.Client()}
	c.SetAccountSid("ACkeyward")
	tw := twilio.NewRestClientWithParams(twilio.ClientParams{Client: c})

	m := &api.CreateMessageParams{}
	m.SetTo("+15550001").SetFrom("+15550002").SetBody("Hello from Go")
	message, err := tw.Api.CreateMessage(m)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("sent", *message.Sid, *message.Status)

	// Page 2 is an absolute URL in the answer; it goes through the sidecar as well.
	s := &verify.ListServiceParams{}
	s.SetPageSize(1).SetLimit(2)
	services, err := tw.VerifyV2.ListService(s)
	if err != nil {
		log.Fatal(err)
	}
	for _, service := range services {
		fmt.Println("verify service", *service.FriendlyName)
	}
}
