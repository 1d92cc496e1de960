package broker_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// statements5Session are the tests of what CONNECT asks for: session, keep alive, sizes, aliases, information.
func statements5Session() []statement {
	return []statement{
		v5("Clean Start ends the old session with all it had, live or not", cleanStart, "MQTT-3.1.2-4", "MQTT-3.1.4-4"),
		v5("without Clean Start subscriptions, queue and messages under way in both directions go on", resumed, "MQTT-3.1.2-5"),
		v5("without Clean Start and without a session a new one is made", func(t *testing.T) {
			s := start(t, options{})
			keep := raw.Connect{ClientID: "c", Props: raw.Props{raw.SessionExpiry.Int(60)}}
			for i, want := range []bool{false, true, true} {
				c, ack := raw.Open(t, s.Addr, keep)
				if ack.SessionPresent != want {
					t.Errorf("connection %d: got %s", i, ack)
				}
				c.Close()
			}
		}, "MQTT-3.1.2-6"),
		v5("after one and a half keep alives without a packet of the client: DISCONNECT 0x8D", keepAlive, "MQTT-3.1.2-22"),
		v5("a session is kept for its expiry interval after the connection, to the second, and then leaves nothing",
			sessionExpiry, "MQTT-3.1.2-23"),
		v5("DISCONNECT changes the expiry interval: to nothing, to longer, but not from nothing", sessionExpiryInDisconnect, "MQTT-3.1.2-23"),
		v5("what is larger than the client's Maximum Packet Size is not sent: messages, answers, CONNACK", maximumPacketSizeOut, "MQTT-3.1.2-24"),
		v5("a message that is too large for a client counts as delivered: no credit is used, nothing waits, others get it",
			tooLargeIsDone, "MQTT-3.1.2-25"),
		v5("Topic Aliases towards the client stay within its maximum", aliasesWithinMaximum, "MQTT-3.1.2-26"),
		v5("a client whose maximum is 0 or absent gets no Topic Alias", noAliases, "MQTT-3.1.2-27"),
		v5("no Response Information where it is not asked for", func(t *testing.T) {
			s := start(t, options{})
			for _, props := range []raw.Props{nil, {raw.RequestResponseInformation.Int(0)}} {
				_, ack := raw.Open(t, s.Addr, raw.Connect{ClientID: "c", Clean: true, KeepAlive: 10, Props: props})
				wantProps(t, ack, raw.ReceiveMaximum.Int(256), raw.MaximumPacketSize.Int(1<<20), raw.TopicAliasMaximum.Int(32))
			}
		}, "MQTT-3.1.2-28"),
		v5("with Request Problem Information 0 only PUBLISH, CONNACK and DISCONNECT have reason strings and user properties",
			problemInformation, "MQTT-3.1.2-29"),
		v5("each client identifier has its own session, character by character", idsNameSessions, "MQTT-3.1.3-2"),
		v5("an empty client identifier gets an identifier of its own, which CONNACK says and under which the session goes on",
			assignedIDs, "MQTT-3.1.3-6", "MQTT-3.1.3-7"),
		v5("a second connection of a client identifier: the first gets DISCONNECT 0x8E and is closed", takeOver, "MQTT-3.1.4-3"),
		v5("the same over a connection that cannot be written without blocking", func(t *testing.T) {
			onFakeClock(t, options{}, func(s *fakeClock) {
				first := s.open(raw.Connect{ClientID: "c", Clean: true})
				for range 20 {
					c := s.dial()
					c.Send(raw.Connect{ClientID: "c", Clean: true})
					first.ExpectDisconnect(0x8E)
					c.ExpectCode(raw.CONNACK, 0)
					first = c
				}
			})
		}, "MQTT-3.1.4-3"),
	}
}

// kept is a CONNECT whose session is kept for a minute.
func kept(id string) raw.Connect {
	return raw.Connect{ClientID: id, Props: raw.Props{raw.SessionExpiry.Int(60)}}
}

// furnished makes a session with a subscription, a queued message, and messages under way in both directions, and leaves it.
func furnished(t *testing.T, s *server, id string) {
	t.Helper()
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	c := s.open(kept(id))
	c.Subscribe(2, "in/#")
	pub.Publish(raw.Publish{Topic: "in/1", Payload: "QoS 1", QoS: 1, ID: 1})
	pub.Publish(raw.Publish{Topic: "in/2", Payload: "QoS 2", QoS: 2, ID: 2})
	pub.Publish(raw.Publish{Topic: "in/3", Payload: "released", QoS: 2, ID: 3})
	c.ExpectPublish("in/1", "QoS 1")
	c.ExpectPublish("in/2", "QoS 2")
	c.Ack(c.ExpectPublish("in/3", "released"))
	c.Expect(raw.PUBREL)
	c.Send(raw.Publish{Topic: "out", Payload: "once", QoS: 2, ID: 7})
	c.Expect(raw.PUBREC)
	c.Send(raw.Disconnect{})
	c.ExpectClosed()
	pub.Publish(raw.Publish{Topic: "in/4", Payload: "queued", QoS: 1, ID: 4})
	pub.Close()
}

func cleanStart(t *testing.T) {
	s := start(t, options{})
	watch := s.open(raw.Connect{ClientID: "watch", Clean: true})
	watch.Subscribe(2, "out")
	pub := s.open(raw.Connect{ClientID: "other", Clean: true})
	for _, live := range []bool{false, true} {
		furnished(t, s, "c")
		watch.Deliver()
		var old *raw.Conn
		if live {
			old = s.open(kept("c"))
			old.Await(raw.PUBREL) // the last of what goes on before the queue
		}
		clean := kept("c")
		clean.Clean = true
		c, ack := raw.Open(t, s.Addr, clean)
		if ack.SessionPresent {
			t.Errorf("got %s", ack)
		}
		if live {
			old.Await(raw.DISCONNECT)
		}
		c.Quiet()
		pub.Publish(raw.Publish{Topic: "in/5", Payload: "nobody subscribes", QoS: 1, ID: 5})
		c.Quiet()
		// The identifier means a new message now.
		c.Publish(raw.Publish{Topic: "out", Payload: "new", QoS: 2, ID: 7})
		if p := watch.Deliver(); p.Text() != "new" {
			t.Errorf("got %s", p)
		}
		c.Send(raw.Pubrel{ID: 7})
		c.ExpectAck(raw.PUBCOMP, 7, 0x92)
		c.Close()
	}
}

func resumed(t *testing.T) {
	s := start(t, options{})
	watch := s.open(raw.Connect{ClientID: "watch", Clean: true})
	watch.Subscribe(2, "out")
	furnished(t, s, "c")
	watch.Deliver()
	c, ack := raw.Open(t, s.Addr, kept("c"))
	if !ack.SessionPresent {
		t.Errorf("got %s", ack)
	}
	one, two := c.Expect(raw.PUBLISH), c.Expect(raw.PUBLISH)
	wantPublish(t, one, raw.Publish{Topic: "in/1", Payload: "QoS 1", QoS: 1, Dup: true})
	wantPublish(t, two, raw.Publish{Topic: "in/2", Payload: "QoS 2", QoS: 2, Dup: true})
	c.Ack(c.ExpectCode(raw.PUBREL, 0))
	queued := c.Expect(raw.PUBLISH)
	wantPublish(t, queued, raw.Publish{Topic: "in/4", Payload: "queued", QoS: 1})
	for _, p := range []raw.Packet{one, two, queued} {
		c.Ack(p)
	}
	c.Ack(c.ExpectAck(raw.PUBREL, two.ID, 0))

	c.Send(raw.Publish{Topic: "out", Payload: "once", QoS: 2, ID: 7, Dup: true})
	c.ExpectAck(raw.PUBREC, 7, 0)
	c.Send(raw.Pubrel{ID: 7})
	c.ExpectAck(raw.PUBCOMP, 7, 0)
	watch.Quiet()
	c.Publish(raw.Publish{Topic: "in/6", Payload: "still subscribed"})
	c.ExpectPublish("in/6", "still subscribed")
	c.Quiet()
}

