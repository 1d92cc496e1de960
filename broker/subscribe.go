package broker

import (
	"github.com/isthmus-iot/isthmus/bridge"
)

// handleSubscribe adds subscriptions and answers with one code for each filter (MQTT 5 section 3.8.4).
func (c *conn) handleSubscribe(b *bridge.Batch, body []byte) error {
	l := c.srv.limits.Load()
	pk, err := decodeSubscribe(body, c.version, l)
	if err != nil {
		return err
	}
	codes := make([]byte, len(pk.filters))
	var streams []retainedStream
	var kept bridge.Receipt
	text := ""
	for i, f := range pk.filters {
		code, stream, r, err := c.subscribe(f, l)
		kept = max(kept, r)
		if err != nil {
			if c.version == 5 && code == codeProtocolError {
				return err
			}
			text = err.Error()
			c.log.Debug("subscribe refused", "client", c.session.id, "topic", f.filter, "reason", err)
		}
		switch {
		case c.version == 3 && code == codeNotAuthorized:
			code = byte(f.options.QoS) // 3.1 has no word for it and asks for a positive answer (section 3.8)
		case c.version != 5 && code >= codeUnspecified:
			code = codeUnspecified // MQTT-3.9.3-2 of 3.1.1
		}
		codes[i] = code
		if stream != nil {
			streams = append(streams, *stream)
		}
	}
	if c.quiet {
		text = ""
	}
	c.ackPacket(b, kept, encodeSuback(tSuback, pk.id, codes, c.version, text, c.maxPacket), streams)
	return nil
}

// stream begins to send retained values.
func (c *conn) stream(b *bridge.Batch, streams []retainedStream) {
	if len(streams) == 0 {
		return
	}
	s := c.session
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live.Load() != c {
		return // taken over meanwhile
	}
	for _, r := range streams {
		// What is left of a former one of the same filter is met again by the new one.
		s.dropStreams(r.sub.Filter)
		s.cursors = append(s.cursors, r)
	}
	s.pump(b)
}

// subscribe adds one subscription, which is kept when kept is; stream is set where retained values are to be sent for it.
func (c *conn) subscribe(f filterRequest, l *Limits) (code byte, stream *retainedStream, kept bridge.Receipt, err error) {
	filter, err := c.srv.hub.CheckFilter(f.filter)
	if err != nil {
		return codeFilterInvalid, nil, 0, err
	}
	o := f.options
	o.QoS = min(o.QoS, bridge.QoS(l.MaximumQoS))
	group, _ := filter.Share()
	switch {
	case group != "" && l.NoShared:
		return codeSharedNotSupported, nil, 0, bridge.Refuse(bridge.Unsupported, "shared subscriptions are not available")
	case group != "" && o.NoLocal: // MQTT-3.8.3-4
		return codeProtocolError, nil, 0, protocolError("no local on a shared subscription")
	case l.NoWildcards && filter.Wild():
		return codeWildcardNotSupported, nil, 0, bridge.Refuse(bridge.Unsupported, "wildcard subscriptions are not available")
	}
	if c.isBridge {
		o.NoLocal, o.RetainAsPublished = group == "", true
	}
	sub, existed, err := c.client.Subscribe(filter, o, c.session)
	if err != nil {
		return wire[bridge.ReasonOf(err)].subscribe, nil, 0, err
	}
	if s := c.session; s.number != 0 {
		kept = s.srv.store.SaveSubscription(s.number, string(filter), mustMarshal(subscriptionRecord{
			QoS: o.QoS, NoLocal: o.NoLocal, Published: o.RetainAsPublished, Handling: o.RetainHandling, Identifier: o.Identifier,
		}))
	}
	send := o.RetainHandling == bridge.RetainSend || o.RetainHandling == bridge.RetainSendIfNew && !existed
	if send && group == "" { // MQTT 5 section 4.8.2: not for shared subscriptions
		stream = &retainedStream{cursor: c.client.Retained(filter), sub: sub}
		if o.Identifier != 0 {
			stream.ids = []uint32{o.Identifier}
		}
	}
	return byte(o.QoS), stream, kept, nil
}

// handleUnsubscribe removes subscriptions (MQTT 5 section 3.10.4).
func (c *conn) handleUnsubscribe(b *bridge.Batch, body []byte) error {
	pk, err := decodeUnsubscribe(body, c.version, c.srv.limits.Load())
	if err != nil {
		return err
	}
	codes := make([]byte, len(pk.filters))
	for i, f := range pk.filters {
		sub := c.client.Unsubscribe(bridge.Filter(f.filter))
		if sub == nil {
			codes[i] = codeNoSubscriptionExisted
			if len(f.filter) <= c.srv.hub.Limits().TopicBytes { // a longer one is not worth looking at
				if _, err := bridge.ParseFilter(f.filter); err != nil {
					codes[i] = codeFilterInvalid
				}
			}
			continue
		}
		c.session.endStreams(sub)
		if s := c.session; s.number != 0 {
			s.unsubscribed = s.srv.store.RemoveSubscription(s.number, f.filter)
		}
	}
	if c.version != 5 {
		codes = nil
	}
	// Also where there was nothing to remove: an UNSUBSCRIBE before may have done so, and not be kept yet.
	c.ackPacket(b, c.session.unsubscribed, encodeSuback(tUnsuback, pk.id, codes, c.version, "", c.maxPacket), nil)
	return nil
}

// endStreams stops the retained values of a subscription that is gone.
func (s *session) endStreams(sub *bridge.Subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropStreams(sub.Filter)
}

// dropStreams stops the retained values of a filter; s.mu is held.
func (s *session) dropStreams(f bridge.Filter) {
	kept := s.cursors[:0]
	for _, r := range s.cursors {
		if r.sub.Filter != f {
			kept = append(kept, r)
		}
	}
	clear(s.cursors[len(kept):])
	s.cursors = kept
}
