package broker_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// statements5Subscribe are chapters 3.4 to 3.11.
func statements5Subscribe() []statement {
	return slices.Concat(statements5Acks(), statements5Subscriptions(), statements5Unsubscribe())
}

// codes5 sends a SUBSCRIBE and expects one SUBACK with exactly these codes.
func codes5(t *testing.T, c *raw.Conn, s raw.Subscribe, want ...raw.Code) {
	t.Helper()
	c.Send(s)
	p := c.Expect(raw.SUBACK)
	if p.ID != s.ID || !slices.Equal(p.Codes, want) {
		t.Fatalf("SUBACK for id %d has codes % X, want id %d and % X", p.ID, p.Codes, s.ID, want)
	}
}

// sub5 is a SUBSCRIBE of filters that all have the same QoS.
func sub5(id uint16, qos byte, filters ...string) raw.Subscribe {
	s := raw.Subscribe{ID: id}
	for _, f := range filters {
		s.Filters = append(s.Filters, raw.Filter{Filter: f, QoS: qos})
	}
	return s
}

// violations5 sends each packet on a connection of its own and expects the server to end it with the code.
func violations5(t *testing.T, code raw.Code, packets ...raw.Sendable) {
	t.Helper()
	s := start(t, options{})
	for i, p := range packets {
		c := s.join5("c")
		c.Send(p)
		if got := c.Read(); got.Type != raw.DISCONNECT || got.Code != code {
			t.Fatalf("packet %d (% X): got %v, want DISCONNECT with code 0x%02X", i, raw.Encode(raw.V5, p), got, byte(code))
		}
		c.ExpectClosed()
		c.Drop()
	}
}

