package broker_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// statements5Properties are the tests of the properties of PUBLISH.
func statements5Properties() []statement {
	users := raw.Props{raw.User("b", "1"), raw.User("a", "2"), raw.User("b", "1"), raw.User("", ""), raw.User("a", "\ufeffä")}
	return []statement{
		v5("the Payload Format Indicator passes unaltered on every way: live, queued, retained, shared, with alias or identifier",
			func(t *testing.T) {
				unaltered(raw.PayloadFormat.Int(0))(t)
				unaltered(raw.PayloadFormat.Int(1))(t)
				unaltered()(t)
			}, "MQTT-3.3.2-4"),
		v5("what has expired while it waited is not delivered: queued, behind the window, retained", expiredIsDeleted, "MQTT-3.3.2-5"),
		v5("the Message Expiry Interval goes out less the time waited, to the second, and no other is made up", expiryCountsDown, "MQTT-3.3.2-6"),
		v5("Topic Aliases of either direction end with the connection, whatever the session", aliasesEnd, "MQTT-3.3.2-7"),
		v5("Topic Alias 0: DISCONNECT 0x94", func(t *testing.T) {
			s := start(t, options{})
			s.ended(t, "alias 0", 0x94, raw.Publish{Topic: "a", Props: raw.Props{raw.TopicAlias.Int(0)}})
			s.ended(t, "alias 0 without topic", 0x94, raw.Publish{QoS: 1, ID: 1, Props: raw.Props{raw.TopicAlias.Int(0)}})
			s.ended(t, "alias twice", 0x82, raw.Publish{Topic: "a", Props: raw.Props{raw.TopicAlias.Int(1), raw.TopicAlias.Int(1)}})
		}, "MQTT-3.3.2-8"),
		v5("a Topic Alias above the server's maximum ends the connection with 0x94 and reaches nobody", func(t *testing.T) {
			s := start(t, options{})
			watch := s.open(raw.Connect{ClientID: "watch", Clean: true})
			watch.Subscribe(0, "#")
			s.ended(t, "alias 33", 0x94, raw.Publish{Topic: "a", QoS: 1, ID: 1, Props: raw.Props{raw.TopicAlias.Int(33)}})
			watch.Quiet()
		}, "MQTT-3.3.2-9"),
		v5("the first topics get the aliases that the client allows; all others come in full, and so do the first time these",
			aliasesOut, "MQTT-3.3.2-11"),
		v5("every alias up to the server's maximum is taken, at every QoS, and may be given to another topic", aliasesIn, "MQTT-3.3.2-12"),
		v5("a Response Topic that is not UTF-8 is malformed", func(t *testing.T) {
			s := start(t, options{})
			for _, topic := range []string{"a\xff", "\xed\xa0\x80", "a\x00"} {
				s.ended(t, topic, 0x81, raw.Publish{Topic: "a", Props: raw.Props{raw.ResponseTopic.Text(topic)}})
			}
		}, "MQTT-3.3.2-13"),
		v5("a Response Topic with a wildcard, or of no length, is a protocol error, also in a will", func(t *testing.T) {
			s := start(t, options{})
			for _, topic := range []string{"#", "a/+", "a#", ""} {
				props := raw.Props{raw.ResponseTopic.Text(topic)}
				s.ended(t, topic, 0x82, raw.Publish{Topic: "a", QoS: 1, ID: 1, Props: props})
				s.refusedConnect(t, "will with "+topic, 0x82, raw.Connect{ClientID: "c", Will: &raw.Will{Topic: "w", Props: props}})
			}
		}, "MQTT-3.3.2-14"),
		v5("the Response Topic passes unaltered on every way", unaltered(raw.ResponseTopic.Text("/answers//ä to $me ")), "MQTT-3.3.2-15"),
		v5("Correlation Data pass unaltered on every way, also if empty", func(t *testing.T) {
			unaltered(raw.CorrelationData.Bytes([]byte("\x00\xff\xed\xa0\x80")))(t)
			unaltered(raw.CorrelationData.Bytes(nil))(t)
			unaltered(raw.CorrelationData.Bytes([]byte(strings.Repeat("\x80", 5000))))(t)
		}, "MQTT-3.3.2-16"),
		v5("User Properties pass unaltered and in their order on every way", unaltered(users...), "MQTT-3.3.2-17", "MQTT-3.3.2-18"),
		v5("a Content Type that is not UTF-8 is malformed", func(t *testing.T) {
			s := start(t, options{})
			for _, text := range []string{"a\xff", "\xed\xbf\xbf", "a\x00"} {
				s.ended(t, text, 0x81, raw.Publish{Topic: "a", Props: raw.Props{raw.ContentType.Text(text)}})
			}
		}, "MQTT-3.3.2-19"),
		v5("the Content Type passes unaltered on every way, and so do all properties together", func(t *testing.T) {
			unaltered(raw.ContentType.Text("application/ä; q=1 "))(t)
			unaltered(slices.Concat(raw.Props{
				raw.ContentType.Text("c"), raw.ResponseTopic.Text("r"), raw.CorrelationData.Bytes([]byte("d")), raw.PayloadFormat.Int(1),
				raw.MessageExpiry.Int(100000),
			}, users)...)(t)
		}, "MQTT-3.3.2-20"),
	}
}

