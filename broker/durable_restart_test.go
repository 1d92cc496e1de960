package broker_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// notRead is a connection that the server does not read from: it is owed as many acknowledgements as may wait for the disk,
// which is held.
func notRead(t *testing.T, d *disk) (s *server, c *raw.Conn) {
	t.Helper()
	s = reopen(t, options{limits: broker.Limits{InflightIn: 4}}, d)
	away, _ := s.kept("away")
	away.Subscribe(1, "a")
	away.Drop()
	s.alone(0)
	c = s.open(raw.Connect{Version: raw.V311, ClientID: "old", Clean: true})
	d.hold()
	for i := range 20 {
		c.Send(raw.Publish{Topic: "a", QoS: 1, ID: uint16(i + 1)})
	}
	eventually(t, func() error {
		if n := s.stats().MessagesIn[1]; n < 8 {
			return fmt.Errorf("%d messages were read", n)
		}
		return nil
	})
	return s, c
}

// failed waits until the store knows that its disk fails.
func failed(t *testing.T, s *server) {
	t.Helper()
	s.Store.SaveSession(s.Store.NewSession(), []byte(`{"client_id":"marker"}`))
	eventually(t, func() error {
		if s.Store.Err() == nil {
			return errors.New("the store has not failed")
		}
		return nil
	})
}

// keepMany keeps n sessions: whatever is stored later takes its time to be loaded.
func keepMany(s *server, n int) {
	for i := range n {
		c, _ := s.kept(fmt.Sprint("one of many ", i))
		c.Subscribe(1, fmt.Sprint("many/", i))
		c.Drop()
	}
}

// arrived acknowledges what has come so far and counts it by payload.
func arrived(c *raw.Conn, counts map[string]int) {
	c.Send(raw.Pingreq{})
	for p := c.Read(); p.Type != raw.PINGRESP; p = c.Read() {
		if p.Type == raw.PUBLISH {
			counts[p.Text()]++
		}
		c.Ack(p)
	}
}

func TestAClientThatIsNotReadFromIsTakenOverWhileTheDiskIsSlow(t *testing.T) {
	t.Parallel()
	d := newDisk()
	s, _ := notRead(t, d)
	next := s.open(raw.Connect{Version: raw.V311, ClientID: "old", Clean: true})
	next.Quiet()
}

func TestAClientThatIsNotReadFromIsLetGoWhenTheStoreFails(t *testing.T) {
	t.Parallel()
	d := newDisk()
	s, c := notRead(t, d)
	d.fail(errors.New("the disk is on fire"))
	d.release()
	c.ExpectClosed()
	failed(t, s)
	next := s.open(raw.Connect{Version: raw.V311, ClientID: "old", Clean: true})
	next.Quiet() // and the end of the test finds that no goroutine is left behind
}

func TestAWillThatIsDueAtTheStartReachesAllSessions(t *testing.T) {
	t.Parallel()
	d := newDisk()
	s := reopen(t, options{}, d)
	early, _ := s.kept("early")
	early.Subscribe(1, "will/#")
	c, _ := raw.Open(t, s.Addr, raw.Connect{ClientID: "c", Props: raw.Props{raw.SessionExpiry.Int(1000)}, Will: &raw.Will{Topic: "will/c", Payload: "x", QoS: 1}})
	ping(c)
	keepMany(s, 100)
	late, _ := s.kept("late")
	late.Subscribe(1, "will/#")
	waitKept(t, s)

	d = d.lost()
	s = reopen(t, options{}, d)
	eventually(t, func() error {
		if n := s.stats().Queued; n != 2 {
			return fmt.Errorf("%d messages are queued, want one for each", n)
		}
		return nil
	})
	waitKept(t, s)
	// What was published so soon is stored like everything else, and the will does not go out again.
	s = reopen(t, options{}, d.lost())
	for _, id := range []string{"early", "late"} {
		watch, present := s.kept(id)
		if !present {
			t.Fatalf("the session of %s is gone", id)
		}
		watch.Ack(watch.ExpectPublish("will/c", "x"))
		ping(watch)
	}
}

