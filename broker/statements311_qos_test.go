package broker_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// qos311 are the statements about what the QoS levels promise (sections 4.3 to 4.6).
func qos311() []statement {
	// several publishes n numbered messages.
	several := func(pub *raw.Conn, n int, qos byte) {
		for i := range n {
			pub.Publish(raw.Publish{Topic: "t", Payload: fmt.Sprint(i), QoS: qos, ID: uint16(i + 1)})
		}
	}
	return []statement{
		of311("4.3.1-1", "as a QoS 0 sender the server sends QoS 0 and DUP 0, whatever came in, once", func(t *testing.T) {
			s := start(t, options{})
			c, pub := s.resume("a", false), s.open(as311("pub"))
			c.Subscribe(0, "t")
			for qos := range byte(3) {
				pub.Publish(raw.Publish{Topic: "t", Payload: "x", QoS: qos, ID: 1, Dup: qos > 0})
				wants(t, c.Read(), "t", "x", 0, false, false)
			}
			breaks(t, c)
			s.resume("a", true).Quiet()
		}),
		of311("4.3.2-1 3.3.1-1", "as a QoS 1 sender the server sends DUP 0 first, and the same with DUP 1 on reconnect until PUBACK", func(t *testing.T) {
			s := start(t, options{})
			c, pub := s.resume("a", false), s.open(as311("pub"))
			c.Subscribe(1, "t")
			several(pub, 2, 1)
			first, second := c.Expect(raw.PUBLISH), c.Expect(raw.PUBLISH)
			wants(t, first, "t", "0", 1, false, false)
			wants(t, second, "t", "1", 1, false, false)
			if first.ID == second.ID {
				t.Errorf("both have the identifier %d", first.ID)
			}
			c.Quiet()
			c.Ack(first)
			c.Quiet()
			for range 2 {
				breaks(t, c)
				c = s.resume("a", true)
				again := c.Expect(raw.PUBLISH)
				wants(t, again, "t", "1", 1, false, true)
				if again.ID != second.ID {
					t.Errorf("the identifier was %d and is %d", second.ID, again.ID)
				}
				c.Quiet()
			}
			c.Ack(second)
			c.Quiet()
			breaks(t, c)
			s.resume("a", true).Quiet()
		}),
		of311("4.3.2-2", "as a QoS 1 receiver the server acknowledges each PUBLISH and takes the next one with its identifier as new", func(t *testing.T) {
			s := start(t, options{})
			watcher, c := s.watch(), s.open(as311("a"))
			for i, dup := range []bool{false, true, false} {
				c.Send(raw.Publish{Topic: "t", Payload: fmt.Sprint(i), QoS: 1, ID: 5, Dup: dup})
				c.ExpectAck(raw.PUBACK, 5, 0)
				watcher.ExpectPublish("t", fmt.Sprint(i))
			}
			watcher.Quiet()
		}),
		of311("4.3.3-1", "as a QoS 2 sender the server sends PUBLISH until PUBREC, from then on PUBREL until PUBCOMP, under one identifier", func(t *testing.T) {
			s := start(t, options{})
			c, pub := s.resume("a", false), s.open(as311("pub"))
			c.Subscribe(2, "t")
			several(pub, 1, 2)
			p := c.Expect(raw.PUBLISH)
			wants(t, p, "t", "0", 2, false, false)
			breaks(t, c)
			c = s.resume("a", true)
			again := c.Expect(raw.PUBLISH)
			wants(t, again, "t", "0", 2, false, true)
			if again.ID != p.ID {
				t.Errorf("the identifier was %d and is %d", p.ID, again.ID)
			}
			c.Quiet()
			c.Ack(p)
			c.ExpectAck(raw.PUBREL, p.ID, 0)
			c.Ack(p) // PUBREC once more
			c.ExpectAck(raw.PUBREL, p.ID, 0)
			for range 2 {
				breaks(t, c)
				c = s.resume("a", true)
				c.ExpectAck(raw.PUBREL, p.ID, 0)
				c.Quiet()
			}
			c.Send(raw.Pubcomp{ID: p.ID})
			c.Quiet()
			breaks(t, c)
			s.resume("a", true).Quiet()
		}),
		of311("4.3.3-2", "as a QoS 2 receiver the server delivers once, answers each repetition by PUBREC until PUBREL, and each PUBREL by PUBCOMP", func(t *testing.T) {
			s := start(t, options{})
			watcher, c := s.watch(), s.open(as311("a"))
			for round := range 2 { // the identifier can be used again
				m := raw.Publish{Topic: "t", Payload: fmt.Sprint(round), QoS: 2, ID: 5}
				for i := range 3 {
					m.Dup = i > 0
					c.Send(m)
					c.ExpectAck(raw.PUBREC, 5, 0)
				}
				watcher.ExpectPublish("t", fmt.Sprint(round))
				for range 2 {
					c.Send(raw.Pubrel{ID: 5})
					c.ExpectAck(raw.PUBCOMP, 5, 0)
				}
				watcher.Quiet()
			}
		}),
		of311("4.4.0-1", "on reconnect what is unacknowledged is sent again: PUBLISH or PUBREL, under its identifier, in the first order", func(t *testing.T) {
			s := start(t, options{})
			c, pub := s.resume("a", false), s.open(as311("pub"))
			c.Subscribe(2, "t")
			var sent []raw.Packet
			for i, qos := range []byte{1, 2, 2, 1, 2} {
				pub.Publish(raw.Publish{Topic: "t", Payload: fmt.Sprint(i), QoS: qos, ID: 1})
				sent = append(sent, c.Expect(raw.PUBLISH))
			}
			c.Ack(sent[2])
			c.ExpectAck(raw.PUBREL, sent[2].ID, 0)
			c.Ack(sent[3])
			c.Quiet()
			breaks(t, c)
			pub.Publish(raw.Publish{Topic: "t", Payload: "new", QoS: 1, ID: 1})
			c = s.resume("a", true)
			for _, i := range []int{0, 1, 2, 4} {
				p := c.Read()
				if i == 2 && p.Type != raw.PUBREL || p.ID != sent[i].ID {
					t.Fatalf("got %s for %s", p, sent[i])
				}
				if i != 2 {
					wants(t, p, "t", fmt.Sprint(i), sent[i].QoS, false, true)
				}
			}
			wants(t, c.Read(), "t", "new", 1, false, false)
			c.Quiet()
		}),
		of311("4.5.0-1", "a message that was accepted reaches every client whose subscription matches, connected or not", func(t *testing.T) {
			s := start(t, options{})
			var live []*raw.Conn
			for i := range 5 {
				c := s.open(as311(fmt.Sprint("live", i)))
				c.Subscribe(2, []string{"t/a", "t/+", "#", "t/#", "+/a"}[i])
				live = append(live, c)
				away := s.resume(fmt.Sprint("away", i), false)
				away.Subscribe(2, []string{"t/a", "t/+", "#", "t/#", "+/a"}[i])
				leaves(away)
			}
			pub := s.open(as311("pub"))
			pub.Publish(raw.Publish{Topic: "t/a", Payload: "1", QoS: 1, ID: 1})
			pub.Publish(raw.Publish{Topic: "t/a", Payload: "2", QoS: 2, ID: 1})
			for i := range 5 {
				live = append(live, s.resume(fmt.Sprint("away", i), true))
			}
			for _, c := range live {
				wants(t, c.Deliver(), "t/a", "1", 1, false, false)
				wants(t, c.Deliver(), "t/a", "2", 2, false, false)
				c.Quiet()
			}
		}),
		of311("4.5.0-2", "a client that does not acknowledge gets nothing twice on one connection, and everything again on the next", func(t *testing.T) {
			s := start(t, options{})
			c, pub := s.resume("a", false), s.open(as311("pub"))
			c.Subscribe(2, "t")
			for connection := range 3 {
				several(pub, 2, byte(1+connection%2))
				for i := range 2 * (connection + 1) {
					p := c.Expect(raw.PUBLISH)
					wants(t, p, "t", fmt.Sprint(i%2), byte(1+i/2%2), false, i/2 < connection)
				}
				c.Quiet()
				breaks(t, c)
				c = s.resume("a", true)
				if connection == 2 {
					for i := range 6 {
						wants(t, c.Expect(raw.PUBLISH), "t", fmt.Sprint(i%2), byte(1+i/2%2), false, true)
					}
					c.Quiet()
				} // else it comes before what is published next, and is read in the next round
			}
		}),
		of311("4.6.0-1", "PUBLISHes are sent again in the order of their first sending, also with identifiers acknowledged in between", func(t *testing.T) {
			s := start(t, options{})
			c, pub := s.resume("a", false), s.open(as311("pub"))
			c.Subscribe(1, "t")
			const n = 60
			several(pub, n, 1)
			for i := range n {
				p := c.ExpectPublish("t", fmt.Sprint(i))
				if i%3 == 1 {
					c.Ack(p)
				}
			}
			c.Quiet()
			breaks(t, c)
			c = s.resume("a", true)
			for i := range n {
				if i%3 != 1 {
					wants(t, c.Read(), "t", fmt.Sprint(i), 1, false, true)
				}
			}
			c.Quiet()
		}),
		of311("4.6.0-2 4.6.0-3 4.6.0-4", "as a receiver the server sends PUBACKs and PUBRECs in the order of the PUBLISHes, as a sender PUBRELs in the order of the PUBRECs", func(t *testing.T) {
			s := start(t, options{})
			c, pub := s.open(as311("a")), s.open(as311("pub"))
			c.Subscribe(2, "t")
			order := []uint16{7, 3, 65535, 1, 500}
			for qos := byte(1); qos <= 2; qos++ {
				var all []raw.Sendable
				for _, id := range order {
					all = append(all, raw.Publish{Topic: "t", QoS: qos, ID: id})
				}
				pub.Send(all...)
				for _, id := range order {
					pub.ExpectAck(map[byte]raw.Type{1: raw.PUBACK, 2: raw.PUBREC}[qos], id, 0)
				}
			}
			var ids []uint16
			for i := range 2 * len(order) {
				if p := c.Expect(raw.PUBLISH); i < len(order) {
					c.Ack(p)
				} else {
					ids = append([]uint16{p.ID}, ids...) // the last one is acknowledged first
				}
			}
			var recs []raw.Sendable
			for _, id := range ids {
				recs = append(recs, raw.Pubrec{ID: id})
			}
			c.Send(recs...)
			for _, id := range ids {
				c.ExpectAck(raw.PUBREL, id, 0)
			}
		}),
		of311("4.6.0-5 4.6.0-6", "messages of one publisher, topic and QoS arrive in the order they were published: live, behind a full window, from the queue, and when sent again", func(t *testing.T) {
			for qos := range byte(3) {
				s := start(t, options{})
				c, pub := s.resume("a", false), s.open(as311("pub"))
				c.Subscribe(qos, "t")
				const n = 300 // more than are sent without acknowledgement
				several(pub, n/2, qos)
				if qos > 0 {
					for i := range 10 {
						wants(t, c.Read(), "t", fmt.Sprint(i), qos, false, false)
					}
					c.Drop()
				}
				for i := n / 2; i < n; i++ {
					pub.Publish(raw.Publish{Topic: "t", Payload: fmt.Sprint(i), QoS: qos, ID: 1})
				}
				if qos > 0 {
					c = s.resume("a", true)
				}
				for i, p := range delivered(t, c, n) {
					if p.Text() != fmt.Sprint(i) {
						t.Fatalf("QoS %d: got %s for number %d", qos, p, i)
					}
				}
				c.Quiet()
			}
		}),
	}
}

