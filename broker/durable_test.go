package broker_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

func TestAnAcknowledgementLeavesWhenWhatItPromisesIsKept(t *testing.T) {
	t.Parallel()
	d := newDisk()
	s := reopen(t, options{}, d)
	away, _ := s.kept("away")
	away.Subscribe(2, "kept/#")
	away.Drop()
	s.alone(1)
	live := s.open(raw.Connect{ClientID: "live", Clean: true})
	live.Subscribe(2, "live/#")
	pub, _ := s.kept("pub")

	d.hold()
	pub.Send(
		raw.Publish{Topic: "kept/1", QoS: 1, ID: 1},
		raw.Publish{Topic: "live/1", QoS: 1, ID: 2}, // not stored, but behind one that is (MQTT-4.6.0-2)
		raw.Publish{Topic: "kept/2", QoS: 2, ID: 3},
		raw.Publish{Topic: "kept/3", QoS: 1, ID: 4, Retain: true},
		raw.Subscribe{ID: 5, Filters: []raw.Filter{{Filter: "more", QoS: 1}}},
		raw.Unsubscribe{ID: 6, Filters: []string{"more"}},
	)
	live.ExpectPublish("live/1", "")
	ping(pub) // and nothing before it
	d.release()
	pub.ExpectAck(raw.PUBACK, 1, 0)
	pub.ExpectAck(raw.PUBACK, 2, 0)
	pub.ExpectAck(raw.PUBREC, 3, 0)
	pub.ExpectAck(raw.PUBACK, 4, 0)
	pub.Expect(raw.SUBACK)
	pub.Expect(raw.UNSUBACK)

	d.hold()
	pub.Send(raw.Pubrel{ID: 3})
	ping(pub)
	d.release()
	pub.ExpectAck(raw.PUBCOMP, 3, 0)

	// Clients without a session that is kept never wait for the disk.
	d.hold()
	live.Send(raw.Publish{Topic: "live/2", QoS: 1, ID: 1})
	live.ExpectAll(raw.PUBLISH, raw.PUBACK)
	d.release()
}

func TestAQoS2MessageIsSentToAKeptSessionWhenItIsKept(t *testing.T) {
	t.Parallel()
	d := newDisk()
	s := reopen(t, options{}, d)
	sub, _ := s.kept("sub")
	sub.Subscribe(2, "a")
	pub, _ := s.kept("pub")
	d.hold()
	pub.Send(raw.Publish{Topic: "a", Payload: "1", QoS: 2, ID: 1}, raw.Publish{Topic: "a", Payload: "2", QoS: 1, ID: 2}, raw.Publish{Topic: "a", Payload: "3", QoS: 2, ID: 3})
	ping(pub)
	ping(sub) // the QoS 1 message keeps its place behind the first
	d.release()
	var ids []uint16
	for i := range 3 {
		p := sub.ExpectPublish("a", fmt.Sprint(i+1))
		if p.Dup {
			t.Errorf("%v was never sent before", p)
		}
		ids = append(ids, p.ID)
	}
	d.hold()
	sub.Send(raw.Pubrec{ID: ids[0]})
	ping(sub) // PUBREL only when it is kept that PUBREC has come
	d.release()
	sub.ExpectAck(raw.PUBREL, ids[0], 0)
}

