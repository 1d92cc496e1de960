package broker_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// subscribe311 are the statements about SUBSCRIBE and UNSUBSCRIBE (sections 3.8 to 3.10).
func subscribe311() []statement {
	// codes subscribes to filters, all at QoS 1 unless it says otherwise, and expects these codes.
	codes := func(t *testing.T, c *raw.Conn, filters []raw.Filter, want ...raw.Code) {
		t.Helper()
		c.Send(raw.Subscribe{ID: 77, Filters: filters})
		if p := c.Expect(raw.SUBACK); p.ID != 77 || !slices.Equal(p.Codes, want) {
			t.Fatalf("got %s, want the codes %v", p, want)
		}
	}
	return []statement{
		of311("3.8.3-2", "a server without wildcards refuses filters that have them, and takes the others", func(t *testing.T) {
			s := start(t, options{limits: broker.Limits{NoWildcards: true}})
			c := s.open(as311("a"))
			codes(t, c, []raw.Filter{{Filter: "#"}, {Filter: "a/+", QoS: 2}, {Filter: "a/b", QoS: 1}}, 0x80, 0x80, 1)
			c.Publish(raw.Publish{Topic: "a/b", Payload: "1"})
			c.ExpectPublish("a/b", "1")
			c.Publish(raw.Publish{Topic: "a/c", Payload: "2"})
			c.Quiet()
		}),
		of311("3.8.3-3", "a SUBSCRIBE without a filter ends the connection", func(t *testing.T) {
			start(t, options{}).closes("no filter", raw.Subscribe{ID: 1})
		}),
		of311("3.8.3-4", "a reserved bit of the requested QoS, or QoS 3, ends the connection", func(t *testing.T) {
			s := start(t, options{})
			for _, options := range []byte{3, 4, 8, 0x10, 0x20, 0x40, 0x80, 0x81} {
				s.closes(fmt.Sprintf("%08b", options), raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "ok"}, {Filter: "a", Options: new(options)}}})
			}
		}),
		of311("3.8.4-3", "the same filter again replaces the subscription: its QoS counts, one copy comes, the retained message is sent again", func(t *testing.T) {
			s := start(t, options{})
			c, pub := s.open(as311("a")), s.open(as311("pub"))
			pub.Publish(raw.Publish{Topic: "t/a", Payload: "retained", QoS: 2, ID: 1, Retain: true})
			for _, qos := range []byte{2, 0, 1} {
				c.Subscribe(qos, "t/+")
				wants(t, c.Deliver(), "t/a", "retained", qos, true, false)
				pub.Publish(raw.Publish{Topic: "t/a", Payload: "live", QoS: 2, ID: 1})
				wants(t, c.Deliver(), "t/a", "live", qos, false, false)
				c.Quiet()
			}
			if n := s.Hub.Stats().Subscriptions; n != 1 {
				t.Errorf("%d subscriptions", n)
			}
			c.Send(raw.Unsubscribe{ID: 1, Filters: []string{"t/+"}})
			c.Expect(raw.UNSUBACK)
			pub.Publish(raw.Publish{Topic: "t/a", Payload: "after", QoS: 2, ID: 1})
			c.Quiet()
		}),
		of311("3.8.4-3", "no message is lost or doubled while a subscription is replaced", func(t *testing.T) {
			s := start(t, options{})
			c, pub := s.open(as311("a")), s.open(as311("pub"))
			c.Subscribe(1, "t/+")
			const n = 100 // all fit without acknowledgement
			var all []raw.Sendable
			for i := range n {
				all = append(all, raw.Publish{Topic: "t/a", Payload: fmt.Sprint(i), QoS: 1, ID: uint16(i + 1)})
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				pub.SendSplit(16, all...) // one message, about, for each write
			}()
			again, got := 0, 0
			c.Send(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "t/+", QoS: 1}}})
			for got < n || again < 50 {
				switch p := c.Read(); p.Type {
				case raw.SUBACK:
					if again++; again < 50 {
						c.Send(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "t/+", QoS: 1}}})
					}
				case raw.PUBLISH:
					wants(t, p, "t/a", fmt.Sprint(got), 1, false, false)
					got++
				}
			}
			<-done
			c.Quiet()
		}),
		of311("3.8.4-4", "many filters in one SUBSCRIBE act as many SUBSCRIBEs would, with one SUBACK", func(t *testing.T) {
			s := start(t, options{})
			c, pub := s.open(as311("a")), s.open(as311("pub"))
			pub.Publish(raw.Publish{Topic: "a", Payload: "retained", Retain: true})
			pub.Publish(raw.Publish{Topic: "b", Payload: "retained", Retain: true})
			pub.Quiet()
			codes(t, c, []raw.Filter{{Filter: "a", QoS: 2}, {Filter: "b", QoS: 1}, {Filter: "a", QoS: 0}, {Filter: "c/#", QoS: 1}, {Filter: "+"}}, 2, 1, 0, 1, 0)
			got := make(map[string]int)
			c.Send(raw.Pingreq{})
			for p := c.Read(); p.Type != raw.PINGRESP; p = c.Read() {
				wants(t, p, p.Topic, "retained", 0, true, false)
				got[p.Topic]++
			}
			if got["a"] < 2 || got["b"] != 2 { // for each filter; one for both "a" is enough, as they are at the same time
				t.Errorf("retained messages: %v", got)
			}
			pub.Publish(raw.Publish{Topic: "a", Payload: "x", QoS: 2, ID: 1})
			pub.Publish(raw.Publish{Topic: "b", Payload: "x", QoS: 2, ID: 1})
			pub.Publish(raw.Publish{Topic: "c", Payload: "x", QoS: 2, ID: 1})
			wants(t, c.Deliver(), "a", "x", 0, false, false) // the later one counts
			wants(t, c.Deliver(), "b", "x", 1, false, false)
			wants(t, c.Deliver(), "c", "x", 1, false, false)
			c.Quiet()
		}),
		of311("3.8.4-5 3.9.3-1 3.9.3-2", "SUBACK has one code for each filter in their order: the granted QoS, or 0x80 whatever the reason", func(t *testing.T) {
			s := start(t, options{access: fenced{}, limits: broker.Limits{NoShared: true}})
			c := s.open(as311("a"))
			codes(t, c, []raw.Filter{
				{Filter: "a", QoS: 2}, {Filter: "secret/x", QoS: 1}, {Filter: "a/#", QoS: 0}, {Filter: "bad/#/filter", QoS: 2}, {Filter: "b", QoS: 1},
				{Filter: "$share/g/x", QoS: 1}, {Filter: strings.Repeat("x", 2000)}, {Filter: strings.Repeat("/", 200)}, {Filter: "c", QoS: 0},
			}, 2, 0x80, 0, 0x80, 1, 0x80, 0x80, 0x80, 0)
			pub := s.open(as311("pub"))
			pub.Publish(raw.Publish{Topic: "secret/x", Payload: "1"})
			pub.Publish(raw.Publish{Topic: "x", Payload: "2"})
			pub.Publish(raw.Publish{Topic: "b", Payload: "3"})
			c.ExpectPublish("b", "3")
			s = start(t, options{limits: broker.Limits{MaximumQoS: 1}})
			codes(t, s.open(as311("a")), []raw.Filter{{Filter: "a", QoS: 2}, {Filter: "b", QoS: 0}}, 1, 0)
		}),
		of311("3.8.4-6", "a message is delivered at the lower of the QoS it was published with and the one granted, live, queued and retained", func(t *testing.T) {
			s := start(t, options{})
			pub := s.open(as311("pub"))
			for granted := range byte(3) {
				c := s.resume("a", granted > 0)
				c.Subscribe(granted, "t")
				for published := range byte(3) {
					m := raw.Publish{Topic: "t", Payload: "x", QoS: published, ID: 1}
					pub.Publish(m)
					wants(t, c.Deliver(), "t", "x", min(granted, published), false, false)
					m.Topic, m.Retain = fmt.Sprintf("r/%d/%d", granted, published), true
					pub.Publish(m)
				}
				c.Subscribe(granted, fmt.Sprintf("r/%d/0", granted), fmt.Sprintf("r/%d/1", granted), fmt.Sprintf("r/%d/2", granted))
				for published, p := range delivered(t, c, 3) {
					wants(t, p, fmt.Sprintf("r/%d/%d", granted, published), "x", min(granted, byte(published)), true, false)
				}
				leaves(c)
				for published := range byte(3) {
					pub.Publish(raw.Publish{Topic: "t", Payload: "queued", QoS: published, ID: 1})
				}
				c = s.resume("a", true)
				if granted > 0 {
					got := delivered(t, c, 2)
					wants(t, got[0], "t", "queued", 1, false, false)
					wants(t, got[1], "t", "queued", granted, false, false)
				}
				c.Quiet()
				leaves(c)
			}
		}),
		of311("3.10.3-2", "an UNSUBSCRIBE without a filter ends the connection", func(t *testing.T) {
			start(t, options{}).closes("no filter", raw.Unsubscribe{ID: 1})
		}),
		of311("3.10.4-1 3.10.4-2", "UNSUBSCRIBE deletes the subscription whose filter is the same character by character, and no other; nothing is added for it any more", func(t *testing.T) {
			s := start(t, options{})
			c, pub := s.open(as311("a")), s.open(as311("pub"))
			c.Subscribe(1, "a/+", "b/#")
			c.Send(raw.Unsubscribe{ID: 1, Filters: []string{"a/b", "a/#", "+/+", "#", "A/+", "a/+/", "/a/+", "b/+", "b"}})
			c.Expect(raw.UNSUBACK)
			pub.Publish(raw.Publish{Topic: "a/b", Payload: "1", QoS: 1, ID: 1})
			wants(t, c.Deliver(), "a/b", "1", 1, false, false)
			c.Send(raw.Unsubscribe{ID: 2, Filters: []string{"a/+"}})
			c.Expect(raw.UNSUBACK)
			pub.Publish(raw.Publish{Topic: "a/b", Payload: "2", QoS: 1, ID: 1})
			pub.Publish(raw.Publish{Topic: "b/b", Payload: "3", QoS: 1, ID: 1})
			wants(t, c.Deliver(), "b/b", "3", 1, false, false)
			c.Quiet()
		}),
		of311("3.10.4-3", "what was begun to be delivered at QoS 1 or 2 is completed after UNSUBSCRIBE, also on the next connection", func(t *testing.T) {
			s := start(t, options{})
			c, pub := s.resume("a", false), s.open(as311("pub"))
			c.Subscribe(2, "t")
			for i, qos := range []byte{1, 2, 2} {
				pub.Publish(raw.Publish{Topic: "t", Payload: fmt.Sprint(i), QoS: qos, ID: 1})
			}
			one, two, three := c.Expect(raw.PUBLISH), c.Expect(raw.PUBLISH), c.Expect(raw.PUBLISH)
			c.Send(raw.Unsubscribe{ID: 1, Filters: []string{"t"}})
			c.ExpectAck(raw.UNSUBACK, 1, 0)
			c.Ack(two)
			c.ExpectAck(raw.PUBREL, two.ID, 0)
			c.Send(raw.Pubcomp{ID: two.ID})
			c.Quiet()
			breaks(t, c)
			c = s.resume("a", true)
			again := []raw.Packet{c.Deliver(), c.Deliver()}
			wants(t, again[0], "t", "0", 1, false, true)
			wants(t, again[1], "t", "2", 2, false, true)
			if again[0].ID != one.ID || again[1].ID != three.ID {
				t.Errorf("identifiers were %d and %d, are %d and %d", one.ID, three.ID, again[0].ID, again[1].ID)
			}
			c.Quiet()
		}),
		of311("3.10.4-4 3.10.4-5", "UNSUBACK has the identifier of its UNSUBSCRIBE and nothing else, also where nothing was deleted", func(t *testing.T) {
			s := start(t, options{})
			c := s.open(as311("a"))
			c.Subscribe(0, "t")
			for _, f := range []string{"t", "t", "never", "bad/#/filter", ""} {
				c.Send(raw.Frame(0xA2, uint16(0x1234), f))
				bytesAre(t, c, 0xB0, 2, 0x12, 0x34)
			}
			c.Quiet()
		}),
		of311("3.10.4-6", "many filters in one UNSUBSCRIBE act as many UNSUBSCRIBEs would, with one UNSUBACK", func(t *testing.T) {
			s := start(t, options{})
			c := s.open(as311("a"))
			c.Subscribe(0, "a", "b", "c")
			c.Send(raw.Unsubscribe{ID: 5, Filters: []string{"a", "none", "c", "a"}})
			c.ExpectAck(raw.UNSUBACK, 5, 0)
			for _, topic := range []string{"a", "b", "c"} {
				c.Publish(raw.Publish{Topic: topic})
			}
			c.ExpectPublish("b", "")
			c.Quiet()
		}),
	}
}

