package mqttclient

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// read handles packets until the connection ends.
func (c *Client) read(r *bufio.Reader) {
	aliases := make(map[uint32]string)
	for {
		header, body, err := wire.ReadFrame(r, c.cfg.PacketBytes)
		var p wire.Packet
		if err == nil {
			c.received.Store(time.Now().UnixNano())
			p, err = wire.Decode(c.version, header, body)
		}
		if err == nil {
			err = c.take(p, aliases)
		}
		if err != nil {
			c.complain(err)
			c.fail(reading(err))
			return
		}
	}
}

// reading names the end of a connection.
func reading(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		return errHungUp
	}
	return err
}

// complain tells an MQTT 5 server what was wrong with its packet, if that is what err says. The connection ends at once, so
// there is one attempt and no wait.
func (c *Client) complain(err error) {
	code := wire.Code(0x82)
	var wrong *protocolError
	switch {
	case c.version < wire.V5:
		return
	case errors.Is(err, wire.ErrMalformed):
		code = 0x81
	case errors.Is(err, wire.ErrTooLarge):
		code = 0x95
	case errors.As(err, &wrong):
		code = wrong.code
	default:
		return
	}
	c.out.last(c, wire.Disconnect{Code: code}.Append(nil, c.version))
}

// protocolError is what a server must not do.
type protocolError struct {
	code wire.Code
	what string
}

func (e *protocolError) Error() string { return "protocol error of the server: " + e.what }

// take handles one packet. An error ends the connection.
func (c *Client) take(p wire.Packet, aliases map[uint32]string) error {
	switch p.Type {
	case wire.PUBLISH:
		if err := c.resolve(&p, aliases); err != nil {
			return err
		}
		return c.takePublish(p)
	case wire.PUBREL:
		code := wire.Code(0)
		if !c.session.released(p.ID) && c.version >= wire.V5 {
			code = 0x92
		}
		return c.answer(wire.Ack{Type: wire.PUBCOMP, ID: p.ID, Code: code})
	case wire.PUBACK, wire.PUBREC, wire.PUBCOMP:
		return c.session.acknowledged(c, p)
	case wire.SUBACK, wire.UNSUBACK:
		c.mu.Lock()
		waiter := c.waiting[p.ID]
		delete(c.waiting, p.ID)
		c.mu.Unlock()
		if waiter == nil {
			return nil // its caller has given up
		}
		c.session.free(p.ID)
		waiter <- p
	case wire.PINGRESP:
	case wire.DISCONNECT:
		if c.version < wire.V5 {
			return &protocolError{0x82, "DISCONNECT before MQTT 5"}
		}
		return &Disconnected{Code: p.Code, Props: p.Props}
	case wire.AUTH:
		select {
		case c.auths <- p:
		default:
			return &protocolError{0x82, "AUTH that nobody asked for"}
		}
	default:
		return &protocolError{0x82, fmt.Sprintf("%s from a server", p.Type)}
	}
	return nil
}

// resolve puts in the topic that an alias stands for.
func (c *Client) resolve(p *wire.Packet, aliases map[uint32]string) error {
	if alias, ok := p.Props.Find(wire.TopicAlias); ok {
		if alias.Int == 0 || alias.Int > c.cfg.Props.Int(wire.TopicAliasMaximum) {
			return &protocolError{0x94, fmt.Sprintf("topic alias %d", alias.Int)}
		}
		if p.Topic != "" {
			aliases[alias.Int] = p.Topic
		}
		p.Topic = aliases[alias.Int]
	}
	if p.Topic == "" {
		return &protocolError{0x82, "PUBLISH without a topic"}
	}
	return nil
}

func (c *Client) takePublish(p wire.Packet) error {
	m := &Message{
		Topic: p.Topic, Payload: p.Payload, QoS: p.QoS, Retain: p.Retain, Dup: p.Dup, Props: p.Props, client: c,
	}
	if p.QoS == 2 && c.session.has(p.ID) {
		return c.answer(wire.Ack{Type: wire.PUBREC, ID: p.ID}) // sent again; it was kept the first time
	}
	if p.QoS > 0 {
		switch c.acks.expect(m, p.ID) {
		case ackRepeated:
			return nil
		case ackOverLimit:
			return &protocolError{0x93, "more messages in flight than the Receive Maximum"}
		}
	}
	return c.in.put(c, m)
}

// answer sends an acknowledgement without waiting.
func (c *Client) answer(a wire.Ack) error {
	return c.out.force(func(b []byte) []byte { return a.Append(b, c.version) })
}

// keepAlive pings when one direction was silent for the interval.
func (c *Client) keepAlive() {
	interval := c.server.KeepAlive
	timeout := min(c.cfg.Timeout, interval)
	timer := time.NewTimer(interval)
	defer timer.Stop()
	var pinged int64 // when a ping was sent that nothing has answered
	for {
		select {
		case <-c.done:
			return
		case <-timer.C:
		}
		now, received := time.Now().UnixNano(), c.received.Load()
		quiet := min(c.out.sent.Load(), received) // since when at least one direction is silent
		switch {
		case pinged != 0 && received < pinged && !c.in.full():
			c.fail(ErrKeepAlive)
			return
		case time.Duration(now-quiet) >= interval:
			pinged = now
			if c.out.force(func(b []byte) []byte { return wire.Ping{}.Append(b) }) != nil {
				c.fail(ErrSlowPeer)
				return
			}
			timer.Reset(timeout)
		default:
			pinged = 0
			timer.Reset(interval - time.Duration(now-quiet))
		}
	}
}
