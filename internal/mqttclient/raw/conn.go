package raw

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// Conn is one connection of a test. It closes when the test ends.
type Conn struct {
	Version Version       // how packets are encoded and decoded
	Timeout time.Duration // of every wait; 10 s at first
	Net     net.Conn

	t     testing.TB
	in    []byte   // read but not yet decoded
	seen  []string // the last packets
	count int      // of all packets
}

// Dial connects to host:port.
func Dial(t testing.TB, addr string) *Conn {
	t.Helper()
	nc, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		t.Fatalf("raw: dial %s: %v", addr, err)
	}
	return On(t, nc)
}

// On uses a connection that exists: TLS, a pipe, an accepted one.
func On(t testing.TB, nc net.Conn) *Conn {
	t.Cleanup(func() { nc.Close() })
	return &Conn{Version: V5, Timeout: 10 * time.Second, Net: nc, t: t}
}

// Open dials, sends the CONNECT and expects a CONNACK with code 0, which is returned too.
func Open(t testing.TB, addr string, connect Connect) (*Conn, Packet) {
	t.Helper()
	c := Dial(t, addr)
	return c, c.Connected(connect)
}

// Connected sends the CONNECT and expects a CONNACK with code 0.
func (c *Conn) Connected(connect Connect) Packet {
	c.t.Helper()
	c.Send(connect)
	return c.ExpectCode(CONNACK, 0)
}

// Send writes packets with one write. A failed write does not end the test: a server may have closed already, and what the
// test expects next shows whether that is right.
func (c *Conn) Send(packets ...Sendable) {
	c.t.Helper()
	var b []byte
	for _, p := range packets {
		if connect, ok := p.(Connect); ok && connect.Version != 0 {
			c.Version = connect.Version
		}
		b = p.Encode(b, c.Version)
	}
	c.write(b)
}

// SendSplit writes packets in pieces of n bytes, one write each.
func (c *Conn) SendSplit(n int, packets ...Sendable) {
	c.t.Helper()
	b := Encode(c.Version, packets...)
	for len(b) > 0 {
		k := min(n, len(b))
		c.write(b[:k])
		b = b[k:]
	}
}

func (c *Conn) write(b []byte) {
	c.t.Helper()
	c.Net.SetWriteDeadline(time.Now().Add(c.Timeout))
	if _, err := c.Net.Write(b); errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("raw: the peer did not read within %v%s", c.Timeout, c.history())
	}
}

// Next waits for the next packet until the deadline. The error is io.EOF or what the network says when the connection has
// ended, [os.ErrDeadlineExceeded] when nothing came, or the decoder's. It never fails the test.
func (c *Conn) Next(deadline time.Time) (Packet, error) {
	for {
		header, body, size, err := wire.Next(c.in)
		if err != nil {
			return Packet{}, err
		}
		if size > 0 {
			c.in = c.in[size:]
			p, err := wire.Decode(c.Version, header, body)
			if err != nil {
				return p, fmt.Errorf("%w (%02X % X)", err, header, body[:min(len(body), 64)])
			}
			if p.Type == CONNECT {
				c.Version = p.Connect.Version
			}
			c.remember(p)
			return p, nil
		}
		if err := c.read(deadline); err != nil {
			return Packet{}, err
		}
	}
}

// read takes more bytes in. Packets that were returned are views of what lies before c.in, so bytes are only ever appended.
func (c *Conn) read(deadline time.Time) error {
	if err := c.Net.SetReadDeadline(deadline); err != nil {
		return err
	}
	chunk := make([]byte, 16<<10)
	n, err := c.Net.Read(chunk)
	c.in = append(c.in, chunk[:n]...)
	if n > 0 {
		return nil
	}
	if errors.Is(err, io.EOF) && len(c.in) > 0 {
		return fmt.Errorf("%w after % X", io.ErrUnexpectedEOF, c.in[:min(len(c.in), 64)])
	}
	return err
}

