package broker_test

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// statements5Rest are chapters 3.12 to 6.
func statements5Rest() []statement {
	return slices.Concat(statements5Disconnect(), statements5Auth(), statements5State(), statements5QoS(), statements5Order(), statements5Topics(), statements5Shared(), statements5Quota(), statements5Errors())
}

// notCovered5 are the statements of MQTT 5 without a test.
func notCovered5() map[string]string {
	m := maps.Clone(notCovered5Connect())
	for id, why := range map[string]string{
		"MQTT-3.15.2-2": "outside: the server gives no reason string with AUTH, so none can make it too large",
		"MQTT-3.15.2-3": "outside: the server gives no user property with AUTH, so none can make it too large",
		"MQTT-4.5.0-2":  "outside: binds the client, and one that does not acknowledge looks like one that is slow",
		"MQTT-4.7.3-3":  "outside: a longer string can't be written, its length has two bytes",
		"MQTT-6.0.0-1":  "comes with the WebSocket gateway",
		"MQTT-6.0.0-2":  "comes with the WebSocket gateway",
		"MQTT-6.0.0-3":  "comes with the WebSocket gateway",
		"MQTT-6.0.0-4":  "comes with the WebSocket gateway",
	} {
		m["5.0 "+id] = why
	}
	return m
}

