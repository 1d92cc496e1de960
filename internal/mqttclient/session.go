package mqttclient

import (
	"context"
	"errors"
	"sync"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// Session is the client's half of a session, in memory: messages that were sent and not finished, and the QoS 2 messages
// that were received and not released. It serves one connection at a time.
type Session struct {
	ends bool // with its connection

	mu    sync.Mutex
	next  uint16
	ids   map[uint16]*outgoing // nil for SUBSCRIBE and UNSUBSCRIBE
	order []*outgoing          // in the order of sending; finished ones are removed from the front
	held  map[uint16]struct{}  // incoming QoS 2, until the PUBREL
	dead  error
	user  *Client // the connection it serves
}

// outgoing is a QoS 1 or 2 message on its way.
type outgoing struct {
	packet   wire.Publish
	released bool      // PUBREC has come and PUBREL was sent
	code     wire.Code // of the PUBREC
	finished bool
	counted  bool // holds a slot of the present connection
	done     func(wire.Code, error)
}

// NewSession makes an empty session.
func NewSession() *Session {
	return &Session{ids: make(map[uint16]*outgoing), held: make(map[uint16]struct{})}
}

// Unfinished counts the messages that were sent and not finished.
func (s *Session) Unfinished() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.order {
		if !o.finished {
			n++
		}
	}
	return n
}

var errNoID = errors.New("all 65535 packet identifiers are in use")

// claim takes a free packet identifier. s.mu is held.
func (s *Session) claim(o *outgoing) (uint16, error) {
	for range 65535 {
		s.next++
		if s.next == 0 {
			s.next = 1
		}
		if _, used := s.ids[s.next]; !used {
			s.ids[s.next] = o
			return s.next, nil
		}
	}
	return 0, errNoID
}

// claimID takes a packet identifier for a SUBSCRIBE or UNSUBSCRIBE.
func (s *Session) claimID() (uint16, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.claim(nil)
}

func (s *Session) free(id uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ids, id)
}

// send starts a message: it gets its identifier and its place in the order and on the wire at the same time.
func (s *Session) send(c *Client, p wire.Publish, done func(wire.Code, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead != nil {
		return s.dead
	}
	o := &outgoing{packet: p, done: done, counted: true}
	id, err := s.claim(o)
	if err != nil {
		return err
	}
	o.packet.ID = id
	if err := c.out.force(func(b []byte) []byte { return o.packet.Append(b, c.version) }); err != nil {
		delete(s.ids, id)
		return err
	}
	s.order = append(s.order, o)
	return nil
}

// acknowledged handles PUBACK, PUBREC and PUBCOMP.
func (s *Session) acknowledged(c *Client, p wire.Packet) error {
	s.mu.Lock()
	o := s.ids[p.ID]
	if o == nil || (o.packet.QoS == 1) != (p.Type == wire.PUBACK) || p.Type == wire.PUBCOMP && !o.released {
		s.mu.Unlock()
		// Unknown identifiers happen after a lost session. A PUBREC is answered, so that the server forgets it.
		if p.Type == wire.PUBREC && !p.Code.Failed() {
			return c.answer(wire.Ack{Type: wire.PUBREL, ID: p.ID, Code: 0x92})
		}
		return nil
	}
	if p.Type == wire.PUBREC && !p.Code.Failed() {
		o.released, o.code = true, p.Code
		o.packet.Payload = nil // the server has it
		err := c.answer(wire.Ack{Type: wire.PUBREL, ID: p.ID})
		s.mu.Unlock()
		return err
	}
	done, counted := s.finish(o), o.counted
	s.mu.Unlock()
	if counted {
		<-c.slots
	}
	code := p.Code
	switch {
	case p.Type == wire.PUBCOMP:
		code = o.code // the server took the message with its PUBREC; a PUBCOMP can only say that it has forgotten it since
	case code.Failed():
		done(code, &Refused{Packet: p.Type, Version: c.version, Code: code, Props: p.Props})
		return nil
	}
	done(code, nil)
	return nil
}

// finish forgets o. s.mu is held.
func (s *Session) finish(o *outgoing) (done func(wire.Code, error)) {
	o.finished, done, o.done = true, o.done, nil
	delete(s.ids, o.packet.ID)
	for len(s.order) > 0 && s.order[0].finished {
		s.order[0] = nil
		s.order = s.order[1:]
	}
	return done
}

// begin hands the session to a connection.
func (s *Session) begin(c *Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.user = c
	for _, o := range s.order {
		o.counted = false
	}
	for id, o := range s.ids {
		if o == nil {
			delete(s.ids, id) // its SUBACK will not come any more
		}
	}
	if !c.server.SessionPresent {
		clear(s.held)
	}
}

// resume sends again what the last connection left unfinished. New messages wait for it, so that they stay behind.
func (s *Session) resume(c *Client) {
	defer close(c.resumed)
	s.mu.Lock()
	unfinished := append([]*outgoing(nil), s.order...)
	s.mu.Unlock()
	for _, o := range unfinished {
		select {
		case c.slots <- struct{}{}:
		case <-c.done:
			return
		}
		if c.out.room(context.Background(), c) != nil {
			return
		}
		if err := s.again(c, o); err != nil {
			c.fail(err)
			return
		}
	}
}

// again sends o for another time, if that is still needed. The caller holds a slot for it.
func (s *Session) again(c *Client, o *outgoing) error {
	s.mu.Lock()
	if o.finished {
		s.mu.Unlock()
		<-c.slots
		return nil
	}
	if o.released && !c.server.SessionPresent {
		// The server took responsibility and has forgotten that it waited for the PUBREL.
		done, code := s.finish(o), o.code
		s.mu.Unlock()
		<-c.slots
		done(code, nil)
		return nil
	}
	defer s.mu.Unlock()
	o.counted = true
	if o.released {
		return c.answer(wire.Ack{Type: wire.PUBREL, ID: o.packet.ID})
	}
	packet := o.packet
	packet.Dup = c.server.SessionPresent
	return c.out.force(func(b []byte) []byte { return packet.Append(b, c.version) })
}

// end fails everything unfinished.
func (s *Session) end(err error) {
	s.mu.Lock()
	s.dead = err
	var calls []func(wire.Code, error)
	for _, o := range s.order {
		if !o.finished {
			calls = append(calls, o.done)
			o.finished = true
		}
	}
	s.order = nil
	clear(s.ids)
	s.mu.Unlock()
	for _, done := range calls {
		done(0, err)
	}
}

// End gives up what is unfinished: Publish calls that wait return [ErrLost]. The session is of no further use.
func (s *Session) End() { s.end(ErrLost) }

// has reports whether an incoming QoS 2 message was acknowledged and not released.
func (s *Session) has(id uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.held[id]
	return ok
}

// keep notes that an incoming QoS 2 message is acknowledged. One that a former connection brought does not count: its
// identifier may stand for another message by now.
func (s *Session) keep(c *Client, id uint16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.user == c {
		s.held[id] = struct{}{}
	}
}

// released forgets an incoming QoS 2 message and reports whether it was known.
func (s *Session) released(id uint16) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.held[id]
	delete(s.held, id)
	return ok
}