// Read returns the next packet, whatever it is.
func (c *Conn) Read() Packet {
	c.t.Helper()
	p, err := c.Next(time.Now().Add(c.Timeout))
	if err != nil {
		c.t.Fatalf("raw: no packet came: %v%s", err, c.history())
	}
	return p
}

// Expect returns the next packet, which must be of the given type.
func (c *Conn) Expect(want Type) Packet {
	c.t.Helper()
	p, err := c.Next(time.Now().Add(c.Timeout))
	if err != nil {
		c.t.Fatalf("raw: want %s: %v%s", want, err, c.history())
	}
	if p.Type != want {
		c.t.Fatalf("raw: want %s, got %s%s", want, p, c.history())
	}
	return p
}

// ExpectCode returns the next packet, which must be of the given type and carry the code: in SUBACK and UNSUBACK for every
// filter.
func (c *Conn) ExpectCode(want Type, code Code) Packet {
	c.t.Helper()
	p := c.Expect(want)
	codes := p.Codes
	if want != SUBACK && want != UNSUBACK {
		codes = []Code{p.Code}
	}
	for _, got := range codes {
		if got != code {
			c.t.Fatalf("raw: want %s with code 0x%02X, got %s%s", want, byte(code), p, c.history())
		}
	}
	return p
}

// ExpectAck returns the next packet, which must be of the given type and carry the packet identifier and the code.
func (c *Conn) ExpectAck(want Type, id uint16, code Code) Packet {
	c.t.Helper()
	p := c.ExpectCode(want, code)
	if p.ID != id {
		c.t.Fatalf("raw: want %s with id %d, got %s%s", want, id, p, c.history())
	}
	return p
}

// ExpectPublish returns the next packet, which must be a PUBLISH with this topic and payload.
func (c *Conn) ExpectPublish(topic, payload string) Packet {
	c.t.Helper()
	p := c.Expect(PUBLISH)
	if p.Topic != topic || p.Text() != payload {
		c.t.Fatalf("raw: want PUBLISH %q %q, got %s%s", topic, payload, p, c.history())
	}
	return p
}

// ExpectAll expects as many packets as types, in any order, and returns them in the order of the types. Packets of the same
// type keep their order.
func (c *Conn) ExpectAll(types ...Type) []Packet {
	c.t.Helper()
	got, have := make([]Packet, len(types)), make([]bool, len(types))
next:
	for range types {
		p := c.Read()
		for i, want := range types {
			if want == p.Type && !have[i] {
				got[i], have[i] = p, true
				continue next
			}
		}
		c.t.Fatalf("raw: want %v in any order, got %s%s", types, p, c.history())
	}
	return got
}

// Await skips packets until one of the given type comes.
func (c *Conn) Await(want Type) Packet {
	c.t.Helper()
	deadline := time.Now().Add(c.Timeout)
	for {
		p, err := c.Next(deadline)
		if err != nil {
			c.t.Fatalf("raw: want %s some time: %v%s", want, err, c.history())
		}
		if p.Type == want {
			return p
		}
	}
}

// ExpectClosed expects the end of the connection and nothing before it.
func (c *Conn) ExpectClosed() {
	c.t.Helper()
	p, err := c.Next(time.Now().Add(c.Timeout))
	switch {
	case err == nil:
		c.t.Fatalf("raw: want the connection to close, got %s%s", p, c.history())
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.t.Fatalf("raw: the connection is still open after %v%s", c.Timeout, c.history())
	case errors.Is(err, wire.ErrMalformed), errors.Is(err, io.ErrUnexpectedEOF):
		c.t.Fatalf("raw: want the connection to close, got %v%s", err, c.history())
	}
}

// ExpectDisconnect expects what a server says before it closes: in MQTT 5 a DISCONNECT with the code, in 3.x nothing; then
// the end of the connection.
func (c *Conn) ExpectDisconnect(code Code) (p Packet) {
	c.t.Helper()
	if c.Version >= V5 {
		p = c.ExpectCode(DISCONNECT, code)
	}
	c.ExpectClosed()
	return p
}

