package broker_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// statements5Publish are the tests of chapter 3.3.
func statements5Publish() []statement {
	return slices.Concat(statements5PublishPacket(), statements5Properties(), statements5Flow())
}

// statements5PublishPacket are those about flags and topic of PUBLISH.
func statements5PublishPacket() []statement {
	return []statement{
		v5("what is sent again on a new connection has DUP 1; a client's repetition of a QoS 2 message is not a new one", dupOnRepetition, "MQTT-3.3.1-1"),
		v5("QoS 0 has DUP 0: a client's with DUP 1 is malformed", func(t *testing.T) {
			s := start(t, options{})
			s.ended(t, "DUP at QoS 0", 0x81, raw.Publish{Topic: "a", Dup: true})
			s.ended(t, "DUP at QoS 0 with RETAIN", 0x81, raw.Publish{Topic: "a", Payload: "p", Dup: true, Retain: true})
			c := s.open(raw.Connect{ClientID: "c", Clean: true})
			c.Subscribe(0, "a")
			pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
			for qos := range byte(3) {
				pub.Publish(raw.Publish{Topic: "a", QoS: qos, ID: 1, Dup: qos > 0})
				wantPublish(t, c.Expect(raw.PUBLISH), raw.Publish{Topic: "a"})
			}
		}, "MQTT-3.3.1-2"),
		v5("DUP is not passed on: not live, not from the queue, not retained", dupIsNotPassedOn, "MQTT-3.3.1-3"),
		v5("QoS 3 is malformed", func(t *testing.T) {
			s := start(t, options{})
			for _, first := range []byte{0x36, 0x37, 0x3E, 0x3F} {
				s.ended(t, fmt.Sprintf("first byte %02X", first), 0x81, raw.Frame(first, "a", uint16(1), 0))
			}
		}, "MQTT-3.3.1-4"),
		v5("RETAIN 1 replaces what is retained at the topic, whatever the QoS, with all its properties", retainReplaces, "MQTT-3.3.1-5"),
		v5("RETAIN 1 without payload removes what is retained, and goes to subscribers like any other", retainRemoves, "MQTT-3.3.1-6"),
		v5("a message without payload is not retained", func(t *testing.T) {
			s := start(t, options{})
			c := s.open(raw.Connect{ClientID: "c", Clean: true})
			for qos := range byte(3) {
				c.Publish(raw.Publish{Topic: "a", QoS: qos, ID: 1, Retain: true, Props: raw.Props{raw.User("not", "empty")}})
			}
			c.Subscribe(0, "#")
			c.Quiet()
			if n := s.Hub.Stats().Retained; n != 0 {
				t.Errorf("%d messages are retained", n)
			}
		}, "MQTT-3.3.1-7"),
		v5("RETAIN 0 neither retains, replaces nor removes", func(t *testing.T) {
			s := start(t, options{})
			c := s.open(raw.Connect{ClientID: "c", Clean: true})
			c.Publish(raw.Publish{Topic: "a", Payload: "kept", Retain: true})
			for qos := range byte(3) {
				for _, payload := range []string{"", "other"} {
					c.Publish(raw.Publish{Topic: "a", Payload: payload, QoS: qos, ID: 1})
					c.Publish(raw.Publish{Topic: "b", Payload: payload, QoS: qos, ID: 1})
				}
			}
			c.Subscribe(0, "#")
			wantPublish(t, c.Expect(raw.PUBLISH), raw.Publish{Topic: "a", Payload: "kept", Retain: true})
			c.Quiet()
		}, "MQTT-3.3.1-8"),
		v5("Retain Handling 0: retained messages at every SUBSCRIBE", retainHandling(0, 2, 2, 2, 2, 2), "MQTT-3.3.1-9"),
		v5("Retain Handling 1: only where the subscription is new, also across connections", retainHandling(1, 2, 0, 0, 2, 0), "MQTT-3.3.1-10"),
		v5("Retain Handling 2: none", retainHandling(2, 0, 0, 0, 0, 0), "MQTT-3.3.1-11"),
		v5("Retain As Published 0: RETAIN is 0 on what comes live, 1 on what was retained", retainAsPublished(false), "MQTT-3.3.1-12"),
		v5("Retain As Published 1: RETAIN is as published", retainAsPublished(true), "MQTT-3.3.1-13"),
		v5("the topic comes first: without one, or without all of it, a PUBLISH is malformed; an empty one needs an alias", func(t *testing.T) {
			s := start(t, options{})
			s.ended(t, "no topic", 0x81, raw.Frame(0x30))
			s.ended(t, "half a length", 0x81, raw.Frame(0x30, 0))
			s.ended(t, "half a topic", 0x81, raw.Frame(0x30, []byte{0, 9, 'a'}))
			s.ended(t, "not UTF-8", 0x81, raw.Publish{Topic: "a/\xff"})
			s.ended(t, "empty", 0x82, raw.Publish{Topic: ""})
			s.ended(t, "empty at QoS 1", 0x82, raw.Publish{Topic: "", QoS: 1, ID: 1})
		}, "MQTT-3.3.2-1"),
		v5("a wildcard in a topic name: DISCONNECT 0x90", func(t *testing.T) {
			s := start(t, options{})
			watch := s.open(raw.Connect{ClientID: "watch", Clean: true})
			watch.Subscribe(0, "#")
			for _, topic := range []string{"#", "+", "a/#", "a/+/b", "a+", "a#b"} {
				for qos := range byte(3) {
					s.ended(t, topic, 0x90, raw.Publish{Topic: topic, QoS: qos, ID: 1})
				}
				s.ended(t, topic+" with alias", 0x90, raw.Publish{Topic: topic, Props: raw.Props{raw.TopicAlias.Int(1)}})
				s.ended(t, topic+" retained", 0x90, raw.Publish{Topic: topic, Payload: "p", Retain: true})
			}
			watch.Quiet()
			if n := s.Hub.Stats().Retained; n != 0 {
				t.Errorf("%d messages are retained", n)
			}
		}, "MQTT-3.3.2-2"),
		v5("what is delivered has the topic it was published to, which matches the filter", topicsMatch, "MQTT-3.3.2-3"),
	}
}

