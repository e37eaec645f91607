// Package said writes what the programs of this module were given by their libraries.
package said

import (
	"encoding/json"
	"fmt"
	"os"
)

// Show writes one event as a line of JSON.
func Show(id, kind, data string) {
	_ = json.NewEncoder(os.Stdout).Encode(map[string]string{"id": id, "type": kind, "data": data})
}

// Fail writes what a library gave up with, and ends the program.
func Fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
