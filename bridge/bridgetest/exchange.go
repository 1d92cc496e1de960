package bridgetest

import (
	"fmt"
	"strings"

	"github.com/isthmus-iot/isthmus/bridge"
)

var exchangeChecks = []check{
	{"messages go both ways at every QoS", nil, checkBothWays},
	{"payloads arrive byte for byte", nil, checkPayloads},
	{"a message outlives the endpoint's buffers", nil, checkBorrowed},
	{"a subscription can leave out the client's own messages", func(e Endpoint) bool { return e.NoEcho }, checkNoEcho},
	{"retained values come first, then live ones", func(e Endpoint) bool { return e.Retained }, checkRetained},
	{"the table of reasons is total", nil, checkReasons},
}

func checkBothWays(b *bench) {
	r := b.record("up/#")
	p := b.dial("p")
	if c := b.hub.Client(b.ep.Name, "p"); b.ep.Sessions && c == nil {
		b.Errorf("no client %q is attached for endpoint %q", "p", b.ep.Name)
	}
	b.subscribe(p, "down/+", b.topQoS())
	for _, q := range b.ep.QoS {
		topic, payload := fmt.Sprintf("up/%d", q), fmt.Sprintf("at QoS %d", q)
		b.mustSend(p, topic, payload, q)
		d := b.expectRecorded(r, topic, payload)
		if d.Message.QoS != q || d.Message.Retain || d.Message.Origin.Endpoint != b.ep.Name || d.Message.Time == 0 {
			b.Errorf("published at QoS %d, the hub was given QoS %d, retain %v, origin %+v, time %d", q, d.Message.QoS, d.Message.Retain,
				d.Message.Origin, d.Message.Time)
		}
		topic = strings.Replace(topic, "up", "down", 1)
		b.publish(topic, payload, q, false)
		if m := b.expect(p, topic, payload); m.QoS != q || m.Retain {
			b.Errorf("published at QoS %d, received at QoS %d, retain %v", q, m.QoS, m.Retain)
		}
	}
	s := b.stats()
	in, out := uint64(0), uint64(0)
	for q := range s.MessagesIn {
		in, out = in+s.MessagesIn[q], out+s.MessagesOut[q]
	}
	if n := uint64(len(b.ep.QoS)); in != n || out != n || b.drops() != 0 {
		b.Errorf("counted %d messages in, %d out and %d drops, want %d, %d and 0", in, out, b.drops(), n, n)
	}
}

func checkPayloads(b *bench) {
	r := b.record("#")
	p := b.dial("p")
	b.subscribe(p, "#", b.topQoS())
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	payloads := []string{"", "\x00", string(all), "ä日本", strings.Repeat("long ", 3000)}
	if n := b.ep.MaxPayload; n > 0 {
		payloads = append(payloads, strings.Repeat("x", n))
	}
	for i, payload := range payloads {
		if n := b.ep.MaxPayload; n > 0 && len(payload) > n {
			continue
		}
		for _, topic := range []string{"t", "/", "a//b", "ä/ /日本", strings.Repeat("deep/", 20)} {
			topic = fmt.Sprintf("%s%d", topic, i)
			b.mustSend(p, topic, payload, b.topQoS())
			b.expectRecorded(r, topic, payload)
			b.expect(p, topic, payload)
		}
	}
}

// checkBorrowed looks at messages again after the endpoint has used its read buffers for others.
func checkBorrowed(b *bench) {
	r := b.record("keep/#")
	p := b.dial("p")
	const n = 200
	var kept []Delivery
	for i := range n {
		b.mustSend(p, fmt.Sprintf("keep/%d", i), strings.Repeat(fmt.Sprint(i%10), 100), b.topQoS())
		kept = append(kept, r.Next(b))
	}
	for i, d := range kept {
		topic, payload := fmt.Sprintf("keep/%d", i), strings.Repeat(fmt.Sprint(i%10), 100)
		if string(d.Message.Topic) != topic || string(d.Message.Payload) != payload {
			b.Fatalf("message %d became %s: it is a view into a buffer and does not say so", i, brief(string(d.Message.Topic), d.Message.Payload))
		}
	}
}

func checkNoEcho(b *bench) {
	p, other := b.dial("p"), b.dial("other")
	if err := b.trySubscribe(p, Subscription{Filter: "t/#", QoS: b.topQoS(), NoEcho: true}); err != nil {
		b.Fatal(err)
	}
	b.subscribe(other, "t/#", b.topQoS())
	b.mustSend(p, "t/own", "echo", b.topQoS())
	b.expect(other, "t/own", "echo")
	b.mustSend(other, "t/others", "no echo", b.topQoS())
	b.expect(p, "t/others", "no echo")
	b.expect(other, "t/others", "no echo")
}

func checkRetained(b *bench) {
	const n = 100
	for i := range n {
		b.publish(fmt.Sprintf("r/%d", i), "old", b.topQoS(), true)
	}
	for i := range n {
		b.publish(fmt.Sprintf("r/%d", i), "retained", b.topQoS(), true)
	}
	b.publish("r/cleared", "x", 0, true)
	b.publish("r/cleared", "", 0, true)
	b.publish("elsewhere", "x", 0, true)
	early := b.dial("early")
	b.subscribe(early, "r/#", b.topQoS())
	for i := range n {
		b.publish(fmt.Sprintf("r/%d", i), "live", b.topQoS(), true)
	}
	seen := make(map[bridge.Topic][]string)
	for live := 0; live < n; {
		m := b.receive(early)
		payload := string(m.Payload)
		switch before := seen[m.Topic]; {
		case len(before) > 0 && before[len(before)-1] == "live":
			if !m.Retain || payload != "live" { // the value itself may be met after it was delivered live
				b.Fatalf("%s came after the live message", brief(string(m.Topic), m.Payload))
			}
		case payload == "live" && !m.Retain:
			live++
		case payload != "retained" && payload != "live" || !m.Retain:
			b.Fatalf("received %s, retain %v", brief(string(m.Topic), m.Payload), m.Retain)
		case len(before) > 0:
			b.Fatalf("%s came twice", brief(string(m.Topic), m.Payload))
		case payload == "live": // set while the retained values were on their way
			continue
		}
		seen[m.Topic] = append(seen[m.Topic], payload)
	}
	if len(seen) != n {
		b.Errorf("messages on %d topics, want %d", len(seen), n)
	}
	late := b.dial("late")
	b.subscribe(late, "r/+", b.topQoS())
	for range n {
		if m := b.receive(late); string(m.Payload) != "live" || !m.Retain {
			b.Fatalf("a late subscriber received %s, retain %v", brief(string(m.Topic), m.Payload), m.Retain)
		}
	}
	// What a client retains is found by others.
	if err := b.send(late, "r/new", "by a client", b.topQoS(), true); err != nil {
		b.Fatal(err)
	}
	b.eventually("the retained value is set", func() bool { return b.local.RetainedValue("r/new") != nil })
}

func checkReasons(b *bench) {
	if b.ep.Code == nil {
		b.Fatal("the endpoint shows no table of reasons")
	}
	ok := b.ep.Code(bridge.OK)
	for _, r := range bridge.Reasons() {
		if r == bridge.OK || r == bridge.NoMatchingSubscriber { // both are success
			continue
		}
		if code := b.ep.Code(r); code == ok || code == 0 {
			b.Errorf("%q has the code %#x; success is %#x", r, code, ok)
		}
	}
}