// topics311 are the statements about topic names and filters (section 4.7).
func topics311() []statement {
	// matching subscribes to each filter alone and says which of the topics come.
	matching := func(t *testing.T, want map[string]string, topics ...string) {
		s := start(t, options{})
		pub := s.open(as311("pub"))
		for filter, matched := range want {
			c := s.open(as311("a"))
			c.Subscribe(0, filter)
			for _, topic := range topics {
				pub.Publish(raw.Publish{Topic: topic, Payload: filter})
			}
			pub.Quiet()
			for topic := range strings.FieldsSeq(matched) {
				c.ExpectPublish(topic, filter)
			}
			c.Quiet()
			leaves(c)
			// The same of retained messages.
			for _, topic := range topics {
				pub.Publish(raw.Publish{Topic: topic, Payload: "retained", Retain: true})
			}
			pub.Quiet()
			c = s.open(as311("a"))
			c.Subscribe(0, filter)
			var got []string
			for range strings.Fields(matched) {
				got = append(got, c.Expect(raw.PUBLISH).Topic)
			}
			c.Quiet()
			all := strings.Fields(matched)
			slices.Sort(all)
			if slices.Sort(got); !slices.Equal(got, all) {
				t.Errorf("retained for %s: %q, want %q", filter, got, all)
			}
			leaves(c)
			for _, topic := range topics {
				pub.Publish(raw.Publish{Topic: topic, Retain: true})
			}
			pub.Quiet()
		}
	}
	// refused subscribes to filters that must all be refused, next to one that must not.
	refused := func(t *testing.T, filters ...string) {
		s := start(t, options{})
		c := s.open(as311("a"))
		for _, f := range filters {
			c.Send(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: f, QoS: 1}, {Filter: "right", QoS: 1}}})
			if p := c.Expect(raw.SUBACK); !slices.Equal(p.Codes, []raw.Code{0x80, 1}) {
				t.Errorf("filter %q: %s", f, p)
			}
		}
		if n := s.Hub.Stats().Subscriptions; n != 1 {
			t.Errorf("%d subscriptions", n)
		}
	}
	return []statement{
		of311("4.7.1-2", "# is taken alone or after a separator, and last; then it matches its parent and all below", func(t *testing.T) {
			refused(t, "a#", "a/b#", "#/a", "a/#/b", "##", "/##", "a/#/", "#/", "+#")
			matching(t, map[string]string{
				"#": "a a/b a/b/c / /a b", "a/#": "a a/b a/b/c", "a/b/#": "a/b a/b/c", "/#": "/ /a", "+/#": "a a/b a/b/c / /a b", "b/#": "b",
			}, "a", "a/b", "a/b/c", "/", "/a", "b")
		}),
		of311("4.7.1-3", "+ is taken where it fills its level; then it matches one level, also an empty one", func(t *testing.T) {
			refused(t, "a+", "+a", "a/b+", "a/+b/c", "++", "/++")
			matching(t, map[string]string{
				"+": "a", "+/+": "a/b / /a a/", "/+": "/ /a", "a/+": "a/b a/", "+/b/+": "a/b/c", "+/": "/ a/", "+/+/+": "a/b/c",
			}, "a", "a/b", "a/b/c", "/", "/a", "a/")
		}),
		of311("4.7.2-1", "a filter that begins with a wildcard matches no topic that begins with $", func(t *testing.T) {
			matching(t, map[string]string{
				"#": "a/$b", "+/#": "a/$b", "+/b": "", "+/+": "a/$b", "$a/#": "$a $a/b", "$a/+": "$a/b", "$a/b": "$a/b", "a/#": "a/$b", "a/+": "a/$b",
			}, "$a", "$a/b", "a/$b")
		}),
		of311("4.7.3-1", "an empty filter is refused, an empty topic name ends the connection", func(t *testing.T) {
			refused(t, "")
			s := start(t, options{})
			watcher := s.watch()
			for qos := range byte(3) {
				s.closes("empty topic name", raw.Publish{Payload: "x", QoS: qos, ID: 1})
			}
			watcher.Quiet()
		}),
		of311("4.7.3-4", "names and filters are compared byte by byte: neither case nor Unicode forms nor separators are evened out", func(t *testing.T) {
			names := []string{"a", "A", "\u00e9", "e\u0301", "a/b", "a//b", "/a", "a/", "./a", "a%20b", "\u212b", "\u00c5"}
			want := make(map[string]string)
			for _, n := range names {
				want[n] = n
			}
			matching(t, want, names...)
		}),
	}
}
