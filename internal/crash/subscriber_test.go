package crash

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// subscriber is a client that receives. Some filters it keeps from the beginning to the end, others come and go.
type subscriber struct {
	*client
	reader  *reader
	stable  []*subscription // to be asked for one after the other
	extra   []string        // filters that come and go
	active  []*subscription // of those
	request *request        // under way
	ids     uint32          // subscription identifiers given
}

// request is a SUBSCRIBE or UNSUBSCRIBE until it is answered.
type request struct {
	sub   *subscription
	leave bool
	id    uint16
	sends int
}

func (s *subscriber) properties() (ps wire.Props) {
	if s.receiveMax > 0 {
		ps = append(ps, wire.ReceiveMaximum.Int(uint32(s.receiveMax)))
	}
	return ps
}

// resumed asks again for what was not answered, and for everything where the session is gone.
func (s *subscriber) resumed(present bool) {
	if !present {
		for _, sub := range s.reader.subscriptions {
			if sub.granted != 0 && sub.leaving == 0 {
				s.stable = append(s.stable, sub)
			}
		}
	}
	if s.request != nil {
		s.ask()
	}
}

// act disturbs the connection or changes a subscription.
func (s *subscriber) act() {
	switch {
	case s.dice.IntN(40) == 0:
		s.disturb(1500 * time.Millisecond)
	case s.dice.IntN(200) == 0:
		s.disturb(8 * time.Second)
	case s.dice.IntN(100) == 0:
		s.event("reads nothing for a while")
		s.pause(time.Duration(s.dice.IntN(400)) * time.Millisecond)
	case s.request == nil && len(s.stable) == 0 && s.dice.IntN(12) == 0:
		s.change()
	default:
		s.finish()
	}
}

// change subscribes to a filter that it does not have, or unsubscribes from one that it need not keep.
func (s *subscriber) change() {
	filter := s.extra[s.dice.IntN(len(s.extra))]
	i := slices.IndexFunc(s.active, func(sub *subscription) bool { return sub.filter == filter })
	if i < 0 {
		sub := s.subscription(filter, byte(1+s.dice.IntN(2)))
		s.active = append(s.active, sub)
		s.request = &request{sub: sub}
	} else {
		s.request = &request{sub: s.active[i], leave: true}
		s.active = slices.Delete(s.active, i, i+1)
	}
	s.ask()
}

// subscription makes one that is not asked for yet.
func (s *subscriber) subscription(filter string, qos byte) *subscription {
	sub := &subscription{filter: filter, qos: qos}
	if s.version >= wire.V5 {
		if s.dice.IntN(4) > 0 {
			s.ids++
			sub.identifier = s.ids * 50
		}
		sub.handling = byte(s.dice.IntN(2))
		if s.reader.asPublished {
			sub.handling = 2
		}
	}
	s.h.subscribed(s.reader, sub)
	return sub
}

// finish asks for the next filter that is to be kept.
func (s *subscriber) finish() {
	if s.request == nil && len(s.stable) > 0 {
		s.request = &request{sub: s.stable[0]}
		s.stable = s.stable[1:]
		s.ask()
	}
}

func (s *subscriber) idle() bool {
	return s.request == nil && len(s.stable) == 0 && len(s.session.held) == 0 && len(s.pending) == 0
}

// ask sends the request.
func (s *subscriber) ask() {
	r := s.request
	if r.id != 0 {
		delete(s.session.ids, r.id)
	}
	r.id = s.session.claim(s.dice)
	r.sends++
	e := event{who: s.who, conn: s.conn.number, out: true, kind: wire.SUBSCRIBE, id: r.id, text: fmt.Sprintf("%s qos %d identifier %d", r.sub.filter, r.sub.qos, r.sub.identifier)}
	if r.leave {
		e.kind = wire.UNSUBSCRIBE
		s.h.stamp(e, &r.sub.leaving)
		s.send(wire.Unsubscribe{ID: r.id, Filters: []string{r.sub.filter}}.Append(nil, s.version))
		return
	}
	s.h.stamp(e, &r.sub.asked)
	p := wire.Subscribe{ID: r.id, Filters: []wire.Filter{{
		Filter: r.sub.filter, QoS: r.sub.qos, RetainAsPublished: s.reader.asPublished, RetainHandling: r.sub.handling,
	}}}
	if r.sub.identifier != 0 {
		p.Props = wire.Props{wire.SubscriptionIdentifier.Int(r.sub.identifier)}
	}
	s.send(p.Append(nil, s.version))
}

func (s *subscriber) take(p wire.Packet) bool {
	switch p.Type {
	case wire.PUBLISH:
		s.takePublish(p)
	case wire.PUBREL:
		s.takePubrel(p)
	case wire.SUBACK, wire.UNSUBACK:
		s.answered(p)
	default:
		return false
	}
	return true
}