func keepAlive(t *testing.T) {
	for _, keep := range []uint16{1, 10, 43690, 43691, 65535} {
		onFakeClock(t, options{limits: broker.Limits{MaxKeepAlive: 65535 * time.Second}}, func(s *fakeClock) {
			c := s.open(raw.Connect{ClientID: "c", Clean: true, KeepAlive: keep})
			c.Subscribe(0, "a")
			pub := s.open(raw.Connect{ClientID: "pub", Clean: true, KeepAlive: 65535})
			limit := time.Duration(keep) * time.Second * 3 / 2
			for range 3 { // any packet will do
				s.pass(limit - time.Millisecond)
				c.Quiet()
				pub.Quiet()
				s.pass(limit - time.Millisecond)
				c.Send(raw.Publish{Topic: "out"})
				pub.Quiet()
			}
			last := time.Now()
			s.pass(limit / 2)
			pub.Publish(raw.Publish{Topic: "a"}) // what the server sends does not count
			c.ExpectPublish("a", "")
			c.ExpectDisconnect(0x8D)
			if got := time.Since(last); got != limit {
				t.Errorf("keep alive %d: closed after %s, want %s", keep, got, limit)
			}
		})
	}
}

func sessionExpiry(t *testing.T) {
	expiry := func(seconds uint32) raw.Connect {
		return raw.Connect{ClientID: "c", Props: raw.Props{raw.SessionExpiry.Int(seconds)}}
	}
	onFakeClock(t, options{limits: broker.Limits{SessionExpiry: time.Hour}}, func(s *fakeClock) {
		for _, connect := range []raw.Connect{expiry(0), {ClientID: "c"}} {
			for range 2 {
				if s.present(connect) {
					t.Error("a session without expiry interval was kept")
				}
			}
		}
		c := s.open(expiry(10))
		c.Subscribe(1, "a")
		s.pass(time.Minute) // the connection does not count
		s.drop(c)
		for range 3 { // each connection begins the interval anew
			s.pass(10*time.Second - 1)
			if !s.present(expiry(10)) {
				t.Fatal("the session did not last for its interval")
			}
		}
		s.pass(5 * time.Second)
		if !s.present(expiry(2)) { // and brings its own
			t.Fatal("the session did not last for its interval")
		}
		pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
		pub.Publish(raw.Publish{Topic: "a", QoS: 1, ID: 1})
		s.pass(2 * time.Second)
		if st := s.hub.Stats(); st.Clients != 1 || st.Subscriptions != 0 || st.Endpoints[0].Sessions != 1 || st.Endpoints[0].Queued != 0 {
			t.Errorf("an expired session left something: %+v", st)
		}
		// A new one of that name is not subscribed.
		again, ack := s.connect(expiry(10))
		if ack.SessionPresent {
			t.Error("the session outlived its interval")
		}
		pub.Publish(raw.Publish{Topic: "a", QoS: 1, ID: 1})
		again.Quiet()
		pub.Close()

		// More than the configured bound is cut, and the client is told.
		for _, seconds := range []uint32{3601, 0xFFFFFFFF} {
			c, ack := s.connect(raw.Connect{ClientID: "long", KeepAlive: 1200, Props: raw.Props{raw.SessionExpiry.Int(seconds)}})
			if ack.Props.Int(raw.SessionExpiry) != 3600 {
				t.Errorf("expiry %d: got %s", seconds, ack)
			}
			s.drop(c)
			s.pass(time.Hour - 1)
			if !s.present(raw.Connect{ClientID: "long", Props: raw.Props{raw.SessionExpiry.Int(seconds)}}) {
				t.Errorf("expiry %d: the session ended early", seconds)
			}
			s.pass(time.Hour)
			if s.present(raw.Connect{ClientID: "long"}) {
				t.Errorf("expiry %d: the session did not end", seconds)
			}
		}
		if _, ack := s.connect(expiry(3600)); ack.Props.Has(raw.SessionExpiry) {
			t.Errorf("an expiry within the bound was answered with %s", ack)
		}
	})
}

