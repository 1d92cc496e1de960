// Isthmus joins constrained devices to everything else: one binary in which MQTT, CoAP, WebSocket and legacy uplinks share
// one routing table. `go run . serve` starts it; `go run . help` lists the commands.
package main

import (
	"os"

	"github.com/isthmus-iot/isthmus/internal/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }
