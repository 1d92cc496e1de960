package broker_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// join5 opens an MQTT 5 connection with a new session that lasts as long as it.
func (s *server) join5(id string, props ...raw.Property) *raw.Conn {
	s.t.Helper()
	return s.open(raw.Connect{ClientID: id, Clean: true, Props: props})
}

// keep5 opens an MQTT 5 connection with a new session that outlives it.
func (s *server) keep5(id string, props ...raw.Property) *raw.Conn {
	s.t.Helper()
	return s.join5(id, append(props, raw.SessionExpiry.Int(3600))...)
}

// resume5 opens an MQTT 5 connection that goes on with a session, which must be there.
func (s *server) resume5(id string, props ...raw.Property) *raw.Conn {
	s.t.Helper()
	c, ack := raw.Open(s.t, s.Addr, raw.Connect{ClientID: id, Props: append(props, raw.SessionExpiry.Int(3600))})
	if !ack.SessionPresent {
		s.t.Fatalf("the session of %s is not there", id)
	}
	return c
}

// lose5 cuts a connection and waits until the server has noticed.
func (s *server) lose5(c *raw.Conn) {
	s.t.Helper()
	s.fewer5(c.Drop)
}

// leave5 disconnects and waits until the server has let the connection go.
func (s *server) leave5(c *raw.Conn, d raw.Disconnect) {
	s.t.Helper()
	s.fewer5(func() {
		c.Send(d)
		c.ExpectClosed()
		c.Net.Close()
	})
}

// fewer5 waits until there is one connection less than before end.
func (s *server) fewer5(end func()) {
	s.t.Helper()
	before := s.stats().Connections
	end()
	eventually(s.t, func() error {
		if n := s.stats().Connections; n >= before {
			return fmt.Errorf("%d connections, %d before", n, before)
		}
		return nil
	})
}

// bare5 fails where a packet has properties.
func bare5(t *testing.T, p raw.Packet) {
	t.Helper()
	if len(p.Props) > 0 {
		t.Errorf("%v has properties", p)
	}
}

// refusals5 provokes each kind of acknowledgement with a refusal in it from a server that fences "secret/". limit is the
// client's Maximum Packet Size, 0 for none. What must hold for each packet is checked by check.
func refusals5(t *testing.T, limit uint32, check func(p raw.Packet)) {
	s := start(t, options{access: fenced{}})
	var props raw.Props
	if limit > 0 {
		props = raw.Props{raw.MaximumPacketSize.Int(limit)}
	}
	c := s.join5("c", props...)
	c.Send(raw.Publish{Topic: "secret/a", QoS: 1, ID: 1})
	check(c.ExpectAck(raw.PUBACK, 1, 0x87))
	c.Send(raw.Publish{Topic: "secret/a", QoS: 2, ID: 2})
	check(c.ExpectAck(raw.PUBREC, 2, 0x87))
	c.Send(raw.Pubrel{ID: 3})
	check(c.ExpectAck(raw.PUBCOMP, 3, 0x92))
	c.Send(raw.Pubrec{ID: 4})
	check(c.ExpectAck(raw.PUBREL, 4, 0x92))
	c.Send(raw.Subscribe{ID: 5, Filters: []raw.Filter{{Filter: "secret/a"}}})
	check(c.ExpectAck(raw.SUBACK, 5, 0x87))
	c.Send(raw.Unsubscribe{ID: 6, Filters: []string{"secret/a"}})
	check(c.ExpectAck(raw.UNSUBACK, 6, 0x11))
	c.Quiet()
}

// noRoom5 is a Maximum Packet Size with room for CONNACK and every acknowledgement without a reason string, and for none
// with one.
const noRoom5 = 24

// statements5Acks are chapters 3.4 to 3.7, and what chapters 3.9 and 3.11 have in common with them.
func statements5Acks() []statement {
	return []statement{
		{"5.0", []string{"MQTT-3.4.2-2", "MQTT-3.5.2-2", "MQTT-3.9.2-1"}, "a reason string goes out where there is room for it, and is left out of PUBACK, PUBREC and SUBACK where the client's Maximum Packet Size has none", func(t *testing.T) {
			withText := 0
			refusals5(t, 0, func(p raw.Packet) {
				if p.Props.Text(raw.ReasonString) != "" {
					withText++
				}
			})
			if withText < 3 {
				t.Errorf("%d packets have a reason string, want PUBACK, PUBREC and SUBACK at least", withText)
			}
			refusals5(t, noRoom5, func(p raw.Packet) { bare5(t, p) })
		}},
		{"5.0", []string{"MQTT-3.4.2-3", "MQTT-3.5.2-3", "MQTT-3.6.2-3", "MQTT-3.7.2-3", "MQTT-3.9.2-2", "MQTT-3.11.2-2"}, "the server puts no user property into an acknowledgement, so none makes it too large", func(t *testing.T) {
			check := func(p raw.Packet) {
				if users := p.Props.Users(); len(users) > 0 {
					t.Errorf("%v has user properties", p)
				}
			}
			refusals5(t, 0, check)
			refusals5(t, noRoom5, check)
		}},
		{"5.0", []string{"MQTT-3.6.2-2", "MQTT-3.7.2-2", "MQTT-3.11.2-1"}, "PUBREL, PUBCOMP and UNSUBACK stay within a small Maximum Packet Size, refusal included", func(t *testing.T) {
			refusals5(t, noRoom5, func(p raw.Packet) {
				switch p.Type {
				case raw.PUBREL, raw.PUBCOMP, raw.UNSUBACK:
					bare5(t, p)
				}
			})
		}},
		{"5.0", []string{"MQTT-3.4.2-1", "MQTT-3.5.2-1"}, "PUBACK and PUBREC say 0x00, 0x10 without subscribers, 0x87, 0x90 and 0x97 for refusals", func(t *testing.T) {
			s := start(t, options{access: fenced{}, hub: bridge.Limits{TopicLevels: 3, RetainedValues: 1}})
			sub := s.join5("sub")
			sub.Subscribe(0, "a")
			c := s.join5("c")
			for id, tc := range []struct {
				p    raw.Publish
				code raw.Code
			}{
				{raw.Publish{Topic: "a"}, 0x00},
				{raw.Publish{Topic: "nobody"}, 0x10},
				{raw.Publish{Topic: "secret/a"}, 0x87},
				{raw.Publish{Topic: "a/b/c/d"}, 0x90},
				{raw.Publish{Topic: "a", Payload: "x", Retain: true}, 0x00},
				{raw.Publish{Topic: "b", Payload: "x", Retain: true}, 0x97},
			} {
				tc.p.ID = uint16(2*id + 1)
				tc.p.QoS = 1
				c.Send(tc.p)
				c.ExpectAck(raw.PUBACK, tc.p.ID, tc.code)
				tc.p.ID++
				tc.p.QoS = 2
				c.Send(tc.p)
				c.ExpectAck(raw.PUBREC, tc.p.ID, tc.code)
				if tc.code < 0x80 {
					c.Send(raw.Pubrel{ID: tc.p.ID})
					c.ExpectAck(raw.PUBCOMP, tc.p.ID, 0)
				}
			}
		}},
		{"5.0", []string{"MQTT-3.4.2-1", "MQTT-3.5.2-1", "MQTT-3.6.2-1", "MQTT-3.7.2-1"}, "an acknowledgement with a reason code that its type does not have is a protocol error", func(t *testing.T) {
			s := start(t, options{})
			for _, p := range []func(id uint16) raw.Sendable{
				func(id uint16) raw.Sendable { return raw.Puback{ID: id, Code: 0x04} },
				func(id uint16) raw.Sendable { return raw.Puback{ID: id, Code: 0x92} },
				func(id uint16) raw.Sendable { return raw.Pubrec{ID: id, Code: 0x18} },
				func(id uint16) raw.Sendable { return raw.Pubrec{ID: id, Code: 0x8E} },
				func(id uint16) raw.Sendable { return raw.Pubrel{ID: id, Code: 0x10} },
				func(id uint16) raw.Sendable { return raw.Pubrel{ID: id, Code: 0x80} },
				func(id uint16) raw.Sendable { return raw.Pubcomp{ID: id, Code: 0x01} },
				func(id uint16) raw.Sendable { return raw.Pubcomp{ID: id, Code: 0x87} },
			} {
				c := s.join5("c")
				c.Send(p(1))
				c.ExpectDisconnect(0x82)
			}
		}},
		{"5.0", []string{"MQTT-3.4.2-1", "MQTT-3.5.2-1", "MQTT-3.6.2-1", "MQTT-3.7.2-1"}, "every reason code that a client may use is taken, with and without properties", func(t *testing.T) {
			s := start(t, options{})
			c := s.join5("c")
			c.Subscribe(2, "a")
			pub := s.join5("pub")
			props := raw.Props{raw.ReasonString.Text("because"), raw.User("k", "v")}
			for i, code := range []raw.Code{0x00, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99} {
				for qos := byte(1); qos <= 2; qos++ {
					pub.Publish(raw.Publish{Topic: "a", QoS: qos, ID: 1})
					p := c.ExpectPublish("a", "")
					var with raw.Props
					if i%2 == 0 {
						with = props
					}
					switch {
					case qos == 1:
						c.Send(raw.Puback{ID: p.ID, Code: code, Props: with})
					default:
						c.Send(raw.Pubrec{ID: p.ID, Code: code, Props: with})
						if code == 0 {
							c.ExpectAck(raw.PUBREL, p.ID, 0)
							c.Send(raw.Pubcomp{ID: p.ID, Props: with})
						}
					}
					c.Quiet()
				}
			}
			if n := s.stats().Inflight; n != 0 {
				t.Errorf("%d messages are still under way", n)
			}
			// 0x92 says that the identifier is not known; it is not an error to be told.
			c.Send(raw.Pubrel{ID: 9, Code: 0x92})
			c.ExpectAck(raw.PUBCOMP, 9, 0x92)
			c.Send(raw.Pubcomp{ID: 9, Code: 0x92})
			c.Quiet()
		}},
		{"5.0", []string{"MQTT-3.6.1-1"}, "PUBREL with other flags than 0010 is malformed", func(t *testing.T) {
			s := start(t, options{})
			for _, flags := range []byte{0, 1, 3, 6, 10, 15} {
				c := s.join5("c")
				c.Send(raw.Publish{Topic: "a", QoS: 2, ID: 1})
				c.ExpectAck(raw.PUBREC, 1, 0x10)
				c.Send(raw.WithFlags(raw.Pubrel{ID: 1}, flags))
				c.ExpectDisconnect(0x81)
			}
		}},
		{"5.0", []string{"MQTT-3.6.2-1", "MQTT-3.7.2-1"}, "PUBREL and PUBCOMP say 0x00, and 0x92 where the identifier is not known", func(t *testing.T) {
			s := start(t, options{})
			c := s.join5("c")
			c.Subscribe(2, "a")
			c.Send(raw.Publish{Topic: "a", QoS: 2, ID: 7})
			got := c.ExpectAll(raw.PUBREC, raw.PUBLISH)
			c.Send(raw.Pubrel{ID: 7}, raw.Pubrec{ID: got[1].ID})
			c.ExpectAck(raw.PUBCOMP, 7, 0)
			c.ExpectAck(raw.PUBREL, got[1].ID, 0)
			c.Send(raw.Pubcomp{ID: got[1].ID})
			c.Send(raw.Pubrel{ID: 7}, raw.Pubrec{ID: got[1].ID})
			c.ExpectAck(raw.PUBCOMP, 7, 0x92)
			c.ExpectAck(raw.PUBREL, got[1].ID, 0x92)
		}},
	}
}

