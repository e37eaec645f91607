// Reads a stream with github.com/launchdarkly/eventsource: launchdarkly plain|remedy URL
package main

import (
	"errors"
	"os"
	"time"

	"tidegate/clients/said"

	"github.com/launchdarkly/eventsource"
)

// The simplest that its documentation knows.
func plain(url string, show func(eventsource.Event)) error {
	stream, err := eventsource.SubscribeWithURL(url)
	if err != nil {
		return err
	}
	for event := range stream.Events {
		show(event)
	}
	return nil
}

func follow(url string, show func(eventsource.Event)) error {
	// remedy
	stream, err := eventsource.SubscribeWithURL(url,
		eventsource.StreamOptionCanRetryFirstConnection(-1), eventsource.StreamOptionUseJitter(0.5),
		eventsource.StreamOptionReadTimeout(45*time.Second), // three heartbeats
		eventsource.StreamOptionErrorHandler(func(err error) eventsource.StreamErrorHandlerResult {
			var refused eventsource.SubscriptionError
			over := errors.As(err, &refused) && (refused.Code == 204 || refused.Code == 400)
			return eventsource.StreamErrorHandlerResult{CloseNow: over}
		}))
	if err != nil {
		return err
	}
	for event := range stream.Events {
		show(event)
	}
	// end of remedy
	return nil
}

func main() {
	show := func(event eventsource.Event) { said.Show(event.Id(), event.Event(), event.Data()) }
	form := map[string]func(string, func(eventsource.Event)) error{"plain": plain, "remedy": follow}[os.Args[1]]
	if err := form(os.Args[2], show); err != nil {
		said.Fail(err)
	}
}
