package crash

import (
	"math/rand/v2"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// session is a client's half of a session (MQTT 5 section 4.1): it outlives connections and is in doubt about nothing, for the
// client is not killed.
type session struct {
	exists   bool             // a CONNACK with success has come
	outgoing []*outgoing      // not completed, in the order of publishing
	ids      map[uint16]bool  // in use for what we send
	held     map[uint16]*held // QoS 2 messages received and not released
}

// outgoing is a message on its way to the broker.
type outgoing struct {
	id       uint16
	msg      *publication
	received bool // PUBREC has come: only PUBREL is sent from now on
	rels     int  // PUBREL packets sent
}

// held is a QoS 2 message from the broker of which the application has been told.
type held struct {
	msg      *publication
	answered bool // PUBREC was sent at least once
}

func newSession() session {
	return session{ids: make(map[uint16]bool), held: make(map[uint16]*held)}
}

// claim takes an identifier that is free, one of the smallest: each is used again soon.
func (s *session) claim(dice *rand.Rand) uint16 {
	id := uint16(1 + dice.IntN(len(s.ids)+4))
	for s.ids[id] {
		id++
	}
	s.ids[id] = true
	return id
}

// of finds the message of an identifier.
func (s *session) of(id uint16) *outgoing {
	for _, o := range s.outgoing {
		if o.id == id {
			return o
		}
	}
	return nil
}

// forget ends a message.
func (s *session) forget(o *outgoing) {
	delete(s.ids, o.id)
	for i := range s.outgoing {
		if s.outgoing[i] == o {
			s.outgoing = append(s.outgoing[:i], s.outgoing[i+1:]...)
			return
		}
	}
}

// publish appends a PUBLISH of o.
func (c *client) publish(b []byte, o *outgoing, dup bool) []byte {
	m := o.msg
	c.h.sending(event{who: c.who, conn: c.conn.number, out: true, kind: wire.PUBLISH, id: o.id, dup: dup, msg: m})
	if m.topic.qos == 1 {
		c.conn.acks = append(c.conn.acks, o.id)
	} else {
		c.conn.recs = append(c.conn.recs, o.id)
	}
	p := wire.Publish{Topic: m.topic.name, Payload: m.payload(), QoS: m.topic.qos, Retain: m.retain, ID: o.id, Dup: dup}
	if c.version >= wire.V5 {
		p.Props = m.props
	}
	return p.Append(b, c.version)
}

// release appends a PUBREL of o.
func (c *client) release(b []byte, o *outgoing) []byte {
	o.rels++
	c.conn.comps[o.id] = true
	c.h.note(event{who: c.who, conn: c.conn.number, out: true, kind: wire.PUBREL, id: o.id, msg: o.msg})
	return wire.Ack{Type: wire.PUBREL, ID: o.id}.Append(b, c.version)
}

// resume sends again what former connections left unfinished, in the order in which it was published (section 4.4).
func (c *client) resume(present bool) {
	var b []byte
	for _, o := range append([]*outgoing(nil), c.session.outgoing...) {
		switch {
		case !o.received:
			b = c.publish(b, o, present)
		case present:
			b = c.release(b, o)
		default: // the broker has forgotten that it waits for this
			c.session.forget(o)
			c.h.complete(o.msg)
		}
	}
	c.send(b)
}

// takeAck handles PUBACK, PUBREC and PUBCOMP.
func (c *client) takeAck(p wire.Packet) {
	o := c.session.of(p.ID)
	e := event{who: c.who, conn: c.conn.number, kind: p.Type, id: p.ID}
	if o != nil {
		e.msg = o.msg
	}
	if p.Code != 0 {
		e.text = p.Code.String()
	}
	owed := false
	switch p.Type {
	case wire.PUBACK:
		owed = take(&c.conn.acks, p.ID)
	case wire.PUBREC:
		owed = take(&c.conn.recs, p.ID)
	case wire.PUBCOMP:
		owed = c.conn.comps[p.ID]
		delete(c.conn.comps, p.ID)
	}
	if !owed || o == nil {
		c.h.note(e)
		c.h.wrong(c.who, e.msg, "acknowledgement", "%s that does not belong to the oldest %s sent on this connection: it waits for PUBACK %v, PUBREC %v", p,
			map[wire.Type]string{wire.PUBACK: "QoS 1 PUBLISH", wire.PUBREC: "QoS 2 PUBLISH", wire.PUBCOMP: "PUBREL"}[p.Type], c.conn.acks, c.conn.recs)
		return
	}
	if p.Type != wire.PUBCOMP && p.Code.Failed() {
		c.h.note(e)
		if c.faulty && (p.Code == 0x83 || p.Code == 0x97 || p.Code == 0x80) {
			c.session.forget(o)
			c.h.complete(o.msg)
			return
		}
		c.h.wrong(c.who, o.msg, "refused", "%s was refused: %s %s", o.msg, p.Code, p.Props)
		c.session.forget(o)
		c.h.complete(o.msg)
		return
	}
	switch p.Type {
	case wire.PUBACK:
		c.h.acknowledged(e)
	case wire.PUBREC:
		c.h.acknowledged(e)
		o.received = true
		c.answer(answer{kind: wire.PUBREL, id: o.id, out: o})
		return
	case wire.PUBCOMP:
		c.h.note(e)
		if p.Code.Failed() && o.rels == 1 {
			c.h.wrong(c.who, o.msg, "forgotten", "the PUBREL of %s was sent for the first time and answered %s: the broker has forgotten the message that it acknowledged with PUBREC", o.msg, p.Code)
		}
	}
	c.session.forget(o)
	c.h.complete(o.msg)
}
