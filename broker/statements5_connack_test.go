package broker_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// statements5Connack are the tests of chapter 3.2, and those of the clients' duties that follow from CONNACK.
func statements5Connack() []statement {
	return []statement{
		v5("CONNACK comes before what waits in the session and before the answers to what came with CONNECT", connackIsFirst, "MQTT-3.2.0-1"),
		v5("there is one CONNACK on a connection", func(t *testing.T) {
			s := start(t, options{})
			c := raw.Dial(t, s.Addr)
			c.Send(raw.Connect{ClientID: "c", Clean: true}, raw.Pingreq{})
			c.ExpectCode(raw.CONNACK, 0)
			c.Expect(raw.PINGRESP)
			c.Quiet()
			c.Send(raw.Connect{ClientID: "c", Clean: true})
			c.ExpectDisconnect(0x82)
		}, "MQTT-3.2.0-2"),
		v5("the flags of CONNACK are 0 or Session Present", connackFlags, "MQTT-3.2.2-1"),
		v5("Session Present is 0 after Clean Start, and else tells whether there was a session", sessionPresent, "MQTT-3.2.2-2", "MQTT-3.2.2-3"),
		v5("a refusal has Session Present 0, closes the connection, and leaves session and live connection of that client as they are",
			refusalLeavesSession, "MQTT-3.2.2-6", "MQTT-3.2.2-7"),
		v5("every refusal has a reason code that CONNACK may have", refusalCodes, "MQTT-3.2.2-8"),
		v5("CONNACK announces every limit in force", announcedLimits, "MQTT-3.2.2-9"),
		v5("a server of Maximum QoS 0 or 1 takes SUBSCRIBEs of every QoS and grants what it has", maximumQoS, "MQTT-3.2.2-10"),
		v5("a PUBLISH above Maximum QoS: DISCONNECT 0x9B", func(t *testing.T) {
			s := start(t, options{limits: broker.Limits{MaximumQoS: 1}})
			s.ended(t, "QoS 2", 0x9B, raw.Publish{Topic: "a", QoS: 2, ID: 1})
			s = start(t, options{limits: broker.Limits{NoQoS: true}})
			s.ended(t, "QoS 1", 0x9B, raw.Publish{Topic: "a", QoS: 1, ID: 1})
		}, "MQTT-3.2.2-11"),
		v5("a will above Maximum QoS: CONNACK 0x9B", func(t *testing.T) {
			s := start(t, options{limits: broker.Limits{MaximumQoS: 1}})
			s.refusedConnect(t, "will QoS 2", 0x9B, raw.Connect{ClientID: "c", Will: &raw.Will{Topic: "w", QoS: 2}})
			s.open(raw.Connect{ClientID: "c", Will: &raw.Will{Topic: "w", QoS: 1}})
		}, "MQTT-3.2.2-12"),
		v5("a will to be retained where nothing is: CONNACK 0x9A", func(t *testing.T) {
			s := start(t, options{limits: broker.Limits{NoRetain: true}})
			s.refusedConnect(t, "will retain", 0x9A, raw.Connect{ClientID: "c", Will: &raw.Will{Topic: "w", Retain: true}})
			s.open(raw.Connect{ClientID: "c", Will: &raw.Will{Topic: "w"}})
		}, "MQTT-3.2.2-13"),
		v5("a PUBLISH to be retained where nothing is: DISCONNECT 0x9A", func(t *testing.T) {
			s := start(t, options{limits: broker.Limits{NoRetain: true}})
			for qos := range byte(3) {
				s.ended(t, "retain", 0x9A, raw.Publish{Topic: "a", Payload: "p", Retain: true, QoS: qos, ID: 1})
			}
			if n := s.Hub.Stats().Retained; n != 0 {
				t.Errorf("%d messages are retained", n)
			}
		}, "MQTT-3.2.2-14"),
		v5("a packet above the server's Maximum Packet Size: DISCONNECT 0x95, as soon as its length is known; one of that size is taken",
			maximumPacketSizeIn, "MQTT-3.2.2-15"),
		v5("an assigned client identifier is nobody else's", func(t *testing.T) {
			s := start(t, options{})
			taken := make(map[string]bool)
			for range 50 {
				_, ack := raw.Open(t, s.Addr, kept(""))
				id := ack.Props.Text(raw.AssignedClientID)
				if id == "" || taken[id] || ack.SessionPresent {
					t.Fatalf("got %s", ack)
				}
				taken[id] = true
			}
			if n := len(s.Hub.Clients()); n != len(taken) {
				t.Errorf("%d clients are attached, want %d", n, len(taken))
			}
		}, "MQTT-3.2.2-16"),
		v5("a Topic Alias above the server's maximum: DISCONNECT 0x94", func(t *testing.T) {
			s := start(t, options{limits: broker.Limits{TopicAliasesIn: 5}})
			for _, alias := range []uint32{6, 7, 32, 65535} {
				s.ended(t, "alias above 5", 0x94, raw.Publish{Topic: "a", Props: raw.Props{raw.TopicAlias.Int(alias)}})
				s.ended(t, "alias above 5 without topic", 0x94, raw.Publish{Props: raw.Props{raw.TopicAlias.Int(alias)}})
			}
		}, "MQTT-3.2.2-17"),
		v5("a Reason String that would make CONNACK larger than the client takes is left out", func(t *testing.T) {
			s := start(t, options{access: fenced{}})
			bad := raw.Connect{ClientID: "c", User: "bad", Clean: true}
			full := s.refusedConnect(t, "no maximum", 0x86, bad)
			text := full.Props.Text(raw.ReasonString)
			if text == "" {
				t.Fatal("there is no reason string to leave out")
			}
			size := uint32(2 + 2 + 1 + 3 + len(text))
			bad.Props = raw.Props{raw.MaximumPacketSize.Int(size)}
			wantProps(t, s.refusedConnect(t, "large enough", 0x86, bad), raw.ReasonString.Text(text))
			bad.Props = raw.Props{raw.MaximumPacketSize.Int(size - 1)}
			wantProps(t, s.refusedConnect(t, "too small", 0x86, bad))
		}, "MQTT-3.2.2-19"),
		v5("who does not keep to the server's keep alive is closed after one and a half of it", serverKeepAlive, "MQTT-3.2.2-21", "MQTT-3.1.2-21"),
		v5("without a Server Keep Alive the client's own holds", func(t *testing.T) {
			onFakeClock(t, options{}, func(s *fakeClock) {
				c, ack := s.connect(raw.Connect{ClientID: "c", Clean: true, KeepAlive: 1200})
				if ack.Props.Has(raw.ServerKeepAlive) {
					t.Errorf("got %s", ack)
				}
				begin := time.Now()
				c.ExpectDisconnect(0x8D)
				if got := time.Since(begin); got != 1800*time.Second {
					t.Errorf("closed after %s", got)
				}
			})
		}, "MQTT-3.2.2-22", "MQTT-3.1.2-20"),
		v5("during enhanced authentication any packet but AUTH and DISCONNECT: CONNACK 0x82", onlyAuth, "MQTT-3.1.2-30"),
	}
}

