package mqttclient

import (
	"context"
	"fmt"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// Subscribe subscribes to filters and returns the server's code for each. If one was refused the error is a [*Refused]
// for the first of them; the others hold. props are the packet's: a subscription identifier, user properties.
func (c *Client) Subscribe(ctx context.Context, props wire.Props, filters ...wire.Filter) ([]wire.Code, error) {
	if c.version < wire.V5 {
		props = nil
	}
	names := make([]string, len(filters))
	for i, f := range filters {
		names[i] = f.Filter
	}
	return c.ask(ctx, wire.SUBACK, names, func(b []byte, id uint16) []byte {
		return wire.Subscribe{ID: id, Props: props, Filters: filters}.Append(b, c.version)
	})
}

// Unsubscribe ends subscriptions. Codes come from MQTT 5 servers only; 0x11 means that there was no such subscription.
func (c *Client) Unsubscribe(ctx context.Context, filters ...string) ([]wire.Code, error) {
	return c.ask(ctx, wire.UNSUBACK, filters, func(b []byte, id uint16) []byte {
		return wire.Unsubscribe{ID: id, Filters: filters}.Append(b, c.version)
	})
}

// ask sends a packet with an identifier of its own and waits for the answer.
func (c *Client) ask(ctx context.Context, want wire.Type, filters []string, add func([]byte, uint16) []byte) ([]wire.Code, error) {
	if len(filters) == 0 {
		return nil, fmt.Errorf("no filter")
	}
	id, err := c.session.claimID()
	if err != nil {
		return nil, err
	}
	answer := make(chan wire.Packet, 1)
	c.mu.Lock()
	c.waiting[id] = answer
	c.mu.Unlock()
	if err := c.out.put(ctx, c, func(b []byte) []byte { return add(b, id) }); err != nil {
		c.mu.Lock()
		delete(c.waiting, id)
		c.mu.Unlock()
		c.session.free(id)
		return nil, err
	}
	select {
	case p := <-answer:
		if p.Type != want || len(p.Codes) != len(filters) && (want == wire.SUBACK || c.version >= wire.V5) {
			err := fmt.Errorf("want %s with %d codes, got %s", want, len(filters), p)
			c.fail(err)
			return nil, err
		}
		for i, code := range p.Codes {
			if code.Failed() {
				return p.Codes, &Refused{Packet: want, Version: c.version, Code: code, Filter: filters[i], Props: p.Props}
			}
		}
		return p.Codes, nil
	case <-c.done:
		return nil, c.Err()
	case <-ctx.Done():
		// The identifier stays taken until the answer comes: a second use would mix up the two.
		return nil, ctx.Err()
	}
}
