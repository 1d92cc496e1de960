package broker_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// statements5Data are the tests of chapters 1 and 2: data types and what all packets have in common.
func statements5Data() []statement {
	return []statement{
		v5("a string that is not UTF-8, wherever it stands, is malformed: CONNACK or DISCONNECT 0x81",
			func(t *testing.T) { badStrings(t, "\xed\xa0\x80", "a\xff", "\xc0\xaf", "\xf4\x90\x80\x80") }, "MQTT-1.5.4-1"),
		v5("a string with U+0000, wherever it stands, is malformed: CONNACK or DISCONNECT 0x81",
			func(t *testing.T) { badStrings(t, "a\x00b", "\x00") }, "MQTT-1.5.4-2"),
		v5("EF BB BF is U+FEFF wherever it stands: neither stripped nor skipped", keepsFEFF, "MQTT-1.5.4-3"),
		v5("a variable byte integer that is longer than it needs to be or than four bytes is malformed; ours are as short as possible",
			shortestVarints, "MQTT-1.5.5-1"),
		v5("both halves of a user property are checked as strings, and may be empty", stringPairs, "MQTT-1.5.7-1"),
		v5("other flags than the fixed header of a packet has are malformed", reservedFlags, "MQTT-2.1.3-1"),
		v5("a QoS 0 PUBLISH has no packet identifier, in either direction", qos0HasNoIdentifier, "MQTT-2.2.1-2"),
		v5("identifier 0 is a protocol error; identifiers that the server uses itself do no harm", clientIdentifiers, "MQTT-2.2.1-3"),
		v5("messages under way have different identifiers, none of them 0", serverIdentifiers, "MQTT-2.2.1-4"),
		v5("every acknowledgement repeats the identifier of its PUBLISH", acksRepeatIdentifiers, "MQTT-2.2.1-5"),
		v5("SUBACK and UNSUBACK repeat the identifier of their request", subacksRepeatIdentifiers, "MQTT-2.2.1-6"),
		v5("no properties is a Property Length of 0: written by the server, and missed where a client leaves it out",
			propertyLengthZero, "MQTT-2.2.2-1"),
	}
}

// badStrings puts each string into every string field of every packet.
func badStrings(t *testing.T, texts ...string) {
	s := start(t, options{})
	for _, bad := range texts {
		for what, connect := range map[string]raw.Connect{
			"client id":             {ClientID: bad},
			"user name":             {User: bad},
			"user property's name":  {Props: raw.Props{raw.User(bad, "")}},
			"user property's value": {Props: raw.Props{raw.User("", bad)}},
			"authentication method": {Props: raw.Props{raw.AuthMethod.Text(bad)}},
			"will topic":            {Will: &raw.Will{Topic: bad}},
			"will content type":     {Will: &raw.Will{Topic: "w", Props: raw.Props{raw.ContentType.Text(bad)}}},
			"will response topic":   {Will: &raw.Will{Topic: "w", Props: raw.Props{raw.ResponseTopic.Text(bad)}}},
			"will user property":    {Will: &raw.Will{Topic: "w", Props: raw.Props{raw.User("a", bad)}}},
		} {
			connect.Clean = true
			s.refusedConnect(t, fmt.Sprintf("%s %q", what, bad), 0x81, connect)
		}
		in := func(p raw.Property) raw.Props { return raw.Props{p} }
		for what, p := range map[string]raw.Sendable{
			"topic":                     raw.Publish{Topic: bad},
			"topic at QoS 1":            raw.Publish{Topic: bad, QoS: 1, ID: 1},
			"topic with alias":          raw.Publish{Topic: bad, Props: in(raw.TopicAlias.Int(1))},
			"topic over the limit":      raw.Publish{Topic: strings.Repeat("x", 2000) + bad},
			"content type":              raw.Publish{Topic: "a", Props: in(raw.ContentType.Text(bad))},
			"response topic":            raw.Publish{Topic: "a", Props: in(raw.ResponseTopic.Text(bad))},
			"user property's name":      raw.Publish{Topic: "a", Props: in(raw.User(bad, ""))},
			"user property's value":     raw.Publish{Topic: "a", Props: in(raw.User("", bad))},
			"filter":                    raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: bad}}},
			"SUBSCRIBE user property":   raw.Subscribe{ID: 1, Props: in(raw.User("a", bad)), Filters: []raw.Filter{{Filter: "a"}}},
			"filter to unsubscribe":     raw.Unsubscribe{ID: 1, Filters: []string{bad}},
			"UNSUBSCRIBE user property": raw.Unsubscribe{ID: 1, Props: in(raw.User(bad, "a")), Filters: []string{"a"}},
			"PUBACK reason string":      raw.Puback{ID: 1, Props: in(raw.ReasonString.Text(bad))},
			"PUBREC reason string":      raw.Pubrec{ID: 1, Props: in(raw.ReasonString.Text(bad))},
			"PUBREL reason string":      raw.Pubrel{ID: 1, Props: in(raw.ReasonString.Text(bad))},
			"PUBCOMP user property":     raw.Pubcomp{ID: 1, Props: in(raw.User(bad, bad))},
			"DISCONNECT reason string":  raw.Disconnect{Props: in(raw.ReasonString.Text(bad))},
			"AUTH reason string":        raw.Auth{Code: 0x18, Props: in(raw.ReasonString.Text(bad))},
		} {
			s.ended(t, fmt.Sprintf("%s %q", what, bad), 0x81, p)
		}
	}
}

