package broker_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// statements5Shared is chapter 4.8.
func statements5Shared() []statement {
	return []statement{
		v5("a member of a shared group is given messages at no more than the QoS it was granted, whichever member it is", func(t *testing.T) {
			s := start(t, options{})
			pub := s.join5("pub")
			var members [3]*raw.Conn
			for qos := range byte(3) {
				members[qos] = s.join5(fmt.Sprint("member", qos))
				members[qos].Subscribe(qos, "$share/g/a")
			}
			for qos := range byte(3) {
				for range 6 {
					pub.Publish(raw.Publish{Topic: "a", QoS: qos, ID: 1})
				}
				for granted, c := range members {
					for _, p := range delivered(t, c, 2) { // each has its turns
						if p.QoS != min(qos, byte(granted)) {
							t.Errorf("QoS %d comes at %d where %d was granted", qos, p.QoS, granted)
						}
					}
					c.Quiet()
				}
			}
		}, "MQTT-4.8.2-3"),
		v5("a QoS 2 message that a member was sent stays its own while it is away, and is completed when it is back; nobody else gets it", func(t *testing.T) {
			s := start(t, options{})
			c, pub := s.keep5("c"), s.join5("pub")
			c.Subscribe(2, "$share/g/a")
			var got [2]raw.Packet
			for i := range got {
				pub.Publish(raw.Publish{Topic: "a", Payload: fmt.Sprint(i), QoS: 2, ID: 1})
				got[i] = c.ExpectPublish("a", fmt.Sprint(i))
			}
			c.Send(raw.Pubrec{ID: got[1].ID})
			c.ExpectAck(raw.PUBREL, got[1].ID, 0)
			other := s.join5("other")
			other.Subscribe(2, "$share/g/a")
			s.lose5(c)
			pub.Publish(raw.Publish{Topic: "a", Payload: "later", QoS: 2, ID: 1})
			if p := other.Deliver(); p.Text() != "later" {
				t.Errorf("the other member got %v", p)
			}
			other.Quiet()
			c = s.resume5("c")
			if p := c.ExpectPublish("a", "0"); p.ID != got[0].ID || !p.Dup {
				t.Errorf("got %v, want %v again", p, got[0])
			}
			c.ExpectAck(raw.PUBREL, got[1].ID, 0)
			c.Send(raw.Pubrec{ID: got[0].ID}, raw.Pubcomp{ID: got[1].ID})
			c.ExpectAck(raw.PUBREL, got[0].ID, 0)
			c.Send(raw.Pubcomp{ID: got[0].ID})
			c.Quiet()
			other.Quiet()
		}, "MQTT-4.8.2-4"),
		v5("when the session of a member ends with a QoS 2 message that it was sent, nobody else gets that message; QoS 1 messages go to another member as new", func(t *testing.T) {
			for _, how := range []string{"clean start", "disconnect", "expiry"} {
				onFakeClock(t, options{}, func(s *fakeClock) {
					expiry := raw.Props{raw.SessionExpiry.Int(60)}
					c := s.open(raw.Connect{ClientID: "c", Clean: true, Props: expiry})
					pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
					c.Subscribe(2, "$share/g/a")
					for i, qos := range []byte{2, 1, 2, 1} {
						pub.Publish(raw.Publish{Topic: "a", Payload: fmt.Sprint(i), QoS: qos, ID: 1})
						p := c.ExpectPublish("a", fmt.Sprint(i))
						if i == 2 {
							c.Ack(p)
							c.ExpectAck(raw.PUBREL, p.ID, 0)
						}
						if i == 3 {
							c.Ack(p) // this one is done
						}
					}
					c.Quiet()
					other := s.open(raw.Connect{ClientID: "other", Clean: true})
					other.Subscribe(2, "$share/g/a")
					switch how {
					case "disconnect":
						s.goodbye(c, raw.Disconnect{Props: raw.Props{raw.SessionExpiry.Int(0)}})
					case "clean start":
						s.drop(c)
						other.Quiet() // not before the session has ended
						s.open(raw.Connect{ClientID: "c", Clean: true})
					case "expiry":
						s.drop(c)
						s.pass(30 * time.Second)
						other.Quiet()
						s.pass(31 * time.Second)
					}
					p := other.Expect(raw.PUBLISH)
					if p.Text() != "1" || p.QoS != 1 || p.Dup {
						t.Errorf("%s: the other member got %v, want message 1 as new", how, p)
					}
					other.Ack(p)
					other.Quiet()
				})
			}
		}, "MQTT-4.8.2-5"),
		v5("a message that a member refuses by PUBACK or PUBREC from 0x80 is discarded: nobody else gets it, then or later", func(t *testing.T) {
			s := start(t, options{})
			c, other, pub := s.keep5("c"), s.join5("other"), s.join5("pub")
			c.Subscribe(2, "$share/g/a")
			for i, qos := range []byte{1, 2} {
				pub.Publish(raw.Publish{Topic: "a", Payload: fmt.Sprint(i), QoS: qos, ID: 1})
				p := c.ExpectPublish("a", fmt.Sprint(i))
				other.Subscribe(2, "$share/g/a")
				if qos == 1 {
					c.Send(raw.Puback{ID: p.ID, Code: 0x80})
				} else {
					c.Send(raw.Pubrec{ID: p.ID, Code: 0x97})
				}
				c.Quiet()
				other.Quiet()
				other.Send(raw.Unsubscribe{ID: 1, Filters: []string{"$share/g/a"}})
				other.ExpectAck(raw.UNSUBACK, 1, 0)
			}
			other.Subscribe(2, "$share/g/a")
			s.leave5(c, raw.Disconnect{Props: raw.Props{raw.SessionExpiry.Int(0)}})
			other.Quiet()
		}, "MQTT-4.8.2-6"),
	}
}