func connackIsFirst(t *testing.T) {
	s := start(t, options{})
	furnished(t, s, "c")
	c := raw.Dial(t, s.Addr)
	c.Send(kept("c"), raw.Pingreq{}, raw.Publish{Topic: "in/own", QoS: 1, ID: 1}, raw.Subscribe{ID: 2, Filters: []raw.Filter{{Filter: "a"}}})
	if ack := c.ExpectCode(raw.CONNACK, 0); !ack.SessionPresent {
		t.Errorf("got %s", ack)
	}
	c.ExpectAll(raw.PUBLISH, raw.PUBLISH, raw.PUBREL, raw.PUBLISH, raw.PUBLISH, raw.PINGRESP, raw.PUBACK, raw.SUBACK)
	c.Quiet()

	// While others publish to the session as fast as they can.
	pub := s.open(raw.Connect{ClientID: "flood", Clean: true})
	flood := make(chan struct{})
	go func() {
		defer close(flood)
		all := raw.Encode(raw.V5, raw.Publish{Topic: "in/flood", QoS: 1, ID: 1}, raw.Publish{Topic: "in/flood"})
		all = bytes.Repeat(all, 50)
		for range 20 {
			pub.Net.Write(all)
		}
	}()
	for range 10 {
		c := raw.Dial(t, s.Addr)
		c.Send(kept("c"))
		c.ExpectCode(raw.CONNACK, 0)
	}
	<-flood
}

