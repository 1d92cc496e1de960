package broker_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// quotaModel is what a client with a Receive Maximum must see: never more under way than that, and all there is room for.
type quotaModel struct {
	t        *testing.T
	c        *raw.Conn
	pub      *raw.Conn
	qos      byte
	maximum  int
	sent     int          // published
	got      int          // delivered
	open     []raw.Packet // QoS 1: unacknowledged. QoS 2: not answered with PUBREC
	released []raw.Packet // QoS 2: PUBREL came, PUBCOMP did not go
}

func (m *quotaModel) publish(n int) {
	for range n {
		m.pub.Publish(raw.Publish{Topic: "x", Payload: fmt.Sprint(m.sent), QoS: m.qos, ID: 1})
		m.sent++
	}
	m.settle()
}

// settle reads until nothing more may come and expects that nothing does.
func (m *quotaModel) settle() {
	for m.got < m.sent && len(m.open)+len(m.released) < m.maximum {
		p := m.c.ExpectPublish("x", fmt.Sprint(m.got))
		if p.QoS != m.qos || p.Dup {
			m.t.Fatalf("got %s", p)
		}
		m.got++
		m.open = append(m.open, p)
	}
	m.c.Quiet()
}

// complete acknowledges the i-th of those that wait for it, or goes one step on at QoS 2.
func (m *quotaModel) complete(i int, refuse bool) {
	if i >= len(m.open) {
		i -= len(m.open)
		m.c.Ack(m.released[i])
		m.released = slices.Delete(m.released, i, i+1)
		m.settle()
		return
	}
	p := m.open[i]
	m.open = slices.Delete(m.open, i, i+1)
	switch {
	case m.qos == 1:
		m.c.Ack(p)
	case refuse: // that completes it, too
		m.c.Send(raw.Pubrec{ID: p.ID, Code: 0x80})
	default:
		m.c.Ack(p)
		rel := m.c.Expect(raw.PUBREL)
		m.released = append(m.released, rel)
	}
	m.settle()
}

func TestFlowControlIsExact(t *testing.T) {
	t.Parallel()
	for _, qos := range []byte{1, 2} {
		for _, maximum := range []int{1, 2, 7, 65535} {
			t.Run(fmt.Sprintf("QoS %d, Receive Maximum %d", qos, maximum), func(t *testing.T) {
				t.Parallel()
				s := start(t, options{})
				c := s.open(raw.Connect{ClientID: "sub", Clean: true, Props: raw.Props{raw.ReceiveMaximum.Int(uint32(maximum))}})
				c.Subscribe(qos, "x")
				m := &quotaModel{t: t, c: c, pub: s.open(raw.Connect{ClientID: "pub", Clean: true}), qos: qos, maximum: min(maximum, broker.DefaultLimits().InflightOut)}
				rng := rand.New(rand.NewPCG(3, uint64(maximum)))
				m.publish(10)
				m.publish(5)
				for range 300 {
					if n := len(m.open) + len(m.released); n > 0 && rng.IntN(3) > 0 {
						m.complete(rng.IntN(n), rng.IntN(5) == 0)
					} else {
						m.publish(1 + rng.IntN(3))
					}
				}
				for len(m.open)+len(m.released) > 0 || m.got < m.sent {
					m.complete(0, false)
				}
				if st := s.stats(); st.Inflight != 0 || st.Queued != 0 {
					t.Errorf("%d in flight, %d queued", st.Inflight, st.Queued)
				}
			})
		}
	}
}