func keepsFEFF(t *testing.T) {
	s := start(t, options{})
	sub := s.open(raw.Connect{ClientID: "sub", Clean: true})
	sub.Subscribe(0, "\ufeffa", "b/\ufeff/+")
	plain := s.open(raw.Connect{ClientID: "plain", Clean: true})
	plain.Subscribe(0, "a", "b//+", "b/c")
	pub := s.open(raw.Connect{ClientID: "\ufeffpub", Clean: true})
	for _, p := range []raw.Publish{
		{Topic: "\ufeffa", Props: raw.Props{raw.ContentType.Text("\ufeff"), raw.ResponseTopic.Text("\ufeffr"), raw.User("\ufeffn", "v\ufeff")}},
		{Topic: "b/\ufeff/c\ufeff", Payload: "\ufeff"},
	} {
		pub.Send(p)
		wantPublish(t, sub.Expect(raw.PUBLISH), p)
	}
	plain.Quiet()
	if s.Hub.Client(s.Name(), "\ufeffpub") == nil || s.Hub.Client(s.Name(), "pub") != nil {
		t.Error("U+FEFF was taken off a client identifier")
	}
}

func shortestVarints(t *testing.T) {
	s := start(t, options{})
	for what, p := range map[string]raw.Sendable{
		"remaining length 0 in two bytes":       raw.Bytes{0xC0, 0x80, 0x00},
		"remaining length 0 in four bytes":      raw.Bytes{0xC0, 0x80, 0x80, 0x80, 0x00},
		"remaining length in five bytes":        raw.Bytes{0xC0, 0x80, 0x80, 0x80, 0x80, 0x01},
		"PUBLISH property length in two bytes":  raw.Frame(0x30, "a", []byte{0x80, 0x00}),
		"PUBLISH property length in five bytes": raw.Frame(0x30, "a", []byte{0x80, 0x80, 0x80, 0x80, 0x01}, strings.Repeat("x", 200)),
		"SUBSCRIBE property length":             raw.Frame(0x82, uint16(1), []byte{0x80, 0x00}, "a", 0),
		"subscription identifier":               raw.Frame(0x82, uint16(1), 3, []byte{0x0B, 0x81, 0x00}, "a", 0),
		"UNSUBSCRIBE property length":           raw.Frame(0xA2, uint16(1), []byte{0x80, 0x00}, "a"),
		"PUBACK property length":                raw.Frame(0x40, uint16(1), 0, []byte{0x80, 0x00}),
		"DISCONNECT property length":            raw.Frame(0xE0, 0, []byte{0x80, 0x00}),
		"property identifier in two bytes":      raw.Frame(0x30, "a", 3, []byte{0x81, 0x00, 0x01}),
	} {
		s.ended(t, what, 0x81, p)
	}
	s.refusedConnect(t, "CONNECT property length", 0x81, raw.Frame(0x10, "MQTT", 5, 2, uint16(0), []byte{0x80, 0x00}, "id"))
	s.refusedConnect(t, "will property length", 0x81, raw.Frame(0x10, "MQTT", 5, 6, uint16(0), 0, "id", []byte{0x80, 0x00}, "w", ""))

	// The numbers at which one more byte begins, as remaining length, property length and subscription identifier.
	c := s.open(raw.Connect{ClientID: "numbers", Clean: true})
	for _, n := range []int{1, 127, 128, 16383, 16384, 2097151, 2097152, 268435455} {
		id := raw.SubscriptionIdentifier.Int(uint32(n))
		c.Send(raw.Subscribe{ID: 1, Props: raw.Props{id}, Filters: []raw.Filter{{Filter: "a"}}})
		c.ExpectCode(raw.SUBACK, 0)
		c.Send(raw.Publish{Topic: "a"})
		want := raw.Encode(raw.V5, raw.Publish{Topic: "a", Props: raw.Props{id}})
		if got := readBytes(t, c, len(want)); !bytes.Equal(got, want) {
			t.Errorf("subscription identifier %d: got % X, want % X", n, got, want)
		}
	}
	c.Send(raw.Unsubscribe{ID: 1, Filters: []string{"a"}})
	c.ExpectCode(raw.UNSUBACK, 0)
	c.Subscribe(0, "b")
	echoed := func(what string, n int, p raw.Publish) {
		c.Send(p)
		want := raw.Encode(raw.V5, p)
		if got := readBytes(t, c, len(want)); !bytes.Equal(got, want) {
			t.Errorf("%s %d: got % X.., want % X..", what, n, got[:8], want[:8])
		}
	}
	for _, n := range []int{127, 128, 16383, 16384} {
		echoed("remaining length", n, raw.Publish{Topic: "b", Payload: strings.Repeat("x", n-4)}) // 4: topic, property length
	}
	for _, n := range []int{127, 128} {
		echoed("property length", n, raw.Publish{Topic: "b", Props: raw.Props{raw.User(strings.Repeat("x", n-5), "")}})
	}
	c.Quiet()
}

