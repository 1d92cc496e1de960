package broker

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/isthmus-iot/isthmus/bridge"
)

// owed are the acknowledgements that a connection owes its client until the store has synced what they promise, in the order
// in which they will leave (MQTT-4.6.0-2 to MQTT-4.6.0-4). Meanwhile the client is read further: many of its messages, and
// those of many clients, share a commit. Where nothing has to be stored nothing is ever in here.
type owed struct {
	count  atomic.Int32 // in list
	mu     sync.Mutex   // taken after the session's lock and before that of the output
	list   []ack
	told   bool          // the store will call
	pubs   int           // PUBACKs in list: what counts against our Receive Maximum
	room   chan struct{} // closed when list is short again; nil: nobody waits
	failed bool
}

// ack is an acknowledgement and the commit that it waits for.
type ack struct {
	receipt bridge.Receipt
	first   byte
	id      uint16
	code    byte
	text    string
	packet  []byte           // SUBACK or UNSUBACK as a whole
	streams []retainedStream // begin behind the SUBACK
}

// ack sends an acknowledgement as soon as r is kept and all that were owed before have been sent.
func (c *conn) ack(b *bridge.Batch, r bridge.Receipt, first byte, id uint16, code byte, text string) {
	if r == 0 && c.owed.count.Load() == 0 {
		c.sendAck(b, first, id, code, text)
		return
	}
	c.owe(b, ack{receipt: r, first: first, id: id, code: code, text: text})
}

// ackPacket is ack for a SUBACK or UNSUBACK, and the retained values that are to follow.
func (c *conn) ackPacket(b *bridge.Batch, r bridge.Receipt, packet []byte, streams []retainedStream) {
	if r == 0 && c.owed.count.Load() == 0 {
		c.sendPacket(b, packet)
		c.stream(b, streams)
		return
	}
	c.stream(b, c.stillWanted(c.owe(b, ack{receipt: r, packet: packet, streams: streams})))
}

// stillWanted leaves out what was unsubscribed while its SUBACK waited.
func (c *conn) stillWanted(streams []retainedStream) []retainedStream {
	if len(streams) == 0 {
		return nil
	}
	subs := c.client.Subscriptions()
	return slices.DeleteFunc(streams, func(r retainedStream) bool {
		return !slices.ContainsFunc(subs, func(s *bridge.Subscription) bool { return s.Filter == r.sub.Filter })
	})
}

func (c *conn) owe(b *bridge.Batch, a ack) (streams []retainedStream) {
	o := &c.owed
	o.mu.Lock()
	defer o.mu.Unlock()
	o.list = append(o.list, a)
	if a.first == tPuback<<4 {
		o.pubs++
	}
	o.count.Add(1)
	if !o.told {
		streams = c.payLocked(b)
	}
	return streams
}

// Stored is called when a commit that acknowledgements wait for has ended.
func (c *conn) Stored(b *bridge.Batch) {
	c.stream(b, c.stillWanted(c.pay(b)))
}

func (c *conn) pay(b *bridge.Batch) []retainedStream {
	c.owed.mu.Lock()
	defer c.owed.mu.Unlock()
	c.owed.told = false
	return c.payLocked(b)
}

// payLocked sends what is kept by now and waits for the rest; o.mu is held. It returns the retained values to be sent now.
// Where the store has failed the connection ends: its client will not be told that anything was kept (and may try elsewhere).
func (c *conn) payLocked(b *bridge.Batch) (streams []retainedStream) {
	o := &c.owed
	for n := 0; ; n = 0 {
		for n < len(o.list) && c.srv.synced(o.list[n].receipt) {
			a := &o.list[n]
			n++
			switch {
			case a.packet != nil:
				c.sendPacket(b, a.packet)
				streams = append(streams, a.streams...)
				continue
			case a.first == tPuback<<4:
				o.pubs--
			}
			c.sendAck(b, a.first, a.id, a.code, a.text)
		}
		if n > 0 {
			o.list = slices.Delete(o.list, 0, n)
			if len(o.list) == 0 {
				o.list = nil
			}
			o.count.Store(int32(len(o.list)))
			if o.room != nil && len(o.list) < c.owedLimit() {
				close(o.room)
				o.room = nil
			}
		}
		if len(o.list) == 0 {
			return streams
		}
		if o.told = c.srv.store.Await(o.list[0].receipt, c); o.told {
			return streams
		}
		if c.srv.store.Err() != nil && !c.srv.synced(o.list[0].receipt) {
			if !o.failed {
				o.failed = true
				if o.room != nil {
					close(o.room)
					o.room = nil
				}
				go c.kick(codeImplementation, "the store has failed", "")
			}
			return streams
		}
	}
}

// unacknowledged is how many QoS 1 messages of the client wait for their PUBACK.
func (o *owed) unacknowledged() int {
	if o.count.Load() == 0 {
		return 0
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.pubs
}

// owedLimit is how many acknowledgements may be owed before the client is not read from: 3.x clients know no Receive Maximum.
func (c *conn) owedLimit() int { return 2 * c.promised().InflightIn }

// overOwed returns a channel to wait on before more is read; nil if there is no need to.
func (c *conn) overOwed() <-chan struct{} {
	o := &c.owed
	if int(o.count.Load()) < c.owedLimit() {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.list) < c.owedLimit() || o.failed {
		return nil
	}
	if o.room == nil {
		o.room = make(chan struct{})
	}
	return o.room
}
