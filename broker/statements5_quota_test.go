package broker_test

import (
	"fmt"
	"testing"

	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// statements5Quota is chapter 4.9.
func statements5Quota() []statement {
	return []statement{
		v5("the first window is the client's Receive Maximum exactly, on each connection anew, and at most the server's own", func(t *testing.T) {
			s := start(t, options{limits: broker.Limits{InflightOut: 50}})
			pub := s.join5("pub")
			for _, max := range []uint32{1, 2, 7, 49, 50, 51, 65535} {
				props := raw.Props{raw.ReceiveMaximum.Int(max), raw.SessionExpiry.Int(3600)}
				want := min(int(max), 50)
				c := s.join5("c", props...)
				c.Subscribe(2, "a")
				for i := range want + 3 {
					pub.Publish(raw.Publish{Topic: "a", Payload: fmt.Sprint(i), QoS: byte(1 + i%2), ID: 1})
				}
				for range 2 {
					for i := range want {
						c.ExpectPublish("a", fmt.Sprint(i))
					}
					c.Quiet()
					s.lose5(c)
					c = s.resume5("c", raw.ReceiveMaximum.Int(max))
				}
				c.Close()
			}
			s.refusedConnect(t, "Receive Maximum 0", 0x82, raw.Connect{ClientID: "c", Props: raw.Props{raw.ReceiveMaximum.Int(0)}})
		}, "MQTT-4.9.0-1"),
		v5("with the window used up no QoS 1 or 2 message goes out until PUBACK, PUBCOMP or a PUBREC from 0x80 makes room for one; nothing else does", func(t *testing.T) {
			s := start(t, options{})
			c, pub := s.join5("c", raw.ReceiveMaximum.Int(2)), s.join5("pub")
			c.Subscribe(2, "a")
			for i, qos := range []byte{2, 1, 2, 1, 2, 1} {
				pub.Publish(raw.Publish{Topic: "a", Payload: fmt.Sprint(i), QoS: qos, ID: 1})
			}
			zero, one := c.ExpectPublish("a", "0"), c.ExpectPublish("a", "1")
			// What is not an acknowledgement of these two makes no room.
			c.Send(raw.Puback{ID: 999}, raw.Pubcomp{ID: 999}, raw.Pingreq{}, raw.Publish{Topic: "b", QoS: 1, ID: 1})
			c.Expect(raw.PINGRESP)
			c.ExpectAck(raw.PUBACK, 1, 0x10)
			c.Send(raw.Pubrec{ID: zero.ID}, raw.Pubrec{ID: zero.ID})
			c.ExpectAck(raw.PUBREL, zero.ID, 0)
			c.ExpectAck(raw.PUBREL, zero.ID, 0)
			c.Quiet()
			c.Send(raw.Pubcomp{ID: zero.ID}, raw.Pubcomp{ID: zero.ID}) // the second is of nothing
			two := c.ExpectPublish("a", "2")
			c.Quiet()
			c.Send(raw.Puback{ID: one.ID, Code: 0x83}, raw.Puback{ID: one.ID})
			three := c.ExpectPublish("a", "3")
			c.Quiet()
			c.Send(raw.Pubrec{ID: two.ID, Code: 0x99})
			four := c.ExpectPublish("a", "4")
			c.Quiet()
			c.Ack(three)
			c.Ack(c.ExpectPublish("a", "5"))
			c.Ack(four)
			c.Ack(c.ExpectAck(raw.PUBREL, four.ID, 0))
			c.Quiet()
		}, "MQTT-4.9.0-2"),
		v5("a client that sends a QoS 2 message more than the server's Receive Maximum is sent away with 0x93, also after a reconnect that leaves some unfinished", func(t *testing.T) {
			s := start(t, options{limits: broker.Limits{InflightIn: 3}})
			c := s.keep5("c")
			for id := uint16(1); id <= 3; id++ {
				c.Send(raw.Publish{Topic: "a", QoS: 2, ID: id})
				c.ExpectAck(raw.PUBREC, id, 0x10)
			}
			s.lose5(c)
			c = s.resume5("c")
			c.Send(raw.Publish{Topic: "a", QoS: 2, ID: 1, Dup: true}, raw.Pubrel{ID: 1}, raw.Publish{Topic: "a", QoS: 2, ID: 4})
			c.ExpectAck(raw.PUBREC, 1, 0)
			c.ExpectAck(raw.PUBCOMP, 1, 0)
			c.ExpectAck(raw.PUBREC, 4, 0x10)
			c.Send(raw.Publish{Topic: "a", QoS: 2, ID: 5})
			c.ExpectDisconnect(0x93)
		}, "MQTT-4.9.0-2"),
		v5("with the window used up in both directions all other packets go on", func(t *testing.T) {
			s := start(t, options{limits: broker.Limits{InflightIn: 1}})
			c, pub := s.join5("c", raw.ReceiveMaximum.Int(1)), s.join5("pub")
			c.Subscribe(2, "a")
			for i := range 2 {
				pub.Publish(raw.Publish{Topic: "a", Payload: fmt.Sprint(i), QoS: 2, ID: 1})
			}
			zero := c.ExpectPublish("a", "0")
			c.Send(raw.Publish{Topic: "b", QoS: 2, ID: 1})
			c.ExpectAck(raw.PUBREC, 1, 0x10)
			c.Send(sub5(2, 0, "x"), raw.Unsubscribe{ID: 3, Filters: []string{"x"}}, raw.Pingreq{}, raw.Publish{Topic: "b"}, raw.Pubrel{ID: 9}, raw.Pubrec{ID: 9})
			c.ExpectAck(raw.SUBACK, 2, 0)
			c.ExpectAck(raw.UNSUBACK, 3, 0)
			c.Expect(raw.PINGRESP)
			c.ExpectAck(raw.PUBCOMP, 9, 0x92)
			c.ExpectAck(raw.PUBREL, 9, 0x92)
			c.Send(raw.Publish{Topic: "b", QoS: 2, ID: 1, Dup: true}, raw.Pubrel{ID: 1}, raw.Pubrec{ID: zero.ID})
			c.ExpectAck(raw.PUBREC, 1, 0)
			c.ExpectAck(raw.PUBCOMP, 1, 0)
			c.ExpectAck(raw.PUBREL, zero.ID, 0)
			c.Quiet()
			c.Send(raw.Disconnect{})
			c.ExpectClosed()
		}, "MQTT-4.9.0-3"),
	}
}

// statements5Errors is chapter 4.13.
func statements5Errors() []statement {
	return []statement{
		v5("a malformed packet or protocol error ends the connection with its reason code; nobody else notices", func(t *testing.T) {
			violations5(t, 0x81,
				raw.Frame(0x0F, 1), raw.WithFlags(raw.Pingreq{}, 8), // flags
				raw.Bytes{0x30, 0x80, 0x80, 0x80, 0x80, 0x01}, raw.Bytes{0xC0, 0x80, 0x00}, // remaining length
				raw.Frame(0x30, uint16(9), []byte("a")), raw.Frame(0x32, "a", byte(1)), raw.Frame(0x30, "a"), raw.Frame(0x30, "a", 5),
				raw.Frame(0x36, "a", uint16(1), 0), raw.Frame(0x38, "a", 0),
				raw.Frame(0x30, "a", raw.Props{raw.SessionExpiry.Int(1)}), raw.Frame(0x30, "a", 2, raw.Bytes{0x7F, 0}),
				raw.Frame(0x82, uint16(1), raw.Props{raw.ContentType.Text("x")}, "a", 0), raw.Frame(0xA2, uint16(1), raw.Props{raw.SubscriptionIdentifier.Int(1)}, "a"),
				raw.Frame(0xE0, 0, raw.Props{raw.ReceiveMaximum.Int(1)}), raw.Frame(0xE0, 0, 0, 0), raw.Frame(0xC0, 0), raw.WithFlags(raw.Puback{ID: 1}, 2))
			violations5(t, 0x82,
				raw.Frame(0x00), raw.Connect{ClientID: "c"}, raw.Connack{}, raw.Suback{ID: 1, Codes: []raw.Code{0}}, raw.Unsuback{ID: 1, Codes: []raw.Code{0}}, raw.Pingresp{}, // of the server
				raw.Publish{Topic: "a", QoS: 1}, sub5(0, 0, "a"), raw.Unsubscribe{Filters: []string{"a"}}, raw.Puback{}, raw.Pubrel{}, // identifier 0
				raw.Publish{Topic: "a", Props: raw.Props{raw.ContentType.Text("x"), raw.ContentType.Text("y")}}, raw.Publish{Topic: "a", Props: raw.Props{raw.PayloadFormat.Int(2)}},
				raw.Subscribe{ID: 1, Props: raw.Props{raw.SubscriptionIdentifier.Int(0)}, Filters: []raw.Filter{{Filter: "a"}}},
				raw.Subscribe{ID: 1, Props: raw.Props{raw.SubscriptionIdentifier.Int(1), raw.SubscriptionIdentifier.Int(2)}, Filters: []raw.Filter{{Filter: "a"}}})
			s := start(t, options{})
			other := s.join5("other")
			other.Subscribe(0, "a")
			c := s.join5("c")
			c.Send(raw.Publish{Topic: "a", Payload: "before"}, raw.Frame(0x36, "a", uint16(1), 0), raw.Publish{Topic: "a", Payload: "after"})
			c.ExpectDisconnect(0x81)
			other.ExpectPublish("a", "before")
			other.Quiet()
		}, "MQTT-4.13.1-1"),
		v5("after a CONNACK or DISCONNECT from 0x80, its own or the client's, the server closes and looks at nothing more", func(t *testing.T) {
			s := start(t, options{access: fenced{}})
			watch := s.join5("watch")
			watch.Subscribe(0, "#")
			for code, connect := range map[raw.Code]raw.Connect{
				0x86: {ClientID: "c", User: "bad", Password: "x"},
				0x87: {ClientID: "c", Will: &raw.Will{Topic: "secret/a"}},
				0x84: {ClientID: "c", Level: 6},
				0x8C: {ClientID: "c", Props: raw.Props{raw.AuthMethod.Text("none")}},
				0x90: {ClientID: "c", Will: &raw.Will{Topic: "a/#"}},
			} {
				s.refusedConnect(t, "refused", code, connect, raw.Publish{Topic: "after"})
			}
			c := s.join5("c")
			c.Send(raw.Disconnect{Code: 0x82}, raw.Publish{Topic: "after"}) // the client has found fault
			c.ExpectClosed()
			c = s.join5("c")
			c.Send(raw.Connect{}, raw.Publish{Topic: "after"})
			c.ExpectDisconnect(0x82)
			// Where there is no packet to say it with, it closes all the same.
			c = raw.Dial(t, s.Addr)
			c.Send(raw.Publish{Topic: "after"})
			c.ExpectClosed()
			watch.Quiet()
		}, "MQTT-4.13.2-1"),
	}
}

// TestAnnouncedLimitsHoldUntilTheClientLeaves lowers and raises limits under clients that go by what CONNACK told them.
func TestAnnouncedLimitsHoldUntilTheClientLeaves(t *testing.T) {
	t.Parallel()
	const big = 10_000
	old := broker.Limits{InflightIn: 3, TopicAliasesIn: 3, PacketBytes: 2 * big, ConnectBytes: 500}
	s := start(t, options{limits: old})
	// all uses what the old limits allow, and nothing more.
	all := func(c *raw.Conn) {
		for id := uint16(1); id <= 3; id++ {
			c.Send(raw.Publish{Topic: "a", QoS: 2, ID: id, Props: raw.Props{raw.TopicAlias.Int(uint32(id))}})
			c.ExpectAck(raw.PUBREC, id, 0x10)
		}
		c.Publish(raw.Publish{Topic: "a", QoS: 1, ID: 9, Payload: string(make([]byte, big)), Retain: true})
	}
	c := s.join5("c")
	s.SetLimits(broker.Limits{InflightIn: 1, TopicAliasesIn: 1, PacketBytes: 1000, ConnectBytes: 500, MaximumQoS: 1, NoRetain: true})
	all(c)
	c.Send(raw.Publish{Topic: "a", QoS: 2, ID: 4})
	c.ExpectDisconnect(0x93)
	c, ack := raw.Open(t, s.Addr, raw.Connect{ClientID: "c", Clean: true})
	if p := ack.Props; p.Int(raw.ReceiveMaximum) != 1 || p.Int(raw.TopicAliasMaximum) != 1 || p.Int(raw.MaximumPacketSize) != 1000 || p.IntOr(raw.MaximumQoS, 2) != 1 || p.IntOr(raw.RetainAvailable, 1) != 0 {
		t.Errorf("a new client is told %v", p)
	}
	s.SetLimits(old)
	c.Send(raw.Publish{Topic: "a", QoS: 2, ID: 1})
	c.ExpectDisconnect(0x9B)
	all(s.join5("c"))
}
