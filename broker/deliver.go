package broker

import (
	"github.com/isthmus-iot/isthmus/bridge"
)

// Keys of the encodings that all connections share while one message is delivered: see bridge.Delivery.Form.
const (
	formOld   uint32 = 'M'<<8 | iota // 3.x, QoS 0
	formOldID                        // 3.x, QoS 1 and 2
	form5                            // MQTT 5, QoS 0
	form5ID                          // MQTT 5, QoS 1 and 2
)

// sendResult says what became of a PUBLISH that was to be appended.
type sendResult uint8

const (
	sent sendResult = iota
	noRoom
	tooLarge
)

// deliverQoS0 appends the message or drops it.
func (c *conn) deliverQoS0(d *bridge.Delivery) bridge.Outcome {
	switch c.sendDelivery(d, 0) {
	case tooLarge:
		return d.Drop(bridge.DropTooLarge)
	case noRoom:
		if d.LiveOnly {
			return bridge.NotNow
		}
		return d.Drop(bridge.DropSlowConsumer)
	}
	return bridge.Delivered
}

// deliverAcked appends a QoS 1 or 2 message and remembers it in the window; s.mu is held. ok is false where there is no
// room and the message must be queued.
func (c *conn) deliverAcked(d *bridge.Delivery, s *session) (o bridge.Outcome, ok bool) {
	f := flight{state: flightSent}
	if s.persistent() || d.Subscription.Shared() {
		f.queued = keep(d)
	} else {
		f.qos, f.retain = d.QoS, d.Retain
	}
	stores := s.stores(d)
	if stores && (d.QoS == 2 || s.resend < s.window.n) {
		r := s.store(&f.queued, s.window.next(), d.Body(), d.Durability())
		d.Later(r)
		if s.enlist(f.queued, r); s.resend == s.window.n-1 && !s.pumpWindow(d.Batch, c) {
			c.expectRoom(d.Batch)
		}
		return bridge.Queued, true
	}
	id := s.fly(f)
	switch c.sendDelivery(d, id) {
	case tooLarge:
		s.land()
		return d.Drop(bridge.DropTooLarge), true
	case noRoom:
		s.land()
		return 0, false
	}
	if stores { // at QoS 1 it may be on its way before it is kept: at worst it comes twice
		q := &s.window.at(s.window.n - 1).queued
		d.Later(s.store(q, id, d.Body(), d.Durability()))
	}
	s.resend = s.window.n
	s.sent++
	s.srv.counters.Inflight.Add(1)
	return bridge.Delivered, true
}

// expectRoom has the output call pump when it has been drained; s.mu is held.
func (c *conn) expectRoom(b *bridge.Batch) {
	c.out.mu.Lock()
	c.out.waiting = true
	c.out.mu.Unlock()
	b.Touch(c)
}

// sendDelivery appends the PUBLISH of d, with packet identifier id where QoS asks for one. The encoding is made once for all
// connections of one kind; what differs is put into the copy.
func (c *conn) sendDelivery(d *bridge.Delivery, id uint16) sendResult {
	m := d.Message
	if len(d.Identifiers) > 0 && c.version == 5 || c.aliasesOut != nil {
		return c.sendOwn(d.Batch, m, d.QoS, d.Retain, false, d.Identifiers, id, c.out.limit)
	}
	key := formOld
	if c.version == 5 {
		key = form5
	}
	if d.QoS > 0 {
		key++
	}
	form := d.Form(key)
	if len(*form) == 0 {
		*form = appendPublishForm(*form, m, c.version == 5, d.QoS > 0, d.Batch.Now)
	}
	n := len(*form)
	if c.maxPacket != 0 && n > c.maxPacket {
		return tooLarge
	}
	o := &c.out
	o.mu.Lock()
	if !o.room(n, o.limit) {
		o.mu.Unlock()
		return noRoom
	}
	p := o.begin(d.Batch, c)
	at := len(p)
	p = append(p, *form...)
	p[at] |= publishFlags(d.QoS, d.Retain, false)
	if d.QoS > 0 {
		k := at + headerSize(p[at:]) + 2 + len(m.Topic)
		p[k], p[k+1] = byte(id>>8), byte(id)
	}
	o.end(p)
	o.mu.Unlock()
	return sent
}

// headerSize is the size of the fixed header of an encoded packet.
func headerSize(p []byte) int {
	n := 2
	for p[n-1] >= 0x80 {
		n++
	}
	return n
}

func publishFlags(qos bridge.QoS, retain, dup bool) byte {
	f := byte(qos) << 1
	if retain {
		f |= 1
	}
	if dup {
		f |= 8
	}
	return f
}

// sendOwn encodes a PUBLISH for this connection alone: with subscription identifiers, topic alias, or at another time than
// that of the others. limit is how many unsent bytes there may be.
func (c *conn) sendOwn(b *bridge.Batch, m *bridge.Message, qos bridge.QoS, retain, dup bool, ids []uint32, id uint16, limit int) sendResult {
	v5 := c.version == 5
	props := 0
	if v5 {
		props = publishPropertiesSize(m, ids, 0)
	}
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	topic, alias := string(m.Topic), uint16(0)
	if c.aliasesOut != nil && len(topic) > aliasSize {
		known := false
		if alias, known = c.aliasesOut.use(topic); known {
			topic = ""
		}
		if alias != 0 {
			props += aliasSize
		}
	}
	n := publishSize(m, topic, v5, qos > 0, props)
	if alias != 0 && topic != "" && c.maxPacket != 0 && n > c.maxPacket { // the topic and a new alias are longer than the topic
		c.aliasesOut.forget(topic)
		alias, props = 0, props-aliasSize
		n = publishSize(m, topic, v5, qos > 0, props)
	}
	if c.maxPacket != 0 && n > c.maxPacket {
		c.aliasesOut.forget(topic)
		return tooLarge
	}
	if !o.room(n, limit) {
		c.aliasesOut.forget(topic)
		return noRoom
	}
	p := o.begin(b, c)
	at := len(p)
	p = appendPublish(p, m, topic, v5, qos > 0, props, ids, alias, b.Now)
	p[at] |= publishFlags(qos, retain, dup)
	if qos > 0 {
		k := at + headerSize(p[at:]) + 2 + len(topic)
		p[k], p[k+1] = byte(id>>8), byte(id)
	}
	o.end(p)
	return sent
}

// aliasSize is what a topic alias takes in a packet: nothing is gained by one for a topic that is not longer.
const aliasSize = 3

func publishSize(m *bridge.Message, topic string, v5, withID bool, props int) int {
	n := 2 + len(topic) + len(m.Payload)
	if withID {
		n += 2
	}
	if v5 {
		n += varintSize(props) + props
	}
	return 1 + varintSize(n) + n
}