// rest311 are the statements about the other packets, violations and the transport.
func rest311() []statement {
	return []statement{
		of311("3.12.4-1", "each PINGREQ is answered by one PINGRESP", func(t *testing.T) {
			s := start(t, options{})
			c := s.open(as311("a"))
			c.Send(raw.Pingreq{}, raw.Pingreq{}, raw.Pingreq{})
			for range 3 {
				c.Expect(raw.PINGRESP)
			}
			c.Quiet()
		}),
		of311("3.14.4-1 3.14.4-2", "after DISCONNECT the server takes nothing more and ends the connection if the client does not", func(t *testing.T) {
			s := start(t, options{})
			watcher := s.watch()
			c := s.open(as311("a"))
			c.Send(raw.Disconnect{}, raw.Publish{Topic: "t", Payload: "x", Retain: true}, raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "a"}}}, raw.Pingreq{})
			c.ExpectClosed()
			s.gone("a")
			watcher.Quiet()
		}),
		of311("4.8.0-1", "a packet that only servers send, of no type, of the wrong size or that does not fit ends the connection, in whatever order", func(t *testing.T) {
			s := start(t, options{})
			watcher := s.watch()
			after := raw.Publish{Topic: "t", Payload: "after the violation"}
			for _, p := range []raw.Sendable{
				raw.Connack{}, raw.Suback{ID: 1, Codes: []raw.Code{0}}, raw.Unsuback{ID: 1}, raw.Pingresp{}, raw.Frame(0x00), raw.Frame(0xF0), raw.Frame(0xF0, 0x18),
				raw.Bytes{0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01}, raw.Bytes{0x30, 0x80, 0x80, 0x80, 0x80},
				raw.Frame(0xC0, 0), raw.Frame(0x40, 0), raw.Frame(0x40), raw.Frame(0x40, uint16(1), 0), raw.Frame(0x62, uint16(1), 0),
				raw.Frame(0x82, uint16(1), "a"), raw.Frame(0x82, uint16(1), uint16(5), byte('a')), raw.Frame(0x82, 0), raw.Frame(0xA2, uint16(1), uint16(5), byte('a')), raw.Frame(0xA2, 0),
			} {
				s.closes(fmt.Sprintf("% X", raw.Encode(raw.V311, p)), p, after)
			}
			for qos := byte(1); qos <= 2; qos++ {
				c := s.open(as311("violator"))
				c.Subscribe(qos, "mine")
				pub := s.open(as311("pub"))
				pub.Publish(raw.Publish{Topic: "mine", QoS: qos, ID: 1})
				id := c.Expect(raw.PUBLISH).ID
				c.Send([]raw.Sendable{nil, raw.Pubrec{ID: id}, raw.Puback{ID: id}}[qos], after)
				c.ExpectClosed()
				pub.Close()
				watcher.ExpectPublish("mine", "")
			}
			watcher.Quiet()
		}),
		of311("4.8.0-2", "where the server cannot keep a message for want of room the connection ends without an acknowledgement", func(t *testing.T) {
			s := start(t, options{hub: bridge.Limits{RetainedValues: 1}})
			watcher := s.watch()
			c := s.open(as311("a"))
			c.Publish(raw.Publish{Topic: "first", Payload: "x", QoS: 1, ID: 1, Retain: true})
			watcher.ExpectPublish("first", "x")
			for qos := byte(1); qos <= 2; qos++ {
				s.closes("limit on retained values", raw.Publish{Topic: "second", Payload: "x", QoS: qos, ID: 1, Retain: true})
			}
			watcher.Quiet()
			c.Quiet()
		}),
		of311("7.1.1-1", "TCP carries packets whole and in order, in whatever pieces they are sent", func(t *testing.T) {
			s := start(t, options{})
			sub, pub := s.open(as311("sub")), s.dial311()
			sub.Subscribe(1, "#")
			long := strings.Repeat("0123456789abcdef", 4096)
			packets := []raw.Sendable{as311("pub")}
			for i := range 10 {
				packets = append(packets, raw.Publish{Topic: fmt.Sprint("t/", i), Payload: long[:i*100], QoS: byte(i % 3), ID: uint16(i + 1)})
			}
			pub.SendSplit(1, packets[:6]...)
			pub.SendSplit(7, packets[6:]...)
			pub.SendSplit(5000, raw.Publish{Topic: "long", Payload: long, QoS: 1, ID: 99})
			pub.ExpectCode(raw.CONNACK, 0)
			for i := range 10 {
				if i%3 != 0 {
					pub.ExpectAck(map[int]raw.Type{1: raw.PUBACK, 2: raw.PUBREC}[i%3], uint16(i+1), 0)
				}
				wants(t, sub.Deliver(), fmt.Sprint("t/", i), long[:i*100], byte(min(i%3, 1)), false, false)
			}
			pub.ExpectAck(raw.PUBACK, 99, 0)
			wants(t, sub.Deliver(), "long", long, 1, false, false)
			sub.Quiet()
		}),
	}
}
