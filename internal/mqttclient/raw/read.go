package raw

import (
	"bufio"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// ReadPacket reads one packet from a buffered stream, without a test: for goroutines that must not fail one. The error of a
// packet that cannot be decoded wraps [wire.ErrMalformed].
func ReadPacket(r *bufio.Reader, v Version) (Packet, error) {
	header, body, err := wire.ReadFrame(r, 0)
	if err != nil {
		return Packet{}, err
	}
	return wire.Decode(v, header, body)
}
