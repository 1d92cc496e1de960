package broker_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// statements5Flow are the tests of what PUBLISH brings about: answers, overlapping subscriptions, Receive Maximum.
func statements5Flow() []statement {
	return []statement{
		v5("QoS 0 is not answered, QoS 1 with PUBACK, QoS 2 with PUBREC and PUBCOMP: delivered, without subscriber, refused",
			answersByQoS, "MQTT-3.3.4-1"),
		v5("overlapping subscriptions: one copy, at the highest of their QoS, in whatever order they were made", highestQoS, "MQTT-3.3.4-2"),
		v5("a message has the Subscription Identifiers of the subscriptions it matches, live, queued and retained",
			identifiersOfMatching, "MQTT-3.3.4-3"),
		v5("one copy has the identifiers of all matching subscriptions that have one, equal ones as often as they are",
			allIdentifiers, "MQTT-3.3.4-4"),
		v5("where there are several copies each has its own identifier", identifierOfEachCopy, "MQTT-3.3.4-5"),
		v5("a Subscription Identifier in a client's PUBLISH is a protocol error", func(t *testing.T) {
			s := start(t, options{})
			watch := s.open(raw.Connect{ClientID: "watch", Clean: true})
			watch.Subscribe(0, "#")
			for qos := range byte(3) {
				s.ended(t, "identifier", 0x82, raw.Publish{Topic: "a", QoS: qos, ID: 1, Props: raw.Props{raw.SubscriptionIdentifier.Int(1)}})
			}
			watch.Quiet()
		}, "MQTT-3.3.4-6"),
		v5("more QoS 2 messages than the server's Receive Maximum: DISCONNECT 0x93; QoS 0 and 1, refused and repeated ones do not count",
			receiveMaximumIn, "MQTT-3.3.4-7"),
		v5("never more messages under way than the client's Receive Maximum, and each completion makes room for one",
			receiveMaximumOut, "MQTT-3.3.4-9"),
		v5("on a new connection the Receive Maximum counts anew, and what is sent again counts", receiveMaximumAgain, "MQTT-3.3.4-9"),
		v5("with the window full all packets but PUBLISH come at once", func(t *testing.T) {
			s := start(t, options{})
			c := s.open(raw.Connect{ClientID: "c", Clean: true, Props: raw.Props{raw.ReceiveMaximum.Int(1)}})
			c.Subscribe(2, "a")
			pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
			for range 3 {
				pub.Publish(raw.Publish{Topic: "a", QoS: 2, ID: 1})
			}
			first := c.Expect(raw.PUBLISH)
			c.Quiet()
			c.Send(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "b"}}}, raw.Unsubscribe{ID: 2, Filters: []string{"b"}})
			c.ExpectAck(raw.SUBACK, 1, 0)
			c.ExpectAck(raw.UNSUBACK, 2, 0)
			c.Send(raw.Publish{Topic: "out", QoS: 1, ID: 3}, raw.Publish{Topic: "out", QoS: 2, ID: 4}, raw.Pubrel{ID: 4})
			c.ExpectAck(raw.PUBACK, 3, 0x10)
			c.ExpectAck(raw.PUBREC, 4, 0x10)
			c.ExpectAck(raw.PUBCOMP, 4, 0)
			c.Send(raw.Pubrec{ID: first.ID})
			c.ExpectAck(raw.PUBREL, first.ID, 0)
			c.Quiet()
			c.Send(raw.Connect{ClientID: "c"})
			c.ExpectDisconnect(0x82)
		}, "MQTT-3.3.4-10"),
	}
}

func answersByQoS(t *testing.T) {
	s := start(t, options{access: fenced{}})
	watch := s.open(raw.Connect{ClientID: "watch", Clean: true})
	watch.Subscribe(2, "heard")
	c := s.open(raw.Connect{ClientID: "c", Clean: true})
	for topic, code := range map[string]raw.Code{"heard": 0, "unheard": 0x10, "secret/a": 0x87, "$SYS/broker/version": 0x87} {
		c.Send(raw.Publish{Topic: topic})
		c.Quiet()
		c.Send(raw.Publish{Topic: topic, QoS: 1, ID: 1})
		c.ExpectAck(raw.PUBACK, 1, code)
		c.Send(raw.Publish{Topic: topic, QoS: 2, ID: 1})
		c.ExpectAck(raw.PUBREC, 1, code)
		c.Send(raw.Pubrel{ID: 1})
		known := raw.Code(0)
		if code >= 0x80 { // the refusal has ended it
			known = 0x92
		}
		c.ExpectAck(raw.PUBCOMP, 1, known)
	}
	for qos := range byte(3) {
		wantPublish(t, watch.Deliver(), raw.Publish{Topic: "heard", QoS: qos})
	}
	watch.Quiet()
	c.Quiet()
}