// unaltered publishes a message with the properties to clients that it reaches in every way there is.
func unaltered(props ...raw.Property) func(t *testing.T) {
	return func(t *testing.T) {
		s := start(t, options{})
		// The way to each client, and what it adds to the properties.
		adds := map[string]raw.Props{
			"QoS 0": nil, "QoS 1": nil, "QoS 2": nil, "shared": nil, "queued": nil, "behind": nil,
			"identifier": {raw.SubscriptionIdentifier.Int(7)}, "alias": {raw.TopicAlias.Int(1)},
		}
		conns := make(map[string]*raw.Conn)
		granted := func(way string) byte {
			switch way {
			case "QoS 0":
				return 0
			case "QoS 1", "queued":
				return 1
			}
			return 2
		}
		for way := range adds {
			connect := kept(way)
			sub := raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "topic/#", QoS: granted(way), RetainAsPublished: true}}}
			switch way {
			case "alias":
				connect.Props = append(connect.Props, raw.TopicAliasMaximum.Int(1))
			case "behind":
				connect.Props = append(connect.Props, raw.ReceiveMaximum.Int(1))
			case "identifier":
				sub.Props = adds[way]
			case "shared":
				sub.Filters[0].Filter = "$share/g/topic/#"
			}
			c := s.open(connect)
			c.Send(sub)
			c.ExpectCode(raw.SUBACK, raw.Code(granted(way)))
			conns[way] = c
		}
		pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
		if len(props) == 0 { // from a client that has none
			pub = s.open(raw.Connect{Version: raw.V311, ClientID: "pub", Clean: true})
		}
		// A first message keeps one client's window full.
		pub.Publish(raw.Publish{Topic: "topic/first", Payload: "first", QoS: 1, ID: 1})
		for way, c := range conns {
			if p := c.Expect(raw.PUBLISH); way != "behind" {
				c.Ack(p)
			}
		}
		conns["queued"].Send(raw.Disconnect{})
		conns["queued"].ExpectClosed()
		p := raw.Publish{Topic: "topic/second", Payload: "\x00payload", QoS: 2, ID: 2, Retain: true, Props: props}
		pub.Publish(p)
		conns["behind"].Quiet()
		conns["behind"].Send(raw.Puback{ID: 1})
		conns["queued"] = s.open(kept("queued"))
		for way, c := range conns {
			want := p
			want.QoS = granted(way)
			want.Props = slices.Concat(raw.Props(props), adds[way])
			if way == "alias" { // the one alias went to the first topic
				want.Props = slices.Clone(props)
			}
			t.Log(way)
			wantPublish(t, c.Expect(raw.PUBLISH), want)
		}
		late := s.open(raw.Connect{ClientID: "late", Clean: true})
		late.Send(raw.Subscribe{ID: 1, Props: raw.Props{raw.SubscriptionIdentifier.Int(9)}, Filters: []raw.Filter{{Filter: "topic/#", QoS: 2}}})
		late.ExpectCode(raw.SUBACK, 2)
		p.Props = append(slices.Clone(props), raw.SubscriptionIdentifier.Int(9))
		wantPublish(t, late.Expect(raw.PUBLISH), p)
	}
}