// TestAcknowledgementsInTheFormsThatMQTT5Allows sends each acknowledgement with and without reason code and property length.
func TestAcknowledgementsInTheFormsThatMQTT5Allows(t *testing.T) {
	s := start(t, options{limits: broker.Limits{InflightOut: 8}})
	c := s.join5("c")
	c.Subscribe(2, "a")
	for _, tail := range [][]any{{}, {0}, {0, 0}, {0, raw.Props{raw.ReasonString.Text("x")}}} {
		c.Send(raw.Publish{Topic: "a", QoS: 1, ID: 1})
		p := c.ExpectAll(raw.PUBACK, raw.PUBLISH)[1]
		c.Send(raw.Frame(0x40, append([]any{p.ID}, tail...)...))
		c.Send(raw.Publish{Topic: "a", QoS: 2, ID: 2})
		p = c.ExpectAll(raw.PUBREC, raw.PUBLISH)[1]
		c.Send(raw.Frame(0x50, append([]any{p.ID}, tail...)...), raw.Frame(0x62, append([]any{uint16(2)}, tail...)...))
		c.ExpectAck(raw.PUBREL, p.ID, 0)
		c.ExpectAck(raw.PUBCOMP, 2, 0)
		c.Send(raw.Frame(0x70, append([]any{p.ID}, tail...)...))
		c.Quiet()
		if n := s.stats().Inflight; n != 0 {
			t.Fatalf("%d messages are under way after acknowledgements with % v", n, tail)
		}
	}
	for _, bad := range []raw.Sendable{
		raw.Frame(0x40, 0),                                             // half an identifier
		raw.Frame(0x40, uint16(1), 0, 5),                               // properties that do not come
		raw.Frame(0x40, uint16(1), 0, 0, 0),                            // a byte too many
		raw.Frame(0x40, uint16(1), 0, 2, raw.Body(raw.Bytes{0x7F, 0})), // no such property
	} {
		c := s.join5("c")
		c.Send(bad)
		c.ExpectDisconnect(0x81)
	}
	c = s.join5("c")
	c.Send(raw.Puback{ID: 1, Props: raw.Props{raw.ReasonString.Text("x"), raw.ReasonString.Text("y")}})
	c.ExpectDisconnect(0x82) // a property that may be there once
	c = s.join5("c")
	c.Send(raw.Puback{ID: 1, Props: raw.Props{raw.ReasonString.Text(strings.Repeat("x", 300)), raw.TopicAlias.Int(1)}})
	c.ExpectDisconnect(0x81) // a property of another packet
}