func dupOnRepetition(t *testing.T) {
	s := start(t, options{})
	c := s.open(kept("c"))
	c.Subscribe(2, "a/#")
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	for i := range 4 {
		pub.Publish(raw.Publish{Topic: "a", Payload: fmt.Sprint(i), QoS: byte(1 + i%2), ID: 1, Props: raw.Props{raw.User("n", fmt.Sprint(i))}})
	}
	var ids []uint16
	for range 3 { // never acknowledged: repeated on each connection, with the same identifiers, in order
		for i := range 4 {
			p := c.Expect(raw.PUBLISH)
			again := len(ids) >= 4
			wantPublish(t, p, raw.Publish{Topic: "a", Payload: fmt.Sprint(i), QoS: byte(1 + i%2), Dup: again, Props: raw.Props{raw.User("n", fmt.Sprint(i))}})
			if again && p.ID != ids[i] {
				t.Errorf("message %d was repeated as %s", i, p)
			}
			ids = append(ids, p.ID)
		}
		c.Quiet()
		c.Drop()
		c = s.open(kept("c"))
	}
	c.Close()

	watch := s.open(raw.Connect{ClientID: "watch", Clean: true})
	watch.Subscribe(2, "b")
	pub.Send(raw.Publish{Topic: "b", Payload: "once", QoS: 2, ID: 5})
	pub.ExpectAck(raw.PUBREC, 5, 0)
	for _, dup := range []bool{true, false, true} {
		pub.Send(raw.Publish{Topic: "b", Payload: "once", QoS: 2, ID: 5, Dup: dup})
		pub.ExpectAck(raw.PUBREC, 5, 0)
	}
	watch.Deliver()
	watch.Quiet()
	pub.Send(raw.Pubrel{ID: 5})
	pub.ExpectAck(raw.PUBCOMP, 5, 0)
	pub.Publish(raw.Publish{Topic: "b", Payload: "next", QoS: 2, ID: 5})
	if p := watch.Deliver(); p.Text() != "next" {
		t.Errorf("got %s", p)
	}
}

