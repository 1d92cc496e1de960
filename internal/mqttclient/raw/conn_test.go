package raw

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// pair is two ends of one TCP connection: a client and a fake server.
func pair(t *testing.T) (client, server *Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client = Dial(t, ln.Addr().String())
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return client, On(t, nc)
}

func TestAConversationGoesBothWays(t *testing.T) {
	for _, v := range []Version{V31, V311, V5} {
		t.Run(v.String(), func(t *testing.T) {
			c, s := pair(t)
			c.Send(Connect{
				Version: v, ClientID: "a", Clean: true, KeepAlive: 30, User: "u", Password: "p",
				Will:  &Will{Topic: "w", Payload: "gone", QoS: 1, Retain: true, Props: Props{WillDelay.Int(7)}},
				Props: Props{ReceiveMaximum.Int(3), User("k", "v")},
			})
			got := s.Expect(CONNECT).Connect
			if got.Version != v || got.ClientID != "a" || got.User != "u" || string(got.Password) != "p" || got.Will.Topic != "w" || got.KeepAlive != 30 {
				t.Fatalf("server got %+v", got)
			}
			if v == V5 && (got.Props.Int(ReceiveMaximum) != 3 || got.Will.Props.Int(WillDelay) != 7) {
				t.Fatalf("server got properties %v and %v", got.Props, got.Will.Props)
			}
			s.Send(Connack{SessionPresent: true, Props: Props{AssignedClientID.Text("x")}})
			if ack := c.ExpectCode(CONNACK, 0); !ack.SessionPresent || v == V5 && ack.Props.Text(AssignedClientID) != "x" {
				t.Fatalf("client got %v", ack)
			}
			c.Send(Subscribe{ID: 9, Filters: []Filter{{Filter: "a/+", QoS: 1}, {Filter: "b", QoS: 2}}})
			if p := s.Expect(SUBSCRIBE); p.ID != 9 || len(p.Filters) != 2 || p.Filters[1].QoS != 2 {
				t.Fatalf("server got %v", p)
			}
			s.Send(Suback{ID: 9, Codes: []Code{1, 1}}, Publish{Topic: "a/b", Payload: "x", QoS: 2, ID: 5, Props: Props{SubscriptionIdentifier.Int(300)}})
			c.ExpectAck(SUBACK, 9, 1)
			p := c.ExpectPublish("a/b", "x")
			c.Ack(p)
			c.Ack(Packet{Type: PUBREL, ID: s.ack(PUBREC).ID})
			s.ExpectAck(PUBCOMP, 5, 0)
			c.Close()
			s.Expect(DISCONNECT)
			s.ExpectClosed()
		})
	}
}

// ack expects an acknowledgement of any identifier.
func (c *Conn) ack(want Type) Packet { c.t.Helper(); return c.Expect(want) }

func TestPacketsMayArriveInPieces(t *testing.T) {
	c, s := pair(t)
	big := strings.Repeat("x", 100_000)
	go c.SendSplit(1, Publish{Topic: "a", Payload: "1"}, Publish{Topic: "a", Payload: "2"}, Cut(Publish{Topic: "a", Payload: "3"}, 4))
	s.ExpectPublish("a", "1")
	s.ExpectPublish("a", "2")
	s.ExpectNothing(10 * time.Millisecond)
	c.Send(Bytes(Encode(V5, Publish{Topic: "a", Payload: "3"})[4:]))
	s.ExpectPublish("a", "3")
	c.Send(Publish{Topic: "a", Payload: big})
	s.ExpectPublish("a", big)
}

func TestExpectAllTakesAnyOrder(t *testing.T) {
	c, s := pair(t)
	s.Send(Publish{Topic: "a"}, Puback{ID: 4}, Publish{Topic: "b"})
	got := c.ExpectAll(PUBACK, PUBLISH, PUBLISH)
	if got[0].ID != 4 || got[1].Topic != "a" || got[2].Topic != "b" {
		t.Fatalf("got %v", got)
	}
}

