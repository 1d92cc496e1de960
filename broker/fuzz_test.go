package broker

import (
	"bytes"
	"context"
	"net"
	"reflect"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
	packet "github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

func FuzzHeader(f *testing.F) {
	f.Add([]byte{0x30, 0x00})
	f.Add([]byte{0x30, 0xFF, 0xFF, 0xFF, 0x7F})
	f.Add([]byte{0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x01})
	f.Add([]byte{0x30, 0x80, 0x00})
	f.Fuzz(func(t *testing.T, p []byte) {
		first, length, size, err := scanHeader(p)
		if err != nil || size == 0 {
			return
		}
		if again := appendVarint([]byte{first}, length); !bytes.Equal(again, p[:size]) || varintSize(length) != size-1 {
			t.Fatalf("% X is read as %d, which is % X", p[:size], length, again)
		}
		for n := range size {
			if _, _, k, err := scanHeader(p[:n]); k != 0 || err != nil {
				t.Fatalf("the first %d bytes of % X are read as a header of %d, %v", n, p[:size], k, err)
			}
		}
	})
}

// publishSeeds are PUBLISH bodies of MQTT 5 with their first byte.
func publishSeeds(add func(first byte, body []byte)) {
	for _, p := range []packet.Publish{
		{Topic: "a/b", Payload: []byte("payload")},
		{Topic: "a", QoS: 1, ID: 7, Retain: true, Dup: true, Props: packet.Props{packet.MessageExpiry.Int(10), packet.PayloadFormat.Int(1)}},
		{Topic: "", QoS: 2, ID: 65535, Props: packet.Props{packet.TopicAlias.Int(3), packet.ContentType.Text("text"), packet.ResponseTopic.Text("r")}},
		{Topic: "x", Props: packet.Props{packet.CorrelationData.Bytes([]byte{1, 2}), packet.User("name", "value"), packet.User("", "")}},
		{Topic: "x", Props: packet.Props{packet.SubscriptionIdentifier.Int(1)}},
	} {
		whole := p.Append(nil, packet.V5)
		add(whole[0], whole[2:])
	}
}

// FuzzPublish checks that whatever is accepted is encoded and read again as the same.
func FuzzPublish(f *testing.F) {
	publishSeeds(func(first byte, body []byte) {
		f.Add(first, body, true)
		f.Add(first, body, false)
	})
	limits := DefaultLimits()
	const now = 1_700_000_000_000_000_000
	f.Fuzz(func(t *testing.T, first byte, body []byte, v5 bool) {
		first = tPublish<<4 | first&15
		var m, again bridge.Message
		var pk, pk2 publishPacket
		if parsePublish(first, body, v5, &m, &pk, &limits, now) != nil || len(body) > 1<<20 {
			return
		}
		props := 0
		if v5 {
			props = publishPropertiesSize(&m, nil, pk.alias)
		}
		out := appendPublish(nil, &m, string(m.Topic), v5, m.QoS > 0, props, nil, pk.alias, now)
		if size := publishSize(&m, string(m.Topic), v5, m.QoS > 0, props); size != len(out) {
			t.Fatalf("the size of %d bytes is given as %d", len(out), size)
		}
		first2, length, size, err := scanHeader(out)
		if err != nil || size+length != len(out) {
			t.Fatalf("the header of % X is wrong: %v", out[:min(len(out), 8)], err)
		}
		first2 |= publishFlags(m.QoS, m.Retain, pk.dup)
		if m.QoS > 0 {
			k := headerSize(out) + 2 + len(m.Topic)
			out[k], out[k+1] = byte(pk.id>>8), byte(pk.id)
		}
		if err := parsePublish(first2, out[size:], v5, &again, &pk2, &limits, now); err != nil {
			t.Fatalf("what was encoded is refused: %v", err)
		}
		pk.users, pk2.users = nil, nil
		if first != first2 || !reflect.DeepEqual(pk, pk2) || !reflect.DeepEqual(m, again) {
			t.Fatalf("%+v %+v\nbecame\n%+v %+v", m, pk, again, pk2)
		}
	})
}

func FuzzAck(f *testing.F) {
	for _, a := range []packet.Ack{
		{Type: packet.PUBACK, ID: 1},
		{Type: packet.PUBREC, ID: 65535, Code: 0x80, Props: packet.Props{packet.ReasonString.Text("why"), packet.User("a", "b")}},
		{Type: packet.PUBREL, ID: 3, Code: 0x92},
	} {
		f.Add(a.Append(nil, packet.V5)[2:], true)
		f.Add(a.Append(nil, packet.V311)[2:], false)
	}
	f.Fuzz(func(t *testing.T, body []byte, v5 bool) {
		a, err := parseAck(body, v5)
		if err != nil {
			return
		}
		p := appendAck(nil, tPuback<<4, a.id, v5, a.code, "")
		again, err := parseAck(p[2:], v5)
		if err != nil || again != a {
			t.Fatalf("%+v became %+v, %v", a, again, err)
		}
	})
}

func connectSeeds(add func(body []byte)) {
	for _, c := range []packet.Connect{
		{Version: packet.V31, ClientID: "a"},
		{Version: packet.V311, ClientID: "a", Clean: true, User: "u", HasUser: true, Password: []byte("p"), HasPassword: true, Will: &packet.Will{Topic: "w", QoS: 2, Retain: true}},
		{Version: packet.V5, ClientID: "a", Props: packet.Props{packet.SessionExpiry.Int(1), packet.ReceiveMaximum.Int(2), packet.MaximumPacketSize.Int(3), packet.TopicAliasMaximum.Int(4)}},
		{Version: packet.V5, Props: packet.Props{packet.AuthMethod.Text("M"), packet.AuthData.Bytes([]byte{1}), packet.User("a", "b"), packet.RequestProblemInformation.Int(0)}},
		{Version: packet.V5, ClientID: "a", Will: &packet.Will{Topic: "w", Payload: []byte("x"), Props: packet.Props{packet.WillDelay.Int(3), packet.MessageExpiry.Int(4), packet.ResponseTopic.Text("r"), packet.CorrelationData.Bytes(nil)}}},
	} {
		whole := c.Append(nil)
		add(whole[2:])
	}
	add([]byte("\x00\x06MQIsdp\x83\x02\x00\x3C\x00\x01a"))
	add([]byte("\x00\x04MQTT\x84\x02\x00\x3C\x00\x01a"))
	add([]byte("\x00\x06MQIsdp\x03\xC2\x00\x3C\x00\x01a"))
}

func FuzzConnect(f *testing.F) {
	connectSeeds(func(body []byte) { f.Add(body) })
	limits := DefaultLimits()
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		pk, err := decodeConnect(body, &limits, 0)
		if !bytes.Equal(before, body) {
			t.Fatal("the packet was changed")
		}
		if err != nil {
			return
		}
		if pk.version < 3 || pk.version > 5 || !wellFormed(pk.clientID) || !wellFormed(pk.user) {
			t.Fatalf("accepted %+v", pk)
		}
		if pk.will != nil {
			if _, err := bridge.ParseTopic(string(pk.will.message.Topic)); err != nil || pk.will.message.QoS > 2 {
				t.Fatalf("accepted a will for %q: %v", pk.will.message.Topic, err)
			}
		}
		// Nothing may be a view into the packet.
		kept := *pk
		clear(body)
		again, err := decodeConnect(before, &limits, 0)
		if err != nil || !reflect.DeepEqual(&kept, again) {
			t.Fatalf("with the packet gone %+v became %+v, %v", again, kept, err)
		}
	})
}