func highestQoS(t *testing.T) {
	s := start(t, options{})
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	filters := []raw.Filter{{Filter: "a/b", QoS: 0}, {Filter: "a/+", QoS: 2}, {Filter: "a/#", QoS: 1}, {Filter: "#", QoS: 0}}
	for range len(filters) {
		filters = append(filters[1:], filters[0])
		c := s.open(kept("c"))
		c.Send(raw.Subscribe{ID: 1, Filters: filters})
		c.Expect(raw.SUBACK)
		for topic, granted := range map[string]byte{"a/b": 2, "a/c": 2, "a": 1, "b": 0} {
			for qos := range byte(3) {
				pub.Publish(raw.Publish{Topic: topic, QoS: qos, ID: 1})
				wantPublish(t, c.Deliver(), raw.Publish{Topic: topic, QoS: min(qos, granted)})
			}
		}
		c.Quiet()
		c.Send(raw.Disconnect{})
		c.ExpectClosed()
		pub.Publish(raw.Publish{Topic: "a/b", QoS: 2, ID: 1})
		c = s.open(kept("c"))
		wantPublish(t, c.Deliver(), raw.Publish{Topic: "a/b", QoS: 2})
		c.Quiet()
		c.Send(raw.Disconnect{Props: raw.Props{raw.SessionExpiry.Int(0)}})
		c.ExpectClosed()
	}
}

// subscribeWith subscribes with a Subscription Identifier; 0: without.
func subscribeWith(c *raw.Conn, id uint32, filters ...raw.Filter) {
	sub := raw.Subscribe{ID: 1, Filters: filters}
	if id != 0 {
		sub.Props = raw.Props{raw.SubscriptionIdentifier.Int(id)}
	}
	c.Send(sub)
	c.Expect(raw.SUBACK)
}

// wantIdentifiers expects a PUBLISH and its Subscription Identifiers in any order.
func wantIdentifiers(t *testing.T, c *raw.Conn, topic string, want ...uint32) {
	t.Helper()
	p := c.Deliver()
	got := p.Props.Ints(raw.SubscriptionIdentifier)
	slices.Sort(got)
	slices.Sort(want)
	if p.Topic != topic || !slices.Equal(got, want) {
		t.Errorf("got %s, want topic %q with identifiers %d", p, topic, want)
	}
}

func identifiersOfMatching(t *testing.T) {
	s := start(t, options{})
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	c := s.open(kept("c"))
	subscribeWith(c, 1, raw.Filter{Filter: "a", QoS: 2}, raw.Filter{Filter: "b/+", QoS: 2})
	subscribeWith(c, 268435455, raw.Filter{Filter: "c/#", QoS: 2})
	subscribeWith(c, 0, raw.Filter{Filter: "d", QoS: 2})
	want := map[string][]uint32{"a": {1}, "b/x": {1}, "c": {268435455}, "c/d": {268435455}, "d": nil}
	for topic, ids := range want {
		for qos := range byte(3) {
			pub.Publish(raw.Publish{Topic: topic, QoS: qos, ID: 1})
			wantIdentifiers(t, c, topic, ids...)
		}
	}
	c.Send(raw.Disconnect{})
	c.ExpectClosed()
	for qos := byte(1); qos <= 2; qos++ {
		pub.Publish(raw.Publish{Topic: "c", QoS: qos, ID: 1})
	}
	c = s.open(kept("c"))
	wantIdentifiers(t, c, "c", 268435455)
	wantIdentifiers(t, c, "c", 268435455)
	// A SUBSCRIBE that replaces a subscription replaces its identifier, or takes it away.
	subscribeWith(c, 2, raw.Filter{Filter: "a"})
	subscribeWith(c, 0, raw.Filter{Filter: "b/+"})
	pub.Publish(raw.Publish{Topic: "a", Payload: "p", Retain: true})
	wantIdentifiers(t, c, "a", 2)
	pub.Publish(raw.Publish{Topic: "b/x"})
	wantIdentifiers(t, c, "b/x")
	// Retained messages come for the subscription that was made, not for those that were there.
	subscribeWith(c, 3, raw.Filter{Filter: "+"})
	wantIdentifiers(t, c, "a", 3)
	c.Quiet()
}

