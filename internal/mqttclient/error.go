package mqttclient

import (
	"errors"
	"fmt"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// The errors of a connection that has ended, besides [Disconnected] and those of the network.
var (
	ErrClosed    = errors.New("connection closed")                   // by this side
	ErrKeepAlive = errors.New("no answer to a ping")                 // the peer is gone
	ErrSlowPeer  = errors.New("the peer does not read what is sent") // its acknowledgements would pile up here
	ErrLost      = errors.New("connection lost, outcome unknown")    // of a Publish that was on its way
)

// errHungUp is the end of the input without a word.
var errHungUp = errors.New("closed by the server")

// Refused is a server's no: to a CONNECT, a PUBLISH, a filter.
type Refused struct {
	Packet  wire.Type // CONNACK, PUBACK, PUBREC, SUBACK, UNSUBACK
	Version wire.Version
	Code    wire.Code
	Filter  string     // of a SUBACK or UNSUBACK
	Props   wire.Props // reason string, server reference, ...
}

func (e *Refused) Error() string {
	what := map[wire.Type]string{
		wire.CONNACK: "connect", wire.PUBACK: "publish", wire.PUBREC: "publish", wire.SUBACK: "subscribe", wire.UNSUBACK: "unsubscribe",
	}[e.Packet]
	if e.Filter != "" {
		what += fmt.Sprintf(" to %q", e.Filter)
	}
	code := e.Code.String()
	if e.Packet == wire.CONNACK {
		code = e.Code.ConnackString(e.Version)
	}
	return withReason(fmt.Sprintf("%s refused: %s", what, code), e.Props)
}

// Disconnected is what an MQTT 5 server said before it closed.
type Disconnected struct {
	Code  wire.Code
	Props wire.Props
}

func (e *Disconnected) Error() string {
	return withReason("disconnected by the server: "+e.Code.String(), e.Props)
}

func withReason(s string, ps wire.Props) string {
	if text := ps.Text(wire.ReasonString); text != "" {
		s += fmt.Sprintf(" (%q)", text)
	}
	return s
}
