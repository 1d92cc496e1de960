package broker_test

import (
	"fmt"
	"testing"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// publish311 are the statements about PUBLISH and retained messages (section 3.3).
func publish311() []statement {
	return []statement{
		of311("3.3.1-2", "a QoS 0 PUBLISH with DUP ends the connection, and is not delivered", func(t *testing.T) {
			s := start(t, options{})
			watcher := s.watch()
			s.closes("DUP at QoS 0", raw.Publish{Topic: "a", Payload: "x", Dup: true})
			s.closes("DUP at QoS 0, retained", raw.Publish{Topic: "a", Payload: "x", Dup: true, Retain: true})
			watcher.Quiet()
		}),
		of311("3.3.1-3", "DUP of what comes in is not passed on", func(t *testing.T) {
			s := start(t, options{})
			c := s.open(as311("a"))
			sub := s.open(as311("sub"))
			sub.Subscribe(2, "t")
			c.Publish(raw.Publish{Topic: "t", Payload: "1", QoS: 1, ID: 1, Dup: true})
			c.Publish(raw.Publish{Topic: "t", Payload: "2", QoS: 2, ID: 1, Dup: true})
			wants(t, sub.Deliver(), "t", "1", 1, false, false)
			wants(t, sub.Deliver(), "t", "2", 2, false, false)
		}),
		of311("3.3.1-4", "a PUBLISH of QoS 3 ends the connection, and is not delivered", func(t *testing.T) {
			s := start(t, options{})
			watcher := s.watch()
			for _, header := range []byte{0x36, 0x37, 0x3E, 0x3F} {
				s.closes(fmt.Sprintf("header %X", header), raw.Frame(header, "a", uint16(1), byte('x')))
			}
			watcher.Quiet()
		}),
		of311("3.3.1-5 3.3.1-6 3.3.1-8", "a retained message is kept with its QoS, and the last one of each topic that matches a new subscription is sent with RETAIN 1", func(t *testing.T) {
			s := start(t, options{})
			c := s.open(as311("a"))
			for qos := range byte(3) {
				topic := fmt.Sprint("t/", qos)
				c.Publish(raw.Publish{Topic: topic, Payload: "former", QoS: 2 - qos, ID: 1, Retain: true})
				c.Publish(raw.Publish{Topic: topic, Payload: "last", QoS: qos, ID: 1, Retain: true})
			}
			c.Publish(raw.Publish{Topic: "u", Payload: "does not match", Retain: true})
			for _, v := range []raw.Connect{as311("sub"), kept311("sub")} {
				sub := s.open(v)
				sub.Subscribe(2, "t/+")
				got := make(map[byte]bool)
				for _, p := range delivered(t, sub, 3) {
					wants(t, p, fmt.Sprint("t/", p.QoS), "last", p.QoS, true, false)
					got[p.QoS] = true
				}
				if len(got) != 3 {
					t.Errorf("got the topics %v", got)
				}
				sub.Quiet()
				sub.Close()
			}
		}),
		of311("3.3.1-7", "a QoS 0 message with RETAIN 1 takes the place of the retained one", func(t *testing.T) {
			s := start(t, options{})
			c := s.open(as311("a"))
			c.Publish(raw.Publish{Topic: "t", Payload: "old", QoS: 2, ID: 1, Retain: true})
			c.Publish(raw.Publish{Topic: "t", Payload: "new", Retain: true})
			c.Subscribe(2, "t")
			wants(t, c.Read(), "t", "new", 0, true, false)
			c.Quiet()
		}),
		of311("3.3.1-9", "what goes to a subscription that is there already has RETAIN 0", func(t *testing.T) {
			s := start(t, options{})
			sub, away := s.open(as311("sub")), s.resume("away", false)
			sub.Subscribe(2, "t")
			away.Subscribe(2, "t")
			leaves(away)
			c := s.open(as311("a"))
			for qos := range byte(3) {
				c.Publish(raw.Publish{Topic: "t", Payload: "x", QoS: qos, ID: 1, Retain: true})
				wants(t, sub.Deliver(), "t", "x", qos, false, false)
			}
			away = s.resume("away", true)
			got := delivered(t, away, 2)
			wants(t, got[0], "t", "x", 1, false, false)
			wants(t, got[1], "t", "x", 2, false, false)
		}),
		of311("3.3.1-10 3.3.1-11", "an empty message with RETAIN 1 is delivered as usual, removes the retained message and is not retained itself", func(t *testing.T) {
			s := start(t, options{})
			c, sub := s.open(as311("a")), s.open(as311("sub"))
			sub.Subscribe(2, "t")
			for qos := range byte(3) {
				c.Publish(raw.Publish{Topic: "t", Payload: "x", QoS: 1, ID: 1, Retain: true})
				sub.Deliver()
				for range 2 { // the second one where nothing is retained
					c.Publish(raw.Publish{Topic: "t", QoS: qos, ID: 1, Retain: true})
					wants(t, sub.Deliver(), "t", "", qos, false, false)
				}
				fresh := s.open(as311("fresh"))
				fresh.Subscribe(2, "#")
				fresh.Quiet()
				fresh.Close()
			}
		}),
		of311("3.3.1-12", "a message with RETAIN 0 is not kept, and leaves the retained one alone, also when it is empty", func(t *testing.T) {
			s := start(t, options{})
			c := s.open(as311("a"))
			c.Publish(raw.Publish{Topic: "t", Payload: "kept", QoS: 1, ID: 1, Retain: true})
			for qos := range byte(3) {
				c.Publish(raw.Publish{Topic: "t", Payload: "x", QoS: qos, ID: 1})
				c.Publish(raw.Publish{Topic: "t", QoS: qos, ID: 1})
				c.Publish(raw.Publish{Topic: "u", Payload: "x", QoS: qos, ID: 1})
			}
			c.Subscribe(1, "#")
			wants(t, c.Deliver(), "t", "kept", 1, true, false)
			c.Quiet()
		}),
		of311("3.3.2-1", "a PUBLISH whose topic name is not whole ends the connection", func(t *testing.T) {
			s := start(t, options{})
			for header, shortest := range map[byte]int{0x30: 3, 0x32: 5, 0x34: 5} {
				whole := raw.Frame(header, "t", uint16(1))
				for n := range shortest {
					s.closes(fmt.Sprintf("header %X, %d bytes", header, n), raw.Shortened(whole, n))
				}
				s.closes("the length is beyond the packet", raw.Frame(header, uint16(60000), []byte("abc")))
			}
		}),
		of311("3.3.2-2 4.7.1-1", "a wildcard in a topic name ends the connection, and nothing is delivered", func(t *testing.T) {
			s := start(t, options{})
			watcher := s.watch()
			watcher.Subscribe(0, "a/+", "a/b")
			for _, topic := range []string{"#", "+", "a/#", "a/+", "a+", "a#b", "/+/b"} {
				for qos := range byte(3) {
					s.closes(topic, raw.Publish{Topic: topic, Payload: "x", QoS: qos, ID: 1, Retain: true})
				}
			}
			watcher.Quiet()
		}),
		of311("3.3.2-3", "the topic name of what is delivered is that of what was published", func(t *testing.T) {
			s := start(t, options{})
			c := s.open(as311("a"))
			c.Subscribe(1, "a/+/c", "+//#", "b/#", "$x/#")
			for _, topic := range []string{"a/b/c", "a//c", "/", "//", "x//y", "b", "b/", "b/c/d", "$x/y"} {
				c.Send(raw.Publish{Topic: topic, Payload: topic, QoS: 1, ID: 1})
				p := c.ExpectAll(raw.PUBACK, raw.PUBLISH)[1]
				wants(t, p, topic, topic, 1, false, false)
				c.Ack(p)
			}
			c.Quiet()
		}),
		of311("3.3.4-1", "PUBLISH is answered by nothing, PUBACK or PUBREC as its QoS says, whether anybody subscribes or not", func(t *testing.T) {
			s := start(t, options{})
			c, watcher := s.open(as311("a")), s.watch()
			for _, topic := range []string{"t", "$nobody"} {
				c.Send(raw.Publish{Topic: topic})
				c.Quiet()
				c.Send(raw.Publish{Topic: topic, QoS: 1, ID: 1})
				c.ExpectAck(raw.PUBACK, 1, 0)
				c.Send(raw.Publish{Topic: topic, QoS: 2, ID: 1})
				c.ExpectAck(raw.PUBREC, 1, 0)
				c.Send(raw.Pubrel{ID: 1})
				c.ExpectAck(raw.PUBCOMP, 1, 0)
				c.Quiet()
			}
			for range 3 {
				watcher.ExpectPublish("t", "")
			}
			watcher.Quiet()
		}),
		of311("3.3.5-1", "of overlapping subscriptions the highest QoS counts, and the message is delivered once", func(t *testing.T) {
			s := start(t, options{})
			filters := []string{"a/#", "a/b", "a/+"}
			for highest := range filters {
				c := s.open(as311("a"))
				for i, f := range filters {
					c.Subscribe(byte((i+highest)%3), f)
				}
				for qos := range byte(3) {
					pub := s.open(as311("pub"))
					pub.Publish(raw.Publish{Topic: "a/b", Payload: "x", QoS: qos, ID: 1})
					wants(t, c.Deliver(), "a/b", "x", qos, false, false)
					pub.Close()
				}
				c.Quiet()
				c.Close()
			}
		}),
		of311("3.3.5-2", "a PUBLISH that is not allowed is acknowledged as usual, not delivered and not retained", func(t *testing.T) {
			s := start(t, options{access: readOnly{}})
			watcher := s.watch()
			c := s.open(as311("a"))
			for qos := range byte(3) {
				for _, topic := range []string{"secret/x", "$SYS/broker/version"} {
					c.Publish(raw.Publish{Topic: topic, Payload: "x", QoS: qos, ID: 1, Retain: true})
					c.Quiet()
				}
			}
			watcher.Quiet()
			c.Subscribe(1, "secret/#", "$SYS/#")
			c.Quiet()
			c.Publish(raw.Publish{Topic: "public", Payload: "x"})
			watcher.ExpectPublish("public", "x")
		}),
	}
}