func dupIsNotPassedOn(t *testing.T) {
	s := start(t, options{})
	live := s.open(raw.Connect{ClientID: "live", Clean: true})
	live.Subscribe(2, "a")
	away := s.open(kept("away"))
	away.Subscribe(2, "a")
	away.Send(raw.Disconnect{})
	away.ExpectClosed()
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	for qos := byte(1); qos <= 2; qos++ {
		pub.Publish(raw.Publish{Topic: "a", Payload: "p", QoS: qos, ID: uint16(qos), Dup: true, Retain: true})
		wantPublish(t, live.Deliver(), raw.Publish{Topic: "a", Payload: "p", QoS: qos})
	}
	away = s.open(kept("away"))
	for qos := byte(1); qos <= 2; qos++ {
		wantPublish(t, away.Expect(raw.PUBLISH), raw.Publish{Topic: "a", Payload: "p", QoS: qos})
	}
	late := s.open(raw.Connect{ClientID: "late", Clean: true})
	late.Subscribe(2, "a")
	wantPublish(t, late.Expect(raw.PUBLISH), raw.Publish{Topic: "a", Payload: "p", QoS: 2, Retain: true})
}

func retainReplaces(t *testing.T) {
	s := start(t, options{})
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	for i, qos := range []byte{2, 0, 1, 2} {
		p := raw.Publish{Topic: "a/b", Payload: fmt.Sprint(i), QoS: qos, ID: 1, Retain: true, Props: raw.Props{raw.User("n", fmt.Sprint(i))}}
		pub.Publish(p)
		pub.Publish(raw.Publish{Topic: "a/b/c", Payload: "another topic", Retain: true})
		pub.Quiet()
		for granted := range byte(3) {
			c := s.open(raw.Connect{ClientID: "c", Clean: true})
			c.Subscribe(granted, "a/b")
			want := p
			want.QoS = min(qos, granted)
			wantPublish(t, c.Deliver(), want)
			c.Quiet()
			c.Close()
		}
	}
	if n := s.Hub.Stats().Retained; n != 2 {
		t.Errorf("%d messages are retained, want 2", n)
	}
}

func retainRemoves(t *testing.T) {
	s := start(t, options{})
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	live := s.open(raw.Connect{ClientID: "live", Clean: true})
	live.Send(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "#", QoS: 2, RetainAsPublished: true}}})
	live.ExpectCode(raw.SUBACK, 2)
	for qos := range byte(3) {
		for _, topic := range []string{"a", "a/b"} {
			pub.Publish(raw.Publish{Topic: topic, Payload: "p", Retain: true})
			live.ExpectPublish(topic, "p")
		}
		pub.Publish(raw.Publish{Topic: "a", QoS: qos, ID: 1, Retain: true})
		wantPublish(t, live.Deliver(), raw.Publish{Topic: "a", QoS: qos, Retain: true})
		late := s.open(raw.Connect{ClientID: "late", Clean: true})
		late.Subscribe(0, "a", "a/b")
		late.ExpectPublish("a/b", "p")
		late.Quiet()
		late.Close()
	}
	if n := s.Hub.Stats().Retained; n != 1 {
		t.Errorf("%d messages are retained, want 1", n)
	}
}

// retainHandling counts the retained messages at the first SUBSCRIBE, the second, one on a resumed session, one after
// UNSUBSCRIBE, and one that only changes the options.
func retainHandling(handling byte, first, again, resumed, anew, changed int) func(t *testing.T) {
	return func(t *testing.T) {
		s := start(t, options{})
		pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
		pub.Publish(raw.Publish{Topic: "a/1", Payload: "p", Retain: true})
		pub.Publish(raw.Publish{Topic: "a/2", Payload: "p", Retain: true})
		pub.Quiet()
		c := s.open(kept("c"))
		subscribe := func(what string, qos byte, want int) {
			t.Helper()
			c.Send(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "a/+", QoS: qos, RetainHandling: handling}}})
			c.ExpectCode(raw.SUBACK, raw.Code(qos))
			got := make(map[string]bool)
			for range want {
				p := c.Expect(raw.PUBLISH)
				if got[p.Topic] || !p.Retain {
					t.Errorf("%s: got %s", what, p)
				}
				got[p.Topic] = true
			}
			c.Quiet()
		}
		subscribe("first", 0, first)
		subscribe("again", 0, again)
		c.Send(raw.Disconnect{})
		c.ExpectClosed()
		c = s.open(kept("c"))
		subscribe("resumed", 0, resumed)
		c.Send(raw.Unsubscribe{ID: 2, Filters: []string{"a/+"}})
		c.ExpectCode(raw.UNSUBACK, 0)
		subscribe("anew", 0, anew)
		subscribe("changed", 1, changed)
		// What comes live comes in any case, and once.
		pub.Publish(raw.Publish{Topic: "a/1", Payload: "live", Retain: true})
		c.ExpectPublish("a/1", "live")
		c.Quiet()
	}
}

