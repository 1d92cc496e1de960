package crash

import (
	"bufio"
	"errors"
	"net"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// conn is one connection of a client and what the protocol counts per connection.
type conn struct {
	net     net.Conn
	version wire.Version
	number  int
	packets chan wire.Packet // closed when the connection has ended
	quit    chan struct{}    // nobody takes packets any more
	broken  error            // what came was no packet; read it after packets is closed

	// What the broker owes us.
	acks    []uint16        // of QoS 1 messages sent, oldest first
	recs    []uint16        // of QoS 2 messages sent, oldest first
	comps   map[uint16]bool // PUBREL sent
	window  int             // messages under way towards the broker: its Receive Maximum
	pinging bool

	// What we owe the broker, or the broker us in return.
	open     map[uint16]bool // messages received on this connection and not completed
	rels     []uint16        // PUBREC sent, PUBREL not received, oldest first
	released map[uint16]bool // PUBREL received without such a PUBREC: it was sent again
}

// dial opens a connection and reads packets from it until it ends.
func dial(addr string, v wire.Version, number int) (*conn, error) {
	nc, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		return nil, err
	}
	c := &conn{
		net: nc, version: v, number: number, packets: make(chan wire.Packet, 1024), quit: make(chan struct{}), window: 65535,
		comps: make(map[uint16]bool), open: make(map[uint16]bool), released: make(map[uint16]bool),
	}
	go c.read()
	return c, nil
}

func (c *conn) read() {
	defer close(c.packets)
	r := bufio.NewReader(c.net)
	for {
		header, body, err := wire.ReadFrame(r, 0)
		var p wire.Packet
		if err == nil {
			p, err = wire.Decode(c.version, header, body)
		}
		if err != nil {
			if errors.Is(err, wire.ErrMalformed) {
				c.broken = err
			}
			return
		}
		select {
		case c.packets <- p:
		case <-c.quit:
			return
		}
	}
}

// write writes packets. An error shows itself in reading too.
func (c *conn) write(b []byte) error {
	c.net.SetWriteDeadline(time.Now().Add(patience))
	_, err := c.net.Write(b)
	return err
}

// close closes the connection; what has come and was not taken is lost. It returns when nothing reads any more.
func (c *conn) close() {
	close(c.quit)
	c.net.Close()
	for range c.packets {
	}
}

// reset closes the connection as a host does that has forgotten it.
func (c *conn) reset() {
	if tcp, ok := c.net.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.close()
}

// take takes the head off a queue of identifiers if it is id.
func take(queue *[]uint16, id uint16) bool {
	if len(*queue) == 0 || (*queue)[0] != id {
		return false
	}
	*queue = (*queue)[1:]
	return true
}
