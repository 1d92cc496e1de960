package crash

import (
	"slices"
	"testing"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// story is a history that is made up: one publisher, one topic of QoS 1 and one of QoS 2, one subscriber.
type story struct {
	*history
	one, two *topic
	reader   *reader
}

func newStory() *story {
	s := &story{history: newHistory()}
	s.client("p")
	s.one, s.two = s.topic("a/1", 1, false), s.topic("a/2", 2, false)
	s.reader = s.history.reader(s.client("s"), true, false)
	return s
}

// subscribe is SUBSCRIBE and SUBACK.
func (s *story) subscribe(filter string, qos byte, identifier uint32) *subscription {
	sub := &subscription{filter: filter, qos: qos, identifier: identifier}
	s.subscribed(s.reader, sub)
	s.stamp(event{who: 1}, &sub.asked)
	s.stamp(event{who: 1}, &sub.granted)
	return sub
}

// send is a PUBLISH that is not acknowledged.
func (s *story) send(t *topic, retain bool) *publication {
	m := s.message(t, retain, false)
	s.sending(event{kind: wire.PUBLISH, out: true, msg: m})
	return m
}

// publish is a message with its acknowledgement.
func (s *story) publish(t *topic, retain bool) *publication {
	m := s.send(t, retain)
	s.ack(m)
	return m
}

func (s *story) ack(m *publication) { s.acknowledged(event{msg: m}) }

// deliver is the delivery of messages, with the QoS of their topic where qos is 0.
func (s *story) deliver(conn int, qos byte, identifiers []uint32, messages ...*publication) {
	for _, m := range messages {
		d := delivery{msg: m, qos: qos, conn: conn, identifiers: identifiers}
		if qos == 0 {
			d.qos = m.topic.qos
		}
		s.delivered(s.reader, event{who: 1, kind: wire.PUBLISH, msg: m}, d)
	}
}

// TestOracle tells stories and wants the oracle to find what is wrong with them, and nothing else.
func TestOracle(t *testing.T) {
	for _, tc := range []struct {
		name string
		tell func(s *story)
		want []string
	}{
		{"all is well", func(s *story) {
			s.subscribe("a/#", 2, 0)
			s.deliver(1, 0, nil, s.publish(s.one, false), s.publish(s.two, true), s.publish(s.one, false))
		}, nil},
		{"a message is lost", func(s *story) {
			s.subscribe("a/#", 2, 0)
			m := s.publish(s.one, false)
			s.publish(s.one, false)
			s.deliver(1, 0, nil, m)
		}, []string{"lost"}},
		{"a message that was not acknowledged may be lost", func(s *story) {
			s.subscribe("a/#", 2, 0)
			s.send(s.one, false)
		}, nil},
		{"a message from before the subscription was granted may be missing", func(s *story) {
			m := s.send(s.one, false)
			s.subscribe("a/#", 2, 0)
			s.ack(m)
		}, nil},
		{"a message that was acknowledged after UNSUBSCRIBE may be missing", func(s *story) {
			sub := s.subscribe("a/#", 2, 0)
			m := s.send(s.one, false)
			s.stamp(event{who: 1}, &sub.leaving)
			s.ack(m)
		}, nil},
		{"a message that was acknowledged before UNSUBSCRIBE must not", func(s *story) {
			sub := s.subscribe("a/#", 2, 0)
			s.publish(s.one, false)
			s.stamp(event{who: 1}, &sub.leaving)
		}, []string{"lost"}},
		{"a message comes though it was published after UNSUBACK", func(s *story) {
			sub := s.subscribe("a/#", 2, 0)
			s.stamp(event{who: 1}, &sub.leaving)
			s.stamp(event{who: 1}, &sub.left)
			s.deliver(1, 0, nil, s.publish(s.one, false))
		}, []string{"not subscribed"}},
		{"a message comes that no filter matches", func(s *story) {
			s.subscribe("a/1", 2, 0)
			s.deliver(1, 0, nil, s.publish(s.two, false))
		}, []string{"not subscribed"}},
		{"QoS 2 is doubled", func(s *story) {
			s.subscribe("a/#", 2, 0)
			m := s.publish(s.two, false)
			s.deliver(1, 0, nil, m)
			s.deliver(2, 0, nil, m)
		}, []string{"doubled"}},
		{"QoS 2 comes again with QoS 1", func(s *story) {
			s.subscribe("a/#", 1, 0)
			sub := s.subscribe("a/2", 2, 0)
			m := s.send(s.two, false)
			s.stamp(event{who: 1}, &sub.leaving)
			s.ack(m)
			s.deliver(1, 2, nil, m)
			s.deliver(2, 1, nil, m)
		}, []string{"doubled"}},
		{"QoS 1 and then QoS 2, where a crash and a subscription came in between", func(s *story) {
			s.subscribe("a/#", 1, 0)
			m := s.send(s.two, false)
			s.deliver(1, 1, nil, m)
			s.subscribe("a/2", 2, 0)
			s.sending(event{msg: m, dup: true})
			s.ack(m)
			s.deliver(2, 2, nil, m)
		}, nil},
		{"QoS 2 that was granted QoS 1 may be repeated on another connection", func(s *story) {
			s.subscribe("a/#", 1, 0)
			m := s.publish(s.two, false)
			s.deliver(1, 1, nil, m)
			s.deliver(2, 1, nil, m)
		}, nil},
		{"QoS 2 that was granted QoS 1 is repeated on a connection", func(s *story) {
			s.subscribe("a/#", 1, 0)
			m := s.publish(s.two, false)
			s.deliver(1, 1, nil, m, m)
		}, []string{"repeated"}},
		{"QoS 1 is repeated on a connection", func(s *story) {
			s.subscribe("a/#", 1, 0)
			m := s.publish(s.one, false)
			s.deliver(1, 1, nil, m, m)
		}, []string{"repeated"}},
		{"QoS 1 that was published twice may be repeated on a connection", func(s *story) {
			s.subscribe("a/#", 1, 0)
			m := s.send(s.one, false)
			s.sending(event{msg: m, dup: true})
			s.ack(m)
			s.deliver(1, 1, nil, m, m)
		}, nil},
		{"QoS 2 arrives with QoS 1", func(s *story) {
			s.subscribe("a/#", 2, 0)
			s.deliver(1, 1, nil, s.publish(s.two, false))
		}, []string{"wrong QoS"}},
		{"the higher QoS of two filters counts", func(s *story) {
			s.subscribe("a/#", 1, 0)
			s.subscribe("a/2", 2, 0)
			s.deliver(1, 1, nil, s.publish(s.two, false))
		}, []string{"wrong QoS"}},
		{"two messages change places", func(s *story) {
			s.subscribe("a/#", 2, 0)
			a, b := s.publish(s.two, false), s.publish(s.two, false)
			s.deliver(1, 0, nil, b, a)
		}, []string{"order"}},
		{"repeated deliveries may go back", func(s *story) {
			s.subscribe("a/#", 2, 0)
			a, b, c := s.publish(s.one, false), s.publish(s.one, false), s.publish(s.one, false)
			s.deliver(1, 0, nil, a, b)
			s.deliver(2, 0, nil, a, b, c)
		}, nil},
		{"what comes first among repeated deliveries must not be older", func(s *story) {
			s.subscribe("a/#", 2, 0)
			a, b, c := s.publish(s.one, false), s.publish(s.one, false), s.publish(s.one, false)
			s.deliver(1, 0, nil, a, c)
			s.deliver(2, 0, nil, a, b, c)
		}, []string{"order"}},
		{"messages of different topics may change places", func(s *story) {
			s.subscribe("a/#", 2, 0)
			a, b := s.publish(s.one, false), s.publish(s.two, false)
			s.deliver(1, 0, nil, b, a)
		}, nil},
		{"a message published before and after a subscription may come late", func(s *story) {
			a, b := s.send(s.one, false), s.send(s.one, false)
			s.subscribe("a/#", 1, 0)
			s.sending(event{msg: a, dup: true})
			s.sending(event{msg: b, dup: true})
			s.ack(a)
			s.ack(b)
			s.deliver(1, 1, nil, b, a, b)
		}, nil},
		{"an identifier is missing", func(s *story) {
			s.subscribe("a/#", 1, 7)
			s.subscribe("a/1", 1, 8)
			s.deliver(1, 1, []uint32{8}, s.publish(s.one, false))
		}, []string{"identifier"}},
		{"an identifier is of another subscription", func(s *story) {
			s.subscribe("a/1", 1, 7)
			s.subscribe("a/2", 1, 8)
			s.deliver(1, 1, []uint32{7, 8}, s.publish(s.one, false))
		}, []string{"identifier"}},
		{"the retained value is the last", func(s *story) {
			s.publish(s.one, true)
			m := s.publish(s.one, true)
			s.publish(s.one, false)
			s.observe(1, s.one, m.n, s.now())
		}, nil},
		{"the retained value is an old one", func(s *story) {
			m := s.publish(s.one, true)
			s.publish(s.one, true)
			s.observe(1, s.one, m.n, s.now())
		}, []string{"retained"}},
		{"the retained value is gone", func(s *story) {
			s.publish(s.one, true)
			s.observe(1, s.one, 0, s.now())
		}, []string{"retained"}},
		{"the retained value is one that was not to be retained", func(s *story) {
			s.publish(s.one, true)
			m := s.publish(s.one, false)
			s.observe(1, s.one, m.n, s.now())
		}, []string{"retained"}},
		{"the retained value is one that was sent later and not acknowledged", func(s *story) {
			s.publish(s.one, true)
			m := s.send(s.one, true)
			s.observe(1, s.one, m.n, s.now())
		}, nil},
		{"the retained value was cleared", func(s *story) {
			s.publish(s.one, true)
			m := s.message(s.one, true, true)
			s.sending(event{msg: m})
			s.ack(m)
			s.observe(1, s.one, 0, s.now())
		}, nil},
		{"the retained value is back", func(s *story) {
			old := s.publish(s.one, true)
			m := s.message(s.one, true, true)
			s.sending(event{msg: m})
			s.ack(m)
			s.observe(1, s.one, old.n, s.now())
		}, []string{"retained"}},
		{"the retained value is one that came meanwhile", func(s *story) {
			s.publish(s.one, true)
			since := s.now()
			m := s.publish(s.one, true)
			s.publish(s.one, true)
			s.observe(1, s.one, m.n, since)
		}, nil},
		{"a subscriber gets an old retained value", func(s *story) {
			m := s.publish(s.one, true)
			s.publish(s.one, true)
			s.subscribe("a/#", 1, 0)
			s.delivered(s.reader, event{who: 1, msg: m}, delivery{msg: m, qos: 1, retain: true})
		}, []string{"retained"}},
		{"what a client found counts", func(s *story) {
			s.wrong(1, nil, "session lost", "gone")
		}, []string{"session lost"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStory()
			tc.tell(s)
			var got []string
			for _, f := range s.check() {
				got = append(got, f.kind)
				if trace := s.trace(f); trace == "" {
					t.Errorf("%s: %s: there is nothing to show for it", f.kind, f.text)
				}
			}
			if !slices.Equal(got, tc.want) {
				t.Errorf("found %q, want %q", got, tc.want)
			}
		})
	}
}

// TestMessagesAreKnownByTheirPayload looks at what tells one message from another.
func TestMessagesAreKnownByTheirPayload(t *testing.T) {
	h := newHistory()
	a := h.topic("c/01/2", 1, true)
	for range 300 {
		m := h.message(a, false, false)
		if h.find(a.name, m.payload()) != nil {
			t.Fatalf("%s is known before it was sent", m)
		}
		h.sending(event{msg: m})
		if h.find(a.name, m.payload()) != m {
			t.Fatalf("%s is not known by its payload", m)
		}
	}
	whole := a.all[9].payload()
	for _, payload := range [][]byte{nil, []byte("c/01/2 "), []byte("c/01/2 0 "), []byte("c/01/2 301 "), []byte("c/01/3 1 "), append(whole, 'x')} {
		if m := h.find(a.name, payload); m != nil {
			t.Errorf("%q is taken for %s", payload, m)
		}
	}
}
