package broker_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// statements5Order is chapter 4.6.
func statements5Order() []statement {
	return []statement{
		v5("a client that sends its unfinished messages again in another order has each delivered once, new ones in the order in which they come", func(t *testing.T) {
			s := start(t, options{})
			sub, pub := s.join5("sub"), s.keep5("pub")
			sub.Subscribe(0, "a")
			message := func(id uint16) raw.Publish { return raw.Publish{Topic: "a", Payload: fmt.Sprint(id), QoS: 2, ID: id} }
			for id := uint16(1); id <= 3; id++ {
				pub.Send(message(id))
				pub.ExpectAck(raw.PUBREC, id, 0)
				sub.ExpectPublish("a", fmt.Sprint(id))
			}
			s.lose5(pub)
			pub = s.resume5("pub")
			for _, id := range []uint16{3, 5, 1, 4, 2} {
				m := message(id)
				m.Dup = true
				pub.Send(m)
				pub.ExpectAck(raw.PUBREC, id, 0)
				if id > 3 { // the server has not seen these
					sub.ExpectPublish("a", fmt.Sprint(id))
				}
			}
			sub.Quiet()
		}, "MQTT-4.6.0-1"),
		v5("a client that acknowledges QoS 1 messages out of order loses none, and no identifier under way is used twice", func(t *testing.T) {
			s := start(t, options{})
			c, pub := s.join5("c", raw.ReceiveMaximum.Int(4)), s.join5("pub")
			c.Subscribe(1, "a")
			for i := range 12 {
				pub.Publish(raw.Publish{Topic: "a", Payload: fmt.Sprint(i), QoS: 1, ID: 1})
			}
			var open []raw.Packet
			for i := range 4 {
				open = append(open, c.ExpectPublish("a", fmt.Sprint(i)))
			}
			for i := 4; i < 12; i++ { // always the newest, so the oldest stays
				c.Ack(open[len(open)-1])
				open[len(open)-1] = c.ExpectPublish("a", fmt.Sprint(i))
				for _, o := range open[:len(open)-1] {
					if o.ID == open[len(open)-1].ID {
						t.Fatalf("identifier %d is used twice", o.ID)
					}
				}
			}
			for i := range open {
				c.Ack(open[len(open)-1-i])
			}
			c.Quiet()
			if n := s.stats().Inflight; n != 0 {
				t.Errorf("%d messages are still under way", n)
			}
		}, "MQTT-4.6.0-2"),
		v5("PUBRECs out of order are answered by PUBRELs in their order, and PUBRELs out of order by PUBCOMPs in theirs", func(t *testing.T) {
			s := start(t, options{})
			c := s.join5("c")
			c.Subscribe(2, "a")
			var got [4]raw.Packet
			for i := range uint16(4) {
				c.Send(raw.Publish{Topic: "a", QoS: 2, ID: i + 1})
				got[i] = c.ExpectAll(raw.PUBREC, raw.PUBLISH)[1]
			}
			order := []int{2, 0, 3, 1}
			for _, i := range order {
				c.Send(raw.Pubrec{ID: got[i].ID}, raw.Pubrel{ID: uint16(i + 1)})
			}
			for _, i := range order {
				c.ExpectAck(raw.PUBREL, got[i].ID, 0)
				c.ExpectAck(raw.PUBCOMP, uint16(i+1), 0)
			}
			for _, i := range []int{1, 3, 0, 2} {
				c.Send(raw.Pubcomp{ID: got[i].ID})
			}
			c.Quiet()
			if n := s.stats().Inflight; n != 0 {
				t.Errorf("%d messages are still under way", n)
			}
		}, "MQTT-4.6.0-3", "MQTT-4.6.0-4"),
		v5("messages of one publisher, topic and QoS arrive in order: live, from the queue, behind a window of 3, through wildcards, at each QoS", func(t *testing.T) {
			s := start(t, options{})
			for qos := byte(1); qos <= 2; qos++ {
				c, pub := s.keep5("c", raw.ReceiveMaximum.Int(3)), s.join5("pub")
				c.Subscribe(2, "+/t/#")
				n := 0
				publish := func(count int) {
					for range count {
						n++
						pub.Publish(raw.Publish{Topic: "a/t", Payload: fmt.Sprint(n), QoS: qos, ID: 1})
					}
				}
				for i := 1; i <= 10; i++ {
					publish(1)
					if p := c.Deliver(); p.Text() != fmt.Sprint(i) || p.Dup {
						t.Fatalf("got %v, want message %d, DUP 0", p, i)
					}
				}
				publish(10)                 // 3 go out, 7 wait
				for i := 11; i <= 13; i++ { // stay unacknowledged
					c.ExpectPublish("a/t", fmt.Sprint(i))
				}
				c.Quiet()
				s.lose5(c)
				publish(20) // for an offline session
				c = s.resume5("c", raw.ReceiveMaximum.Int(3))
				publish(20) // while the session is catching up
				for i, p := range delivered(t, c, n-10) {
					if i += 11; p.Text() != fmt.Sprint(i) || p.Dup != (i <= 13) {
						t.Fatalf("QoS %d: got %v, want message %d, DUP only where it was sent before", qos, p, i)
					}
				}
				c.Quiet()
				c.Close()
			}
		}, "MQTT-4.6.0-5"),
		v5("every topic is ordered, also between topics, while window, queue and live delivery take turns, for a subscription that is not shared", func(t *testing.T) {
			s := start(t, options{limits: broker.Limits{QueueMessages: 2000}})
			c, pub := s.join5("c", raw.ReceiveMaximum.Int(10)), s.join5("pub")
			c.Subscribe(2, "#")
			const n, topics = 900, 7
			go func() { // not waiting for answers
				for i := range n {
					pub.Net.Write(raw.Encode(raw.V5, raw.Publish{Topic: fmt.Sprint("t/", i%topics), Payload: fmt.Sprint(i), QoS: 1, ID: uint16(i + 1)}))
				}
			}()
			for i, p := range delivered(t, c, n) {
				if p.Topic != fmt.Sprint("t/", i%topics) || p.Text() != fmt.Sprint(i) {
					t.Fatalf("got %v, want message %d", p, i)
				}
			}
			c.Quiet()
		}, "MQTT-4.6.0-6"),
	}
}