func retainAsPublished(keep bool) func(t *testing.T) {
	return func(t *testing.T) {
		s := start(t, options{})
		pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
		filters := []raw.Filter{{Filter: "a", QoS: 2, RetainAsPublished: keep}}
		c := s.open(raw.Connect{ClientID: "c", Clean: true})
		c.Send(raw.Subscribe{ID: 1, Filters: filters})
		c.ExpectCode(raw.SUBACK, 2)
		shared := s.open(raw.Connect{ClientID: "shared", Clean: true})
		shared.Send(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "$share/g/a", QoS: 2, RetainAsPublished: keep}}})
		shared.ExpectCode(raw.SUBACK, 2)
		away := s.open(kept("away"))
		away.Send(raw.Subscribe{ID: 1, Filters: filters})
		away.ExpectCode(raw.SUBACK, 2)
		away.Send(raw.Disconnect{})
		away.ExpectClosed()
		for qos := range byte(3) {
			for _, retain := range []bool{true, false} {
				pub.Publish(raw.Publish{Topic: "a", Payload: "p", QoS: qos, ID: 1, Retain: retain})
				want := raw.Publish{Topic: "a", Payload: "p", QoS: qos, Retain: retain && keep}
				wantPublish(t, c.Deliver(), want)
				wantPublish(t, shared.Deliver(), want)
			}
		}
		away = s.open(kept("away"))
		for _, retain := range []bool{true, false, true, false} {
			if p := away.Expect(raw.PUBLISH); p.Retain != (retain && keep) {
				t.Errorf("from the queue came %s", p)
			}
		}
		c.Send(raw.Subscribe{ID: 1, Filters: filters})
		c.ExpectCode(raw.SUBACK, 2)
		wantPublish(t, c.Deliver(), raw.Publish{Topic: "a", Payload: "p", QoS: 2, Retain: true})
	}
}

func topicsMatch(t *testing.T) {
	s := start(t, options{})
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	topics := []string{"a", "a/", "/a", "a/b", "a/b/c", "a//c", "A", "ab", "$a/b", "/"}
	for i, topic := range topics {
		pub.Publish(raw.Publish{Topic: topic, Payload: "p", Retain: true, Props: raw.Props{raw.TopicAlias.Int(uint32(i + 1))}})
	}
	pub.Quiet()
	for filter, want := range map[string]string{
		"a": "a", "a/": "a/", "a/+": "a/ a/b", "a/#": "a a/ a/b a/b/c a//c", "+": "a A ab", "+/+": "a/ /a a/b /", "/+": "/a /",
		"a/+/c": "a/b/c a//c", "#": "a a/ /a a/b a/b/c a//c A ab /", "$a/+": "$a/b", "+/b": "a/b", "/#": "/a /", "b": "",
	} {
		c := s.open(raw.Connect{ClientID: "c", Clean: true})
		c.Subscribe(0, filter)
		expected := strings.Fields(want)
		for _, how := range []string{"retained", "live"} {
			if how == "live" {
				for i := range topics { // by alias alone
					pub.Publish(raw.Publish{Payload: "p", Props: raw.Props{raw.TopicAlias.Int(uint32(i + 1))}})
				}
				pub.Quiet()
			}
			var got []string
			for range expected {
				got = append(got, c.Expect(raw.PUBLISH).Topic)
			}
			c.Quiet()
			if how == "retained" { // in any order
				slices.SortFunc(got, func(a, b string) int { return slices.Index(topics, a) - slices.Index(topics, b) })
			}
			if !slices.Equal(got, expected) {
				t.Errorf("filter %q: %s %q, want %q", filter, how, got, expected)
			}
		}
		c.Close()
	}
}