// answered takes SUBACK and UNSUBACK.
func (s *subscriber) answered(p wire.Packet) {
	r := s.request
	if r == nil || p.ID != r.id || r.leave != (p.Type == wire.UNSUBACK) {
		s.h.wrong(s.who, nil, "unexpected", "%s", p)
		return
	}
	e := event{who: s.who, conn: s.conn.number, kind: p.Type, id: p.ID, text: r.sub.filter}
	s.request = nil
	delete(s.session.ids, r.id)
	if r.leave {
		s.h.stamp(e, &r.sub.left)
		if len(p.Codes) == 1 && p.Codes[0] != 0 && r.sends == 1 {
			s.h.wrong(s.who, nil, "subscription lost", "UNSUBSCRIBE of %s was answered %s", r.sub.filter, p.Codes[0])
		}
		return
	}
	s.h.stamp(e, &r.sub.granted)
	if len(p.Codes) != 1 || p.Codes[0] != wire.Code(r.sub.qos) {
		s.h.wrong(s.who, nil, "refused", "SUBSCRIBE to %s with QoS %d was answered %s", r.sub.filter, r.sub.qos, p)
	}
}

// takePublish takes a message: the application gets it, unless it is a QoS 2 message that is sent again.
func (s *subscriber) takePublish(p wire.Packet) {
	m := s.h.find(p.Topic, p.Payload)
	e := event{who: s.who, conn: s.conn.number, kind: wire.PUBLISH, id: p.ID, dup: p.Dup, msg: m, text: fmt.Sprintf("qos %d", p.QoS)}
	if m == nil || p.QoS == 0 {
		s.h.note(e)
		s.h.wrong(s.who, m, "unknown message", "nobody has published %s", p)
		return
	}
	if s.conn.open[p.ID] {
		s.h.note(e)
		s.h.wrong(s.who, m, "identifier in use", "%s: the message that this connection brought with the identifier is not completed", p)
		return
	}
	s.conn.open[p.ID] = true
	if s.receiveMax > 0 && len(s.conn.open) > s.receiveMax {
		s.h.wrong(s.who, m, "receive maximum", "%d messages are under way, the Receive Maximum is %d", len(s.conn.open), s.receiveMax)
	}
	if why := differs(s.reader, m, p); why != "" {
		s.h.wrong(s.who, m, "content", "%s: %s", p, why)
	}
	d := delivery{
		msg: m, qos: p.QoS, dup: p.Dup, retain: p.Retain, id: p.ID, conn: s.conn.number, identifiers: p.Props.Ints(wire.SubscriptionIdentifier),
	}
	if p.QoS == 1 {
		s.h.delivered(s.reader, e, d)
		s.answer(answer{kind: wire.PUBACK, id: p.ID, msg: m})
		return
	}
	if before := s.session.held[p.ID]; before == nil {
		s.session.held[p.ID] = &held{msg: m}
		s.h.delivered(s.reader, e, d)
	} else {
		e.text += " again"
		s.h.note(e)
		switch {
		case before.msg != m:
			s.h.wrong(s.who, m, "identifier in use", "%s: PUBREL has not come for %s, which has this identifier", p, before.msg)
		case !p.Dup:
			s.h.wrong(s.who, m, "no DUP", "%s was sent before and comes again without DUP", p)
		}
	}
	s.answer(answer{kind: wire.PUBREC, id: p.ID, msg: m})
}

// takePubrel releases a QoS 2 message.
func (s *subscriber) takePubrel(p wire.Packet) {
	h := s.session.held[p.ID]
	e := event{who: s.who, conn: s.conn.number, kind: wire.PUBREL, id: p.ID}
	if h != nil {
		e.msg = h.msg
	}
	s.h.note(e)
	switch {
	case h != nil && !h.answered:
		s.h.wrong(s.who, h.msg, "release", "%s came before any PUBREC was sent for it", p)
	case take(&s.conn.rels, p.ID):
	case slices.Contains(s.conn.rels, p.ID):
		s.h.wrong(s.who, e.msg, "release", "%s came before that of %d, whose PUBREC was sent earlier", p, s.conn.rels[0])
	case s.conn.released[p.ID]:
		s.h.wrong(s.who, e.msg, "release", "%s came twice on a connection", p)
	default: // sent again, since a former connection ended
		s.conn.released[p.ID] = true
	}
	delete(s.session.held, p.ID)
	s.answer(answer{kind: wire.PUBCOMP, id: p.ID, msg: e.msg})
}

// differs compares what came besides topic and payload.
func differs(r *reader, m *publication, p wire.Packet) string {
	switch {
	case r.asPublished && p.Retain != m.retain:
		return fmt.Sprintf("retain is %t and was %t", p.Retain, m.retain)
	case p.Retain && !m.retain:
		return "retain is set and was not"
	case !r.v5:
		return ""
	case p.Props.Text(wire.ContentType) != m.props.Text(wire.ContentType),
		!bytes.Equal(p.Props.Bytes(wire.CorrelationData), m.props.Bytes(wire.CorrelationData)),
		!slices.Equal(p.Props.Users(), m.props.Users()):
		return fmt.Sprintf("properties are %s and were %s", p.Props, m.props)
	}
	switch left, had := p.Props.Int(wire.MessageExpiry), m.props.Int(wire.MessageExpiry); {
	case had == 0 && left > 0, left > had+1, left+24*60*60 < had: // seconds are rounded
		return fmt.Sprintf("%d s are left to live of %d s", left, had)
	}
	return ""
}