func FuzzSubscribe(f *testing.F) {
	for _, s := range []packet.Subscribe{
		{ID: 1, Filters: []packet.Filter{{Filter: "a/#", QoS: 2}}},
		{ID: 2, Filters: []packet.Filter{{Filter: "$share/g/+", QoS: 1}, {Filter: "b"}}, Props: packet.Props{packet.SubscriptionIdentifier.Int(268_435_455), packet.User("a", "b")}},
	} {
		f.Add(s.Append(nil, packet.V5)[2:], byte(5))
		f.Add(s.Append(nil, packet.V311)[2:], byte(4))
	}
	f.Add([]byte{0, 1, 0, 0, 0}, byte(5))      // empty filter, no options
	f.Add([]byte{0, 1, 0, 0, 1, 'a'}, byte(5)) // no options
	limits := DefaultLimits()
	f.Fuzz(func(t *testing.T, body []byte, version byte) {
		version = 3 + version%3
		pk, err := decodeSubscribe(body, version, &limits)
		if err != nil {
			return
		}
		if pk.id == 0 || len(pk.filters) == 0 || len(pk.filters) > limits.FiltersPerPacket {
			t.Fatalf("accepted %+v", pk)
		}
		var q packet.Subscribe
		q.ID = pk.id
		for _, s := range pk.filters {
			if s.options.QoS > 2 || s.options.RetainHandling > 2 || version != 5 && s.options != (bridge.SubscribeOptions{QoS: s.options.QoS}) {
				t.Fatalf("accepted %+v", s)
			}
		}
		agree(t, 0x82, body, version, func(p packet.Packet) bool {
			if p.ID != pk.id || len(p.Filters) != len(pk.filters) {
				return false
			}
			for i, f := range p.Filters {
				if f.Filter != pk.filters[i].filter || f.QoS != byte(pk.filters[i].options.QoS) {
					return false
				}
			}
			return true
		})
	})
}