func allIdentifiers(t *testing.T) {
	s := start(t, options{})
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	other := s.open(raw.Connect{ClientID: "other", Clean: true})
	subscribeWith(other, 99, raw.Filter{Filter: "a/#", QoS: 2}, raw.Filter{Filter: "#", QoS: 2})
	c := s.open(kept("c"))
	subscribeWith(c, 5, raw.Filter{Filter: "a/b", QoS: 0}, raw.Filter{Filter: "a/+", QoS: 1})
	subscribeWith(c, 300, raw.Filter{Filter: "a/#", QoS: 2})
	subscribeWith(c, 0, raw.Filter{Filter: "#", QoS: 2})
	subscribeWith(c, 7, raw.Filter{Filter: "+/b", QoS: 1})
	want := map[string][]uint32{"a/b": {5, 5, 300, 7}, "a/c": {5, 300}, "a": {300}, "x/b": {7}, "x": nil}
	for topic, ids := range want {
		for qos := range byte(3) {
			pub.Publish(raw.Publish{Topic: topic, QoS: qos, ID: 1})
			wantIdentifiers(t, c, topic, ids...)
			if topic == "a/b" {
				wantIdentifiers(t, other, topic, 99, 99)
			} else {
				other.Deliver()
			}
		}
	}
	c.Quiet()
	c.Send(raw.Disconnect{})
	c.ExpectClosed()
	pub.Publish(raw.Publish{Topic: "a/b", QoS: 1, ID: 1})
	c = s.open(kept("c"))
	if got := c.Expect(raw.PUBLISH).Props.Ints(raw.SubscriptionIdentifier); len(got) != 4 {
		t.Errorf("from the queue: identifiers %d", got)
	}
	c.Drop()
	c = s.open(kept("c"))
	wantIdentifiers(t, c, "a/b", 5, 5, 300, 7)
	c.Send(raw.Unsubscribe{ID: 1, Filters: []string{"a/+", "a/#"}})
	c.ExpectCode(raw.UNSUBACK, 0)
	pub.Publish(raw.Publish{Topic: "a/b"})
	wantIdentifiers(t, c, "a/b", 5, 7)
}

func identifierOfEachCopy(t *testing.T) {
	s := start(t, options{})
	c := s.open(raw.Connect{ClientID: "c", Clean: true})
	// Shared subscriptions are delivered besides the others (section 4.8.2).
	subscribeWith(c, 1, raw.Filter{Filter: "a"})
	subscribeWith(c, 2, raw.Filter{Filter: "$share/g/a"})
	subscribeWith(c, 3, raw.Filter{Filter: "$share/h/+"})
	subscribeWith(c, 0, raw.Filter{Filter: "$share/i/#"})
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	for range 3 {
		pub.Publish(raw.Publish{Topic: "a"})
		var got []string
		for range 4 {
			got = append(got, fmt.Sprint(c.Expect(raw.PUBLISH).Props.Ints(raw.SubscriptionIdentifier)))
		}
		if slices.Sort(got); !slices.Equal(got, []string{"[1]", "[2]", "[3]", "[]"}) {
			t.Errorf("the copies have identifiers %s", got)
		}
		c.Quiet()
	}
	// One retained message for each of two subscriptions.
	pub.Publish(raw.Publish{Topic: "r", Payload: "p", Retain: true})
	for range 2 { // to "$share/h/+" and "$share/i/#"
		c.ExpectPublish("r", "p")
	}
	c.Quiet()
	c.Send(raw.Subscribe{ID: 1, Props: raw.Props{raw.SubscriptionIdentifier.Int(9)}, Filters: []raw.Filter{{Filter: "r"}, {Filter: "r/#"}}})
	c.ExpectCode(raw.SUBACK, 0)
	for range 2 {
		wantPublish(t, c.Expect(raw.PUBLISH), raw.Publish{Topic: "r", Payload: "p", Retain: true, Props: raw.Props{raw.SubscriptionIdentifier.Int(9)}})
	}
	c.Quiet()
}

