package broker

import (
	"slices"

	"github.com/isthmus-iot/isthmus/bridge"
)

// handlePublish routes a PUBLISH straight from the read buffer and acknowledges it as its QoS asks (MQTT 5 section 3.3.4).
func (c *conn) handlePublish(b *bridge.Batch, w *workspace, first byte, body []byte) error {
	m, pk := &w.msg, &w.publish
	l := c.srv.limits.Load()
	if err := parsePublish(first, body, c.version == 5, m, pk, l, b.Now); err != nil {
		return err
	}
	if err := c.resolveAlias(m, pk); err != nil {
		return err
	}
	l = c.promised()
	switch {
	case int(m.QoS) > l.MaximumQoS:
		return &violation{codeQoSNotSupported, "QoS is above Maximum QoS"}
	case m.Retain && l.NoRetain:
		return &violation{codeRetainNotSupported, "retained messages are not available"}
	}
	if m.QoS == 2 {
		if kept, ok := c.session.isReceived(pk.id); ok { // sent again: it was delivered (MQTT-4.3.3-10)
			c.ack(b, kept, tPubrec<<4, pk.id, codeSuccess, "")
			return nil
		}
		if c.session.receivedCount() >= l.InflightIn {
			return &violation{codeReceiveMaximum, "more QoS 2 messages under way than Receive Maximum"}
		}
		if c.session.number != 0 { // after a crash either both the message and its identifier are there or neither
			release := c.srv.store.Hold()
			defer release()
		}
	}
	if m.QoS > 0 && c.version == 5 && c.owed.unacknowledged() > 0 && c.owed.unacknowledged()+c.session.receivedCount() >= l.InflightIn {
		return &violation{codeReceiveMaximum, "more messages under way than Receive Maximum"}
	}
	result, err := c.client.PublishAsync(b, m)
	if err != nil {
		return c.refusePublish(b, m, pk, err)
	}
	code := byte(codeSuccess)
	if result.Reached == 0 {
		code = codeNoMatchingSubscribers
	}
	switch m.QoS {
	case 1:
		c.ack(b, result.Receipt, tPuback<<4, pk.id, code, "")
	case 2:
		kept := c.session.receive(pk.id)
		c.ack(b, max(kept, result.Receipt), tPubrec<<4, pk.id, code, "")
	}
	w.stored = w.stored || result.Receipt != 0
	return nil
}

// refusePublish answers a message that the hub did not take: it reaches nobody, at any QoS and version.
func (c *conn) refusePublish(b *bridge.Batch, m *bridge.Message, pk *publishPacket, err error) error {
	reason := bridge.ReasonOf(err)
	if reason == bridge.BadTopic {
		// What is not a topic name at all is a violation; a topic over a limit is only refused.
		if _, bad := bridge.ParseTopic(string(m.Topic)); bad != nil {
			if !wellFormed(string(m.Topic)) {
				return malformed("topic name is not well-formed UTF-8")
			}
			return &violation{codeTopicInvalid, bad.Error()}
		}
	}
	c.log.Debug("publish refused", "client", c.session.id, "topic", string(m.Topic), "reason", reason)
	if m.QoS == 0 {
		return nil
	}
	code, text := wire[reason].publish, err.Error()
	if c.version != 5 {
		if !mayAckOld(reason) {
			return err
		}
		code, text = codeSuccess, ""
	}
	if m.QoS == 1 {
		c.ack(b, 0, tPuback<<4, pk.id, code, text)
		return nil
	}
	kept := bridge.Receipt(0)
	if c.version != 5 {
		kept = c.session.receive(pk.id)
	}
	c.ack(b, kept, tPubrec<<4, pk.id, code, text)
	return nil
}