func sessionExpiryInDisconnect(t *testing.T) {
	onFakeClock(t, options{}, func(s *fakeClock) {
		connect := kept("c")
		leave := func(props ...raw.Property) {
			s.goodbye(s.open(connect), raw.Disconnect{Props: props})
		}
		gone := raw.Connect{ClientID: "c"} // looks, and ends the session that it finds or makes
		leave(raw.SessionExpiry.Int(0))
		if s.present(gone) {
			t.Error("expiry 0 in DISCONNECT did not end the session")
		}
		leave(raw.SessionExpiry.Int(100))
		s.pass(100*time.Second - 1)
		if !s.present(gone) {
			t.Error("DISCONNECT did not make the interval longer")
		}
		leave(raw.SessionExpiry.Int(100))
		s.pass(100 * time.Second)
		if s.present(gone) {
			t.Error("the session outlived its interval")
		}
		leave()
		s.pass(time.Minute - 1)
		if !s.present(gone) {
			t.Error("DISCONNECT without interval changed it")
		}
		c := s.open(raw.Connect{ClientID: "c"})
		c.Send(raw.Disconnect{Props: raw.Props{raw.SessionExpiry.Int(1)}})
		c.ExpectDisconnect(0x82)
		c = s.open(raw.Connect{ClientID: "c"})
		c.Send(raw.Disconnect{Props: raw.Props{raw.SessionExpiry.Int(0)}})
		c.ExpectClosed()
	})
}

func maximumPacketSizeOut(t *testing.T) {
	s := start(t, options{access: fenced{}})
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	const limit = 40
	c := s.open(raw.Connect{ClientID: "c", Clean: true, Props: raw.Props{raw.MaximumPacketSize.Int(limit)}})
	c.Subscribe(2, "a")
	for qos := range byte(3) {
		p := raw.Publish{Topic: "a", QoS: qos, ID: 1}
		if p.Payload = strings.Repeat("x", limit-len(raw.Encode(raw.V5, p))); len(raw.Encode(raw.V5, p)) != limit {
			t.Fatal("wrong size")
		}
		larger := p
		larger.Payload += "x"
		pub.Publish(larger)
		pub.Publish(p)
		wantPublish(t, c.Deliver(), p)
	}
	many := raw.Subscribe{ID: 9}
	var names []string
	for i := range limit {
		names = append(names, fmt.Sprint("b/", i))
		many.Filters = append(many.Filters, raw.Filter{Filter: names[i]})
	}
	c.Send(many)
	c.Quiet() // no SUBACK, but it was done
	pub.Publish(raw.Publish{Topic: "b/39"})
	c.ExpectPublish("b/39", "")
	c.Send(raw.Unsubscribe{ID: 9, Filters: names})
	c.Quiet()
	pub.Publish(raw.Publish{Topic: "b/39", QoS: 1, ID: 1})
	c.Quiet()
	// Reason strings go first.
	c.Send(raw.Publish{Topic: "secret/with a name that makes the reason long", QoS: 1, ID: 5})
	wantProps(t, c.ExpectAck(raw.PUBACK, 5, 0x87))
	c.Send(raw.Subscribe{ID: 6, Filters: []raw.Filter{{Filter: "secret/with a name that makes the reason long"}}})
	wantProps(t, c.ExpectAck(raw.SUBACK, 6, 0x87))
	c.Send(raw.Publish{Topic: "a", Props: raw.Props{raw.SubscriptionIdentifier.Int(1)}})
	wantProps(t, c.ExpectDisconnect(0x82))

	for max := uint32(1); max < 20; max++ {
		c := raw.Dial(t, s.Addr)
		c.Send(raw.Connect{ClientID: "c", Clean: true, Props: raw.Props{raw.MaximumPacketSize.Int(max)}})
		switch { // the CONNACK takes 19 bytes, the shortest refusal 5
		case max >= 5 && max < 19:
			c.ExpectCode(raw.CONNACK, 0x95)
			c.ExpectClosed()
		case max < 5:
			c.ExpectClosed()
		default:
			c.ExpectCode(raw.CONNACK, 0)
			c.Quiet()
		}
	}
}