func expiredIsDeleted(t *testing.T) {
	onFakeClock(t, options{}, func(s *fakeClock) {
		pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
		one := func(id string) *raw.Conn { // takes one message at a time
			connect := kept(id)
			connect.Props = append(connect.Props, raw.ReceiveMaximum.Int(1))
			return s.open(connect)
		}
		away := one("away")
		away.Subscribe(2, "a/#")
		s.drop(away)
		c := one("slow")
		c.Subscribe(2, "a/#")
		publish := func(payload string, expiry ...raw.Property) {
			for qos := byte(1); qos <= 2; qos++ {
				pub.Publish(raw.Publish{Topic: "a/" + payload, Payload: payload, QoS: qos, ID: 1, Retain: true, Props: expiry})
			}
		}
		pub.Publish(raw.Publish{Topic: "a/window", QoS: 1, ID: 1})
		first := c.ExpectPublish("a/window", "")
		publish("5 s", raw.MessageExpiry.Int(5))
		publish("for ever")
		publish("0 s", raw.MessageExpiry.Int(0))
		publish("6 s", raw.MessageExpiry.Int(6))
		c.Quiet()
		s.pass(5 * time.Second)
		c.Ack(first)
		expect := func(c *raw.Conn) {
			t.Helper()
			for _, payload := range []string{"for ever", "6 s"} {
				for qos := byte(1); qos <= 2; qos++ {
					if p := c.Deliver(); p.Text() != payload || p.QoS != qos {
						t.Errorf("got %s, want %q at QoS %d", p, payload, qos)
					}
				}
			}
			c.Quiet()
		}
		expect(c)
		away = one("away")
		away.Ack(away.ExpectPublish("a/window", ""))
		expect(away)
		late := s.open(raw.Connect{ClientID: "late", Clean: true})
		late.Subscribe(0, "a/#")
		got := []string{late.Expect(raw.PUBLISH).Text(), late.Expect(raw.PUBLISH).Text()}
		if slices.Sort(got); !slices.Equal(got, []string{"6 s", "for ever"}) {
			t.Errorf("got %q", got)
		}
		late.Quiet()
		s.pass(time.Second)
		late.Subscribe(0, "a/#")
		late.ExpectPublish("a/for ever", "for ever")
		late.Quiet()
		if n := s.hub.Stats().Endpoints[0].Dropped[bridge.DropExpired]; n != 8 {
			t.Errorf("%d expired messages were counted, want 8", n)
		}
	})
}

func expiryCountsDown(t *testing.T) {
	onFakeClock(t, options{}, func(s *fakeClock) {
		pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
		live := s.open(raw.Connect{ClientID: "live", Clean: true})
		live.Subscribe(1, "a/#")
		away := s.open(kept("away"))
		away.Subscribe(1, "a/#")
		s.drop(away)
		expiries := []uint32{0xFFFFFFFF, 100, 31}
		for i, expiry := range expiries {
			p := raw.Publish{Topic: fmt.Sprint("a/", i), Payload: "p", QoS: 1, ID: 1, Retain: true, Props: raw.Props{raw.MessageExpiry.Int(expiry)}}
			pub.Publish(p)
			p.Retain = false
			wantPublish(t, live.Deliver(), p)
		}
		for _, expiry := range []uint32{0, 1} { // live it has not waited
			p := raw.Publish{Topic: "a/now", Props: raw.Props{raw.MessageExpiry.Int(expiry)}}
			pub.Publish(p)
			wantPublish(t, live.Deliver(), p)
		}
		pub.Publish(raw.Publish{Topic: "a/never", Payload: "p", QoS: 1, ID: 1, Retain: true})
		wantPublish(t, live.Deliver(), raw.Publish{Topic: "a/never", Payload: "p", QoS: 1})

		// Whole seconds are what counts: nothing has been waited for after less than one.
		for i, wait := range []time.Duration{999 * time.Millisecond, time.Millisecond, 29 * time.Second} {
			s.pass(wait)
			waited := []uint32{0, 1, 30}[i]
			away = s.open(kept("away"))
			late := s.open(raw.Connect{ClientID: "late", Clean: true})
			for k, expiry := range expiries {
				want := raw.Publish{Topic: fmt.Sprint("a/", k), Payload: "p", QoS: 1, Props: raw.Props{raw.MessageExpiry.Int(expiry - waited)}}
				want.Dup = i > 0 // it is never acknowledged
				wantPublish(t, away.Expect(raw.PUBLISH), want)
				late.Subscribe(1, want.Topic)
				want.Dup, want.Retain = false, true
				wantPublish(t, late.Deliver(), want)
			}
			want := raw.Publish{Topic: "a/never", Payload: "p", QoS: 1, Dup: i > 0}
			wantPublish(t, away.Expect(raw.PUBLISH), want)
			s.drop(away)
			s.drop(late)
		}
	})
}