func TestASessionIsWhatItWasAfterALossOfPower(t *testing.T) {
	t.Parallel()
	d := newDisk()
	s := reopen(t, options{}, d)
	sub, _ := s.kept("sub", raw.ReceiveMaximum.Int(3))
	sub.Send(raw.Subscribe{ID: 1, Props: raw.Props{raw.SubscriptionIdentifier.Int(7)}, Filters: []raw.Filter{{Filter: "a/+", QoS: 2, RetainAsPublished: true}}})
	sub.ExpectCode(raw.SUBACK, 2)
	sub.Subscribe(1, "gone")
	sub.Send(raw.Unsubscribe{ID: 2, Filters: []string{"gone"}})
	sub.Expect(raw.UNSUBACK)
	pub, _ := s.kept("pub")
	for i := range 3 {
		pub.Publish(raw.Publish{Topic: "a/b", Payload: fmt.Sprint(i), QoS: 2, ID: uint16(i + 1), Retain: i == 0})
	}
	first, second, third := sub.Expect(raw.PUBLISH), sub.Expect(raw.PUBLISH), sub.Expect(raw.PUBLISH)
	sub.Send(raw.Pubrec{ID: first.ID})
	sub.ExpectAck(raw.PUBREL, first.ID, 0)
	sub.Send(raw.Pubrec{ID: third.ID}) // before the second: a gap in the window later
	sub.ExpectAck(raw.PUBREL, third.ID, 0)
	for i := 3; i < 6; i++ { // behind the window
		pub.Publish(raw.Publish{Topic: "a/b", Payload: fmt.Sprint(i), QoS: byte(1 + i%2), ID: uint16(i + 1), Props: raw.Props{raw.ContentType.Text("x"), raw.User("k", "v"), raw.MessageExpiry.Int(1000)}})
	}
	pub.Send(raw.Publish{Topic: "a/b", Payload: "6", QoS: 2, ID: 100}) // its PUBREL will come after the crash
	pub.ExpectAck(raw.PUBREC, 100, 0)

	s = reopen(t, options{}, d.lost())
	sub, present := s.kept("sub")
	if !present {
		t.Fatal("the session is gone")
	}
	sub.ExpectAck(raw.PUBREL, first.ID, 0)
	p := sub.ExpectPublish("a/b", "1")
	if p.ID != second.ID || !p.Dup || p.QoS != 2 {
		t.Fatalf("%v came again as %v", second, p)
	}
	sub.ExpectAck(raw.PUBREL, third.ID, 0)
	for i := 3; i < 7; i++ {
		p := sub.ExpectPublish("a/b", fmt.Sprint(i))
		if p.Dup || i < 6 && p.QoS != byte(1+i%2) || !slices.Equal(p.Props.Ints(raw.SubscriptionIdentifier), []uint32{7}) {
			t.Errorf("got %v", p)
		}
		if i < 6 && (p.Props.Text(raw.ContentType) != "x" || len(p.Props.Ints(raw.MessageExpiry)) != 1) {
			t.Errorf("properties are missing: %v", p)
		}
	}
	pub, present = s.kept("pub")
	if !present {
		t.Fatal("the publisher's session is gone")
	}
	pub.Send(raw.Publish{Topic: "a/b", Payload: "6", QoS: 2, ID: 100, Dup: true})
	pub.ExpectAck(raw.PUBREC, 100, 0)
	ping(sub) // not a second time
	pub.Send(raw.Pubrel{ID: 100})
	pub.ExpectAck(raw.PUBCOMP, 100, 0)
	pub.Publish(raw.Publish{Topic: "gone", QoS: 1, ID: 1})
	ping(sub)
	fresh := s.open(raw.Connect{ClientID: "fresh", Clean: true})
	fresh.Send(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "a/b"}}})
	fresh.Expect(raw.SUBACK)
	if p := fresh.ExpectPublish("a/b", "0"); !p.Retain {
		t.Errorf("got %v, want the retained value", p)
	}
}

func TestWhatEndedDoesNotComeBack(t *testing.T) {
	t.Parallel()
	d := newDisk()
	s := reopen(t, options{}, d)
	for _, id := range []string{"clean", "short", "stays"} {
		c, _ := s.kept(id)
		c.Subscribe(1, "a")
		if id == "short" {
			c.Send(raw.Disconnect{Props: raw.Props{raw.SessionExpiry.Int(0)}})
			c.ExpectClosed()
		} else {
			c.Drop()
		}
	}
	s.alone(2)
	c := s.open(raw.Connect{ClientID: "clean", Clean: true})
	ping(c)
	pub, _ := s.kept("pub")
	pub.Publish(raw.Publish{Topic: "r", Payload: "x", QoS: 1, ID: 1, Retain: true})
	pub.Publish(raw.Publish{Topic: "r", QoS: 1, ID: 2, Retain: true})

	s = reopen(t, options{}, d.lost())
	for id, want := range map[string]bool{"clean": false, "short": false, "stays": true} {
		if _, present := s.kept(id); present != want {
			t.Errorf("session of %s is present: %v", id, present)
		}
	}
	if n := s.Hub.Stats().Retained; n != 0 {
		t.Errorf("%d retained values are back", n)
	}
}

