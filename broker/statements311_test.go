package broker_test

import (
	"context"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

func statements311() []statement {
	return slices.Concat(strings311(), headers311(), connect311(), sessions311(), wills311(), publish311(), qos311(), subscribe311(), topics311(), rest311())
}

func notCovered311() map[string]string {
	m := map[string]string{
		"MQTT-3.1.2-23": "outside: when a client pings is the client's own doing; what the server does without is MQTT-3.1.2-24",
		"MQTT-4.7.3-3":  "outside: a string of a packet cannot be longer, its length has two bytes",
		"MQTT-7.0.0-1":  "outside: it binds a server that dials out to the rules for clients, as a whole",
		"MQTT-7.0.0-2":  "outside: that no extension is needed is what all tests of 3.1.1 together show, no single one does",
		"MQTT-7.1.2-1":  "outside: the server cannot tell what a client's transport would do to its bytes",
	}
	for _, id := range []string{"1", "2", "3", "4"} {
		m["MQTT-6.0.0-"+id] = "MQTT over WebSocket is not offered yet; it comes with the WebSocket gateway"
	}
	all := make(map[string]string)
	for id, why := range m {
		all["3.1.1 "+id] = why
	}
	return all
}

// of311 is a statement of MQTT 3.1.1; its numbers are given without the "MQTT-" before them.
func of311(numbers, says string, run func(t *testing.T)) statement {
	s := statement{version: "3.1.1", says: says, run: run}
	for n := range strings.FieldsSeq(numbers) {
		s.ids = append(s.ids, "MQTT-"+n)
	}
	return s
}

// as311 is the CONNECT of an MQTT 3.1.1 client whose session ends with its connection.
func as311(id string) raw.Connect {
	return raw.Connect{Version: raw.V311, ClientID: id, Clean: true}
}

// kept311 is the CONNECT of an MQTT 3.1.1 client whose session outlives its connection.
func kept311(id string) raw.Connect { return raw.Connect{Version: raw.V311, ClientID: id} }

// dial311 is a connection on which no CONNECT was sent yet.
func (s *server) dial311() *raw.Conn {
	s.t.Helper()
	c := raw.Dial(s.t, s.Addr)
	c.Version = raw.V311
	return c
}

// resume connects a client whose session lasts and says whether there was one.
func (s *server) resume(id string, present bool) *raw.Conn {
	s.t.Helper()
	c, ack := raw.Open(s.t, s.Addr, kept311(id))
	if ack.SessionPresent != present {
		s.t.Fatalf("session present is %t, want %t", ack.SessionPresent, present)
	}
	return c
}

// watch is a client that is given all messages at QoS 0.
func (s *server) watch() *raw.Conn {
	s.t.Helper()
	c := s.open(as311("watcher"))
	c.Subscribe(0, "#")
	return c
}

// closesFirst sends packets on a new connection, without a CONNECT before them, and expects it to end without an answer.
func (s *server) closesFirst(what string, packets ...raw.Sendable) {
	s.t.Helper()
	s.t.Log(what)
	c := s.dial311()
	c.Send(packets...)
	c.ExpectClosed()
	c.Drop()
}

// closes sends packets on a connection that was let in and expects it to end without an answer.
func (s *server) closes(what string, packets ...raw.Sendable) {
	s.t.Helper()
	s.t.Log(what)
	c := s.open(as311("violator"))
	c.Send(packets...)
	c.ExpectClosed()
	c.Drop()
}

// leaves says goodbye and waits until the server has hung up: messages from then on are for an offline session.
func leaves(c *raw.Conn) {
	c.Send(raw.Disconnect{})
	c.ExpectClosed()
	c.Drop()
}

// breaks ends the connection without a word and waits until the server has hung up.
func breaks(t *testing.T, c *raw.Conn) {
	t.Helper()
	if err := c.Net.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	c.ExpectClosed()
	c.Drop()
}

// gone makes sure that the end of the last connection of id has been dealt with to its end, the will included, and that no
// session of it is left: a connection is let in only after that.
func (s *server) gone(id string) {
	s.t.Helper()
	leaves(s.open(as311(id)))
}

// delivered takes the next n PUBLISHes and goes through their handshakes, which may overlap.
func delivered(t *testing.T, c *raw.Conn, n int) (got []raw.Packet) {
	t.Helper()
	for releases := 0; len(got) < n || releases > 0; {
		p := c.Read()
		switch {
		case p.Type == raw.PUBLISH && len(got) < n:
			got = append(got, p)
			if p.QoS == 2 {
				releases++
			}
		case p.Type == raw.PUBREL && releases > 0:
			releases--
		default:
			t.Fatalf("got %s after %d messages", p, len(got))
		}
		c.Ack(p)
	}
	return got
}

// wants fails the test unless p is the PUBLISH that is described.
func wants(t *testing.T, p raw.Packet, topic, payload string, qos byte, retain, dup bool) {
	t.Helper()
	if p.Type != raw.PUBLISH || p.Topic != topic || p.Text() != payload || p.QoS != qos || p.Retain != retain || p.Dup != dup {
		t.Fatalf("got %s, want PUBLISH topic=%q qos=%d dup=%t retain=%t payload=%q", p, topic, qos, dup, retain, payload)
	}
}

// bytesAre reads as many bytes as want has and compares them.
func bytesAre(t *testing.T, c *raw.Conn, want ...byte) {
	t.Helper()
	got := make([]byte, len(want))
	c.Net.SetReadDeadline(time.Now().Add(c.Timeout))
	if n, err := io.ReadFull(c.Net, got); err != nil || !slices.Equal(got, want) {
		t.Fatalf("got % X (%v), want % X", got[:n], err, want)
	}
}

// readOnly lets everybody do everything but write below "secret/".
type readOnly struct{ open }

func (readOnly) Authenticate(_ context.Context, c bridge.Credentials) (*bridge.Identity, error) {
	return &bridge.Identity{User: c.User, ClientID: c.ClientID, Permissions: readOnly{}}, nil
}
func (readOnly) Permissions(*bridge.Identity) (bridge.Permissions, bool) { return readOnly{}, true }
func (readOnly) Allowed(a bridge.Action, t bridge.Topic) bool {
	return a != bridge.Write || !strings.HasPrefix(string(t), "secret/")
}

// doorbook lets everybody in and keeps the credentials that were shown.
type doorbook struct {
	open
	shown chan bridge.Credentials
}

func (d doorbook) Authenticate(ctx context.Context, c bridge.Credentials) (*bridge.Identity, error) {
	c.Password = slices.Clone(c.Password)
	d.shown <- c
	return d.open.Authenticate(ctx, c)
}

// notUTF8 are strings that are not well-formed UTF-8: a lone byte, a cut sequence, an overlong one, a surrogate, and a code
// point above the last.
var notUTF8 = []string{"a\xffb", "a\xc3", "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80"}

// strings311 are the statements about UTF-8 strings (section 1.5.3).
func strings311() []statement {
	// everyString puts a string where a packet has one and expects each packet to end the connection.
	everyString := func(t *testing.T, bad ...string) {
		s := start(t, options{})
		watcher := s.watch()
		for _, b := range bad {
			t.Logf("string %q", b)
			with := func(change func(*raw.Connect)) raw.Connect {
				p := as311("violator")
				change(&p)
				return p
			}
			s.closesFirst("client id", with(func(p *raw.Connect) { p.ClientID = b }))
			s.closesFirst("will topic", with(func(p *raw.Connect) { p.Will = &raw.Will{Topic: b, Payload: "will"} }))
			s.closesFirst("user name", with(func(p *raw.Connect) { p.User = b }))
			for qos := range byte(3) {
				s.closes("topic name", raw.Publish{Topic: b, Payload: "x", QoS: qos, ID: 1})
			}
			s.closes("filter of SUBSCRIBE", raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "ok"}, {Filter: b}}})
			s.closes("filter of UNSUBSCRIBE", raw.Unsubscribe{ID: 1, Filters: []string{"ok", b}})
		}
		watcher.Quiet()
	}
	return []statement{
		of311("1.5.3-1 3.1.3-4 3.1.3-10 3.1.3-11 3.8.3-1 3.10.3-1",
			"ill-formed UTF-8 in any string of any packet ends the connection without an answer, and nothing is delivered",
			func(t *testing.T) { everyString(t, notUTF8...) }),
		of311("1.5.3-2 4.7.3-2", "U+0000 in any string of any packet ends the connection without an answer, and nothing is delivered",
			func(t *testing.T) { everyString(t, "\x00", "a\x00b", "a/b\x00") }),
		of311("1.5.3-3", "EF BB BF is a character like any other, at the beginning and in the middle of a string", func(t *testing.T) {
			s := start(t, options{})
			c := s.open(as311("a"))
			c.Subscribe(0, "\ufefftopic", "a\ufeff/+")
			c.Publish(raw.Publish{Topic: "topic", Payload: "without"})
			c.Publish(raw.Publish{Topic: "a/b", Payload: "without"})
			c.Publish(raw.Publish{Topic: "\ufefftopic", Payload: "with"})
			c.Publish(raw.Publish{Topic: "a\ufeff/\ufeff", Payload: "within"})
			wants(t, c.Read(), "\xef\xbb\xbftopic", "with", 0, false, false)
			wants(t, c.Read(), "a\xef\xbb\xbf/\xef\xbb\xbf", "within", 0, false, false)
			c.Quiet()
		}),
	}
}