func tooLargeIsDone(t *testing.T) {
	s := start(t, options{})
	small := kept("c")
	small.Props = append(slices.Clone(small.Props), raw.MaximumPacketSize.Int(60), raw.ReceiveMaximum.Int(1))
	c := s.open(small)
	c.Subscribe(2, "a/#")
	all := s.open(raw.Connect{ClientID: "all", Clean: true})
	all.Subscribe(2, "a/#")
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	large := strings.Repeat("x", 60)
	publish := func(topic, payload string) {
		for qos := range byte(3) {
			pub.Publish(raw.Publish{Topic: topic, Payload: payload, QoS: qos, ID: 1})
			if p := all.Deliver(); p.Topic != topic || p.Text() != payload || p.QoS != qos {
				t.Errorf("got %s", p)
			}
		}
	}
	publish("a/large", large)
	c.Quiet()
	pub.Publish(raw.Publish{Topic: "a/first", QoS: 1, ID: 1}) // the one credit was not used
	all.Deliver()
	first := c.ExpectPublish("a/first", "")
	publish("a/large", large) // waits for credit, but not for QoS 0
	pub.Publish(raw.Publish{Topic: "a/second", QoS: 2, ID: 1})
	all.Deliver()
	c.Quiet()
	c.Ack(first)
	if p := c.Deliver(); p.Topic != "a/second" {
		t.Errorf("got %s", p)
	}
	c.Send(raw.Disconnect{})
	c.ExpectClosed()
	publish("a/large", large) // waits for the client
	pub.Publish(raw.Publish{Topic: "a/third", QoS: 1, ID: 1})
	all.Deliver()
	c = s.open(small)
	c.Ack(c.ExpectPublish("a/third", ""))
	c.Quiet()
	if n := s.stats().Queued; n != 0 {
		t.Errorf("%d messages wait", n)
	}
}

func aliasesWithinMaximum(t *testing.T) {
	s := start(t, options{limits: broker.Limits{TopicAliasesOut: 3}})
	for _, max := range []uint32{1, 2, 3, 65535} {
		c := s.open(raw.Connect{ClientID: "c", Clean: true, Props: raw.Props{raw.TopicAliasMaximum.Int(max)}})
		c.Subscribe(1, "topic/+")
		known := make(map[uint32]string)
		for i := range 12 {
			topic := fmt.Sprint("topic/", i%4)
			c.Send(raw.Publish{Topic: topic, QoS: byte(i % 2), ID: 1})
			if i%2 == 1 {
				c.ExpectAll(raw.PUBACK, raw.PUBLISH)
				continue
			}
			p := c.Expect(raw.PUBLISH)
			alias := p.Props.Int(raw.TopicAlias)
			switch {
			case p.Props.Has(raw.TopicAlias) && (alias == 0 || alias > min(max, 3)):
				t.Errorf("maximum %d: got %s", max, p)
			case p.Topic != "":
				known[alias] = p.Topic
			default:
				p.Topic = known[alias]
			}
			if p.Topic != topic {
				t.Errorf("maximum %d: topic %s came as %s", max, topic, p)
			}
		}
		if len(known) == 0 || known[1] == "" {
			t.Errorf("maximum %d: no alias was used", max)
		}
		c.Close()
	}
}

func noAliases(t *testing.T) {
	s := start(t, options{})
	for _, props := range []raw.Props{nil, {raw.TopicAliasMaximum.Int(0)}} {
		c := s.open(raw.Connect{ClientID: "c", Clean: true, Props: props})
		c.Send(raw.Subscribe{ID: 1, Props: raw.Props{raw.SubscriptionIdentifier.Int(5)}, Filters: []raw.Filter{{Filter: "own"}}})
		c.ExpectCode(raw.SUBACK, 0)
		c.Subscribe(0, "a")
		for range 3 {
			c.Send(raw.Publish{Topic: "a"}, raw.Publish{Topic: "own", Props: raw.Props{raw.TopicAlias.Int(1)}})
			wantPublish(t, c.Expect(raw.PUBLISH), raw.Publish{Topic: "a"})
			wantPublish(t, c.Expect(raw.PUBLISH), raw.Publish{Topic: "own", Props: raw.Props{raw.SubscriptionIdentifier.Int(5)}})
		}
		c.Close()
	}
}