func stringPairs(t *testing.T) {
	s := start(t, options{})
	for what, u := range map[string]raw.Property{
		"name":  raw.User("\xed\xbf\xbf", "v"),
		"value": raw.User("n", "\xed\xbf\xbf"),
		"null":  raw.User("n", "v\x00"),
	} {
		s.refusedConnect(t, what, 0x81, raw.Connect{ClientID: "bad", Clean: true, Props: raw.Props{u}})
		s.ended(t, what+" in PUBLISH", 0x81, raw.Publish{Topic: "a", Props: raw.Props{u}})
		s.ended(t, what+" in SUBSCRIBE", 0x81, raw.Subscribe{ID: 1, Props: raw.Props{u}, Filters: []raw.Filter{{Filter: "a"}}})
		s.ended(t, what+" in UNSUBSCRIBE", 0x81, raw.Unsubscribe{ID: 1, Props: raw.Props{u}, Filters: []string{"a"}})
		s.ended(t, what+" in DISCONNECT", 0x81, raw.Disconnect{Props: raw.Props{u}})
	}
	s.ended(t, "pair without value", 0x81, raw.Frame(0x30, "a", 4, []byte{0x26, 0, 1, 'n'}))
	c := s.open(raw.Connect{ClientID: "c", Clean: true, Props: raw.Props{raw.User("", ""), raw.User("", "")}})
	c.Subscribe(0, "a")
	p := raw.Publish{Topic: "a", Props: raw.Props{raw.User("", "v"), raw.User("n", ""), raw.User("", "")}}
	c.Send(p)
	wantPublish(t, c.Expect(raw.PUBLISH), p)
}