// headers311 are the statements about fixed headers and packet identifiers (section 2).
func headers311() []statement {
	return []statement{
		of311("2.2.2-1", "every packet of the server's has exactly the flags of its type", func(t *testing.T) {
			s := start(t, options{})
			c := s.dial311()
			flags := func(want raw.Type, flags byte) raw.Packet {
				t.Helper()
				p := c.Expect(want)
				if p.Flags != flags {
					t.Fatalf("%s has flags %04b, want %04b", p, p.Flags, flags)
				}
				return p
			}
			c.Send(as311("a"))
			flags(raw.CONNACK, 0)
			c.Send(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "a", QoS: 2}}})
			flags(raw.SUBACK, 0)
			c.Send(raw.Publish{Topic: "none", QoS: 1, ID: 2})
			flags(raw.PUBACK, 0)
			c.Send(raw.Publish{Topic: "none", QoS: 2, ID: 3})
			flags(raw.PUBREC, 0)
			c.Send(raw.Pubrel{ID: 3})
			flags(raw.PUBCOMP, 0)
			c.Send(raw.Publish{Topic: "a"})
			flags(raw.PUBLISH, 0)
			c.Send(raw.Publish{Topic: "a", QoS: 1, ID: 4})
			c.Ack(c.ExpectAll(raw.PUBACK, raw.PUBLISH)[1])
			c.Send(raw.Publish{Topic: "a", QoS: 2, ID: 5, Dup: true})
			p := c.ExpectAll(raw.PUBREC, raw.PUBLISH)[1]
			if p.Flags != 0b0100 {
				t.Fatalf("%s has flags %04b", p, p.Flags)
			}
			c.Ack(p)
			c.Ack(flags(raw.PUBREL, 0b0010))
			c.Send(raw.Unsubscribe{ID: 6, Filters: []string{"a"}})
			flags(raw.UNSUBACK, 0)
			c.Send(raw.Pingreq{})
			flags(raw.PINGRESP, 0)
		}),
		of311("2.2.2-2 3.6.1-1 3.8.1-1 3.10.1-1", "wrong flags in the fixed header of any packet but PUBLISH end the connection without an answer", func(t *testing.T) {
			s := start(t, options{})
			for _, bit := range []byte{1, 2, 4, 8} {
				s.closesFirst("CONNECT", raw.WithFlags(as311("violator"), bit))
				s.closes("PUBACK", raw.WithFlags(raw.Puback{ID: 1}, bit))
				s.closes("PUBREC", raw.WithFlags(raw.Pubrec{ID: 1}, bit))
				s.closes("PUBREL", raw.WithFlags(raw.Pubrel{ID: 1}, 2^bit))
				s.closes("PUBCOMP", raw.WithFlags(raw.Pubcomp{ID: 1}, bit))
				s.closes("SUBSCRIBE", raw.WithFlags(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "a"}}}, 2^bit))
				s.closes("UNSUBSCRIBE", raw.WithFlags(raw.Unsubscribe{ID: 1, Filters: []string{"a"}}, 2^bit))
				s.closes("PINGREQ", raw.WithFlags(raw.Pingreq{}, bit))
			}
		}),
		of311("2.3.1-1", "packet identifier 0 in SUBSCRIBE, UNSUBSCRIBE or a PUBLISH of QoS 1 or 2 ends the connection", func(t *testing.T) {
			s := start(t, options{})
			watcher := s.watch()
			s.closes("SUBSCRIBE", raw.Subscribe{Filters: []raw.Filter{{Filter: "a"}}})
			s.closes("UNSUBSCRIBE", raw.Unsubscribe{Filters: []string{"a"}})
			s.closes("PUBLISH QoS 1", raw.Publish{Topic: "a", QoS: 1})
			s.closes("PUBLISH QoS 2", raw.Publish{Topic: "a", QoS: 2})
			watcher.Quiet()
		}),
		of311("2.3.1-2", "a new QoS 2 message under an identifier in use is a repetition; identifiers of the other direction do not count", func(t *testing.T) {
			s := start(t, options{})
			c := s.open(as311("a"))
			c.Subscribe(2, "a")
			c.Send(raw.Publish{Topic: "a", Payload: "first", QoS: 2, ID: 1})
			p := c.ExpectAll(raw.PUBREC, raw.PUBLISH)[1]
			wants(t, p, "a", "first", 2, false, false)
			if p.ID != 1 {
				t.Fatalf("the server's identifier is %d, not the one that this test is about", p.ID)
			}
			c.Send(raw.Publish{Topic: "a", Payload: "another", QoS: 2, ID: 1})
			c.ExpectAck(raw.PUBREC, 1, 0)
			c.Send(raw.Unsubscribe{ID: 1, Filters: []string{"none"}}, raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "b", QoS: 1}}})
			c.ExpectAck(raw.UNSUBACK, 1, 0)
			c.ExpectAck(raw.SUBACK, 1, 1)
			// Both exchanges under identifier 1, step by step.
			c.Send(raw.Pubrec{ID: 1})
			c.ExpectAck(raw.PUBREL, 1, 0)
			c.Send(raw.Pubrel{ID: 1})
			c.ExpectAck(raw.PUBCOMP, 1, 0)
			c.Send(raw.Pubcomp{ID: 1})
			c.Quiet()
		}),
		of311("2.3.1-3", "a QoS 2 message that is sent again under its identifier is the same message, also after a reconnect; under another one it is a new message", func(t *testing.T) {
			s := start(t, options{})
			watcher := s.watch()
			c := s.resume("a", false)
			m := raw.Publish{Topic: "a", Payload: "x", QoS: 2, ID: 7}
			c.Send(m)
			c.ExpectAck(raw.PUBREC, 7, 0)
			breaks(t, c)
			c = s.resume("a", true)
			m.Dup = true
			c.Send(m)
			c.ExpectAck(raw.PUBREC, 7, 0)
			watcher.ExpectPublish("a", "x")
			watcher.Quiet()
			m.ID = 8
			c.Send(m)
			c.ExpectAck(raw.PUBREC, 8, 0)
			watcher.ExpectPublish("a", "x")
			watcher.Quiet()
		}),
		of311("2.3.1-4", "the server's identifiers are not 0 and not in use, also where they begin anew after 65535", func(t *testing.T) {
			s := start(t, options{})
			sub, pub := s.open(as311("sub")), s.open(as311("pub"))
			sub.Subscribe(1, "a")
			const n, batch = 66_000, 100
			inUse := make(map[uint16]bool)
			var waiting []raw.Packet
			for range n / batch {
				m := make([]raw.Sendable, batch)
				for i := range m {
					m[i] = raw.Publish{Topic: "a", QoS: 1, ID: uint16(i + 1)}
				}
				pub.Send(m...)
				for range batch {
					p := sub.Expect(raw.PUBLISH)
					if p.ID == 0 || inUse[p.ID] {
						t.Fatalf("identifier %d is 0 or in use", p.ID)
					}
					inUse[p.ID] = true
					waiting = append(waiting, p)
				}
				var acks []raw.Sendable
				for len(waiting) > 10 { // always leave some in use
					acks = append(acks, raw.Puback{ID: waiting[0].ID})
					delete(inUse, waiting[0].ID)
					waiting = waiting[1:]
				}
				sub.Send(acks...)
				for i := range m {
					pub.ExpectAck(raw.PUBACK, uint16(i+1), 0)
				}
			}
		}),
		of311("2.3.1-5", "a QoS 0 PUBLISH has no packet identifier in either direction: its payload begins behind the topic", func(t *testing.T) {
			s := start(t, options{})
			c := s.open(as311("a"))
			c.Subscribe(2, "t")
			c.Send(raw.Frame(0x30, "t", uint16(9), byte('x')))
			bytesAre(t, c, 0x30, 6, 0, 1, 't', 0, 9, 'x')
		}),
		of311("2.3.1-6", "PUBACK, PUBREC, PUBREL and PUBCOMP repeat the PUBLISH's identifier", func(t *testing.T) {
			s := start(t, options{})
			c, sub := s.open(as311("a")), s.open(as311("sub"))
			sub.Subscribe(2, "t")
			for _, id := range []uint16{1, 255, 256, 0x1234, 65535} {
				c.Send(raw.Publish{Topic: "t", QoS: 1, ID: id})
				c.ExpectAck(raw.PUBACK, id, 0)
				c.Send(raw.Publish{Topic: "t", QoS: 2, ID: id})
				c.ExpectAck(raw.PUBREC, id, 0)
				c.Send(raw.Pubrel{ID: id})
				c.ExpectAck(raw.PUBCOMP, id, 0)
				sub.Deliver()
				sub.Deliver() // with the server's PUBREL, which must have the PUBLISH's identifier
			}
		}),
		of311("2.3.1-7 3.8.4-1 3.8.4-2", "SUBSCRIBE and UNSUBSCRIBE are answered by SUBACK and UNSUBACK with their identifier", func(t *testing.T) {
			s := start(t, options{})
			c := s.open(as311("a"))
			for _, id := range []uint16{1, 255, 256, 0x1234, 65535} {
				c.Send(raw.Subscribe{ID: id, Filters: []raw.Filter{{Filter: "t", QoS: 1}}})
				c.ExpectAck(raw.SUBACK, id, 1)
				c.Send(raw.Unsubscribe{ID: id, Filters: []string{"t"}})
				c.ExpectAck(raw.UNSUBACK, id, 0)
			}
		}),
	}
}
