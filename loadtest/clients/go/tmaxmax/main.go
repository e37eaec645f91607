// Reads a stream with github.com/tmaxmax/go-sse, as its README shows: tmaxmax plain URL
package main

import (
	"net/http"
	"os"

	"tidegate/clients/said"

	"github.com/tmaxmax/go-sse"
)

func main() {
	request, _ := http.NewRequest(http.MethodGet, os.Args[2], http.NoBody)
	connection := sse.NewConnection(request)
	connection.SubscribeToAll(func(event sse.Event) { said.Show(event.LastEventID, event.Type, event.Data) })
	if err := connection.Connect(); err != nil {
		said.Fail(err)
	}
}