func receiveMaximumIn(t *testing.T) {
	s := start(t, options{limits: broker.Limits{InflightIn: 3}, access: fenced{}})
	c, ack := raw.Open(t, s.Addr, raw.Connect{ClientID: "c", Clean: true})
	if ack.Props.Int(raw.ReceiveMaximum) != 3 {
		t.Errorf("got %s", ack)
	}
	two := func(id uint16) raw.Publish { return raw.Publish{Topic: "a", QoS: 2, ID: id} }
	for round := range 3 {
		for id := range uint16(3) {
			c.Send(two(id + 1))
			c.ExpectAck(raw.PUBREC, id+1, 0x10)
		}
		for id := range uint16(20) { // these do not count
			c.Send(raw.Publish{Topic: "a"}, raw.Publish{Topic: "a", QoS: 1, ID: 100 + id})
			c.ExpectAck(raw.PUBACK, 100+id, 0x10)
		}
		for id := range uint16(3) { // nor do repetitions
			p := two(id + 1)
			p.Dup = true
			c.Send(p)
			c.ExpectAck(raw.PUBREC, id+1, 0)
		}
		if round == 2 {
			break
		}
		for id := range uint16(3) {
			c.Send(raw.Pubrel{ID: id + 1})
			c.ExpectAck(raw.PUBCOMP, id+1, 0)
		}
		for id := range uint16(10) { // a refusal ends the message
			c.Send(raw.Publish{Topic: "secret/a", QoS: 2, ID: 200 + id})
			c.ExpectAck(raw.PUBREC, 200+id, 0x87)
		}
	}
	c.Send(two(4))
	c.ExpectDisconnect(0x93)
}

func receiveMaximumOut(t *testing.T) {
	s := start(t, options{limits: broker.Limits{InflightOut: 5}})
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	for _, v := range []struct {
		props raw.Props
		want  int
	}{
		{raw.Props{raw.ReceiveMaximum.Int(1)}, 1}, {raw.Props{raw.ReceiveMaximum.Int(3)}, 3}, {raw.Props{raw.ReceiveMaximum.Int(65535)}, 5}, {nil, 5},
	} {
		c := s.open(raw.Connect{ClientID: "c", Clean: true, Props: v.props})
		c.Subscribe(2, "a")
		const n = 24
		for i := range n {
			pub.Publish(raw.Publish{Topic: "a", Payload: fmt.Sprint(i), QoS: byte(1 + i%2), ID: 1})
		}
		var under []raw.Packet
		next := 0
		take := func(k int) {
			t.Helper()
			for range min(k, n-next) {
				p := c.Expect(raw.PUBLISH)
				wantPublish(t, p, raw.Publish{Topic: "a", Payload: fmt.Sprint(next), QoS: byte(1 + next%2)})
				under = append(under, p)
				next++
			}
			c.Quiet() // and no more
		}
		take(v.want)
		for turn := 0; len(under) > 0; turn++ {
			p := under[0]
			under = under[1:]
			switch {
			case p.QoS == 1 && turn%3 == 0:
				c.Send(raw.Puback{ID: p.ID, Code: 0x97}) // a refusal completes too
			case p.QoS == 1:
				c.Send(raw.Puback{ID: p.ID})
				c.Send(raw.Puback{ID: p.ID}) // twice is once
			case turn%3 == 0:
				c.Send(raw.Pubrec{ID: p.ID, Code: 0x80})
			default:
				c.Send(raw.Pubrec{ID: p.ID})
				c.ExpectAck(raw.PUBREL, p.ID, 0)
				c.Quiet() // half of the way makes no room
				c.Send(raw.Pubcomp{ID: p.ID})
			}
			take(1)
		}
		if next != n {
			t.Errorf("%d of %d messages came", next, n)
		}
		c.Close()
	}
}

func receiveMaximumAgain(t *testing.T) {
	s := start(t, options{})
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	connect := func(max uint32) *raw.Conn {
		c := kept("c")
		c.Props = append(c.Props, raw.ReceiveMaximum.Int(max))
		return s.open(c)
	}
	c := connect(4)
	c.Subscribe(2, "a")
	for i := range 8 {
		pub.Publish(raw.Publish{Topic: "a", Payload: fmt.Sprint(i), QoS: byte(1 + i%2), ID: 1})
	}
	var under []raw.Packet
	for i := range 4 {
		under = append(under, c.ExpectPublish("a", fmt.Sprint(i)))
	}
	c.Quiet()
	c.Ack(under[1])
	c.ExpectAck(raw.PUBREL, under[1].ID, 0)
	c.Quiet()
	c.Drop()
	// With room for one it goes on where it was: in order, one at a time.
	c = connect(1)
	for i := range 8 {
		if i == 1 {
			rel := c.Expect(raw.PUBREL)
			c.Quiet()
			c.Ack(rel)
			continue
		}
		p := c.Expect(raw.PUBLISH)
		wantPublish(t, p, raw.Publish{Topic: "a", Payload: fmt.Sprint(i), QoS: byte(1 + i%2), Dup: i < 4})
		c.Quiet()
		c.Ack(p)
		if p.QoS == 2 {
			c.Ack(c.ExpectAck(raw.PUBREL, p.ID, 0))
		}
	}
	c.Quiet()
}