func TestAWillWaitsForItsDelayAcrossARestart(t *testing.T) {
	t.Parallel()
	d := newDisk()
	s := reopen(t, options{}, d)
	watch, _ := s.kept("watch")
	watch.Subscribe(1, "will/#")
	for _, delay := range []uint32{0, 900} {
		id := fmt.Sprint("c", delay)
		c, _ := raw.Open(t, s.Addr, raw.Connect{ClientID: id, Props: raw.Props{raw.SessionExpiry.Int(1000)},
			Will: &raw.Will{Topic: "will/" + id, Payload: "x", QoS: 1, Props: raw.Props{raw.WillDelay.Int(delay), raw.ContentType.Text("t")}}})
		ping(c)
	}
	waitKept(t, s)

	// All connections were lost with the power: the will without a delay is due, the other one is waiting.
	d = d.lost()
	s = reopen(t, options{}, d)
	watch, _ = s.kept("watch")
	p := watch.Deliver()
	if p.Topic != "will/c0" || p.Props.Text(raw.ContentType) != "t" {
		t.Fatalf("got %v, want the will of c0", p)
	}
	ping(watch)
	c, _ := s.kept("c900") // back in time
	ping(c)
	waitKept(t, s)
	watch.Drop()
	s.alone(2)

	// And none of them is sent a second time.
	s = reopen(t, options{}, d.lost())
	watch, _ = s.kept("watch")
	ping(watch)
}

// waitKept waits until the store has synced all that was given to it so far.
func waitKept(t *testing.T, s *server) {
	t.Helper()
	r := s.Store.SaveSession(s.Store.NewSession(), []byte(`{"client_id":"marker"}`))
	eventually(t, func() error {
		if s.Store.Synced() < r {
			return errors.New("the store does not sync")
		}
		return nil
	})
}

func TestAStoreThatFailsAcknowledgesNothingAndLiveTrafficGoesOn(t *testing.T) {
	t.Parallel()
	d := newDisk()
	s := reopen(t, options{}, d)
	away, _ := s.kept("away")
	away.Subscribe(1, "kept")
	away.Drop()
	live := s.open(raw.Connect{ClientID: "live", Clean: true})
	live.Subscribe(1, "live")
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	old := s.open(raw.Connect{Version: raw.V311, ClientID: "old", Clean: true})
	waiting := s.open(raw.Connect{ClientID: "waiting", Clean: true})

	d.hold()
	waiting.Send(raw.Publish{Topic: "kept", QoS: 1, ID: 1})
	ping(waiting)
	d.fail(errors.New("the disk is on fire"))
	d.release()
	waiting.ExpectDisconnect(0x83)
	waiting.Drop()
	if s.Store.Err() == nil {
		t.Fatal("the store does not know that it has failed")
	}

	pub.Send(raw.Publish{Topic: "kept", QoS: 1, ID: 1})
	pub.ExpectAck(raw.PUBACK, 1, raw.Code(broker.PublishCode(bridge.Unavailable)))
	pub.Send(raw.Publish{Topic: "kept", QoS: 2, ID: 2})
	pub.ExpectAck(raw.PUBREC, 2, raw.Code(broker.PublishCode(bridge.Unavailable)))
	pub.Send(raw.Publish{Topic: "r", Payload: "x", QoS: 1, ID: 3, Retain: true})
	pub.ExpectAck(raw.PUBACK, 3, raw.Code(broker.PublishCode(bridge.Unavailable)))
	pub.Publish(raw.Publish{Topic: "live", Payload: "on", QoS: 1, ID: 4})
	live.ExpectPublish("live", "on")
	old.Send(raw.Publish{Topic: "kept", QoS: 1, ID: 1}) // 3.1.1 has no word for it
	old.ExpectClosed()
	old.Drop()
}