// statements5Subscriptions are chapters 3.8 and 3.9.
func statements5Subscriptions() []statement {
	return []statement{
		{"5.0", []string{"MQTT-3.8.1-1"}, "SUBSCRIBE with other flags than 0010 is malformed", func(t *testing.T) {
			var all []raw.Sendable
			for _, flags := range []byte{0, 1, 3, 6, 10, 15} {
				all = append(all, raw.WithFlags(sub5(1, 0, "a"), flags))
			}
			violations5(t, 0x81, all...)
		}},
		{"5.0", []string{"MQTT-3.8.3-1"}, "a filter in SUBSCRIBE that is not UTF-8 is malformed", func(t *testing.T) {
			violations5(t, 0x81, sub5(1, 0, "a/\xff"), sub5(1, 0, "\xed\xa0\x80"), sub5(1, 0, "\xc0\x80"), sub5(1, 0, "fine", "a\x00b"))
		}},
		{"5.0", []string{"MQTT-3.8.3-2"}, "SUBSCRIBE without a filter is a protocol error, a filter without options malformed", func(t *testing.T) {
			violations5(t, 0x82, raw.Subscribe{ID: 1})
			violations5(t, 0x81, raw.Frame(0x82, uint16(1), 0, "a"), raw.Frame(0x82, uint16(1), 0, "a", 0, "b"), raw.Frame(0x82, uint16(1)), raw.Frame(0x82, 0))
		}},
		{"5.0", []string{"MQTT-3.8.3-3"}, "a subscription with No Local gets nothing of its own client id's, also after a reconnect, and everything of others'", func(t *testing.T) {
			s := start(t, options{})
			c, other := s.keep5("c"), s.join5("other")
			codes5(t, c, raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "a/#", QoS: 1, NoLocal: true}, {Filter: "both", QoS: 1, NoLocal: true}, {Filter: "both/#", QoS: 0}}}, 1, 1, 0)
			c.Publish(raw.Publish{Topic: "a/b", Payload: "mine", QoS: 1, ID: 1})
			c.Quiet()
			other.Publish(raw.Publish{Topic: "a/b", Payload: "other's", QoS: 1, ID: 1})
			c.Ack(c.ExpectPublish("a/b", "other's"))
			c.Send(raw.Publish{Topic: "both", Payload: "mine"}) // through the subscription that has no No Local
			c.ExpectPublish("both", "mine")
			c.Quiet()
			s.leave5(c, raw.Disconnect{})
			c = s.resume5("c")
			c.Publish(raw.Publish{Topic: "a/b", Payload: "mine", QoS: 2, ID: 1})
			c.Quiet()
		}},
		{"5.0", []string{"MQTT-3.8.3-4"}, "No Local on a shared subscription is a protocol error", func(t *testing.T) {
			violations5(t, 0x82,
				raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "$share/g/a", NoLocal: true}}},
				raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "b"}, {Filter: "$share/g/#", QoS: 1, NoLocal: true}}})
		}},
		{"5.0", []string{"MQTT-3.8.3-5"}, "a SUBSCRIBE with reserved option bits is malformed; QoS 3 and Retain Handling 3 are protocol errors", func(t *testing.T) {
			option := func(o byte) raw.Sendable {
				return raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "a"}, {Filter: "b", Options: &o}}}
			}
			violations5(t, 0x81, option(0x40), option(0x80), option(0xC1))
			violations5(t, 0x82, option(0x03), option(0x30))
		}},
		{"5.0", []string{"MQTT-3.8.4-1", "MQTT-3.8.4-2"}, "each SUBSCRIBE is answered by one SUBACK with its identifier, several in their order", func(t *testing.T) {
			c := start(t, options{}).join5("c")
			c.Send(sub5(7, 0, "a"), sub5(65535, 1, "b"), sub5(1, 2, "a"))
			c.ExpectAck(raw.SUBACK, 7, 0)
			c.ExpectAck(raw.SUBACK, 65535, 1)
			c.ExpectAck(raw.SUBACK, 1, 2)
			c.Quiet()
		}},
		{"5.0", []string{"MQTT-3.8.4-3"}, "the same filter again replaces QoS, options and identifier; a message comes once", func(t *testing.T) {
			s := start(t, options{})
			c := s.join5("c")
			first := raw.Subscribe{ID: 1, Props: raw.Props{raw.SubscriptionIdentifier.Int(11)}, Filters: []raw.Filter{{Filter: "a/+", QoS: 2, NoLocal: true}}}
			codes5(t, c, first, 2)
			second := raw.Subscribe{ID: 2, Props: raw.Props{raw.SubscriptionIdentifier.Int(300_000)}, Filters: []raw.Filter{{Filter: "a/+", QoS: 0}}}
			codes5(t, c, second, 0)
			c.Send(raw.Publish{Topic: "a/b", QoS: 2, ID: 1})
			p := c.ExpectAll(raw.PUBREC, raw.PUBLISH)[1]
			if ids := p.Props.Ints(raw.SubscriptionIdentifier); p.QoS != 0 || !slices.Equal(ids, []uint32{300_000}) {
				t.Errorf("got QoS %d with identifiers %v, want QoS 0 with 300000", p.QoS, ids)
			}
			c.Quiet()
			codes5(t, c, sub5(3, 1, "a/+"), 1) // an identifier that is not given again is gone
			c.Send(raw.Publish{Topic: "a/b", QoS: 1, ID: 2})
			p = c.ExpectAll(raw.PUBACK, raw.PUBLISH)[1]
			if ids := p.Props.Ints(raw.SubscriptionIdentifier); p.QoS != 1 || len(ids) > 0 {
				t.Errorf("got QoS %d with identifiers %v, want QoS 1 without", p.QoS, ids)
			}
			c.Quiet()
			if n := s.Hub.Stats().Subscriptions; n != 1 {
				t.Errorf("%d subscriptions, want 1", n)
			}
		}},
		{"5.0", []string{"MQTT-3.8.4-4"}, "with Retain Handling 0 retained messages come again when a subscription is replaced", func(t *testing.T) {
			c := start(t, options{}).join5("c")
			c.Publish(raw.Publish{Topic: "a", Payload: "kept", Retain: true, QoS: 1, ID: 1})
			for id := uint16(1); id <= 3; id++ {
				codes5(t, c, sub5(id, 0, "a"), 0)
				if p := c.ExpectPublish("a", "kept"); !p.Retain {
					t.Error("RETAIN is not set")
				}
				c.Quiet()
			}
		}},
		{"5.0", []string{"MQTT-3.8.4-4"}, "while a subscription is replaced again and again no message is lost, repeated or reordered", func(t *testing.T) {
			s := start(t, options{})
			c, pub := s.join5("c"), s.join5("pub")
			codes5(t, c, sub5(1, 1, "a"), 1)
			const n = 300
			var publishes, subscribes []raw.Sendable
			for i := range uint16(n) {
				publishes = append(publishes, raw.Publish{Topic: "a", Payload: fmt.Sprint(i), QoS: 1, ID: i + 1})
				subscribes = append(subscribes, sub5(i+2, 1+byte(i%2), "a"))
			}
			sent := make(chan struct{})
			go func() { // both at once; neither waits for answers
				defer close(sent)
				for len(publishes) > 0 {
					pub.Net.Write(raw.Encode(raw.V5, publishes[:10]...))
					publishes = publishes[10:]
				}
			}()
			go func() {
				for len(subscribes) > 0 {
					c.Net.Write(raw.Encode(raw.V5, subscribes[:10]...))
					subscribes = subscribes[10:]
				}
			}()
			for got, acks := 0, 0; got < n || acks < n; {
				p := c.Read()
				switch p.Type {
				case raw.SUBACK:
					acks++
				case raw.PUBLISH:
					if p.Text() != fmt.Sprint(got) {
						t.Fatalf("message %s came, want %d", p.Text(), got)
					}
					got++
					c.Ack(p)
				default:
					t.Fatalf("got %v", p)
				}
			}
			<-sent
			c.Quiet()
		}},
		{"5.0", []string{"MQTT-3.8.4-5"}, "a SUBSCRIBE with many filters acts as many in their order, with one SUBACK", func(t *testing.T) {
			c := start(t, options{}).join5("c")
			for _, topic := range []string{"r/1", "r/2"} {
				c.Publish(raw.Publish{Topic: topic, Payload: topic, Retain: true, QoS: 1, ID: 1})
			}
			s := sub5(9, 1, "r/1", "x", "r/2")
			s.Filters = append(s.Filters, raw.Filter{Filter: "x", QoS: 0}) // the last one for a filter holds
			codes5(t, c, s, 1, 1, 1, 0)
			c.Ack(c.ExpectPublish("r/1", "r/1"))
			c.Ack(c.ExpectPublish("r/2", "r/2"))
			c.Send(raw.Publish{Topic: "x", QoS: 1, ID: 2})
			if p := c.ExpectAll(raw.PUBACK, raw.PUBLISH)[1]; p.QoS != 0 {
				t.Errorf("x comes at QoS %d, want 0", p.QoS)
			}
			c.Quiet()
		}},
		{"5.0", []string{"MQTT-3.8.4-6", "MQTT-3.8.4-7", "MQTT-3.9.3-1", "MQTT-3.9.3-2"}, "SUBACK has one listed code for each filter in their order: the granted QoS, 0x87, 0x8F or 0x97; what was refused has no effect", func(t *testing.T) {
			s := start(t, options{access: fenced{}, hub: bridge.Limits{Subscriptions: 4}})
			c := s.join5("c")
			codes5(t, c, raw.Subscribe{ID: 1, Filters: []raw.Filter{
				{Filter: "q2", QoS: 2}, {Filter: "secret/a", QoS: 1}, {Filter: "q0", QoS: 0}, {Filter: "a#", QoS: 1}, {Filter: "q1", QoS: 1},
				{Filter: "$share//a"}, {Filter: "q2", QoS: 1}, {Filter: "four"}, {Filter: "five"}, {Filter: "q0", QoS: 2},
			}}, 2, 0x87, 0, 0x8F, 1, 0x8F, 1, 0, 0x97, 2)
			if n := s.Hub.Stats().Subscriptions; n != 4 {
				t.Errorf("%d subscriptions, want 4", n)
			}
			c.Send(raw.Publish{Topic: "five"}, raw.Publish{Topic: "a"}, raw.Publish{Topic: "secret/a"})
			c.Quiet()
		}},
		{"5.0", []string{"MQTT-3.8.4-7", "MQTT-3.9.3-2"}, "a server without wildcards, shared subscriptions or QoS 2 says 0xA2, 0x9E and the QoS it grants", func(t *testing.T) {
			s := start(t, options{limits: broker.Limits{NoWildcards: true, NoShared: true, MaximumQoS: 1}})
			c := s.join5("c")
			codes5(t, c, sub5(1, 2, "a", "a/#", "+", "$share/g/a", "b"), 1, 0xA2, 0xA2, 0x9E, 1)
			c.Publish(raw.Publish{Topic: "a/b", QoS: 1, ID: 1})
			c.Quiet()
		}},
		{"5.0", []string{"MQTT-3.8.4-8"}, "messages come at the lower of their own and the granted QoS", func(t *testing.T) {
			s := start(t, options{})
			pub := s.join5("pub")
			for granted := range byte(3) {
				c := s.join5("c")
				c.Subscribe(granted, "a")
				for qos := range byte(3) {
					pub.Publish(raw.Publish{Topic: "a", QoS: qos, ID: 1})
					if p := c.Deliver(); p.QoS != min(qos, granted) {
						t.Errorf("QoS %d comes at %d where %d was granted", qos, p.QoS, granted)
					}
				}
				c.Quiet()
			}
		}},
	}
}

