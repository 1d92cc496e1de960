package broker_test

import (
	"fmt"
	"testing"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// sessions311 are the statements about sessions (sections 3.1.2.4, 3.2.2.2 and 4.1).
func sessions311() []statement {
	return []statement{
		of311("3.1.2-4 3.1.4-3 3.2.2-2 3.2.2-3", "clean session 0 makes a session or resumes the one there is, also after the connection was lost, and session present says which", func(t *testing.T) {
			s := start(t, options{})
			c := s.resume("a", false)
			c.Subscribe(1, "t")
			leaves(c)
			c = s.resume("a", true)
			c.Publish(raw.Publish{Topic: "t", Payload: "1"})
			wants(t, c.Read(), "t", "1", 0, false, false)
			breaks(t, c)
			c = s.resume("a", true)
			c.Publish(raw.Publish{Topic: "t", Payload: "2"})
			wants(t, c.Read(), "t", "2", 0, false, false)
			other := s.resume("b", false)
			other.Quiet()
		}),
		of311("3.1.2-5", "a session whose client is away keeps the QoS 1 and 2 messages that match its subscriptions, in their order", func(t *testing.T) {
			s := start(t, options{})
			c := s.resume("a", false)
			c.Subscribe(2, "t/#")
			leaves(c)
			pub := s.open(as311("pub"))
			pub.Publish(raw.Publish{Topic: "t/1", Payload: "one", QoS: 1, ID: 1})
			pub.Publish(raw.Publish{Topic: "u", Payload: "does not match", QoS: 1, ID: 1})
			pub.Publish(raw.Publish{Topic: "t/2", Payload: "two", QoS: 2, ID: 1})
			pub.Publish(raw.Publish{Topic: "t/3", Payload: "three", QoS: 1, ID: 1})
			c = s.resume("a", true)
			got := delivered(t, c, 3)
			wants(t, got[0], "t/1", "one", 1, false, false)
			wants(t, got[1], "t/2", "two", 2, false, false)
			wants(t, got[2], "t/3", "three", 1, false, false)
			c.Quiet()
		}),
		of311("3.1.2-6 3.2.2-1", "clean session 1 discards the session there is, session present is 0, and what comes of it is not used again", func(t *testing.T) {
			s := start(t, options{})
			c := s.resume("a", false)
			c.Subscribe(1, "t")
			leaves(c)
			pub := s.open(as311("pub"))
			pub.Publish(raw.Publish{Topic: "t", Payload: "waits", QoS: 1, ID: 1})
			c, ack := raw.Open(t, s.Addr, as311("a"))
			if ack.SessionPresent {
				t.Error("session present with clean session 1")
			}
			pub.Publish(raw.Publish{Topic: "t", Payload: "live", QoS: 1, ID: 1})
			c.Quiet() // neither queue nor subscription
			c.Subscribe(1, "u")
			leaves(c)
			c = s.resume("a", false)
			pub.Publish(raw.Publish{Topic: "u", Payload: "live", QoS: 1, ID: 1})
			c.Quiet()
			// The same where the older connection is still there.
			for _, clean := range []bool{true, false} {
				older := s.open(as311("b"))
				older.Subscribe(1, "u")
				c, ack := raw.Open(t, s.Addr, raw.Connect{Version: raw.V311, ClientID: "b", Clean: clean})
				older.ExpectClosed()
				if ack.SessionPresent {
					t.Error("session present after one with clean session 1")
				}
				pub.Publish(raw.Publish{Topic: "u", Payload: "live", QoS: 1, ID: 1})
				c.Quiet()
				c.Subscribe(1, "v")
				pub.Publish(raw.Publish{Topic: "v", Payload: "live", QoS: 1, ID: 1})
				wants(t, c.Deliver(), "v", "live", 1, false, false)
				leaves(c)
				s.gone("b")
			}
		}),
		of311("3.1.2-7", "a retained message outlives the session of its publisher", func(t *testing.T) {
			s := start(t, options{})
			c := s.open(as311("a"))
			c.Publish(raw.Publish{Topic: "t", Payload: "kept", QoS: 1, ID: 1, Retain: true})
			leaves(c)
			s.gone("a")
			c = s.open(as311("b"))
			c.Subscribe(1, "t")
			wants(t, c.Deliver(), "t", "kept", 1, true, false)
		}),
		of311("3.1.3-2", "the client id, with the case of its letters, names the session", func(t *testing.T) {
			s := start(t, options{})
			ids := []string{"a", "A", "a ", "b"}
			for _, id := range ids {
				c := s.resume(id, false)
				c.Subscribe(1, "for/"+id)
				leaves(c)
			}
			pub := s.open(as311("pub"))
			for _, id := range ids {
				pub.Publish(raw.Publish{Topic: "for/" + id, Payload: id, QoS: 1, ID: 1})
			}
			for _, id := range ids {
				c := s.resume(id, true)
				wants(t, c.Deliver(), "for/"+id, id, 1, false, false)
				c.Quiet()
			}
		}),
		of311("4.1.0-1", "a session keeps subscriptions, both directions' messages under way and queued messages together across connections", func(t *testing.T) {
			s := start(t, options{})
			pub := s.open(as311("pub"))
			c := s.resume("a", false)
			c.Subscribe(2, "t")
			pub.Publish(raw.Publish{Topic: "t", Payload: "under way", QoS: 1, ID: 1})
			id := c.Expect(raw.PUBLISH).ID
			c.Send(raw.Publish{Topic: "u", Payload: "received", QoS: 2, ID: 9})
			c.ExpectAck(raw.PUBREC, 9, 0)
			for range 2 { // it holds more than once
				breaks(t, c)
				pub.Publish(raw.Publish{Topic: "t", Payload: "queued", QoS: 2, ID: 1})
				c = s.resume("a", true)
				p := c.Expect(raw.PUBLISH)
				wants(t, p, "t", "under way", 1, false, true)
				if p.ID != id {
					t.Errorf("identifier %d, want %d", p.ID, id)
				}
				wants(t, c.Deliver(), "t", "queued", 2, false, false)
				pub.Publish(raw.Publish{Topic: "t", Payload: "live", QoS: 0})
				wants(t, c.Deliver(), "t", "live", 0, false, false)
			}
			pub.Subscribe(0, "u")
			c.Send(raw.Publish{Topic: "u", Payload: "received", QoS: 2, ID: 9, Dup: true}, raw.Pubrel{ID: 9})
			c.ExpectAck(raw.PUBREC, 9, 0)
			c.ExpectAck(raw.PUBCOMP, 9, 0)
			pub.Quiet()
		}),
		of311("4.1.0-2", "with clean session 1 the session lasts as long as its connection", func(t *testing.T) {
			s := start(t, options{})
			c, pub := s.open(as311("a")), s.open(as311("pub"))
			c.Subscribe(2, "t")
			for i := range 3 {
				s.open(as311(fmt.Sprint("visitor", i))).Quiet()
				pub.Publish(raw.Publish{Topic: "t", Payload: "x", QoS: 2, ID: 1})
				wants(t, c.Deliver(), "t", "x", 2, false, false)
			}
			c.Quiet()
		}),
	}
}

// wills311 are the statements about wills (section 3.1.2.5 to 3.1.2.7).
func wills311() []statement {
	willing := func(id string, w raw.Will) raw.Connect {
		p := as311(id)
		p.Will = &w
		return p
	}
	return []statement{
		of311("3.1.2-8", "the will is published when the connection ends without a DISCONNECT: lost, reset, or ended by the server; not before", func(t *testing.T) {
			s := start(t, options{})
			watcher := s.open(as311("watcher"))
			watcher.Subscribe(2, "#")
			for _, end := range []struct {
				how string
				do  func(c *raw.Conn)
			}{
				{"lost", func(c *raw.Conn) { c.Drop() }},
				{"reset", func(c *raw.Conn) { c.Reset() }},
				{"violation", func(c *raw.Conn) { c.Send(raw.Frame(0x36, "a", uint16(1))) }},
				{"half a packet", func(c *raw.Conn) { c.Send(raw.Cut(raw.Publish{Topic: "a", Payload: "x"}, 4)); c.Drop() }},
				{"taken over", func(*raw.Conn) { s.open(as311("a")) }},
			} {
				for qos := range byte(3) {
					c := s.open(willing("a", raw.Will{Topic: "will", Payload: end.how, QoS: qos}))
					c.Quiet()
					watcher.Quiet()
					end.do(c)
					wants(t, watcher.Deliver(), "will", end.how, qos, false, false)
				}
			}
			s.gone("a")
			watcher.Quiet()
		}),
		of311("3.1.2-10", "a will is removed once it was published, and by DISCONNECT; the session that stays has it no more", func(t *testing.T) {
			s := start(t, options{})
			watcher := s.watch()
			p := kept311("a")
			p.Will = &raw.Will{Topic: "will", Payload: "x"}
			breaks(t, s.open(p))
			watcher.ExpectPublish("will", "x")
			breaks(t, s.resume("a", true))
			leaves(s.open(p))
			breaks(t, s.resume("a", true))
			s.gone("a")
			watcher.Quiet()
		}),
		of311("3.1.2-12", "without the will flag no will is published", func(t *testing.T) {
			s := start(t, options{})
			watcher := s.watch()
			breaks(t, s.open(as311("a")))
			breaks(t, s.resume("a", false))
			s.gone("a")
			watcher.Quiet()
		}),
		of311("3.1.2-16", "a will without retain is published as a message that is not retained, and leaves a retained one alone", func(t *testing.T) {
			s := start(t, options{})
			watcher := s.watch()
			watcher.Publish(raw.Publish{Topic: "will", Payload: "retained", Retain: true})
			watcher.ExpectPublish("will", "retained")
			breaks(t, s.open(willing("a", raw.Will{Topic: "will", Payload: "x", QoS: 1})))
			wants(t, watcher.Read(), "will", "x", 0, false, false)
			fresh := s.open(as311("fresh"))
			fresh.Subscribe(1, "will")
			wants(t, fresh.Deliver(), "will", "retained", 0, true, false)
			fresh.Quiet()
		}),
		of311("3.1.2-17", "a will with retain is published as a retained message, an empty one removes it", func(t *testing.T) {
			s := start(t, options{})
			watcher := s.watch()
			breaks(t, s.open(willing("a", raw.Will{Topic: "will", Payload: "x", QoS: 2, Retain: true})))
			wants(t, watcher.Read(), "will", "x", 0, false, false)
			fresh := s.open(as311("fresh"))
			fresh.Subscribe(2, "will")
			wants(t, fresh.Deliver(), "will", "x", 2, true, false)
			breaks(t, s.open(willing("a", raw.Will{Topic: "will", Retain: true})))
			wants(t, watcher.Read(), "will", "", 0, false, false)
			wants(t, fresh.Deliver(), "will", "", 0, false, false)
			fresh.Subscribe(2, "will")
			fresh.Quiet()
		}),
		of311("3.14.4-3", "DISCONNECT discards the will", func(t *testing.T) {
			s := start(t, options{})
			watcher := s.watch()
			for qos := range byte(3) {
				leaves(s.open(willing("a", raw.Will{Topic: "will", Payload: "x", QoS: qos, Retain: true})))
				s.gone("a")
			}
			watcher.Quiet()
		}),
		of311("3.14.1-1", "a DISCONNECT with reserved bits set, or with a body, is a violation: the connection ends and the will goes out", func(t *testing.T) {
			s := start(t, options{})
			watcher := s.watch()
			for _, p := range []raw.Sendable{
				raw.WithFlags(raw.Disconnect{}, 1), raw.WithFlags(raw.Disconnect{}, 2), raw.WithFlags(raw.Disconnect{}, 4),
				raw.WithFlags(raw.Disconnect{}, 8), raw.Frame(0xE0, 0),
			} {
				c := s.open(willing("a", raw.Will{Topic: "will", Payload: "x"}))
				c.Send(p)
				c.ExpectClosed()
				watcher.ExpectPublish("will", "x")
			}
			s.gone("a")
			watcher.Quiet()
		}),
	}
}
