// Reads a stream with github.com/r3labs/sse: r3labs plain|remedy URL
package main

import (
	"errors"
	"net/http"
	"os"
	"time"

	"tidegate/clients/said"

	"github.com/r3labs/sse/v2"
	"gopkg.in/cenkalti/backoff.v1"
)

// As the README shows; its Subscribe is this with a name in the query.
func plain(url string, show func(*sse.Event)) error {
	client := sse.NewClient(url)
	return client.SubscribeRaw(show)
}

func follow(url string, show func(*sse.Event)) error {
	// remedy
	client := sse.NewClient(url, sse.ClientMaxBufferSize(1<<20)) // 64 KiB else, and an event may have more
	client.ReconnectStrategy = backoff.NewConstantBackOff(3 * time.Second)
	client.ResponseValidator = func(_ *sse.Client, r *http.Response) error {
		if r.StatusCode == 204 || r.StatusCode == 400 {
			return backoff.Permanent(errors.New(r.Status))
		}
		return nil
	}
	for err := error(nil); err == nil; time.Sleep(3 * time.Second) {
		err = client.SubscribeRaw(func(e *sse.Event) {
			if len(e.Data) > 0 {
				show(e)
			}
		})
	}
	// end of remedy
	return nil
}

func main() {
	show := func(event *sse.Event) { said.Show(string(event.ID), string(event.Event), string(event.Data)) }
	form := map[string]func(string, func(*sse.Event)) error{"plain": plain, "remedy": follow}[os.Args[1]]
	if err := form(os.Args[2], show); err != nil {
		said.Fail(err)
	}
}