// statements5Disconnect are chapters 3.12 and 3.14.
func statements5Disconnect() []statement {
	will := func(props ...raw.Property) *raw.Will {
		return &raw.Will{Topic: "will", Payload: "gone", QoS: 1, Props: props}
	}
	return []statement{
		{"5.0", []string{"MQTT-3.12.4-1"}, "each PINGREQ is answered by one PINGRESP", func(t *testing.T) {
			c := start(t, options{}).join5("c")
			c.Send(raw.Pingreq{}, raw.Pingreq{}, raw.Publish{Topic: "a", QoS: 1, ID: 1}, raw.Pingreq{})
			c.Expect(raw.PINGRESP)
			c.Expect(raw.PINGRESP)
			c.ExpectAck(raw.PUBACK, 1, 0x10)
			c.Expect(raw.PINGRESP)
			c.Quiet()
			violations5(t, 0x81, raw.WithFlags(raw.Pingreq{}, 1), raw.Padded(raw.Pingreq{}, 0))
		}},
		{"5.0", []string{"MQTT-3.14.0-1"}, "before a CONNACK that lets the client in the server sends no DISCONNECT, whatever is wrong", func(t *testing.T) {
			s := start(t, options{access: fenced{}})
			for _, tc := range []struct {
				send  raw.Sendable
				codes []raw.Code // of the CONNACK; none: there is none
			}{
				{raw.Connect{ClientID: "c", User: "bad", Password: "x"}, []raw.Code{0x86}},
				{raw.Connect{ClientID: "c", Flags: new(byte(0x03))}, []raw.Code{0x81}},
				{raw.Connect{ClientID: "c", Props: raw.Props{raw.TopicAlias.Int(1)}}, []raw.Code{0x81}},
				{raw.Pingreq{}, nil},
			} {
				c := raw.Dial(t, s.Addr)
				c.Send(tc.send)
				for _, code := range tc.codes {
					c.ExpectCode(raw.CONNACK, code)
				}
				c.ExpectClosed()
			}
			s = start(t, options{limits: broker.Limits{ConnectTimeout: 500 * time.Millisecond}, exchanges: map[string]func() broker.Exchange{"steps": newSteps}})
			silent := raw.Dial(t, s.Addr)
			c := raw.Dial(t, s.Addr) // and one that stops in the middle of authentication
			c.Send(raw.Connect{ClientID: "c", Props: raw.Props{raw.AuthMethod.Text("steps")}})
			c.ExpectCode(raw.AUTH, 0x18)
			if p, err := c.Next(time.Now().Add(c.Timeout)); err == nil {
				if p.Type != raw.CONNACK || p.Code != 0x80 && p.Code != 0x87 {
					t.Errorf("got %v, want CONNACK with code 0x80 or 0x87 or the end", p)
				}
				c.ExpectClosed()
			}
			silent.ExpectClosed()
			silent.Drop()
			c.Drop()
		}},
		{"5.0", []string{"MQTT-3.14.1-1"}, "reserved bits of DISCONNECT give 0x81, and the will is published", func(t *testing.T) {
			s := start(t, options{})
			sub := s.join5("sub")
			sub.Subscribe(0, "will")
			for _, flags := range []byte{1, 2, 4, 8, 15} {
				c := s.open(raw.Connect{ClientID: "c", Clean: true, Will: will()})
				c.Send(raw.WithFlags(raw.Disconnect{}, flags))
				c.ExpectDisconnect(0x81)
				sub.ExpectPublish("will", "gone")
			}
		}},
		{"5.0", []string{"MQTT-3.14.2-1"}, "of a client's DISCONNECT the listed reason codes are taken, with and without properties; others are protocol errors", func(t *testing.T) {
			s := start(t, options{})
			for code := range raw.Code(0xFF) {
				c := s.join5("c")
				d := raw.Disconnect{Code: code}
				if code%2 == 1 {
					d.Props = raw.Props{raw.ReasonString.Text("because"), raw.User("k", "v")}
				}
				c.Send(d)
				switch code {
				case 0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99:
					c.ExpectClosed()
				default:
					c.ExpectDisconnect(0x82)
				}
				c.Drop()
			}
		}},
		{"5.0", []string{"MQTT-3.14.2-1", "MQTT-3.14.2-2"}, "the server's DISCONNECT says why with a listed code and never has a Session Expiry Interval", func(t *testing.T) {
			s := start(t, options{limits: broker.Limits{TopicAliasesIn: 1, InflightIn: 1, PacketBytes: 200, ConnectBytes: 200}})
			check := func(p raw.Packet) {
				t.Helper()
				if p.Props.Has(raw.SessionExpiry) {
					t.Errorf("%v has a Session Expiry Interval", p)
				}
			}
			for _, tc := range []struct {
				code raw.Code
				send raw.Sendable
			}{
				{0x81, raw.Frame(0x36, "a", uint16(1), 0)},
				{0x82, raw.Connect{ClientID: "c"}},
				{0x90, raw.Publish{Topic: "a/+"}},
				{0x93, raw.Encoded(raw.Publish{Topic: "a", QoS: 2, ID: 1}, raw.Publish{Topic: "a", QoS: 2, ID: 2})},
				{0x94, raw.Publish{Topic: "a", Props: raw.Props{raw.TopicAlias.Int(2)}}},
				{0x95, raw.Publish{Topic: "a", Payload: string(make([]byte, 200))}},
			} {
				c := s.keep5("c")
				c.Send(tc.send)
				p := c.Await(raw.DISCONNECT) // perhaps behind the PUBREC for the first
				if p.Code != tc.code {
					t.Errorf("%v, want code %v", p, tc.code)
				}
				check(p)
				c.ExpectClosed()
				c.Drop() // else the server waits for it at the end
			}
			old := s.keep5("c")
			c := s.keep5("c")
			check(old.ExpectDisconnect(0x8E))
			old.Drop()
			go s.stop()
			check(c.ExpectDisconnect(0x8B))
			c.Drop()
		}},
		{"5.0", []string{"MQTT-3.14.2-3", "MQTT-3.14.2-4"}, "the reason string of DISCONNECT is left out where the client's Maximum Packet Size has no room for it, and no user property is sent", func(t *testing.T) {
			s := start(t, options{})
			for _, props := range []raw.Props{nil, {raw.MaximumPacketSize.Int(noRoom5)}} {
				c := s.join5("c", props...)
				c.Send(raw.WithFlags(sub5(1, 0, "a"), 0))
				p := c.ExpectDisconnect(0x81)
				if has := p.Props.Has(raw.ReasonString); has != (props == nil) || len(p.Props.Users()) > 0 {
					t.Errorf("with %v got %v", props, p)
				}
				old := s.join5("c", props...)
				s.join5("c")
				p = old.ExpectDisconnect(0x8E)
				if has := p.Props.Has(raw.ReasonString); has != (props == nil) || len(p.Props.Users()) > 0 {
					t.Errorf("with %v got %v", props, p)
				}
			}
		}},
		{"5.0", []string{"MQTT-3.14.4-1", "MQTT-3.14.4-2"}, "what follows a client's DISCONNECT is not looked at, nothing answers it, and the server closes; after its own DISCONNECT the server closes without another packet", func(t *testing.T) {
			s := start(t, options{})
			sub := s.join5("sub")
			sub.Subscribe(0, "#")
			c := s.join5("c")
			c.Send(raw.Publish{Topic: "before"}, raw.Disconnect{}, raw.Publish{Topic: "after"}, raw.Pingreq{}, raw.Frame(0xF0, 1, 2, 3))
			c.ExpectClosed()
			sub.ExpectPublish("before", "")
			sub.Quiet()
			c = s.join5("c")
			c.Send(raw.Pubrec{ID: 1, Code: 1}, raw.Publish{Topic: "after"}, raw.Pingreq{})
			c.ExpectDisconnect(0x82)
			sub.Quiet()
		}},
		{"5.0", []string{"MQTT-3.14.4-3"}, "DISCONNECT 0x00 discards the will, also one with a delay; every other code publishes it", func(t *testing.T) {
			s := start(t, options{})
			sub := s.join5("sub")
			sub.Subscribe(0, "will", "mark")
			for _, d := range []raw.Sendable{raw.Disconnect{}, raw.Frame(0xE0, 0), raw.Frame(0xE0, 0, 0), raw.Disconnect{Props: raw.Props{raw.ReasonString.Text("bye")}}} {
				c := s.open(raw.Connect{ClientID: "c", Clean: true, Will: will()})
				s.fewer5(func() { c.Send(d); c.ExpectClosed(); c.Drop() })
				c = s.open(raw.Connect{ClientID: "c", Clean: true, Will: will(raw.WillDelay.Int(3600)), Props: raw.Props{raw.SessionExpiry.Int(3600)}})
				s.fewer5(func() { c.Send(d); c.ExpectClosed(); c.Drop() })
				s.join5("c").Close() // the session's end would publish it
				sub.Quiet()
			}
			for _, d := range []raw.Sendable{raw.Frame(0xE0, 4), raw.Frame(0xE0, 4, 0), raw.Disconnect{Code: 0x04, Props: raw.Props{raw.User("k", "v")}}, raw.Disconnect{Code: 0x80}, raw.Disconnect{Code: 0x98}} {
				c := s.open(raw.Connect{ClientID: "c", Clean: true, Will: will()})
				c.Send(d)
				c.ExpectClosed()
				sub.ExpectPublish("will", "gone")
			}
		}},
	}
}