func problemInformation(t *testing.T) {
	s := start(t, options{access: fenced{}})
	for _, quiet := range []bool{false, true} {
		var props raw.Props
		if quiet {
			props = raw.Props{raw.RequestProblemInformation.Int(0)}
		}
		c := s.open(raw.Connect{ClientID: "c", Clean: true, Props: props})
		told := func(p raw.Packet) {
			t.Helper()
			if p.Props.Has(raw.ReasonString) == quiet || p.Props.Has(raw.UserProperty) {
				t.Errorf("with properties %s: got %s", props, p)
			}
		}
		c.Send(raw.Publish{Topic: "secret/a", QoS: 1, ID: 1})
		told(c.ExpectAck(raw.PUBACK, 1, 0x87))
		c.Send(raw.Publish{Topic: "secret/a", QoS: 2, ID: 2})
		told(c.ExpectAck(raw.PUBREC, 2, 0x87))
		c.Send(raw.Subscribe{ID: 3, Filters: []raw.Filter{{Filter: "secret/a"}}})
		told(c.ExpectAck(raw.SUBACK, 3, 0x87))
		// These have nothing to tell, or are excepted.
		c.Send(raw.Unsubscribe{ID: 4, Filters: []string{"secret/a"}}, raw.Pubrel{ID: 5}, raw.Pubrec{ID: 6})
		wantProps(t, c.ExpectAck(raw.UNSUBACK, 4, 0x11))
		wantProps(t, c.ExpectAck(raw.PUBCOMP, 5, 0x92))
		wantProps(t, c.ExpectAck(raw.PUBREL, 6, 0x92))
		c.Subscribe(0, "a")
		c.Send(raw.Publish{Topic: "a", Props: raw.Props{raw.User("n", "v")}})
		wantPublish(t, c.Expect(raw.PUBLISH), raw.Publish{Topic: "a", Props: raw.Props{raw.User("n", "v")}})
		c.Close()
	}
}

func idsNameSessions(t *testing.T) {
	s := start(t, options{})
	ids := []string{"a", "A", "a ", "a/b", "a/+", "#", "á", "a\u0301"}
	for _, id := range ids {
		c, ack := raw.Open(t, s.Addr, kept(id))
		if ack.SessionPresent {
			t.Errorf("client identifier %q found the session of another", id)
		}
		c.Subscribe(1, "a")
		c.Send(raw.Disconnect{})
		c.ExpectClosed()
	}
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	pub.Publish(raw.Publish{Topic: "a", QoS: 1, ID: 1})
	for _, id := range ids {
		c, ack := raw.Open(t, s.Addr, kept(id))
		if !ack.SessionPresent {
			t.Errorf("client identifier %q has lost its session", id)
		}
		c.Ack(c.ExpectPublish("a", ""))
		c.Quiet()
	}
}

func assignedIDs(t *testing.T) {
	s := start(t, options{})
	seen := make(map[string]bool)
	for i := range 10 {
		connect := kept("")
		connect.Clean = i%2 == 0
		c, ack := raw.Open(t, s.Addr, connect)
		id := ack.Props.Text(raw.AssignedClientID)
		if id == "" || seen[id] || ack.SessionPresent || s.Hub.Client(s.Name(), id) == nil {
			t.Fatalf("got %s", ack)
		}
		seen[id] = true
		c.Drop()
		if _, ack := raw.Open(t, s.Addr, kept(id)); !ack.SessionPresent || ack.Props.Has(raw.AssignedClientID) {
			t.Errorf("got %s", ack)
		}
	}
}

func takeOver(t *testing.T) {
	s := start(t, options{})
	for _, v := range []raw.Version{raw.V31, raw.V311, raw.V5} {
		for _, clean := range []bool{false, true} {
			connect := kept("c")
			connect.Clean = true
			first := s.open(connect)
			first.Subscribe(1, "a")
			first.Quiet()
			second := raw.Dial(t, s.Addr)
			second.Send(raw.Connect{Version: v, ClientID: "c", Clean: clean})
			first.ExpectDisconnect(0x8E)
			if ack := second.ExpectCode(raw.CONNACK, 0); v != raw.V31 && ack.SessionPresent == clean {
				t.Errorf("version %s, clean %t: got %s", v, clean, ack)
			}
			second.Send(raw.Publish{Topic: "a", QoS: 1, ID: 1})
			if clean {
				second.ExpectAck(raw.PUBACK, 1, map[bool]raw.Code{true: 0x10}[v == raw.V5])
			} else {
				second.ExpectAll(raw.PUBACK, raw.PUBLISH)
			}
			second.Quiet()
			second.Close()
		}
	}
}