// resolveAlias puts the topic of an alias into m, or remembers an alias (MQTT 5 section 3.3.2.3.4).
func (c *conn) resolveAlias(m *bridge.Message, pk *publishPacket) error {
	if pk.alias == 0 {
		if m.Topic == "" {
			if c.version == 5 {
				return protocolError("topic name is empty and there is no topic alias")
			}
			return malformed("topic name is empty")
		}
		return nil
	}
	if int(pk.alias) > c.promised().TopicAliasesIn {
		return &violation{codeTopicAliasInvalid, "topic alias is above Topic Alias Maximum"}
	}
	i := int(pk.alias) - 1
	if m.Topic == "" {
		if i >= len(c.aliasesIn) || c.aliasesIn[i] == "" {
			return protocolError("topic alias is not known")
		}
		m.Topic = bridge.Topic(c.aliasesIn[i])
		return nil
	}
	if len(m.Topic) > c.srv.hub.Limits().TopicBytes {
		if i < len(c.aliasesIn) {
			c.aliasesIn[i] = "" // what follows is not meant for the topic that it had
		}
		return nil // it will be refused; it is not worth remembering
	}
	if !wellFormed(string(m.Topic)) {
		return malformed("topic name is not well-formed UTF-8")
	}
	for len(c.aliasesIn) <= i {
		c.aliasesIn = append(c.aliasesIn, "")
	}
	if c.aliasesIn[i] != string(m.Topic) {
		c.aliasesIn[i] = string(append([]byte(nil), m.Topic...))
	}
	return nil
}

// handleAck takes an acknowledgement of the client's and sends what it makes room for.
func (c *conn) handleAck(b *bridge.Batch, kind byte, a ackPacket) error {
	if a.code != codeSuccess && !ackMayHave(kind, a.code) {
		return protocolError("reason code that such an acknowledgement does not have") // MQTT-3.4.2-1 and its like
	}
	s := c.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live.Load() != c {
		return errStopped // taken over meanwhile
	}
	if kind == tPubrel {
		code := byte(codeSuccess)
		if !s.forget(a.id) {
			code = codeIdentifierNotFound
		}
		c.ack(b, s.written, tPubcomp<<4, a.id, code, "")
		return nil
	}
	k, f := s.window.find(a.id)
	if f != nil && k >= s.resend {
		f = nil // not sent on this connection yet
	}
	switch {
	case f == nil && kind == tPubrec && c.version == 5:
		c.ack(b, 0, tPubrel<<4|2, a.id, codeIdentifierNotFound, "")
		return nil
	case f == nil && kind == tPubrec:
		c.ack(b, 0, tPubrel<<4|2, a.id, codeSuccess, "")
		return nil
	case f == nil:
		return nil // a late acknowledgement of what a former connection was told
	case kind == tPuback && (f.qos != 1 || f.state != flightSent),
		kind == tPubrec && f.qos != 2,
		kind == tPubcomp && (f.qos != 2 || f.state != flightReleased):
		return protocolError("acknowledgement does not fit the message's QoS")
	case kind == tPubrec && a.code < codeUnspecified:
		if f.state == flightSent {
			f.state = flightReleased
			f.msg = nil // never sent again after PUBREL (MQTT-4.3.3-6)
			if f.size != 0 {
				f.receipt = s.srv.store.Released(s.number, f.position, a.id)
			}
		}
		c.ack(b, f.receipt, tPubrel<<4|2, a.id, codeSuccess, "")
		return nil
	}
	// PUBACK, PUBCOMP, or a PUBREC that refuses (MQTT-4.4.0-2).
	s.complete(k)
	s.sent--
	if s.backlog.Load() || len(s.cursors) > 0 {
		s.pump(b)
	}
	return nil
}

// receive remembers the identifier of a QoS 2 message until it is released.
func (s *session) receive(id uint16) (kept bridge.Receipt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.received = append(s.received, id)
	if s.number != 0 {
		s.written = s.srv.store.Receive(s.number, id)
	}
	return s.written
}

func (s *session) receivedCount() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.received)
}

// isReceived reports whether the message of an identifier was received and not released; kept is when that is kept.
func (s *session) isReceived(id uint16) (kept bridge.Receipt, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.written, slices.Contains(s.received, id)
}

// forget releases an identifier and reports whether it was there; s.mu is held.
func (s *session) forget(id uint16) bool {
	i := slices.Index(s.received, id)
	if i < 0 {
		return false
	}
	if s.number != 0 {
		s.written = s.srv.store.Release(s.number, id)
	}
	s.received[i] = s.received[len(s.received)-1]
	s.received = s.received[:len(s.received)-1]
	if len(s.received) == 0 && cap(s.received) > 64 {
		s.received = nil
	}
	return true
}