func TestALongQueueDrainsInOrderThroughASmallWindowUnderLiveTraffic(t *testing.T) {
	t.Parallel()
	const queued, live = 10_000, 1000
	s := start(t, options{hub: unpaced, limits: broker.Limits{QueueMessages: queued + live, QueueBytes: 1 << 30}})
	connect := raw.Connect{ClientID: "sub", Props: raw.Props{raw.SessionExpiry.Int(100), raw.ReceiveMaximum.Int(10)}}
	c := s.open(connect)
	c.Subscribe(1, "x")
	c.Drop()
	s.alone(0)
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	publish := func(from, n int) {
		for at := from; at < from+n; at += 100 { // a hundred in one write
			var b []raw.Sendable
			for i := at; i < at+100; i++ {
				b = append(b, raw.Publish{Topic: "x", Payload: fmt.Sprint(i), QoS: 1, ID: uint16(i%60000 + 1)})
			}
			pub.Send(b...)
			for range b {
				if p, err := pub.Next(time.Now().Add(10 * time.Second)); err != nil || p.Type != raw.PUBACK {
					t.Errorf("got %s, %v", p, err)
					return
				}
			}
		}
	}
	publish(0, queued)
	c, connack := raw.Open(t, s.Addr, connect) // CONNACK comes before all of them
	if !connack.SessionPresent {
		t.Fatal("the session is gone")
	}
	var published sync.WaitGroup
	published.Go(func() { publish(queued, live) })
	defer published.Wait()
	for i := range queued + live {
		p := c.ExpectPublish("x", fmt.Sprint(i))
		if p.Dup {
			t.Fatalf("message %d was never sent and has DUP", i)
		}
		c.Ack(p)
	}
	c.Quiet()
}

// TestAMessageThatIsTooLargeLeavesNoGapInTheWindow has one that is too large come while another is unacknowledged.
func TestAMessageThatIsTooLargeLeavesNoGapInTheWindow(t *testing.T) {
	t.Parallel()
	for _, expiry := range []uint32{0, 100} {
		s := start(t, options{})
		connect := raw.Connect{ClientID: "sub", Props: raw.Props{raw.MaximumPacketSize.Int(100), raw.SessionExpiry.Int(expiry)}}
		c := s.open(connect)
		c.Subscribe(1, "x")
		pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
		publish := func(payload string) { pub.Publish(raw.Publish{Topic: "x", Payload: payload, QoS: 1, ID: 1}) }
		large := strings.Repeat("x", 200)
		publish("first")
		first := c.ExpectPublish("x", "first")
		publish(large)
		publish("second")
		second := c.ExpectPublish("x", "second")
		publish(large)
		c.Ack(second)
		c.Ack(first)
		publish("third")
		c.Deliver()
		c.Quiet()
		if st := s.stats(); st.Inflight != 0 || st.Queued != 0 || st.Dropped[bridge.DropTooLarge] != 2 {
			t.Errorf("%d in flight, %d queued, dropped %v", st.Inflight, st.Queued, st.Dropped)
		}
		if expiry == 0 {
			continue
		}
		// In the queue, and under way when the client comes back with less room.
		publish("fourth, which is longer than what the client will take the next time")
		c.Expect(raw.PUBLISH)
		c.Drop()
		s.alone(1)
		publish(large)
		publish("fifth")
		connect.Props[0] = raw.MaximumPacketSize.Int(50)
		c = s.open(connect)
		c.ExpectPublish("x", "fifth")
		c.Quiet()
		publish("sixth")
		c.ExpectPublish("x", "sixth")
	}
}

// TestAMessageThatFitsOnlyWithoutAnAliasIsSent has a client whose Maximum Packet Size leaves no room for the three bytes that
// set a topic alias.
func TestAMessageThatFitsOnlyWithoutAnAliasIsSent(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	size := len(raw.Publish{Topic: "topic", Payload: strings.Repeat("x", 40)}.Encode(nil, raw.V5))
	for extra := range uint32(5) {
		c := s.open(raw.Connect{ClientID: "sub", Clean: true, Props: raw.Props{raw.MaximumPacketSize.Int(uint32(size) + extra), raw.TopicAliasMaximum.Int(5)}})
		c.Subscribe(0, "topic")
		for range 2 {
			pub.Publish(raw.Publish{Topic: "topic", Payload: strings.Repeat("x", 40)})
			if p := c.Expect(raw.PUBLISH); extra < 3 && p.Topic != "topic" {
				t.Errorf("got %s", p)
			}
		}
		c.Close()
	}
}