func connackFlags(t *testing.T) {
	s := start(t, options{access: fenced{}})
	for _, v := range []struct {
		connect raw.Connect
		want    [2]byte
	}{
		{kept("c"), [2]byte{0, 0}},
		{kept("c"), [2]byte{1, 0}},
		{raw.Connect{ClientID: "c", Clean: true}, [2]byte{0, 0}},
		{raw.Connect{ClientID: "c", User: "bad"}, [2]byte{0, 0x86}},
	} {
		c := raw.Dial(t, s.Addr)
		c.Send(v.connect)
		got := readBytes(t, c, 4)
		if got[0] != 0x20 || got[2] != v.want[0] || got[3] != v.want[1] {
			t.Errorf("got % X, want flags and code % X", got, v.want)
		}
		c.Drop()
	}
}

func sessionPresent(t *testing.T) {
	s := start(t, options{})
	clean := kept("c")
	clean.Clean = true
	for i, v := range []struct {
		connect raw.Connect
		want    bool
	}{
		{clean, false}, {clean, false}, {kept("c"), true}, {kept("c"), true}, {kept("C"), false}, {clean, false}, {raw.Connect{ClientID: "c"}, true},
		{kept("c"), false}, {kept("c"), true},
	} {
		c, ack := raw.Open(t, s.Addr, v.connect)
		if ack.SessionPresent != v.want {
			t.Errorf("connection %d: got %s", i, ack)
		}
		if i%2 == 0 { // the others are taken over
			c.Close()
		}
	}
}

func refusalLeavesSession(t *testing.T) {
	s := start(t, options{access: fenced{}})
	c := s.open(kept("c"))
	c.Subscribe(1, "a")
	bad := raw.Connect{ClientID: "c", User: "bad"}
	s.refusedConnect(t, "while connected", 0x86, bad)
	c.Quiet()
	c.Send(raw.Disconnect{})
	c.ExpectClosed()
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	pub.Publish(raw.Publish{Topic: "a", QoS: 1, ID: 1})
	s.refusedConnect(t, "while away", 0x86, bad)
	bad.Clean = true
	s.refusedConnect(t, "with Clean Start", 0x86, bad)
	c, ack := raw.Open(t, s.Addr, kept("c"))
	if !ack.SessionPresent {
		t.Errorf("got %s", ack)
	}
	c.ExpectPublish("a", "")
}

// stubborn is an Exchange that never ends.
type stubborn struct{}

func (stubborn) Step([]byte) ([]byte, bool, string, error) { return []byte("go on"), false, "", nil }

// failing refuses with every reason in turn, by user name.
type failing struct{ open }

func (failing) Authenticate(_ context.Context, c bridge.Credentials) (*bridge.Identity, error) {
	if c.User == "" {
		return nil, errors.New("broken")
	}
	return nil, bridge.Refuse(bridge.Reason(c.User[0]), "no")
}