// TestSharedGroupsTakeTurns is round robin while members come and go, and that each group and every plain subscription has
// its own copy.
func TestSharedGroupsTakeTurns(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	pub := s.join5("pub")
	plain := s.join5("plain")
	plain.Subscribe(0, "a", "$share/other/+")
	var members []*raw.Conn
	n := 0
	for size := 1; size <= 5; size++ {
		c := s.join5(fmt.Sprint("member", size))
		c.Subscribe(1, "$share/g/a")
		members = append(members, c)
		if size == 4 { // one goes, and leaves a gap
			s.leave5(members[1], raw.Disconnect{})
			members = slices.Delete(members, 1, 2)
		}
		for range 3 { // rounds
			for range members {
				n++
				pub.Publish(raw.Publish{Topic: "a", Payload: fmt.Sprint(n), QoS: 1, ID: 1})
				plain.ExpectPublish("a", fmt.Sprint(n))
				plain.ExpectPublish("a", fmt.Sprint(n))
			}
			for _, c := range members {
				c.Ack(c.Expect(raw.PUBLISH))
				c.Quiet()
			}
		}
	}
	plain.Quiet()
}

// TestSharedMessagesGoToMembersThatCanTakeThem has a member that is away, one whose window is full and one that is there.
func TestSharedMessagesGoToMembersThatCanTakeThem(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	pub, away, full, there := s.join5("pub"), s.keep5("away"), s.join5("full", raw.ReceiveMaximum.Int(1)), s.keep5("there")
	publish := func(i int) { pub.Publish(raw.Publish{Topic: "a", Payload: fmt.Sprint(i), QoS: 1, ID: 1}) }
	full.Subscribe(1, "$share/g/a")
	publish(0)
	held := full.ExpectPublish("a", "0")
	away.Subscribe(1, "$share/g/a")
	there.Subscribe(1, "$share/g/a")
	s.lose5(away)
	for i := 1; i <= 20; i++ {
		publish(i)
		there.Ack(there.ExpectPublish("a", fmt.Sprint(i)))
	}
	full.Quiet()
	full.Ack(held) // there is room again
	full.Quiet()
	publish(21)
	publish(22)
	full.Ack(full.Expect(raw.PUBLISH))
	there.Ack(there.Expect(raw.PUBLISH))
	full.Quiet()
	there.Quiet()
	full.Close()
	s.lose5(there)
	eventually(t, func() error { // only those who are away are left: it waits for one of them
		if n := s.stats().Connections; n != 1 {
			return fmt.Errorf("%d connections", n)
		}
		return nil
	})
	publish(23)
	publish(24)
	got := make(map[string]int)
	for _, id := range []string{"away", "there"} {
		c := s.resume5(id)
		for c.Send(raw.Pingreq{}); ; {
			p := c.Read()
			if p.Type == raw.PINGRESP {
				break
			}
			got[p.Text()]++
			c.Ack(p)
		}
	}
	if len(got) != 2 || got["23"] != 1 || got["24"] != 1 {
		t.Errorf("got %v, want 23 and 24 once each", got)
	}
}

// TestAMemberThatLeavesHandsOverWhatItHasNotAcknowledged is what becomes of a window and a queue.
func TestAMemberThatLeavesHandsOverWhatItHasNotAcknowledged(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	pub, leaver, other := s.join5("pub"), s.join5("leaver", raw.ReceiveMaximum.Int(2)), s.join5("other")
	leaver.Subscribe(2, "$share/g/a")
	for i, qos := range []byte{1, 2, 1, 2, 0} { // two are sent, three wait
		pub.Publish(raw.Publish{Topic: "a", Payload: fmt.Sprint(i), QoS: qos, ID: 1})
	}
	leaver.ExpectPublish("a", "0")
	leaver.ExpectPublish("a", "1")
	other.Subscribe(2, "$share/g/a")
	leaver.Drop()
	got := make(map[string]bool)
	for _, p := range delivered(t, other, 3) {
		if p.Dup || got[p.Text()] {
			t.Errorf("got %v", p)
		}
		got[p.Text()] = true
	}
	// The QoS 2 message that was sent is nobody else's (MQTT-4.8.2-5).
	if !got["0"] || !got["2"] || !got["3"] {
		t.Errorf("got %v, want 0, 2 and 3", got)
	}
	eventually(t, func() error {
		if n := s.stats(); n.Inflight != 0 || n.Queued != 0 || n.Connections != 2 {
			return fmt.Errorf("%d under way, %d queued, %d connections", n.Inflight, n.Queued, n.Connections)
		}
		return nil
	})
	other.Quiet()
}

// TestSharedSubscriptionsGetNoRetainedMessages is MQTT 5 section 4.8.2.
func TestSharedSubscriptionsGetNoRetainedMessages(t *testing.T) {
	t.Parallel()
	c := start(t, options{}).join5("c")
	c.Publish(raw.Publish{Topic: "a", Payload: "kept", QoS: 1, ID: 1, Retain: true})
	c.Subscribe(1, "$share/g/a", "$share/g/#")
	c.Quiet()
}