func TestTheTwoDirectionsUseTheSameIdentifiers(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	c := s.open(raw.Connect{ClientID: "c", Clean: true})
	c.Subscribe(2, "in/#")
	other := s.open(raw.Connect{ClientID: "other", Clean: true})
	other.Subscribe(2, "out/#")
	for qos := byte(1); qos <= 2; qos++ {
		var open []raw.Packet
		for i := range 20 {
			other.Publish(raw.Publish{Topic: "in/x", Payload: fmt.Sprint(i), QoS: qos, ID: 1})
			open = append(open, c.ExpectPublish("in/x", fmt.Sprint(i)))
		}
		for _, p := range open { // with every identifier that the server has in use
			c.Send(raw.Subscribe{ID: p.ID, Filters: []raw.Filter{{Filter: "sub/x"}}})
			c.ExpectAck(raw.SUBACK, p.ID, 0)
			c.Send(raw.Unsubscribe{ID: p.ID, Filters: []string{"sub/x"}})
			c.ExpectAck(raw.UNSUBACK, p.ID, 0)
			c.Publish(raw.Publish{Topic: "out/x", Payload: "p", QoS: qos, ID: p.ID})
			other.Deliver()
		}
		for _, p := range open {
			c.Ack(p)
			if qos == 2 {
				c.Ack(c.Expect(raw.PUBREL))
			}
		}
		c.Quiet()
	}
}

// TestAMessageThatExpiresIsNotSent has one expire wherever it may wait.
func TestAMessageThatExpiresIsNotSent(t *testing.T) {
	t.Parallel()
	expiring := func(payload string, retain bool) raw.Publish {
		return raw.Publish{Topic: "x", Payload: payload, QoS: 1, ID: 1, Retain: retain, Props: raw.Props{raw.MessageExpiry.Int(10)}}
	}
	plain := func(payload string) raw.Publish { return raw.Publish{Topic: "x", Payload: payload, QoS: 1, ID: 1} }
	t.Run("behind the window", func(t *testing.T) {
		onFakeClock(t, options{}, func(s *fakeClock) {
			c := s.open(raw.Connect{ClientID: "sub", Clean: true, Props: raw.Props{raw.ReceiveMaximum.Int(1)}})
			c.Subscribe(1, "x")
			pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
			pub.Publish(plain("1"))
			first := c.ExpectPublish("x", "1")
			pub.Publish(expiring("2", false))
			pub.Publish(plain("3"))
			pub.Publish(raw.Publish{Topic: "x", Payload: "4", QoS: 1, ID: 1, Props: raw.Props{raw.MessageExpiry.Int(30)}})
			s.pass(10 * time.Second)
			c.Ack(first)
			c.Deliver()
			if p := c.Deliver(); p.Text() != "4" || p.Props.Int(raw.MessageExpiry) != 20 {
				t.Errorf("got %s, want 20 s to be left", p)
			}
		})
	})
	t.Run("offline and retained", func(t *testing.T) {
		onFakeClock(t, options{}, func(s *fakeClock) {
			connect := raw.Connect{ClientID: "sub", Props: raw.Props{raw.SessionExpiry.Int(1000)}}
			c := s.open(connect)
			c.Subscribe(1, "x")
			pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
			pub.Publish(expiring("under way", false))
			c.Expect(raw.PUBLISH)
			s.drop(c)
			pub.Publish(expiring("queued", true))
			pub.Publish(plain("last"))
			s.pass(9 * time.Second)
			c = s.open(raw.Connect{ClientID: "early", Clean: true})
			c.Subscribe(1, "x")
			if p := c.Deliver(); p.Text() != "queued" || p.Props.Int(raw.MessageExpiry) != 1 {
				t.Errorf("got %s, want 1 s to be left", p)
			}
			s.pass(time.Second)
			c = s.open(connect)
			c.ExpectPublish("x", "last")
			c.Quiet()
			c = s.open(raw.Connect{ClientID: "late", Clean: true})
			c.Subscribe(1, "x")
			c.Quiet()
		})
	})
	t.Run("while retained values are streamed", func(t *testing.T) {
		onFakeClock(t, options{}, func(s *fakeClock) {
			pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
			for i := range 5 {
				p := expiring("x", true)
				p.Topic = fmt.Sprint(i)
				pub.Publish(p)
			}
			c := s.open(raw.Connect{ClientID: "sub", Clean: true, Props: raw.Props{raw.ReceiveMaximum.Int(1)}})
			c.Subscribe(1, "#")
			p := c.Expect(raw.PUBLISH)
			s.pass(10 * time.Second)
			c.Ack(p)
			c.Quiet()
		})
	})
}