func TestSharedMessagesOfASessionThatEndsWithTheProcessGoToOtherMembers(t *testing.T) {
	t.Parallel()
	d := newDisk()
	s := reopen(t, options{}, d)
	brief, _ := s.kept("brief")
	brief.Subscribe(1, "$share/g/jobs")
	brief.Drop()
	s.alone(0)
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	for i := range 10 {
		pub.Publish(raw.Publish{Topic: "jobs", Payload: fmt.Sprint(i), QoS: 1, ID: uint16(i + 1)})
	}
	keepMany(s, 100)
	stays, _ := s.kept("stays") // loaded after the one that ends
	stays.Subscribe(1, "$share/g/jobs")
	stays.Drop()
	s.alone(1)
	brief = s.open(raw.Connect{ClientID: "brief", Props: raw.Props{raw.ReceiveMaximum.Int(3)}}) // without an expiry now
	for i := range 3 {
		brief.ExpectPublish("jobs", fmt.Sprint(i))
	}
	waitKept(t, s)

	s = reopen(t, options{}, d.lost())
	stays, _ = s.kept("stays")
	counts := map[string]int{}
	eventually(t, func() error {
		if arrived(stays, counts); len(counts) < 10 {
			return fmt.Errorf("of 10 jobs these came: %v", counts)
		}
		return nil
	})
	if _, present := s.kept("brief"); present {
		t.Error("a session without an expiry is back")
	}
}

func TestASecondSubscriptionDoesNotTakeTheRetainedValuesOfTheFirst(t *testing.T) {
	t.Parallel()
	d := newDisk()
	s := reopen(t, options{}, d)
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	pub.Publish(raw.Publish{Topic: "r", Payload: "x", QoS: 1, ID: 1, Retain: true})
	sub, _ := s.kept("sub")
	d.hold()
	sub.Send(
		raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "r"}}},
		raw.Subscribe{ID: 2, Filters: []raw.Filter{{Filter: "r", RetainHandling: 1}}}, // no values for one that exists
	)
	ping(sub)
	d.release()
	sub.ExpectAll(raw.SUBACK, raw.SUBACK, raw.PUBLISH)
	ping(sub)
}

func TestAQoS0MessageDoesNotOvertakeOneThatWaitsForTheDisk(t *testing.T) {
	t.Parallel()
	d := newDisk()
	s := reopen(t, options{}, d)
	sub, _ := s.kept("sub")
	sub.Subscribe(2, "a")
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	d.hold()
	pub.Send(raw.Publish{Topic: "a", Payload: "1", QoS: 2, ID: 1}, raw.Publish{Topic: "a", Payload: "2"})
	ping(pub)
	ping(sub)
	d.release()
	sub.ExpectPublish("a", "1")
	sub.ExpectPublish("a", "2")
}

func TestWhatWasUnderWayBeforeARestartLeavesRoomForMore(t *testing.T) {
	t.Parallel()
	d := newDisk()
	s := reopen(t, options{}, d)
	sub, _ := s.kept("sub", raw.ReceiveMaximum.Int(10))
	sub.Subscribe(1, "a")
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	for i := range 2 {
		pub.Publish(raw.Publish{Topic: "a", Payload: fmt.Sprint(i), QoS: 1, ID: 1})
		sub.ExpectPublish("a", fmt.Sprint(i))
	}
	waitKept(t, s)

	// The restarted server skips identifiers: far more than the client receives at a time.
	s = reopen(t, options{}, d.lost())
	sub, _ = s.kept("sub", raw.ReceiveMaximum.Int(10))
	pub = s.open(raw.Connect{ClientID: "pub", Clean: true})
	for i := 2; i < 8; i++ {
		pub.Publish(raw.Publish{Topic: "a", Payload: fmt.Sprint(i), QoS: 1, ID: 1})
	}
	var got []raw.Packet
	for i := range 8 {
		got = append(got, sub.ExpectPublish("a", fmt.Sprint(i)))
	}
	for _, i := range []int{4, 0, 7, 1, 2, 6, 3, 5} { // each is found on its side of what was skipped
		sub.Ack(got[i])
	}
	ping(sub)
	if n := s.stats().Inflight; n != 0 {
		t.Errorf("%d messages are under way after their acknowledgement", n)
	}
}

func TestASharedMessageReachesAMemberThatWasThereBeforeTheRestart(t *testing.T) {
	t.Parallel()
	d := newDisk()
	s := reopen(t, options{}, d)
	a, _ := s.kept("a")
	a.Subscribe(1, "$share/g/jobs", "own")
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	pub.Publish(raw.Publish{Topic: "own", Payload: "0", QoS: 1, ID: 1})
	a.ExpectPublish("own", "0")
	waitKept(t, s)

	s = reopen(t, options{}, d.lost())
	a, _ = s.kept("a")
	a.ExpectPublish("own", "0") // not acknowledged: identifiers were skipped behind it
	b := s.open(raw.Connect{ClientID: "b", Clean: true})
	b.Subscribe(1, "$share/g/jobs")
	pub = s.open(raw.Connect{ClientID: "pub", Clean: true})
	for i := range 6 {
		pub.Publish(raw.Publish{Topic: "jobs", Payload: fmt.Sprint(i), QoS: 1, ID: 1})
	}
	counts := map[string]int{}
	eventually(t, func() error {
		arrived(a, counts)
		if arrived(b, counts); len(counts) < 6 {
			return fmt.Errorf("of 6 jobs these came: %v", counts)
		}
		return nil
	})
}