// TestDisconnectMayChangeTheSessionExpiry is MQTT 5 section 3.14.2.2.2.
func TestDisconnectMayChangeTheSessionExpiry(t *testing.T) {
	s := start(t, options{})
	expiry := func(n uint32) raw.Disconnect { return raw.Disconnect{Props: raw.Props{raw.SessionExpiry.Int(n)}} }
	present := func(want bool) {
		t.Helper()
		c, ack := raw.Open(t, s.Addr, raw.Connect{ClientID: "c"})
		if ack.SessionPresent != want {
			t.Errorf("session present is %v, want %v", ack.SessionPresent, want)
		}
		s.leave5(c, raw.Disconnect{})
	}
	s.leave5(s.keep5("c"), raw.Disconnect{})
	present(true) // and ends with that connection, which asked for no expiry
	present(false)
	s.leave5(s.keep5("c"), expiry(0))
	present(false)
	s.leave5(s.keep5("c"), expiry(7200))
	present(true)
	c := s.join5("c")
	c.Send(expiry(1)) // where CONNECT had none
	c.ExpectDisconnect(0x82)
	present(false)
	c = s.join5("c")
	c.Send(expiry(0))
	c.ExpectClosed()
	c = s.join5("c")
	c.Send(raw.Disconnect{Props: raw.Props{raw.ServerReference.Text("elsewhere")}}) // the server's
	c.ExpectDisconnect(0x81)
}

func TestADrainingServerSaysWhereToGo(t *testing.T) {
	s := start(t, options{})
	c := s.join5("c")
	done := make(chan error)
	go func() { done <- s.Drain(context.Background(), 0x9D, "other.example:1883") }()
	if p := c.ExpectDisconnect(0x9D); p.Props.Text(raw.ServerReference) != "other.example:1883" {
		t.Errorf("got %v", p)
	}
	c.Drop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