// agree checks that a decoder of other make finds the same in a packet that was accepted.
func agree(t *testing.T, header byte, body []byte, version byte, same func(packet.Packet) bool) {
	t.Helper()
	p, err := packet.Decode(packet.Version(version), header, body)
	if err != nil || !same(p) {
		t.Fatalf("the other decoder says %v, %v", p, err)
	}
}

func FuzzUnsubscribe(f *testing.F) {
	for _, s := range []packet.Unsubscribe{
		{ID: 1, Filters: []string{"a/#"}},
		{ID: 2, Filters: []string{"$share/g/+", "b"}, Props: packet.Props{packet.User("a", "b")}},
	} {
		f.Add(s.Append(nil, packet.V5)[2:], byte(5))
		f.Add(s.Append(nil, packet.V311)[2:], byte(4))
	}
	limits := DefaultLimits()
	f.Fuzz(func(t *testing.T, body []byte, version byte) {
		version = 3 + version%3
		pk, err := decodeUnsubscribe(body, version, &limits)
		if err != nil {
			return
		}
		agree(t, 0xA2, body, version, func(p packet.Packet) bool {
			if p.ID != pk.id || len(p.Filters) != len(pk.filters) || len(p.Filters) == 0 {
				return false
			}
			for i, f := range p.Filters {
				if f.Filter != pk.filters[i].filter {
					return false
				}
			}
			return true
		})
	})
}

func FuzzDisconnect(f *testing.F) {
	f.Add(packet.Disconnect{}.Append(nil, packet.V5)[2:], byte(5))
	f.Add(packet.Disconnect{Code: 4}.Append(nil, packet.V5)[2:], byte(5))
	f.Add(packet.Disconnect{Code: 4, Props: packet.Props{packet.SessionExpiry.Int(9), packet.ReasonString.Text("why"), packet.User("a", "b")}}.Append(nil, packet.V5)[2:], byte(5))
	f.Fuzz(func(t *testing.T, body []byte, version byte) {
		version = 3 + version%3
		d, err := decodeDisconnect(body, version)
		if err != nil {
			return
		}
		if version != 5 && (len(body) != 0 || d != disconnectPacket{}) {
			t.Fatalf("accepted %+v", d)
		}
		agree(t, 0xE0, body, version, func(p packet.Packet) bool {
			return byte(p.Code) == d.code && p.Props.Int(packet.SessionExpiry) == d.expiry && p.Props.Has(packet.SessionExpiry) == d.hasExpiry
		})
	})
}