// ExpectNothing expects silence for d on an open connection. Prefer [Conn.Quiet], which does not wait.
func (c *Conn) ExpectNothing(d time.Duration) {
	c.t.Helper()
	p, err := c.Next(time.Now().Add(d))
	if err == nil {
		c.t.Fatalf("raw: want nothing, got %s%s", p, c.history())
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatalf("raw: want nothing, got %v%s", err, c.history())
	}
}

// Quiet sends a PINGREQ and expects the PINGRESP next: nothing was waiting, and everything sent before has been handled.
func (c *Conn) Quiet() {
	c.t.Helper()
	c.Send(Pingreq{})
	c.Expect(PINGRESP)
}

// Subscribe subscribes to filters with one QoS and expects that QoS to be granted. Packet identifier 65000 is used.
func (c *Conn) Subscribe(qos byte, filters ...string) {
	c.t.Helper()
	s := Subscribe{ID: 65000}
	for _, f := range filters {
		s.Filters = append(s.Filters, Filter{Filter: f, QoS: qos})
	}
	c.Send(s)
	if p := c.ExpectCode(SUBACK, Code(qos)); len(p.Codes) != len(filters) || p.ID != s.ID {
		c.t.Fatalf("raw: want %d codes for id %d, got %s", len(filters), s.ID, p)
	}
}

// Publish publishes and goes through the whole handshake of the QoS; every code must be below 0x80.
func (c *Conn) Publish(p Publish) {
	c.t.Helper()
	c.Send(p)
	ok := func(want Type) {
		c.t.Helper()
		if got := c.Expect(want); got.ID != p.ID || got.Code.Failed() {
			c.t.Fatalf("raw: want %s for id %d, got %s%s", want, p.ID, got, c.history())
		}
	}
	switch p.QoS {
	case 1:
		ok(PUBACK)
	case 2:
		ok(PUBREC)
		c.Send(Pubrel{ID: p.ID})
		ok(PUBCOMP)
	}
}

// Ack sends what answers a packet: PUBACK or PUBREC to a PUBLISH, PUBREL to a PUBREC, PUBCOMP to a PUBREL; nothing to others.
func (c *Conn) Ack(p Packet) {
	c.t.Helper()
	switch {
	case p.Type == PUBLISH && p.QoS == 1:
		c.Send(Puback{ID: p.ID})
	case p.Type == PUBLISH && p.QoS == 2:
		c.Send(Pubrec{ID: p.ID})
	case p.Type == PUBREC:
		c.Send(Pubrel{ID: p.ID})
	case p.Type == PUBREL:
		c.Send(Pubcomp{ID: p.ID})
	}
}

// Deliver expects a PUBLISH and goes through the whole handshake of its QoS.
func (c *Conn) Deliver() Packet {
	c.t.Helper()
	p := c.Expect(PUBLISH)
	c.Ack(p)
	if p.QoS == 2 {
		rel := c.Expect(PUBREL)
		if rel.ID != p.ID {
			c.t.Fatalf("raw: want PUBREL for id %d, got %s%s", p.ID, rel, c.history())
		}
		c.Ack(rel)
	}
	return p
}

// Close says goodbye with a DISCONNECT and closes.
func (c *Conn) Close() {
	c.t.Helper()
	c.Send(Disconnect{})
	c.Net.Close()
}

// Drop closes without a word, as a lost network does for the server.
func (c *Conn) Drop() { c.Net.Close() }

// Reset closes with a TCP reset where the connection is TCP.
func (c *Conn) Reset() {
	if tcp, ok := c.Net.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Net.Close()
}

// remembered is how many packets a failure shows.
const remembered = 20

func (c *Conn) remember(p Packet) {
	c.count++
	if len(c.seen) == remembered {
		c.seen = append(c.seen[:0], c.seen[1:]...)
	}
	c.seen = append(c.seen, p.String())
}

// history tells which packets came last.
func (c *Conn) history() string {
	if c.count == 0 {
		return "; no packet came before"
	}
	return fmt.Sprintf("\nthe last %d of %d packets:\n  %s", len(c.seen), c.count, strings.Join(c.seen, "\n  "))
}