// TestResendWithReceiveMaximumOne reconnects with a smaller window than the one that the messages were sent in.
func TestResendWithReceiveMaximumOne(t *testing.T) {
	t.Parallel()
	for qos := byte(1); qos <= 2; qos++ {
		s := start(t, options{})
		c, pub := s.keep5("c"), s.join5("pub")
		c.Subscribe(2, "a")
		publish := func(i int) { pub.Publish(raw.Publish{Topic: "a", Payload: fmt.Sprint(i), QoS: qos, ID: 1}) }
		var ids [5]uint16
		for i := range 5 {
			publish(i)
			ids[i] = c.ExpectPublish("a", fmt.Sprint(i)).ID
		}
		if qos == 2 { // one is half done
			c.Send(raw.Pubrec{ID: ids[1]})
			c.ExpectAck(raw.PUBREL, ids[1], 0)
		}
		s.lose5(c)
		publish(5)
		c = s.resume5("c", raw.ReceiveMaximum.Int(1))
		publish(6)
		for i := range 7 {
			if qos == 2 && i == 1 {
				c.Ack(c.ExpectAck(raw.PUBREL, ids[1], 0))
				continue
			}
			p := c.ExpectPublish("a", fmt.Sprint(i))
			if p.Dup != (i < 5) || i < 5 && p.ID != ids[i] {
				t.Errorf("got %v for message %d, want DUP %v and the identifier it had", p, i, i < 5)
			}
			if !(qos == 2 && i == 0) { // the PUBREL behind it is no PUBLISH, so it may come
				c.Quiet() // one at a time
			}
			c.Ack(p)
			if qos == 2 {
				c.Ack(c.ExpectAck(raw.PUBREL, p.ID, 0))
			}
		}
		c.Quiet()
		if n := s.stats(); n.Inflight != 0 || n.Queued != 0 {
			t.Errorf("%d under way and %d queued at the end", n.Inflight, n.Queued)
		}
		s.lose5(c)
		s.resume5("c").Quiet()
	}
}

// TestTheQueueDrainsInOrderWhileMessagesComeIn is the reconnect of a session with much to catch up on.
func TestTheQueueDrainsInOrderWhileMessagesComeIn(t *testing.T) {
	t.Parallel()
	const queued, live = 2000, 1000
	s := start(t, options{limits: broker.Limits{QueueMessages: queued + live, QueueBytes: 64 << 20}})
	c, pub := s.keep5("c"), s.join5("pub")
	c.Subscribe(1, "a")
	s.lose5(c)
	var all []raw.Sendable
	for i := range queued + live {
		all = append(all, raw.Publish{Topic: "a", Payload: fmt.Sprint(i), QoS: 1, ID: uint16(i + 1)})
	}
	for part := range slices.Chunk(all[:queued], 250) { // within Receive Maximum
		pub.Send(part...)
		for range part {
			pub.ExpectCode(raw.PUBACK, 0)
		}
	}
	c = s.resume5("c", raw.ReceiveMaximum.Int(10))
	go func() {
		for i, p := range all[queued:] {
			if i >= 250 {
				pub.ExpectCode(raw.PUBACK, 0)
			}
			pub.Net.Write(raw.Encode(raw.V5, p))
		}
	}()
	for i := range queued + live {
		if p := c.Deliver(); p.Text() != fmt.Sprint(i) || p.Dup {
			t.Fatalf("got %v, want message %d", p, i)
		}
	}
	c.Quiet()
}