func FuzzAuth(f *testing.F) {
	f.Add(packet.Auth{}.Append(nil)[2:])
	f.Add(packet.Auth{Code: 0x18, Props: packet.Props{packet.AuthMethod.Text("M"), packet.AuthData.Bytes([]byte{1, 2}), packet.User("a", "b")}}.Append(nil)[2:])
	f.Fuzz(func(t *testing.T, body []byte) {
		a, err := decodeAuth(body)
		if err != nil {
			return
		}
		agree(t, 0xF0, body, 5, func(p packet.Packet) bool {
			return byte(p.Code) == a.code && p.Props.Text(packet.AuthMethod) == a.method && bytes.Equal(p.Props.Bytes(packet.AuthData), a.data)
		})
	})
}

// everybody lets everybody do everything.
type everybody struct{}

func (everybody) Authenticate(_ context.Context, c bridge.Credentials) (*bridge.Identity, error) {
	return &bridge.Identity{User: c.User, ClientID: c.ClientID, Permissions: everybody{}}, nil
}
func (everybody) Permissions(*bridge.Identity) (bridge.Permissions, bool) { return everybody{}, true }
func (everybody) Allowed(bridge.Action, bridge.Topic) bool                { return true }
func (everybody) Covers(bridge.Filter) bridge.Coverage                    { return bridge.CoversAll }
func (everybody) Explain(bridge.Action, string) (bool, string)            { return true, "" }

// echo is an exchange that is done when the client says so.
type echo struct{}

func (echo) Step(data []byte) ([]byte, bool, string, error) {
	switch string(data) {
	case "done":
		return []byte("ok"), true, "user", nil
	case "bad":
		return nil, false, "", bridge.Refuse(bridge.Unauthenticated, "bad")
	}
	return data, false, "", nil
}

// memoryConn is a connection whose peer takes everything at once.
type memoryConn struct{ net.Conn }

func (memoryConn) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (memoryConn) SetReadDeadline(time.Time) error  { return nil }
func (memoryConn) SetWriteDeadline(time.Time) error { return nil }
func (memoryConn) CloseWrite() error                { return nil }
func (memoryConn) Close() error                     { return nil }

// converse gives a new server the bytes of one client, cut as cut says, and returns what the client was sent. At the end
// nothing may be left of the client.
func converse(t *testing.T, p []byte, cut func(left int) int) (sent []byte) {
	t.Helper()
	hub, err := bridge.New(bridge.Config{Access: everybody{}, Limits: bridge.Limits{MessagesPerSecond: 1 << 40, BytesPerSecond: 1 << 40}})
	if err != nil {
		t.Fatal(err)
	}
	// Without retained values: their order differs from hub to hub.
	srv, err := New(Config{Hub: hub, Limits: Limits{NoRetain: true}, Exchanges: map[string]func() Exchange{"M": func() Exchange { return echo{} }}})
	if err != nil {
		t.Fatal(err)
	}
	c := srv.open(memoryConn{}, nil, false)
	c.out.try = func(p []byte) (int, error) {
		sent = append(sent, p...)
		return len(p), nil
	}
	w := new(workspace)
	err = nil
	var rest []byte
	for len(p) > 0 && err == nil {
		n := cut(len(p))
		rest = append(bytes.Clone(rest), p[:n]...)
		p = p[n:]
		b := hub.Begin()
		b.Now = 1_700_000_000_000_000_000
		used := 0
		if used, _, err = c.handle(b, w, rest); err == nil {
			rest = rest[used:]
		}
		b.End()
	}
	if err == nil {
		err = errStopped
	}
	c.end(err)
	srv.ended(c)
	for _, s := range srv.sessions { // what is kept
		s.turn.Lock()
		srv.end(s)
		s.turn.Unlock()
	}
	n := srv.counters
	if n.Connections.Load() != 0 || n.Sessions.Load() != 0 || n.Queued.Load() != 0 || n.QueuedBytes.Load() != 0 || n.Inflight.Load() != 0 || n.Panics.Load() != 0 {
		t.Fatalf("left are %d connections, %d sessions, %d queued of %d bytes, %d in flight; %d panics", n.Connections.Load(), n.Sessions.Load(),
			n.Queued.Load(), n.QueuedBytes.Load(), n.Inflight.Load(), n.Panics.Load())
	}
	if st := hub.Stats(); st.Clients != 0 || st.Subscriptions != 0 {
		t.Fatalf("left are %d clients, %d subscriptions", st.Clients, st.Subscriptions)
	}
	return sent
}