func aliasesEnd(t *testing.T) {
	s := start(t, options{})
	alias := func(n uint32) raw.Props { return raw.Props{raw.TopicAlias.Int(n)} }
	c := s.open(kept("in"))
	c.Subscribe(0, "topic/#")
	c.Send(raw.Publish{Topic: "topic/a", Props: alias(1)}, raw.Publish{Props: alias(1)})
	c.ExpectPublish("topic/a", "")
	c.ExpectPublish("topic/a", "")
	c = s.open(kept("in")) // the same session
	c.Send(raw.Publish{Props: alias(1)})
	c.ExpectDisconnect(0x82)
	s.ended(t, "another client", 0x82, raw.Publish{QoS: 1, ID: 1, Props: alias(1)})

	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	out := kept("out")
	out.Props = append(out.Props, raw.TopicAliasMaximum.Int(5))
	c = s.open(out)
	c.Subscribe(1, "topic/#")
	publish := func(n int) {
		for i := range n {
			pub.Publish(raw.Publish{Topic: "topic/b", Payload: fmt.Sprint(i), QoS: 1, ID: 1})
		}
	}
	publish(2)
	wantPublish(t, c.Expect(raw.PUBLISH), raw.Publish{Topic: "topic/b", Payload: "0", QoS: 1, Props: alias(1)})
	wantPublish(t, c.Expect(raw.PUBLISH), raw.Publish{Topic: "", Payload: "1", QoS: 1, Props: alias(1)})
	c.Send(raw.Disconnect{})
	c.ExpectClosed()
	publish(2)
	// What is sent again and what was queued under the alias has the topic again, once for each connection.
	c = s.open(out)
	for i, topic := range []string{"topic/b", "", "", ""} {
		wantPublish(t, c.Expect(raw.PUBLISH), raw.Publish{Topic: topic, Payload: fmt.Sprint(i % 2), QoS: 1, Dup: i < 2, Props: alias(1)})
	}
	c = s.open(kept("out")) // which allows none
	for i := range 4 {
		wantPublish(t, c.Expect(raw.PUBLISH), raw.Publish{Topic: "topic/b", Payload: fmt.Sprint(i % 2), QoS: 1, Dup: true})
	}
}