func TestMoreThanReceiveMaximumEndsTheConnectionAlsoWhileTheDiskIsSlow(t *testing.T) {
	t.Parallel()
	d := newDisk()
	s := reopen(t, options{limits: broker.Limits{InflightIn: 4}}, d)
	away, _ := s.kept("away")
	away.Subscribe(1, "a")
	away.Drop()
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	old := s.open(raw.Connect{Version: raw.V311, ClientID: "old", Clean: true})
	d.hold()
	defer d.release()
	for i := range 4 {
		pub.Send(raw.Publish{Topic: "a", QoS: 1, ID: uint16(i + 1)})
	}
	ping(pub)
	pub.Send(raw.Publish{Topic: "a", QoS: 1, ID: 5})
	pub.ExpectDisconnect(0x93)
	pub.Drop()

	// MQTT 3.1.1 knows no Receive Maximum: such a client is not read from for a while.
	for i := range 20 {
		old.Send(raw.Publish{Topic: "a", QoS: 1, ID: uint16(i + 1)})
	}
	d.release()
	for i := range 20 {
		old.ExpectAck(raw.PUBACK, uint16(i+1), 0)
	}
}

func TestARetainedValueFollowsASubackThatHadToWait(t *testing.T) {
	t.Parallel()
	d := newDisk()
	s := reopen(t, options{}, d)
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	for i := range 200 {
		pub.Publish(raw.Publish{Topic: fmt.Sprintf("r/%03d", i), Payload: fmt.Sprint(i), QoS: byte(i % 3), ID: 1, Retain: true})
	}
	sub, _ := s.kept("sub")
	sub.Send(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "r/#", QoS: 2}}}, raw.Subscribe{ID: 2, Filters: []raw.Filter{{Filter: "r/+", QoS: 2}}}, raw.Unsubscribe{ID: 3, Filters: []string{"r/+"}})
	sub.Expect(raw.SUBACK)
	seen := map[string]int{}
	for len(seen) < 200 {
		switch p := sub.Read(); p.Type {
		case raw.PUBLISH:
			seen[p.Topic]++
			if !p.Retain {
				t.Fatalf("got %v", p)
			}
			sub.Ack(p)
		case raw.PUBREL:
			sub.Send(raw.Pubcomp{ID: p.ID})
		}
	}
	for topic, n := range seen {
		if n > 2 {
			t.Errorf("%s came %d times", topic, n)
		}
	}
}

func TestAQueueThatOverflowsBeforeItIsStoredKeepsTheNewest(t *testing.T) {
	t.Parallel()
	d := newDisk()
	s := reopen(t, options{limits: broker.Limits{QueueMessages: 100, InflightIn: 1000}}, d)
	away, _ := s.kept("away")
	away.Subscribe(1, "a")
	away.Drop()
	s.alone(1)
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	send := func(from, n int) {
		d.hold()
		for i := from; i < from+n; i++ {
			pub.Send(raw.Publish{Topic: "a", Payload: fmt.Sprint(i), QoS: 1, ID: uint16(i + 1)})
		}
		ping(pub)
		d.release()
		for i := from; i < from+n; i++ {
			pub.ExpectAck(raw.PUBACK, uint16(i+1), 0)
		}
	}
	send(0, 250)
	send(250, 50) // some are read back from the disk to be dropped
	if st := s.stats(); st.Dropped[bridge.DropQueueFull] != 200 || st.Queued != 100 {
		t.Errorf("%d were dropped, %d are queued", st.Dropped[bridge.DropQueueFull], st.Queued)
	}
	s = reopen(t, options{limits: broker.Limits{QueueMessages: 100}}, d.lost())
	away, _ = s.kept("away", raw.ReceiveMaximum.Int(7))
	for i := 200; i < 300; i++ {
		if p := away.Deliver(); p.Text() != fmt.Sprint(i) || p.Dup {
			t.Fatalf("got %v, want message %d", p, i)
		}
	}
	ping(away)
	eventually(t, func() error {
		if n := s.Store.Stats().Entries; n != 0 {
			return fmt.Errorf("%d entries are left in the store", n)
		}
		return nil
	})
}