func TestHandMadePacketsHaveTheRightBytes(t *testing.T) {
	for _, tc := range []struct {
		name string
		p    Sendable
		want string
	}{
		{"a frame from fields", Frame(0x82, uint16(1), Props{TopicAlias.Int(2)}, "a/b", 3), "\x82\x0c\x00\x01\x03\x23\x00\x02\x00\x03a/b\x03"},
		{"a wrong length", FrameOf(0xC0, 200, 1), "\xc0\xc8\x01\x01"},
		{"other flags", WithFlags(Pingreq{}, 0xF), "\xcf\x00"},
		{"a shortened body", Shortened(Puback{ID: 1}, 1), "\x40\x01\x00"},
		{"a padded body", Padded(Puback{ID: 1}, 0, 0, 9), "\x40\x05\x00\x01\x00\x00\x09"},
		{"a property without a length", Bytes(Body(PayloadFormat.Int(1), Varint(300))), "\x01\x01\xac\x02"},
	} {
		if got := string(Encode(V5, tc.p)); got != tc.want {
			t.Errorf("%s: % X, want % X", tc.name, got, tc.want)
		}
	}
}

func TestEveryPropertyComesBack(t *testing.T) {
	var ps Props
	for _, id := range wire.IDs() {
		switch _, kind := id.Describe(); kind {
		case wire.KindString:
			ps = append(ps, id.Text("text"))
		case wire.KindBinary:
			ps = append(ps, id.Bytes([]byte{0, 1}))
		case wire.KindPair:
			ps = append(ps, User("name", "value"), User("name", "other"))
		default:
			ps = append(ps, id.Int(1))
		}
	}
	c, s := pair(t)
	c.Send(Publish{Topic: "a", Props: ps})
	if got := s.ExpectPublish("a", ""); got.Props.String() != ps.String() {
		t.Errorf("got  %v\nwant %v", got.Props, ps)
	}
}

// failing stands for a test that is expected to fail.
type failing struct {
	testing.TB
	failed string
}

func (f *failing) Helper() {}
func (f *failing) Fatalf(format string, args ...any) {
	f.failed = format
	panic(f)
}

func TestExpectationsThatAreNotMetFailTheTest(t *testing.T) {
	for _, tc := range []struct {
		name  string
		serve func(s *Conn)
		check func(c *Conn)
	}{
		{"another packet", func(s *Conn) { s.Send(Pingresp{}) }, func(c *Conn) { c.Expect(PUBACK) }},
		{"another code", func(s *Conn) { s.Send(Connack{Code: 0x87}) }, func(c *Conn) { c.ExpectCode(CONNACK, 0) }},
		{"a packet instead of the end", func(s *Conn) { s.Send(Pingresp{}) }, func(c *Conn) { c.ExpectClosed() }},
		{"an open connection", func(s *Conn) {}, func(c *Conn) { c.Timeout = time.Millisecond; c.ExpectClosed() }},
		{"a malformed packet instead of the end", func(s *Conn) { s.Send(Frame(0x30, 0, 9)) }, func(c *Conn) { c.ExpectClosed() }},
		{"half a packet before the end", func(s *Conn) { s.Send(FrameOf(0x30, 9)); s.Drop() }, func(c *Conn) { c.ExpectClosed() }},
		{"a packet instead of silence", func(s *Conn) { s.Send(Pingresp{}) }, func(c *Conn) { c.ExpectNothing(time.Minute) }},
		{"the end instead of silence", func(s *Conn) { s.Drop() }, func(c *Conn) { c.ExpectNothing(time.Minute) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, s := pair(t)
			f := &failing{TB: t}
			c.t = f
			tc.serve(s)
			func() {
				defer func() {
					if r := recover(); r != nil && r != any(f) {
						panic(r)
					}
				}()
				tc.check(c)
			}()
			if f.failed == "" {
				t.Error("the expectation was met")
			}
		})
	}
}

func TestAMosquittoAnswersAsExpected(t *testing.T) {
	addr := Mosquitto(t)
	for _, v := range []Version{V31, V311, V5} {
		c, ack := Open(t, addr, Connect{Version: v, ClientID: "raw", Clean: true})
		if ack.SessionPresent {
			t.Error("session present")
		}
		c.Subscribe(2, "a/#")
		c.Publish(Publish{Topic: "b", Payload: "x", QoS: 2, ID: 3})
		c.Send(Publish{Topic: "a/b", Payload: "hello", QoS: 1, ID: 7})
		got := c.ExpectAll(PUBACK, PUBLISH)
		c.Ack(got[1])
		c.Quiet()
		c.Send(Frame(0x36, "a/b", uint16(9), byte(0)))
		c.ExpectDisconnect(0x81)
	}
}