func aliasesOut(t *testing.T) {
	s := start(t, options{limits: broker.Limits{TopicAliasesOut: 3}})
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	connect := kept("c")
	for _, max := range []uint32{2, 1, 3, 100} {
		connect.Props = raw.Props{raw.SessionExpiry.Int(60), raw.TopicAliasMaximum.Int(max)}
		c := s.open(connect)
		c.Subscribe(2, "topic/#")
		for round := range 3 {
			for i := range 5 {
				p := raw.Publish{Topic: fmt.Sprint("topic/", i), Payload: "p", QoS: byte(i % 3), ID: 1}
				pub.Publish(p)
				if i < int(min(max, 3)) {
					p.Props = raw.Props{raw.TopicAlias.Int(uint32(i + 1))}
					if round > 0 {
						p.Topic = ""
					}
				}
				wantPublish(t, c.Deliver(), p)
			}
		}
	}

	// An alias must not make a message too large that is not, nor be given to one that is.
	for _, topic := range []string{"a", "abc", "a/longer/one"} {
		p := raw.Publish{Topic: topic, Payload: strings.Repeat("x", 40)}
		size := uint32(len(raw.Encode(raw.V5, p)))
		connect.Props = raw.Props{raw.TopicAliasMaximum.Int(1), raw.MaximumPacketSize.Int(size)}
		c := s.open(connect)
		c.Subscribe(0, topic)
		for _, payload := range []string{p.Payload + "x", p.Payload, "x", p.Payload, p.Payload + "xxxx"} {
			p.Payload = payload
			c.Send(p)
			if uint32(len(raw.Encode(raw.V5, p))) > size {
				if len(payload) > 41 && len(topic) > 7 { // it fits by its alias
					wantPublish(t, c.Expect(raw.PUBLISH), raw.Publish{Payload: payload, Props: raw.Props{raw.TopicAlias.Int(1)}})
				}
				c.Quiet()
				continue
			}
			got := c.Expect(raw.PUBLISH)
			byAlias := got.Topic == "" && got.Props.Int(raw.TopicAlias) == 1
			if got.Topic != topic && !byAlias || got.Text() != payload {
				t.Errorf("topic %q with %d bytes came as %s", topic, len(payload), got)
			}
		}
	}
}

func aliasesIn(t *testing.T) {
	s := start(t, options{access: fenced{}})
	c := s.open(raw.Connect{ClientID: "c", Clean: true})
	c.Subscribe(0, "#")
	send := func(topic string, alias uint32, want string) {
		t.Helper()
		for qos := range byte(3) {
			c.Send(raw.Publish{Topic: topic, Payload: "p", QoS: qos, ID: 1, Props: raw.Props{raw.User("n", "v"), raw.TopicAlias.Int(alias)}})
			switch qos {
			case 0:
				wantPublish(t, c.Expect(raw.PUBLISH), raw.Publish{Topic: want, Payload: "p", Props: raw.Props{raw.User("n", "v")}})
				continue
			case 1:
				got := c.ExpectAll(raw.PUBACK, raw.PUBLISH)
				wantPublish(t, got[1], raw.Publish{Topic: want, Payload: "p", Props: raw.Props{raw.User("n", "v")}})
			case 2:
				got := c.ExpectAll(raw.PUBREC, raw.PUBLISH)
				wantPublish(t, got[1], raw.Publish{Topic: want, Payload: "p", Props: raw.Props{raw.User("n", "v")}})
				c.Send(raw.Pubrel{ID: 1})
				c.ExpectAck(raw.PUBCOMP, 1, 0)
			}
		}
	}
	for alias := uint32(1); alias <= 32; alias++ {
		topic := fmt.Sprint("t/", alias)
		send(topic, alias, topic)
	}
	for alias := uint32(32); alias >= 1; alias-- {
		send("", alias, fmt.Sprint("t/", alias))
	}
	send("t/other", 7, "t/other")
	send("", 7, "t/other")
	send("", 8, "t/8")
	send("t/8", 9, "t/8") // two aliases of one topic

	// It is the topic behind the alias that rights are asked for.
	c.Send(raw.Publish{Topic: "secret/a", QoS: 1, ID: 1, Props: raw.Props{raw.TopicAlias.Int(7)}})
	c.ExpectAck(raw.PUBACK, 1, 0x87)
	c.Send(raw.Publish{QoS: 1, ID: 1, Props: raw.Props{raw.TopicAlias.Int(7)}})
	c.ExpectAck(raw.PUBACK, 1, 0x87)
	// A topic over the limit takes the alias from the one before: what follows must not go there.
	c.Send(raw.Publish{Topic: strings.Repeat("x", 2000), QoS: 1, ID: 1, Props: raw.Props{raw.TopicAlias.Int(8)}})
	c.ExpectAck(raw.PUBACK, 1, 0x90)
	c.Send(raw.Publish{QoS: 1, ID: 1, Props: raw.Props{raw.TopicAlias.Int(8)}})
	c.ExpectDisconnect(0x82)
	s.ended(t, "alias that was never given", 0x82, raw.Publish{Topic: "a", Props: raw.Props{raw.TopicAlias.Int(2)}}, raw.Publish{Props: raw.Props{raw.TopicAlias.Int(1)}})
}