func TestARemovalThatSomebodyElseHasMadeIsAcknowledgedWhenItIsKept(t *testing.T) {
	t.Parallel()
	d := newDisk()
	s := reopen(t, options{}, d)
	p1 := s.open(raw.Connect{ClientID: "p1", Clean: true})
	p2 := s.open(raw.Connect{ClientID: "p2", Clean: true})
	p1.Publish(raw.Publish{Topic: "r", Payload: "x", QoS: 1, ID: 1, Retain: true})
	d.hold()
	for _, p := range []*raw.Conn{p1, p2} {
		p.Send(raw.Publish{Topic: "r", QoS: 1, ID: 2, Retain: true})
		ping(p)
	}
	d.release()
	p2.Expect(raw.PUBACK)
	s = reopen(t, options{}, d.lost())
	if n := s.Hub.Stats().Retained; n != 0 {
		t.Errorf("%d values are back", n)
	}
}

func TestAClientHearsOfANewSessionWhenTheEndOfTheOldOneIsKept(t *testing.T) {
	t.Parallel()
	for _, clean := range []bool{true, false} {
		t.Run(fmt.Sprint("clean start ", clean), func(t *testing.T) {
			t.Parallel()
			d := newDisk()
			s := reopen(t, options{}, d)
			stays, _ := s.kept("stays")
			c, _ := s.kept("c")
			c.Subscribe(1, "a")
			d.hold()
			c.Send(raw.Disconnect{Props: raw.Props{raw.SessionExpiry.Int(0)}})
			c.ExpectClosed()
			sessions := func(n int64) {
				t.Helper()
				eventually(t, func() error {
					if got := s.stats().Sessions; got != n {
						return fmt.Errorf("%d sessions, want %d", got, n)
					}
					return nil
				})
			}
			sessions(1)
			c = raw.Dial(t, s.Addr)
			c.Send(raw.Connect{ClientID: "c", Clean: clean}, raw.Pingreq{})
			sessions(2)
			stays.Drop()
			if _, present := s.kept("stays"); !present { // who has a session is not held up
				t.Error("a session is gone that has not ended")
			}
			c.ExpectNothing(50 * time.Millisecond) // enough for it to come if it did not wait; nothing is late where it does
			d.release()
			if p := c.ExpectCode(raw.CONNACK, 0); p.SessionPresent {
				t.Error("the old session is present")
			}
			s = reopen(t, options{}, d.lost())
			if _, present := s.kept("c"); present {
				t.Error("the old session is back")
			}
		})
	}
}

func TestALowerLimitOnSubscriptionsKeepsThoseThatAreThere(t *testing.T) {
	t.Parallel()
	d := newDisk()
	s := reopen(t, options{}, d)
	c, _ := s.kept("c")
	c.Subscribe(1, "a", "b", "c")
	s = reopen(t, options{hub: bridge.Limits{Subscriptions: 2}}, d.lost())
	if n := s.Hub.Stats().Subscriptions; n != 3 {
		t.Errorf("%d subscriptions, want 3", n)
	}
	c, _ = s.kept("c")
	c.Send(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "d", QoS: 1}}})
	c.ExpectCode(raw.SUBACK, raw.Code(broker.SubscribeCode(bridge.QuotaExceeded)))
}

func TestTopicsThatAreNotStoredDoNotNeedTheStore(t *testing.T) {
	t.Parallel()
	d := newDisk()
	s := reopen(t, options{}, d)
	sub, _ := s.kept("sub")
	sub.Subscribe(1, "m/#")
	d = d.lost()
	s = reopen(t, options{}, d)
	s.Hub.SetDurability([]bridge.DurabilityRule{{Filter: "m/#", Durability: bridge.Memory}}, bridge.Fsync)
	sub, _ = s.kept("sub")
	waitKept(t, s)
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	d.fail(errors.New("the disk is on fire")) // before the session has reserved identifiers, which it does after a restart
	failed(t, s)
	clean := s.open(raw.Connect{ClientID: "clean", Clean: true})
	clean.Subscribe(1, "m/#")
	for i := range 3 {
		pub.Publish(raw.Publish{Topic: "m/1", Payload: fmt.Sprint(i), QoS: 1, ID: 1})
		for _, c := range []*raw.Conn{sub, clean} {
			c.Ack(c.ExpectPublish("m/1", fmt.Sprint(i)))
		}
	}
}
