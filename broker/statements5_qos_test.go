package broker_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// statements5QoS is chapter 4.3.
func statements5QoS() []statement {
	// watched is a server with a publisher and a client that is subscribed at QoS 2 to "a".
	watched := func(t *testing.T) (s *server, c, pub *raw.Conn) {
		s = start(t, options{})
		c, pub = s.keep5("c"), s.join5("pub")
		c.Subscribe(2, "a")
		return s, c, pub
	}
	return []statement{
		v5("QoS 0 comes with QoS 0, DUP 0 and no identifier, and is never sent again", func(t *testing.T) {
			s, c, pub := watched(t)
			for range 3 {
				pub.Send(raw.Publish{Topic: "a", Payload: "x"})
				if p := c.ExpectPublish("a", "x"); p.Flags != 0 || p.ID != 0 {
					t.Errorf("got %v with flags %04b", p, p.Flags)
				}
			}
			s.lose5(c)
			s.resume5("c").Quiet()
			violations5(t, 0x81, raw.WithFlags(raw.Publish{Topic: "a"}, 8)) // DUP at QoS 0
		}, "MQTT-4.3.1-1"),
		v5("each message of QoS 1 and 2 that the server sends has an identifier that no other under way has, and DUP 0 even where the publisher's was 1", func(t *testing.T) {
			_, c, pub := watched(t)
			used := make(map[uint16]bool)
			for i := range 100 {
				pub.Publish(raw.Publish{Topic: "a", Payload: fmt.Sprint(i), QoS: byte(1 + i%2), ID: 7, Dup: true})
				p := c.ExpectPublish("a", fmt.Sprint(i))
				if p.Dup || p.ID == 0 || used[p.ID] {
					t.Fatalf("got %v, with %d identifiers under way", p, len(used))
				}
				used[p.ID] = true
				if i%3 == 0 { // some are completed, so identifiers become free
					c.Ack(p)
					if p.QoS == 2 {
						c.Ack(c.ExpectAck(raw.PUBREL, p.ID, 0))
					}
					delete(used, p.ID)
				}
			}
		}, "MQTT-4.3.2-1", "MQTT-4.3.2-2", "MQTT-4.3.3-1", "MQTT-4.3.3-2"),
		v5("a QoS 1 message is unacknowledged until its PUBACK: it counts, and is sent again, until then", func(t *testing.T) {
			s, c, pub := watched(t)
			pub.Publish(raw.Publish{Topic: "a", Payload: "x", QoS: 1, ID: 1})
			p := c.ExpectPublish("a", "x")
			c.Send(raw.Puback{ID: p.ID + 1}) // of another identifier
			c.Quiet()
			if n := s.stats().Inflight; n != 1 {
				t.Errorf("%d messages under way, want 1", n)
			}
			s.lose5(c)
			c = s.resume5("c")
			q := c.ExpectPublish("a", "x")
			if q.ID != p.ID || !q.Dup {
				t.Errorf("got %v, want %v again", q, p)
			}
			c.Ack(q)
			c.Quiet()
			if n := s.stats().Inflight; n != 0 {
				t.Errorf("%d messages under way, want 0", n)
			}
			s.lose5(c)
			s.resume5("c").Quiet()
		}, "MQTT-4.3.2-3"),
		v5("a QoS 1 message is answered by a PUBACK with its identifier, several in their order", func(t *testing.T) {
			_, _, pub := watched(t)
			ids := []uint16{9, 1, 65535, 2, 9}
			for _, id := range ids {
				pub.Send(raw.Publish{Topic: "a", QoS: 1, ID: id})
			}
			for _, id := range ids {
				pub.ExpectAck(raw.PUBACK, id, 0)
			}
			pub.Quiet()
		}, "MQTT-4.3.2-4"),
		v5("after its PUBACK an identifier is that of a new message, whatever DUP says", func(t *testing.T) {
			_, c, pub := watched(t)
			for i, dup := range []bool{false, true, true} {
				pub.Publish(raw.Publish{Topic: "a", Payload: fmt.Sprint(i), QoS: 1, ID: 5, Dup: dup})
				c.Ack(c.ExpectPublish("a", fmt.Sprint(i)))
			}
			c.Quiet()
		}, "MQTT-4.3.2-5"),
		v5("a QoS 2 message is unacknowledged until its PUBREC, then PUBREL follows and is unacknowledged until PUBCOMP; the PUBLISH is not sent again after it", func(t *testing.T) {
			s, c, pub := watched(t)
			pub.Publish(raw.Publish{Topic: "a", Payload: "x", QoS: 2, ID: 1})
			p := c.ExpectPublish("a", "x")
			s.lose5(c)
			c = s.resume5("c")
			if q := c.ExpectPublish("a", "x"); q.ID != p.ID || !q.Dup {
				t.Errorf("got %v, want %v again", q, p)
			}
			c.Send(raw.Pubrec{ID: p.ID, Code: 0x10})
			c.ExpectAck(raw.PUBREL, p.ID, 0)
			c.Send(raw.Pubrec{ID: p.ID}) // once more
			c.ExpectAck(raw.PUBREL, p.ID, 0)
			for range 2 {
				s.lose5(c)
				c = s.resume5("c")
				c.ExpectAck(raw.PUBREL, p.ID, 0)
				c.Quiet()
			}
			c.Send(raw.Pubcomp{ID: p.ID})
			c.Quiet()
			s.lose5(c)
			s.resume5("c").Quiet()
		}, "MQTT-4.3.3-3", "MQTT-4.3.3-4", "MQTT-4.3.3-5", "MQTT-4.3.3-6"),
		v5("an acknowledgement that does not fit the QoS of its message, or comes before its turn, is a protocol error", func(t *testing.T) {
			s, _, pub := watched(t)
			for _, tc := range []struct {
				qos byte
				ack func(id uint16) raw.Sendable
			}{
				{1, func(id uint16) raw.Sendable { return raw.Pubrec{ID: id} }},
				{1, func(id uint16) raw.Sendable { return raw.Pubcomp{ID: id} }},
				{2, func(id uint16) raw.Sendable { return raw.Puback{ID: id} }},
				{2, func(id uint16) raw.Sendable { return raw.Pubcomp{ID: id} }},
			} {
				c := s.join5("c")
				c.Subscribe(2, "a")
				pub.Publish(raw.Publish{Topic: "a", QoS: tc.qos, ID: 1})
				c.Send(tc.ack(c.Expect(raw.PUBLISH).ID))
				c.ExpectDisconnect(0x82)
			}
		}, "MQTT-4.3.2-3", "MQTT-4.3.3-3", "MQTT-4.3.3-5"),
		v5("a QoS 2 message that was sent is sent again though it has expired meanwhile", func(t *testing.T) {
			onFakeClock(t, options{}, func(s *fakeClock) {
				expiry := raw.SessionExpiry.Int(3600)
				c := s.open(raw.Connect{ClientID: "c", Clean: true, Props: raw.Props{expiry}})
				c.Subscribe(2, "a")
				c.Send(raw.Publish{Topic: "a", Payload: "x", QoS: 2, ID: 1, Props: raw.Props{raw.MessageExpiry.Int(5)}})
				p := c.ExpectAll(raw.PUBREC, raw.PUBLISH)[1]
				s.drop(c)
				s.pass(10 * time.Second)
				c, _ = s.connect(raw.Connect{ClientID: "c", Props: raw.Props{expiry}})
				if q := c.ExpectPublish("a", "x"); q.ID != p.ID || !q.Dup {
					t.Errorf("got %v, want %v again", q, p)
				}
				c.Send(raw.Pubrec{ID: p.ID})
				c.ExpectAck(raw.PUBREL, p.ID, 0)
				s.drop(c)
				s.pass(10 * time.Second)
				c, _ = s.connect(raw.Connect{ClientID: "c", Props: raw.Props{expiry}})
				c.ExpectAck(raw.PUBREL, p.ID, 0)
				c.Send(raw.Pubcomp{ID: p.ID})
				c.Quiet()
			})
		}, "MQTT-4.3.3-7"),
		v5("a QoS 2 message is answered by PUBREC with its identifier; until PUBREL its repetitions are answered by PUBREC and delivered to nobody, also across a reconnect; PUBREL is answered by PUBCOMP; then the identifier is free", func(t *testing.T) {
			s, c, _ := watched(t)
			pub := s.keep5("pub2")
			first := raw.Publish{Topic: "a", Payload: "first", QoS: 2, ID: 3}
			pub.Send(first)
			pub.ExpectAck(raw.PUBREC, 3, 0)
			c.Ack(c.ExpectPublish("a", "first"))
			rel := c.Expect(raw.PUBREL)
			c.Ack(rel)
			for _, dup := range []bool{true, false} { // DUP or not, it is the same message
				first.Dup = dup
				pub.Send(first)
				pub.ExpectAck(raw.PUBREC, 3, 0)
			}
			s.lose5(pub)
			pub = s.resume5("pub2")
			first.Dup = true
			pub.Send(first)
			pub.ExpectAck(raw.PUBREC, 3, 0)
			c.Quiet()
			pub.Send(raw.Pubrel{ID: 3})
			pub.ExpectAck(raw.PUBCOMP, 3, 0)
			c.Quiet()
			pub.Send(raw.Publish{Topic: "a", Payload: "second", QoS: 2, ID: 3, Dup: true})
			pub.ExpectAck(raw.PUBREC, 3, 0)
			c.ExpectPublish("a", "second")
			pub.Send(raw.Publish{Topic: "a", Payload: "third", QoS: 2, ID: 4})
			pub.ExpectAck(raw.PUBREC, 4, 0)
			c.ExpectPublish("a", "third")
			pub.Send(raw.Pubrel{ID: 4}, raw.Pubrel{ID: 3}, raw.Pubrel{ID: 3})
			pub.ExpectAck(raw.PUBCOMP, 4, 0)
			pub.ExpectAck(raw.PUBCOMP, 3, 0)
			pub.ExpectAck(raw.PUBCOMP, 3, 0x92)
		}, "MQTT-4.3.3-8", "MQTT-4.3.3-10", "MQTT-4.3.3-11", "MQTT-4.3.3-12"),
		v5("after a PUBREC from 0x80 the same identifier is that of a new message", func(t *testing.T) {
			s := start(t, options{access: fenced{}})
			c, pub := s.join5("c"), s.join5("pub")
			c.Subscribe(0, "a")
			pub.Send(raw.Publish{Topic: "secret/a", QoS: 2, ID: 1}, raw.Publish{Topic: "a", Payload: "new", QoS: 2, ID: 1})
			pub.ExpectAck(raw.PUBREC, 1, 0x87)
			pub.ExpectAck(raw.PUBREC, 1, 0)
			c.ExpectPublish("a", "new")
			pub.Send(raw.Pubrel{ID: 1})
			pub.ExpectAck(raw.PUBCOMP, 1, 0)
			pub.Send(raw.Publish{Topic: "secret/a", QoS: 2, ID: 2})
			pub.ExpectAck(raw.PUBREC, 2, 0x87)
			pub.Send(raw.Pubrel{ID: 2})
			pub.ExpectAck(raw.PUBCOMP, 2, 0x92) // nothing was under way
		}, "MQTT-4.3.3-9"),
		v5("a QoS 2 message that expires while it is under way is acknowledged to the end", func(t *testing.T) {
			onFakeClock(t, options{}, func(s *fakeClock) {
				c := s.open(raw.Connect{ClientID: "c", Clean: true})
				m := raw.Publish{Topic: "a", QoS: 2, ID: 1, Props: raw.Props{raw.MessageExpiry.Int(1)}}
				c.Send(m)
				c.ExpectAck(raw.PUBREC, 1, 0x10)
				s.pass(5 * time.Second)
				m.Dup = true
				c.Send(m)
				c.ExpectAck(raw.PUBREC, 1, 0)
				c.Send(raw.Pubrel{ID: 1})
				c.ExpectAck(raw.PUBCOMP, 1, 0)
			})
		}, "MQTT-4.3.3-13"),
	}
}