// TestRetainedValuesAreStreamedToASlowReaderAndNoneIsLost subscribes to more of them than any buffer holds.
func TestRetainedValuesAreStreamedToASlowReaderAndNoneIsLost(t *testing.T) {
	t.Parallel()
	values := 100_000
	if raceEnabled {
		values = 30_000
	}
	for qos := range byte(2) {
		s := start(t, options{limits: broker.Limits{UnsentBytes: 64 << 10, QueueMessages: 10, WriteStall: time.Hour}})
		b := s.Hub.Begin()
		for i := range values {
			s.Hub.PublishSystem(b, &bridge.Message{Topic: bridge.Topic(fmt.Sprintf("r/%d/%d", i%100, i)), Payload: []byte("0123456789abcdef"), QoS: 1, Retain: true})
		}
		b.End()
		c := s.dialSmall()
		c.Connected(raw.Connect{ClientID: "slow", Clean: true})
		c.Subscribe(qos, "#")
		c.Send(raw.Publish{Topic: "alive", QoS: 1, ID: 1}) // a live message finds its way while they stream
		seen := make(map[string]bool, values)
		for len(seen) < values {
			p := c.Read()
			if p.Type != raw.PUBLISH {
				continue
			}
			c.Ack(p)
			if p.Retain {
				if seen[p.Topic] {
					t.Fatalf("%s came twice", p.Topic)
				}
				seen[p.Topic] = true
			}
		}
		if st := s.stats(); len(st.Dropped) > 0 {
			for reason, n := range st.Dropped {
				if n > 0 {
					t.Errorf("%d dropped: %v", n, reason)
				}
			}
		}
		c.Close()
	}
}

func TestRetainedValuesCountAgainstTheWindow(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	for i := range 10 {
		pub.Publish(raw.Publish{Topic: fmt.Sprint("r/", i), Payload: "x", QoS: 2, ID: 1, Retain: true})
	}
	for qos := byte(1); qos <= 2; qos++ {
		c := s.open(raw.Connect{ClientID: "sub", Clean: true, Props: raw.Props{raw.ReceiveMaximum.Int(3)}})
		c.Subscribe(qos, "r/#")
		var open []raw.Packet
		for range 3 {
			open = append(open, c.Expect(raw.PUBLISH))
		}
		c.Quiet()
		for n := 3; len(open) > 0; {
			c.Ack(open[0])
			if qos == 2 {
				c.Ack(c.Expect(raw.PUBREL))
			}
			open = open[1:]
			if n < 10 {
				open = append(open, c.Expect(raw.PUBLISH))
				n++
			}
			c.Quiet()
		}
		c.Close()
	}
}