// FuzzConnection plays a whole conversation after a CONNECT of each version. However the bytes are cut into reads, the
// client is sent the same, and it is all well-formed.
func FuzzConnection(f *testing.F) {
	connects := [][]byte{
		packet.Connect{Version: packet.V31, ClientID: "c", Clean: true}.Append(nil),
		packet.Connect{Version: packet.V311, ClientID: "c", Will: &packet.Will{Topic: "t", Payload: []byte("gone"), QoS: 1}}.Append(nil),
		packet.Connect{Version: packet.V5, ClientID: "c", Props: packet.Props{packet.SessionExpiry.Int(100), packet.ReceiveMaximum.Int(3), packet.TopicAliasMaximum.Int(2), packet.MaximumPacketSize.Int(300)}}.Append(nil),
		packet.Connect{Version: packet.V5, ClientID: "c", Clean: true, Props: packet.Props{packet.AuthMethod.Text("M"), packet.AuthData.Bytes([]byte("x"))}}.Append(nil),
		nil,
	}
	versions := []packet.Version{packet.V31, packet.V311, packet.V5, packet.V5, packet.V5}
	for i := range connects {
		v := versions[i]
		talk := packet.Subscribe{ID: 1, Filters: []packet.Filter{{Filter: "t/#", QoS: 2}, {Filter: "+", QoS: 1}}}.Append(nil, v)
		talk = packet.Publish{Topic: "t", Payload: []byte("0"), QoS: 1, ID: 1}.Append(talk, v)
		talk = packet.Publish{Topic: "t/x", Payload: []byte("1"), QoS: 2, ID: 2}.Append(talk, v)
		talk = packet.Ack{Type: packet.PUBREL, ID: 2}.Append(talk, v)
		talk = packet.Ack{Type: packet.PUBACK, ID: 1}.Append(talk, v)
		talk = packet.Ack{Type: packet.PUBREC, ID: 2}.Append(talk, v)
		talk = packet.Ack{Type: packet.PUBCOMP, ID: 2}.Append(talk, v)
		talk = packet.Unsubscribe{ID: 3, Filters: []string{"t/#"}}.Append(talk, v)
		talk = packet.Ping{}.Append(talk)
		f.Add(byte(i), append(talk, packet.Disconnect{}.Append(nil, v)...), uint16(7))
		f.Add(byte(i), talk, uint16(1))
	}
	auth := packet.Auth{Code: 0x18, Props: packet.Props{packet.AuthMethod.Text("M"), packet.AuthData.Bytes([]byte("done"))}}.Append(nil)
	auth = packet.Auth{Code: 0x19, Props: packet.Props{packet.AuthMethod.Text("M"), packet.AuthData.Bytes([]byte("y"))}}.Append(auth)
	f.Add(byte(3), append(auth, auth...), uint16(3))
	f.Add(byte(4), append(bytes.Clone(connects[2]), connects[2]...), uint16(3))
	publishSeeds(func(first byte, body []byte) {
		f.Add(byte(2), append(appendVarint([]byte{first}, len(body)), body...), uint16(2))
	})
	f.Fuzz(func(t *testing.T, which byte, talk []byte, step uint16) {
		i := int(which) % len(connects)
		p := append(bytes.Clone(connects[i]), talk...)
		whole := converse(t, p, func(left int) int { return left })
		size := 1 + int(step)%50
		pieces := converse(t, p, func(left int) int { return min(left, size) })
		if !bytes.Equal(whole, pieces) {
			t.Fatalf("in one read it is answered by\n% X\nand in pieces of %d by\n% X", whole, size, pieces)
		}
		version := versions[i]
		for rest := whole; len(rest) > 0; {
			header, body, n, err := packet.Next(rest)
			if err != nil || n == 0 {
				t.Fatalf("sent half a packet: % X, %v", rest, err)
			}
			if i != len(connects)-1 { // or the version is the fuzzer's choice
				if _, err := packet.Decode(version, header, body); err != nil {
					t.Fatalf("sent what no decoder takes: %02X % X: %v", header, body, err)
				}
			}
			rest = rest[n:]
		}
	})
}