func refusalCodes(t *testing.T) {
	listed := []raw.Code{
		0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
	}
	refused := func(c *raw.Conn, what string) {
		t.Helper()
		if p := c.Expect(raw.CONNACK); !slices.Contains(listed, p.Code) {
			t.Errorf("%s: got %s", what, p)
		}
		c.ExpectClosed()
	}
	s := start(t, options{access: failing{}})
	c := raw.Dial(t, s.Addr)
	c.Send(raw.Connect{ClientID: "c"})
	c.ExpectCode(raw.CONNACK, 0x80)
	for _, r := range bridge.Reasons() {
		if r == bridge.OK || r == bridge.NoMatchingSubscriber { // these refuse nothing
			continue
		}
		c := raw.Dial(t, s.Addr)
		c.Send(raw.Connect{ClientID: "c", User: string(rune(r))})
		refused(c, r.String())
	}

	s = start(t, options{hub: bridge.Limits{Clients: 1}, limits: broker.Limits{UserProperties: 1, StringBytes: 100, ConnectBytes: 1000}})
	s.open(raw.Connect{ClientID: "c"})
	s.refusedConnect(t, "too many clients", 0x97, raw.Connect{ClientID: "d"})
	s.refusedConnect(t, "too many user properties", 0x97, raw.Connect{ClientID: "c", Props: raw.Props{raw.User("", ""), raw.User("", "")}})
	s.refusedConnect(t, "too long a property", 0x95, raw.Connect{ClientID: "c", Props: raw.Props{raw.User("", strings.Repeat("x", 101))}})

	onFakeClock(t, options{exchanges: map[string]func() broker.Exchange{"stubborn": func() broker.Exchange { return stubborn{} }}}, func(s *fakeClock) {
		c := s.dial()
		c.Send(raw.Connect{ClientID: "c", Props: raw.Props{raw.AuthMethod.Text("stubborn")}})
		c.ExpectCode(raw.AUTH, 0x18)
		begin := time.Now()
		refused(c, "authentication that is not finished")
		if got := time.Since(begin); got != 10*time.Second {
			t.Errorf("closed after %s", got)
		}
	})
}

func announcedLimits(t *testing.T) {
	s := start(t, options{})
	c, ack := raw.Open(t, s.Addr, raw.Connect{ClientID: "c", Clean: true})
	wantProps(t, ack, raw.ReceiveMaximum.Int(256), raw.MaximumPacketSize.Int(1<<20), raw.TopicAliasMaximum.Int(32), raw.ServerKeepAlive.Int(1200))
	c.Send(raw.Subscribe{ID: 1, Props: raw.Props{raw.SubscriptionIdentifier.Int(1)}, Filters: []raw.Filter{{Filter: "$share/g/+/#"}}})
	c.ExpectCode(raw.SUBACK, 0) // what is not denied is available
	c.Send(raw.Publish{Topic: "a/b", Payload: "p", QoS: 2, ID: 1, Retain: true})
	c.ExpectAll(raw.PUBREC, raw.PUBLISH)

	s = start(t, options{limits: broker.Limits{
		PacketBytes: 2000, ConnectBytes: 1000, InflightIn: 7, TopicAliasesIn: 5, MaximumQoS: 1, NoRetain: true, NoWildcards: true,
		NoShared: true, MaxKeepAlive: 30 * time.Second, SessionExpiry: 100 * time.Second,
	}})
	c, ack = raw.Open(t, s.Addr, raw.Connect{ClientID: "", Clean: true, KeepAlive: 31, Props: raw.Props{raw.SessionExpiry.Int(101)}})
	wantProps(t, ack, raw.ReceiveMaximum.Int(7), raw.MaximumPacketSize.Int(2000), raw.TopicAliasMaximum.Int(5), raw.MaximumQoS.Int(1),
		raw.RetainAvailable.Int(0), raw.WildcardSubscriptionAvailable.Int(0), raw.SharedSubscriptionAvailable.Int(0),
		raw.ServerKeepAlive.Int(30), raw.SessionExpiry.Int(100), raw.AssignedClientID.Text(ack.Props.Text(raw.AssignedClientID)))
	c.Send(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "a/+"}, {Filter: "#"}, {Filter: "$share/g/a"}, {Filter: "a/b"}}})
	if p := c.Expect(raw.SUBACK); !slices.Equal(p.Codes, []raw.Code{0xA2, 0xA2, 0x9E, 0}) {
		t.Errorf("got %s", p)
	}

	s = start(t, options{limits: broker.Limits{NoQoS: true}})
	_, ack = raw.Open(t, s.Addr, raw.Connect{ClientID: "c", Clean: true, KeepAlive: 1200})
	wantProps(t, ack, raw.ReceiveMaximum.Int(256), raw.MaximumPacketSize.Int(1<<20), raw.TopicAliasMaximum.Int(32), raw.MaximumQoS.Int(0))
}