// TestSubscribingAgainAndAgainKeepsOneStreamOfRetainedValues has a client that does not read ask for them as often as it can.
func TestSubscribingAgainAndAgainKeepsOneStreamOfRetainedValues(t *testing.T) {
	s := start(t, options{limits: broker.Limits{WriteStall: time.Hour}, hub: unpaced})
	b := s.Hub.Begin()
	for i := range 3000 {
		s.Hub.PublishSystem(b, &bridge.Message{Topic: bridge.Topic(fmt.Sprint("r/", i)), Payload: make([]byte, 1000), Retain: true})
	}
	b.End()
	c := s.dialSmall()
	c.Connected(raw.Connect{ClientID: "greedy", Clean: true})
	before := heap()
	filters := slices.Repeat([]raw.Filter{{Filter: "#"}}, 128)
	packets := raw.Encode(raw.V5, burst(20, raw.Subscribe{ID: 1, Filters: filters}))
	written := 0
	c.Net.SetWriteDeadline(time.Now().Add(2 * time.Second))
	for written < 4<<20 {
		n, err := c.Net.Write(packets)
		written += n
		if err != nil {
			break // not read from any more
		}
	}
	if grown := heap() - before; grown > 16<<20 {
		t.Errorf("%d KiB of SUBSCRIBE keep %d KiB", written>>10, grown>>10)
	}
}

// TestAFilterThatLeadsPastManyRetainedValuesHoldsUpNobody subscribes to what no value matches, among very many that nearly do,
// while somebody publishes to the same session at QoS 1.
func TestAFilterThatLeadsPastManyRetainedValuesHoldsUpNobody(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	b := s.Hub.Begin()
	for i := range 5000 {
		s.Hub.PublishSystem(b, &bridge.Message{Topic: bridge.Topic(fmt.Sprintf("r/%d/x", i)), Payload: []byte("x"), Retain: true})
	}
	b.End()
	c := s.open(raw.Connect{ClientID: "sub", Clean: true})
	c.Subscribe(1, "live")
	var filters []raw.Filter
	for i := range 100 {
		filters = append(filters, raw.Filter{Filter: fmt.Sprintf("r/+/%d", i), QoS: 1})
	}
	filters = append(filters, raw.Filter{Filter: "r/4999/x"})
	c.Send(raw.Subscribe{ID: 1, Filters: filters})
	c.Expect(raw.SUBACK)
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	pub.Publish(raw.Publish{Topic: "live", QoS: 1, ID: 1})
	c.ExpectPublish("live", "") // comes before the value that is behind a million looks
	c.ExpectPublish("r/4999/x", "x")
}

// TestAnAcknowledgementOfWhatWasNotSentAgainYetCompletesNothing has a client come back with a window of one and acknowledge
// what its former connection was sent: this one has not been given it, so it must be.
func TestAnAcknowledgementOfWhatWasNotSentAgainYetCompletesNothing(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	connect := raw.Connect{ClientID: "sub", Props: raw.Props{raw.SessionExpiry.Int(100)}}
	c := s.open(connect)
	c.Subscribe(1, "x")
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	const messages = 4
	var ids []uint16
	for i := range messages {
		pub.Publish(raw.Publish{Topic: "x", Payload: fmt.Sprint(i), QoS: 1, ID: 1})
		ids = append(ids, c.ExpectPublish("x", fmt.Sprint(i)).ID)
	}
	c.Drop()
	s.alone(1)
	connect.Props = append(connect.Props, raw.ReceiveMaximum.Int(1))
	c = s.open(connect)
	for i := range messages {
		p := c.ExpectPublish("x", fmt.Sprint(i))
		for _, id := range ids[i+1:] {
			c.Send(raw.Puback{ID: id})
		}
		c.Quiet() // nor does it make room
		c.Ack(p)
	}
	c.Quiet()
	if st := s.stats(); st.Inflight != 0 || st.Queued != 0 {
		t.Errorf("%d in flight, %d queued", st.Inflight, st.Queued)
	}
}

