package mqttclient

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// Publication is a message to be published.
type Publication struct {
	Topic   string
	Payload []byte // must not change until the call is done
	QoS     byte
	Retain  bool
	Props   wire.Props // MQTT 5
}

// Publish publishes p. With QoS 0 it returns when the message is on its way out, with QoS 1 and 2 when the server has
// acknowledged it; code is what the server said (0x10: no matching subscriber). A refusal is a [*Refused]. If ctx ends first
// the message may still arrive.
func (c *Client) Publish(ctx context.Context, p Publication) (code wire.Code, err error) {
	type outcome struct {
		code wire.Code
		err  error
	}
	result := make(chan outcome, 1)
	if err := c.PublishAsync(ctx, p, func(code wire.Code, err error) { result <- outcome{code, err} }); err != nil {
		return 0, err
	}
	select {
	case r := <-result:
		return r.code, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// PublishAsync publishes p and returns when it is on its way out; ctx bounds the wait for room. If the error is nil, done is
// called once with the outcome, possibly before PublishAsync returns; it must not wait for the client.
func (c *Client) PublishAsync(ctx context.Context, p Publication, done func(wire.Code, error)) error {
	packet := wire.Publish{Topic: p.Topic, Payload: p.Payload, QoS: p.QoS, Retain: p.Retain, Props: p.Props}
	if err := c.check(packet); err != nil {
		return fmt.Errorf("publishing: %w", err)
	}
	select {
	case <-c.resumed:
	case <-c.done:
		return c.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := c.out.room(ctx, c); err != nil {
		return err
	}
	if p.QoS == 0 {
		if err := c.out.force(func(b []byte) []byte { return packet.Append(b, c.version) }); err != nil {
			return err
		}
		done(0, nil)
		return nil
	}
	select {
	case c.slots <- struct{}{}:
	case <-c.done:
		return c.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
	err := c.session.send(c, packet, done)
	if err != nil {
		<-c.slots
	}
	return err
}

// check refuses what the server would refuse by closing the connection.
func (c *Client) check(p wire.Publish) error {
	if alias := p.Props.Has(wire.TopicAlias); p.Topic != "" || !alias {
		if err := checkTopic(p.Topic); err != nil {
			return err
		}
	}
	// Everything but topic and payload is small, unless there are properties; those are measured.
	size := len(p.Topic) + len(p.Payload) + 16
	if len(p.Props) > 0 {
		if c.version < wire.V5 {
			return fmt.Errorf("properties need MQTT 5, the version is %s", c.version)
		}
		size += len(wire.AppendProps(nil, p.Props))
	}
	switch {
	case p.QoS > 2:
		return fmt.Errorf("QoS is %d, want 0 to 2", p.QoS)
	case p.QoS > c.server.MaximumQoS:
		return fmt.Errorf("QoS is %d, the server's maximum is %d", p.QoS, c.server.MaximumQoS)
	case p.Retain && c.server.Props.IntOr(wire.RetainAvailable, 1) == 0:
		return fmt.Errorf("the server keeps no retained messages")
	case size > c.server.PacketBytes || size > wire.MaxVarint:
		return fmt.Errorf("%w: %d bytes, the server's maximum is %d", wire.ErrTooLarge, size, c.server.PacketBytes)
	}
	return nil
}

// checkTopic checks MQTT's rules for topic names (MQTT 5 section 4.7).
func checkTopic(topic string) error {
	switch {
	case topic == "":
		return errors.New("the topic is empty")
	case len(topic) > 65535:
		return errors.New("the topic is longer than 65535 bytes")
	case !utf8.ValidString(topic) || strings.IndexByte(topic, 0) >= 0:
		return errors.New("the topic is not well-formed UTF-8")
	case strings.ContainsAny(topic, "+#"):
		return fmt.Errorf("the topic %q has a wildcard", topic)
	}
	return nil
}