func maximumQoS(t *testing.T) {
	for granted, limits := range map[raw.Code]broker.Limits{0: {NoQoS: true}, 1: {MaximumQoS: 1}} {
		s := start(t, options{limits: limits})
		c := s.open(raw.Connect{ClientID: "c", Clean: true})
		for qos := range byte(3) {
			c.Send(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "a", QoS: qos}}})
			c.ExpectAck(raw.SUBACK, 1, min(granted, raw.Code(qos)))
		}
		c.Send(raw.Publish{Topic: "a", QoS: byte(granted), ID: 1})
		if granted == 1 {
			c.ExpectAll(raw.PUBLISH, raw.PUBACK)
		} else {
			c.Expect(raw.PUBLISH)
		}
	}
}

func maximumPacketSizeIn(t *testing.T) {
	s := start(t, options{limits: broker.Limits{PacketBytes: 2000, ConnectBytes: 1000}})
	p := raw.Publish{Topic: "a"}
	p.Payload = strings.Repeat("x", 2000-len(raw.Encode(raw.V5, p))-1)
	if n := len(raw.Encode(raw.V5, p)); n != 2000 {
		t.Fatalf("%d bytes", n)
	}
	c := s.open(raw.Connect{ClientID: "c", Clean: true})
	c.Subscribe(0, "a")
	c.Send(p)
	wantPublish(t, c.Expect(raw.PUBLISH), p)
	larger := p
	larger.Payload += "x"
	c.Send(larger)
	c.ExpectDisconnect(0x95)
	s.ended(t, "only the length", 0x95, raw.FrameOf(0x30, 268_435_455))

	// Before CONNECT is accepted it is the smaller limit that counts, and nobody is there to be told.
	c = raw.Dial(t, s.Addr)
	c.Send(raw.Connect{ClientID: "c", Clean: true, Password: strings.Repeat("x", 1000)})
	c.ExpectClosed()
	s.open(raw.Connect{ClientID: "c", Clean: true, Password: strings.Repeat("x", 900)})
}

func serverKeepAlive(t *testing.T) {
	for _, keep := range []uint16{0, 21, 65535} {
		onFakeClock(t, options{limits: broker.Limits{MaxKeepAlive: 20 * time.Second}}, func(s *fakeClock) {
			c, ack := s.connect(raw.Connect{ClientID: "c", Clean: true, KeepAlive: keep})
			if p, ok := ack.Props.Find(raw.ServerKeepAlive); !ok || p.Int != 20 {
				t.Errorf("keep alive %d: got %s", keep, ack)
			}
			s.pass(29 * time.Second)
			c.Quiet()
			begin := time.Now()
			c.ExpectDisconnect(0x8D)
			if got := time.Since(begin); got != 30*time.Second {
				t.Errorf("keep alive %d: closed after %s", keep, got)
			}
		})
	}
}

func onlyAuth(t *testing.T) {
	s := start(t, options{exchanges: map[string]func() broker.Exchange{"stubborn": func() broker.Exchange { return stubborn{} }}})
	begin := func() *raw.Conn {
		c := raw.Dial(t, s.Addr)
		c.Send(raw.Connect{ClientID: "c", Clean: true, Props: raw.Props{raw.AuthMethod.Text("stubborn")}})
		c.ExpectCode(raw.AUTH, 0x18)
		return c
	}
	for _, p := range []raw.Sendable{
		raw.Publish{Topic: "a"}, raw.Pingreq{}, raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "a"}}}, raw.Connect{ClientID: "c"},
		raw.Unsubscribe{ID: 1, Filters: []string{"a"}}, raw.Puback{ID: 1},
	} {
		c := begin()
		c.Send(p)
		c.ExpectCode(raw.CONNACK, 0x82)
		c.ExpectClosed()
	}
	c := begin()
	c.Send(raw.Auth{Code: 0x18, Props: raw.Props{raw.AuthMethod.Text("stubborn")}})
	c.ExpectCode(raw.AUTH, 0x18)
	c.Send(raw.Disconnect{})
	c.ExpectClosed()
}