// TestAMessageThatIsNeverAcknowledgedHoldsUpItsSessionBeforeIdentifiersRunOut acknowledges all but the first: what is behind it
// takes memory, and in the end the identifiers would come round to its own.
func TestAMessageThatIsNeverAcknowledgedHoldsUpItsSessionBeforeIdentifiersRunOut(t *testing.T) {
	t.Parallel()
	const window, span = 4, 16 * 4
	s := start(t, options{limits: broker.Limits{InflightOut: window}})
	c := s.open(raw.Connect{ClientID: "sub", Clean: true})
	c.Subscribe(1, "x")
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	publish := func(i int) { pub.Publish(raw.Publish{Topic: "x", Payload: fmt.Sprint(i), QoS: 1, ID: 1}) }
	publish(0)
	first := c.ExpectPublish("x", "0")
	for i := 1; i < span; i++ {
		publish(i)
		c.Ack(c.ExpectPublish("x", fmt.Sprint(i)))
	}
	publish(span)
	publish(span + 1)
	c.Quiet()
	c.Ack(first)
	c.Ack(c.ExpectPublish("x", fmt.Sprint(span)))
	c.Ack(c.ExpectPublish("x", fmt.Sprint(span+1)))
	c.Quiet()
}

// TestAnAliasIsGivenOnlyWithAMessageThatIsSent has messages dropped that would have told the client a new alias: because it
// does not read, and because they are too large. The next one on the same topic must not build on it.
func TestAnAliasIsGivenOnlyWithAMessageThatIsSent(t *testing.T) {
	t.Parallel()
	connect := raw.Connect{ClientID: "sub", Clean: true, Props: raw.Props{raw.TopicAliasMaximum.Int(100)}}
	t.Run("no room", func(t *testing.T) {
		s := start(t, options{limits: broker.Limits{UnsentBytes: 64 << 10, WriteStall: time.Hour}})
		slow := s.stalled(connect, 0, "#")
		pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
		s.fill(pub, "first topic", 0)
		topic := ""
		for i, before := 0, s.drops(bridge.DropSlowConsumer); s.drops(bridge.DropSlowConsumer) == before; i++ {
			topic = fmt.Sprint("dropped topic ", i)
			pub.Publish(raw.Publish{Topic: topic, Payload: strings.Repeat("x", 16<<10)})
			pub.Quiet()
		}
		slow.Send(raw.Pingreq{})
		slow.Await(raw.PINGRESP)
		pub.Publish(raw.Publish{Topic: topic, Payload: "later"})
		slow.ExpectPublish(topic, "later")
	})
	t.Run("too large", func(t *testing.T) {
		s := start(t, options{})
		connect := connect
		connect.Props = append(slices.Clone(connect.Props), raw.MaximumPacketSize.Int(100))
		c := s.open(connect)
		c.Subscribe(0, "#")
		pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
		pub.Publish(raw.Publish{Topic: "a topic", Payload: strings.Repeat("x", 200)})
		pub.Publish(raw.Publish{Topic: "a topic", Payload: "later"})
		c.ExpectPublish("a topic", "later")
	})
}

// TestAnAliasWhoseNewTopicIsRefusedStandsForNothing has a client give an alias to a topic that is too long. What it sends by the
// alias then is meant for that topic and must not reach the one before.
func TestAnAliasWhoseNewTopicIsRefusedStandsForNothing(t *testing.T) {
	t.Parallel()
	s := start(t, options{hub: bridge.Limits{TopicBytes: 20}})
	sub := s.open(raw.Connect{ClientID: "sub", Clean: true})
	sub.Subscribe(0, "#")
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	alias := raw.Props{raw.TopicAlias.Int(1)}
	pub.Publish(raw.Publish{Topic: "short", Payload: "1", QoS: 1, ID: 1, Props: alias})
	pub.Publish(raw.Publish{Payload: "2", QoS: 1, ID: 1, Props: alias})
	sub.ExpectPublish("short", "1")
	sub.ExpectPublish("short", "2")
	pub.Send(raw.Publish{Topic: strings.Repeat("long", 10), Payload: "3", QoS: 1, ID: 1, Props: alias})
	pub.ExpectAck(raw.PUBACK, 1, 0x90)
	pub.Send(raw.Publish{Payload: "4", QoS: 1, ID: 1, Props: alias})
	pub.ExpectDisconnect(0x82)
	sub.Quiet()
}