func reservedFlags(t *testing.T) {
	s := start(t, options{})
	subscribe := raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "a"}}}
	for flags := range byte(16) {
		for what, p := range map[string]raw.Sendable{
			"PUBACK": raw.Puback{ID: 1}, "PUBREC": raw.Pubrec{ID: 1}, "PUBCOMP": raw.Pubcomp{ID: 1}, "PINGREQ": raw.Pingreq{},
			"DISCONNECT": raw.Disconnect{}, "AUTH": raw.Auth{Code: 0x18},
		} {
			if flags != 0 {
				s.ended(t, fmt.Sprintf("%s with flags %X", what, flags), 0x81, raw.WithFlags(p, flags))
			}
		}
		if flags != 2 {
			s.ended(t, fmt.Sprintf("PUBREL with flags %X", flags), 0x81, raw.WithFlags(raw.Pubrel{ID: 1}, flags))
			s.ended(t, fmt.Sprintf("SUBSCRIBE with flags %X", flags), 0x81, raw.WithFlags(subscribe, flags))
			s.ended(t, fmt.Sprintf("UNSUBSCRIBE with flags %X", flags), 0x81, raw.WithFlags(raw.Unsubscribe{ID: 1, Filters: []string{"a"}}, flags))
		}
		if flags != 0 {
			c := raw.Dial(t, s.Addr)
			c.Send(raw.WithFlags(raw.Connect{ClientID: "c", Clean: true}, flags))
			c.ExpectClosed()
		}
	}
}

func qos0HasNoIdentifier(t *testing.T) {
	s := start(t, options{})
	c := s.open(raw.Connect{ClientID: "c", Clean: true})
	c.Subscribe(2, "a")
	// What would be an identifier is the beginning of the payload behind an empty property list.
	p := []byte{0x30, 7, 0, 1, 'a', 0, 0, 9, 'x'}
	c.Send(raw.Bytes(p))
	if got := readBytes(t, c, len(p)); !bytes.Equal(got, p) {
		t.Errorf("got % X, want % X", got, p)
	}
}

func clientIdentifiers(t *testing.T) {
	s := start(t, options{})
	s.ended(t, "PUBLISH at QoS 1", 0x82, raw.Publish{Topic: "a", QoS: 1})
	s.ended(t, "PUBLISH at QoS 2", 0x82, raw.Publish{Topic: "a", QoS: 2})
	s.ended(t, "SUBSCRIBE", 0x82, raw.Subscribe{Filters: []raw.Filter{{Filter: "a"}}})
	s.ended(t, "UNSUBSCRIBE", 0x82, raw.Unsubscribe{Filters: []string{"a"}})

	// The client uses for each of its requests the identifiers under which deliveries to it are under way.
	c := s.open(raw.Connect{ClientID: "c", Clean: true})
	c.Subscribe(2, "in/#")
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	pub.Publish(raw.Publish{Topic: "in/1", QoS: 1, ID: 1})
	pub.Publish(raw.Publish{Topic: "in/2", QoS: 2, ID: 2})
	one, two := c.ExpectPublish("in/1", ""), c.ExpectPublish("in/2", "")
	for _, id := range []uint16{one.ID, two.ID} {
		c.Send(raw.Publish{Topic: "out", QoS: 1, ID: id})
		c.ExpectAck(raw.PUBACK, id, 0x10)
		c.Send(raw.Subscribe{ID: id, Filters: []raw.Filter{{Filter: "b"}}})
		c.ExpectAck(raw.SUBACK, id, 0)
		c.Send(raw.Unsubscribe{ID: id, Filters: []string{"b"}})
		c.ExpectAck(raw.UNSUBACK, id, 0)
		c.Send(raw.Publish{Topic: "out", QoS: 2, ID: id})
		c.ExpectAck(raw.PUBREC, id, 0x10)
	}
	c.Ack(one)
	c.Ack(two)
	c.Ack(c.ExpectAck(raw.PUBREL, two.ID, 0))
	for _, id := range []uint16{one.ID, two.ID} {
		c.Send(raw.Pubrel{ID: id})
		c.ExpectAck(raw.PUBCOMP, id, 0)
	}
	c.Quiet()
}