// statements5Unsubscribe are chapters 3.10 and 3.11.
func statements5Unsubscribe() []statement {
	// unsub sends an UNSUBSCRIBE and expects one UNSUBACK with exactly these codes.
	unsub := func(t *testing.T, c *raw.Conn, u raw.Unsubscribe, want ...raw.Code) {
		t.Helper()
		c.Send(u)
		p := c.Expect(raw.UNSUBACK)
		if p.ID != u.ID || !slices.Equal(p.Codes, want) {
			t.Fatalf("UNSUBACK for id %d has codes % X, want id %d and % X", p.ID, p.Codes, u.ID, want)
		}
	}
	return []statement{
		{"5.0", []string{"MQTT-3.10.1-1"}, "UNSUBSCRIBE with other flags than 0010 is malformed", func(t *testing.T) {
			var all []raw.Sendable
			for _, flags := range []byte{0, 1, 3, 6, 10, 15} {
				all = append(all, raw.WithFlags(raw.Unsubscribe{ID: 1, Filters: []string{"a"}}, flags))
			}
			violations5(t, 0x81, all...)
		}},
		{"5.0", []string{"MQTT-3.10.3-1"}, "a filter in UNSUBSCRIBE that is not UTF-8 is malformed", func(t *testing.T) {
			violations5(t, 0x81, raw.Unsubscribe{ID: 1, Filters: []string{"a/\xff"}}, raw.Unsubscribe{ID: 1, Filters: []string{"fine", "a\x00b"}},
				raw.Unsubscribe{ID: 1, Filters: []string{"\xed\xbf\xbf"}}, raw.Frame(0xA2, uint16(1), 0, uint16(5), []byte("a")))
		}},
		{"5.0", []string{"MQTT-3.10.3-2"}, "UNSUBSCRIBE without a filter is a protocol error", func(t *testing.T) {
			violations5(t, 0x82, raw.Unsubscribe{ID: 1})
		}},
		{"5.0", []string{"MQTT-3.10.4-1", "MQTT-3.11.3-2"}, "filters are compared character by character: what only means the same stays and is answered 0x11", func(t *testing.T) {
			s := start(t, options{})
			c := s.join5("c")
			c.Subscribe(0, "a/+", "a/b", "A/b", "$share/g/a/b", "/a")
			for _, f := range []string{"a/#", "a", "a/b/", "/a/b", "a/B", "$share/h/a/b", "$share/g/a/+", "#", "é", "e\u0301"} {
				unsub(t, c, raw.Unsubscribe{ID: 3, Filters: []string{f}}, 0x11)
			}
			if n := s.Hub.Stats().Subscriptions; n != 5 {
				t.Fatalf("%d subscriptions, want all 5", n)
			}
			unsub(t, c, raw.Unsubscribe{ID: 4, Filters: []string{"a/+"}}, 0)
			c.Send(raw.Publish{Topic: "a/c"})
			c.Quiet()
			unsub(t, c, raw.Unsubscribe{ID: 5, Filters: []string{"a/b", "$share/g/a/b"}}, 0, 0)
			c.Send(raw.Publish{Topic: "a/b"})
			c.Quiet()
			c.Send(raw.Publish{Topic: "A/b"})
			c.ExpectPublish("A/b", "")
		}},
		{"5.0", []string{"MQTT-3.10.4-2"}, "after UNSUBACK nothing more comes for the filter, live, retained or for an offline session", func(t *testing.T) {
			s := start(t, options{})
			c, pub := s.keep5("c"), s.join5("pub")
			c.Subscribe(1, "a", "b")
			unsub(t, c, raw.Unsubscribe{ID: 1, Filters: []string{"a"}}, 0)
			pub.Publish(raw.Publish{Topic: "a", QoS: 1, ID: 1, Retain: true, Payload: "x"})
			c.Quiet()
			s.leave5(c, raw.Disconnect{})
			pub.Publish(raw.Publish{Topic: "a", QoS: 1, ID: 1, Payload: "no"})
			pub.Publish(raw.Publish{Topic: "b", QoS: 1, ID: 1, Payload: "yes"})
			c = s.resume5("c")
			c.Ack(c.ExpectPublish("b", "yes"))
			c.Quiet()
		}},
		{"5.0", []string{"MQTT-3.10.4-3"}, "QoS 1 and 2 deliveries that have begun are completed after UNSUBSCRIBE, also across a reconnect", func(t *testing.T) {
			s := start(t, options{})
			c, pub := s.keep5("c"), s.join5("pub")
			c.Subscribe(2, "a")
			pub.Publish(raw.Publish{Topic: "a", QoS: 1, ID: 1, Payload: "one"})
			pub.Publish(raw.Publish{Topic: "a", QoS: 2, ID: 1, Payload: "two"})
			pub.Publish(raw.Publish{Topic: "a", QoS: 2, ID: 1, Payload: "three"})
			one, two, three := c.ExpectPublish("a", "one"), c.ExpectPublish("a", "two"), c.ExpectPublish("a", "three")
			unsub(t, c, raw.Unsubscribe{ID: 1, Filters: []string{"a"}}, 0)
			c.Ack(two)
			rel := c.ExpectAck(raw.PUBREL, two.ID, 0)
			s.lose5(c)
			c = s.resume5("c")
			for _, want := range []raw.Packet{one, three} {
				if want.ID == three.ID {
					c.Ack(c.ExpectAck(raw.PUBREL, rel.ID, 0))
				}
				p := c.ExpectPublish("a", want.Text())
				if p.ID != want.ID || !p.Dup {
					t.Errorf("got %v, want %v again", p, want)
				}
				c.Ack(p)
			}
			c.Ack(c.ExpectAck(raw.PUBREL, three.ID, 0))
			c.Quiet()
			if n := s.stats().Inflight; n != 0 {
				t.Errorf("%d messages are still under way", n)
			}
		}},
		{"5.0", []string{"MQTT-3.10.4-4", "MQTT-3.10.4-5"}, "each UNSUBSCRIBE is answered by one UNSUBACK with its identifier, also where nothing was deleted", func(t *testing.T) {
			c := start(t, options{}).join5("c")
			c.Subscribe(0, "a")
			c.Send(raw.Unsubscribe{ID: 65535, Filters: []string{"b"}}, raw.Unsubscribe{ID: 2, Filters: []string{"a"}}, raw.Unsubscribe{ID: 1, Filters: []string{"a"}})
			c.ExpectAck(raw.UNSUBACK, 65535, 0x11)
			c.ExpectAck(raw.UNSUBACK, 2, 0)
			c.ExpectAck(raw.UNSUBACK, 1, 0x11)
			c.Quiet()
		}},
		{"5.0", []string{"MQTT-3.10.4-6", "MQTT-3.11.3-1"}, "an UNSUBSCRIBE with many filters acts as many in their order, with one UNSUBACK and one code each", func(t *testing.T) {
			s := start(t, options{})
			c := s.join5("c")
			c.Subscribe(0, "a", "b", "c")
			unsub(t, c, raw.Unsubscribe{ID: 6, Filters: []string{"b", "x", "a", "b", "a#", "c/#"}}, 0, 0x11, 0, 0x11, 0x8F, 0x11)
			c.Send(raw.Publish{Topic: "a"}, raw.Publish{Topic: "b"}, raw.Publish{Topic: "c"})
			c.ExpectPublish("c", "")
			c.Quiet()
			if n := s.Hub.Stats().Subscriptions; n != 1 {
				t.Errorf("%d subscriptions, want 1", n)
			}
		}},
	}
}
