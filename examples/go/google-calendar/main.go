// Command google-calendar lists calendars and inserts an event with Google's own SDK, through Keyward.
package main

import (
	"context"
	"fmt"
	"log"

	"github.com/keyward/keyward/examples/go/sidecar"
	"golang.org/x/oauth2"
	"google.golang.org/api/calendar/v3"
	"google.golang.org/api/option"
)

func main() {
	// The SDK's access token is the caller's token. No OAuth client, no refresh token.
	client := sidecar.Client()
	client.Transport = &oauth2.Transport{
		Source: oauth2.StaticTokenSource(&oauth2.Token{AccessToken: sidecar.Token()}),
		Base:   client.Transport,
	}
	cal, err := calendar.NewService(context.Background(), option.WithHTTPClient(client))
	if err != nil {
		log.Fatal(err)
	}

	list, err := cal.CalendarList.List().MaxResults(10).Do()
	if err != nil {
		log.Fatal(err)
	}
	for _, c := range list.Items {
		fmt.Println("calendar", c.Summary)
	}

	event, err := cal.Events.Insert("primary", &calendar.Event{
		Summary: "Hello from Go",
		Start:   &calendar.EventDateTime{DateTime: "2027-01-04T09:00:00Z"},
		End:     &calendar.EventDateTime{DateTime: "2027-01-04T09:30:00Z"},
	}).Do()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("event", event.HtmlLink)
}