func serverIdentifiers(t *testing.T) {
	s := start(t, options{})
	c := s.open(raw.Connect{ClientID: "c", Clean: true})
	c.Subscribe(2, "a")
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	used := make(map[uint16]bool)
	for i := range 300 {
		pub.Publish(raw.Publish{Topic: "a", QoS: byte(1 + i%2), ID: 1})
		p := c.Expect(raw.PUBLISH)
		if p.ID == 0 || used[p.ID] {
			t.Fatalf("message %d has identifier %d, which is 0 or in use", i, p.ID)
		}
		// Every third stays under way.
		if i%3 == 0 && i < 100 {
			used[p.ID] = true
			continue
		}
		c.Ack(p)
		if p.QoS == 2 {
			c.Ack(c.ExpectAck(raw.PUBREL, p.ID, 0))
		}
	}
	c.Quiet()
}

func acksRepeatIdentifiers(t *testing.T) {
	s := start(t, options{})
	c := s.open(raw.Connect{ClientID: "c", Clean: true})
	for _, id := range []uint16{1, 256, 77, 65535} {
		c.Send(raw.Publish{Topic: "out", QoS: 1, ID: id}, raw.Publish{Topic: "out", QoS: 2, ID: id}, raw.Pubrel{ID: id})
		c.ExpectAck(raw.PUBACK, id, 0x10)
		c.ExpectAck(raw.PUBREC, id, 0x10)
		c.ExpectAck(raw.PUBCOMP, id, 0)
	}
	c.Subscribe(2, "in")
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	var under []raw.Packet
	for range 3 {
		pub.Publish(raw.Publish{Topic: "in", QoS: 2, ID: 9})
		under = append(under, c.Expect(raw.PUBLISH))
	}
	for _, i := range []int{1, 2, 0} { // PUBREL follows the PUBREC, not the order of the messages
		c.Ack(under[i])
		c.Ack(c.ExpectAck(raw.PUBREL, under[i].ID, 0))
	}
	c.Quiet()
}

func subacksRepeatIdentifiers(t *testing.T) {
	s := start(t, options{})
	c := s.open(raw.Connect{ClientID: "c", Clean: true})
	for _, id := range []uint16{1, 256, 65535, 1} {
		c.Send(raw.Subscribe{ID: id, Filters: []raw.Filter{{Filter: "a"}}}, raw.Unsubscribe{ID: id, Filters: []string{"a"}})
		c.ExpectAck(raw.SUBACK, id, 0)
		c.ExpectAck(raw.UNSUBACK, id, 0)
	}
}

func propertyLengthZero(t *testing.T) {
	s := start(t, options{})
	c := s.open(raw.Connect{ClientID: "c", Clean: true})
	for _, step := range []struct {
		send raw.Sendable
		want []byte
	}{
		{raw.Subscribe{ID: 258, Filters: []raw.Filter{{Filter: "a", QoS: 1}}}, []byte{0x90, 4, 1, 2, 0, 1}},
		{raw.Publish{Topic: "a", Payload: "p"}, []byte{0x30, 5, 0, 1, 'a', 0, 'p'}},
		{raw.Unsubscribe{ID: 258, Filters: []string{"a", "b"}}, []byte{0xB0, 5, 1, 2, 0, 0, 0x11}},
	} {
		c.Send(step.send)
		if got := readBytes(t, c, len(step.want)); !bytes.Equal(got, step.want) {
			t.Errorf("got % X, want % X", got, step.want)
		}
	}
	c.Quiet()

	s.refusedConnect(t, "CONNECT", 0x81, raw.Frame(0x10, "MQTT", 5, 2, uint16(0), "id"))
	s.refusedConnect(t, "will", 0x81, raw.Frame(0x10, "MQTT", 5, 6, uint16(0), 0, "id", "will", "payload"))
	s.ended(t, "PUBLISH", 0x81, raw.Frame(0x30, "a"))
	s.ended(t, "PUBLISH at QoS 1", 0x81, raw.Frame(0x32, "a", uint16(1)))
	s.ended(t, "SUBSCRIBE", 0x81, raw.Frame(0x82, uint16(1), "a", 0))
	s.ended(t, "UNSUBSCRIBE", 0x81, raw.Frame(0xA2, uint16(1), "a"))
}