func TestAMessageThatExpiresWhileTheServerIsDownIsNotSent(t *testing.T) {
	t.Parallel()
	d := newDisk()
	s := reopen(t, options{}, d)
	away, _ := s.kept("away")
	away.Subscribe(1, "#")
	away.Drop()
	s.alone(1)
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	pub.Publish(raw.Publish{Topic: "a", Payload: "short", QoS: 1, ID: 1, Retain: true, Props: raw.Props{raw.MessageExpiry.Int(1)}})
	pub.Publish(raw.Publish{Topic: "b", Payload: "long", QoS: 1, ID: 1, Retain: true, Props: raw.Props{raw.MessageExpiry.Int(1000)}})
	over := time.Now().Add(1100 * time.Millisecond)
	lost := d.lost()
	eventually(t, func() error {
		if time.Now().Before(over) {
			return errors.New("still waiting")
		}
		return nil
	})
	s = reopen(t, options{}, lost)
	away, _ = s.kept("away")
	p := away.Deliver()
	if p.Text() != "long" {
		t.Fatalf("got %v", p)
	}
	if left := p.Props.Ints(raw.MessageExpiry); len(left) != 1 || left[0] >= 1000 {
		t.Errorf("the time that is left is %v", left)
	}
	ping(away)
	away.Send(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "#"}}})
	away.Expect(raw.SUBACK)
	away.ExpectPublish("b", "long")
	ping(away)
	eventually(t, func() error { // the hub looks once a second
		if n := s.Hub.Stats().Retained; n != 1 {
			return fmt.Errorf("%d retained values, want 1", n)
		}
		return nil
	})
}

func TestAFullStoreRefusesWhatItWouldHaveToKeepAndLiveTrafficGoesOn(t *testing.T) {
	t.Parallel()
	d := newDisk()
	s := reopen(t, options{storeLimit: 2 << 20, limits: broker.Limits{QueueMessages: 1 << 20, QueueBytes: 1 << 30}}, d)
	away, _ := s.kept("away")
	away.Subscribe(1, "kept")
	away.Drop()
	live := s.open(raw.Connect{ClientID: "live", Clean: true})
	live.Subscribe(1, "live")
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	payload := strings.Repeat("x", 4096)
	taken := 0
	accepted := func() bool {
		pub.Send(raw.Publish{Topic: "kept", Payload: payload, QoS: 1, ID: 1})
		p := pub.Expect(raw.PUBACK)
		if p.Code == 0 {
			taken++
		} else if p.Code != 0x97 {
			t.Fatalf("got %v", p)
		}
		return p.Code == 0
	}
	for accepted() {
		if taken > 4096 {
			t.Fatal("the store takes more than its limit")
		}
	}
	pub.Send(raw.Publish{Topic: "kept", Payload: payload, QoS: 2, ID: 2})
	pub.ExpectAck(raw.PUBREC, 2, 0x97)
	pub.Send(raw.Publish{Topic: "r", Payload: payload, QoS: 1, ID: 3, Retain: true})
	pub.ExpectAck(raw.PUBACK, 3, 0x97)
	old := s.open(raw.Connect{Version: raw.V311, ClientID: "old", Clean: true})
	old.Send(raw.Publish{Topic: "kept", QoS: 1, ID: 1}) // an acknowledgement would be a lie, and there is no other word
	old.ExpectClosed()
	pub.Publish(raw.Publish{Topic: "live", Payload: "on", QoS: 1, ID: 4})
	live.Deliver()

	// Space returns when the messages are fetched, of which none is missing.
	away, _ = s.kept("away")
	for range taken {
		if p := away.Deliver(); p.Text() != payload {
			t.Fatal("got another message")
		}
	}
	away.Drop()
	eventually(t, func() error {
		if !accepted() {
			return errors.New("nothing is taken yet")
		}
		return nil
	})
}
