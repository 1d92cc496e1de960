package broker_test

import (
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// statements5Will are the tests of wills.
func statements5Will() []statement {
	return []statement{
		v5("the will belongs to the session: a later CONNECT replaces it, or takes it away", willReplaced, "MQTT-3.1.2-7"),
		v5("however the connection ends the will goes out, but for DISCONNECT 0x00", willGoesOut, "MQTT-3.1.2-8", "MQTT-3.1.2-10"),
		v5("a delayed will goes out when its delay or the session has passed, whichever is first, to the second", willDelay, "MQTT-3.1.2-8"),
		v5("a will goes out once", willOnce, "MQTT-3.1.2-10"),
		v5("a will without retain is not retained", willRetain(false), "MQTT-3.1.2-14"),
		v5("a will with retain is", willRetain(true), "MQTT-3.1.2-15"),
		v5("who is back before the delay has passed leaves no will", willCancelled, "MQTT-3.1.3-9"),
		v5("a will has all its properties, user properties in their order; its expiry begins when it is sent", willProperties, "MQTT-3.1.3-10"),
	}
}

// withWill is a CONNECT whose session is kept for expiry seconds and whose will waits for delay seconds.
func withWill(expiry, delay uint32, payload string) raw.Connect {
	c := raw.Connect{ClientID: "c", Will: &raw.Will{Topic: "will", Payload: payload}}
	if expiry > 0 {
		c.Props = raw.Props{raw.SessionExpiry.Int(expiry)}
	}
	if delay > 0 {
		c.Will.Props = raw.Props{raw.WillDelay.Int(delay)}
	}
	return c
}

// watched gives test a client that sees all wills.
func watched(t *testing.T, test func(s *fakeClock, watch *raw.Conn)) {
	onFakeClock(t, options{limits: broker.Limits{MaxKeepAlive: 65535 * time.Second}}, func(s *fakeClock) {
		watch := s.open(raw.Connect{ClientID: "watch", Clean: true})
		watch.Subscribe(0, "will")
		test(s, watch)
	})
}

func willReplaced(t *testing.T) {
	watched(t, func(s *fakeClock, watch *raw.Conn) {
		s.drop(s.open(withWill(1000, 100, "first")))
		s.drop(s.open(withWill(1000, 0, "second")))
		watch.ExpectPublish("will", "second")
		s.drop(s.open(withWill(1000, 100, "third")))
		s.drop(s.open(raw.Connect{ClientID: "c", Props: raw.Props{raw.SessionExpiry.Int(1000)}}))
		s.pass(2000 * time.Second)
		watch.Quiet()
		// The same while the former connection is still there: its will without delay goes out with it, a delayed one stays.
		s.open(withWill(1000, 0, "fourth"))
		c := s.open(withWill(1000, 100, "fifth"))
		watch.ExpectPublish("will", "fourth")
		c.Quiet()
		s.drop(s.open(withWill(1000, 0, "sixth")))
		watch.ExpectPublish("will", "sixth")
		s.pass(2000 * time.Second)
		watch.Quiet()
	})
}

func willGoesOut(t *testing.T) {
	watched(t, func(s *fakeClock, watch *raw.Conn) {
		for what, end := range map[string]func(c *raw.Conn){
			"lost network":                func(c *raw.Conn) { c.Drop() },
			"DISCONNECT 0x04":             func(c *raw.Conn) { c.Send(raw.Disconnect{Code: 0x04}) },
			"DISCONNECT 0x80":             func(c *raw.Conn) { c.Send(raw.Disconnect{Code: 0x80}) },
			"DISCONNECT 0x97":             func(c *raw.Conn) { c.Send(raw.Disconnect{Code: 0x97}) },
			"DISCONNECT that is no good":  func(c *raw.Conn) { c.Send(raw.Disconnect{Props: raw.Props{raw.SessionExpiry.Int(1)}}) },
			"malformed DISCONNECT":        func(c *raw.Conn) { c.Send(raw.WithFlags(raw.Disconnect{}, 1)) },
			"malformed packet":            func(c *raw.Conn) { c.Send(raw.Frame(0x36, "a", uint16(1), 0)) },
			"protocol error":              func(c *raw.Conn) { c.Send(raw.Connect{ClientID: "c"}) },
			"silence":                     func(c *raw.Conn) { c.ExpectDisconnect(0x8D) },
			"take-over":                   func(c *raw.Conn) { s.open(raw.Connect{ClientID: "c"}) },
			"take-over with Clean Start":  func(c *raw.Conn) { s.open(raw.Connect{ClientID: "c", Clean: true}) },
			"half a packet and then none": func(c *raw.Conn) { c.Send(raw.Bytes{0x30, 9, 0}); c.Drop() },
		} {
			for _, clean := range []bool{false, true} {
				connect := withWill(0, 0, what)
				connect.Clean, connect.KeepAlive = clean, 10
				c := s.open(connect)
				watch.Quiet()
				end(c)
				wantPublish(t, watch.Expect(raw.PUBLISH), raw.Publish{Topic: "will", Payload: what})
			}
		}
		for _, p := range []raw.Sendable{
			raw.Disconnect{}, raw.Frame(0xE0, 0), raw.Frame(0xE0, 0, 0), raw.Disconnect{Props: raw.Props{raw.ReasonString.Text("bye")}},
		} {
			c := s.open(withWill(60, 0, "removed"))
			c.Send(p)
			c.ExpectClosed()
			s.pass(time.Hour) // and the session's end brings none either
			watch.Quiet()
		}
	})
}

func willDelay(t *testing.T) {
	never := time.Duration(-1)
	for _, v := range []struct {
		what          string
		expiry, delay uint32
		end           func(s *fakeClock, c *raw.Conn)
		after         time.Duration
	}{
		{"no session", 0, 10, nil, 0},
		{"delay first", 60, 10, nil, 10 * time.Second},
		{"session first", 10, 60, nil, 10 * time.Second},
		{"both", 10, 10, nil, 10 * time.Second},
		{"longest", 0xFFFFFFFF, 0xFFFFFFFF, nil, 14 * 24 * time.Hour}, // the bound on sessions
		{"DISCONNECT 0x04", 60, 10, func(s *fakeClock, c *raw.Conn) { s.goodbye(c, raw.Disconnect{Code: 0x04}) }, 10 * time.Second},
		{"DISCONNECT 0x00", 60, 10, func(s *fakeClock, c *raw.Conn) { s.goodbye(c, raw.Disconnect{}) }, never},
		{"DISCONNECT 0x04 ends the session", 60, 10, func(s *fakeClock, c *raw.Conn) {
			s.goodbye(c, raw.Disconnect{Code: 0x04, Props: raw.Props{raw.SessionExpiry.Int(0)}})
		}, 0},
		{"DISCONNECT 0x04 makes the session shorter", 60, 10, func(s *fakeClock, c *raw.Conn) {
			s.goodbye(c, raw.Disconnect{Code: 0x04, Props: raw.Props{raw.SessionExpiry.Int(5)}})
		}, 5 * time.Second},
		{"DISCONNECT 0x04 makes the session longer", 5, 10, func(s *fakeClock, c *raw.Conn) {
			s.goodbye(c, raw.Disconnect{Code: 0x04, Props: raw.Props{raw.SessionExpiry.Int(60)}})
		}, 10 * time.Second},
		{"Clean Start ends the session", 60, 30, func(s *fakeClock, c *raw.Conn) {
			s.drop(c)
			s.pass(20 * time.Second)
			s.open(raw.Connect{ClientID: "c", Clean: true})
		}, 20 * time.Second},
		{"Clean Start while connected", 60, 30, func(s *fakeClock, c *raw.Conn) {
			s.open(raw.Connect{ClientID: "c", Clean: true})
		}, 0},
		{"take-over without a session to go on with", 0, 30, func(s *fakeClock, c *raw.Conn) { s.open(raw.Connect{ClientID: "c"}) }, 0},
	} {
		onFakeClock(t, options{}, func(s *fakeClock) {
			// The watcher has a session of its own that outlasts everything.
			long := raw.Connect{ClientID: "watch", Props: raw.Props{raw.SessionExpiry.Int(0xFFFFFFFF)}}
			watch := s.open(long)
			watch.Subscribe(1, "will")
			connect := withWill(v.expiry, v.delay, v.what)
			connect.Will.QoS = 1
			c := s.open(connect)
			s.pass(100 * time.Second) // being connected does not count
			begin := time.Now()
			if v.end == nil {
				s.drop(c)
			} else {
				v.end(s, c)
			}
			if v.after == never {
				s.pass(time.Minute)
				watch.Quiet()
				return
			}
			if v.after > time.Minute { // longer than a connection without a word
				s.pass(v.after - time.Minute)
				watch = s.open(long)
			}
			wantPublish(t, watch.Deliver(), raw.Publish{Topic: "will", Payload: v.what, QoS: 1})
			if got := time.Since(begin); got != v.after {
				t.Errorf("%s: the will came after %s, want %s", v.what, got, v.after)
			}
			s.pass(time.Minute)
			watch.Quiet()
		})
	}
}

func willOnce(t *testing.T) {
	watched(t, func(s *fakeClock, watch *raw.Conn) {
		for _, delay := range []uint32{0, 10} {
			s.drop(s.open(withWill(60, delay, "once")))
			watch.ExpectPublish("will", "once")
			// Neither the end of the session, nor a connection that takes it up and breaks, nor that one's end.
			s.pass(20 * time.Second)
			if !s.present(raw.Connect{ClientID: "c", Props: raw.Props{raw.SessionExpiry.Int(60)}}) {
				t.Error("the session is gone")
			}
			s.pass(time.Hour)
			watch.Quiet()
		}
	})
}

func willRetain(retain bool) func(t *testing.T) {
	return func(t *testing.T) {
		s := start(t, options{})
		watch := s.open(raw.Connect{ClientID: "watch", Clean: true})
		watch.Send(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "will", RetainAsPublished: true}}})
		watch.ExpectCode(raw.SUBACK, 0)
		watch.Publish(raw.Publish{Topic: "will", Payload: "before", Retain: true})
		watch.ExpectPublish("will", "before")
		c := s.open(raw.Connect{ClientID: "c", Clean: true, Will: &raw.Will{Topic: "will", Payload: "will", Retain: retain}})
		c.Drop()
		wantPublish(t, watch.Expect(raw.PUBLISH), raw.Publish{Topic: "will", Payload: "will", Retain: retain})
		later := s.open(raw.Connect{ClientID: "later", Clean: true})
		later.Subscribe(0, "will")
		want := map[bool]string{false: "before", true: "will"}[retain]
		wantPublish(t, later.Expect(raw.PUBLISH), raw.Publish{Topic: "will", Payload: want, Retain: true})
		// A retained will without payload removes what is there.
		c = s.open(raw.Connect{ClientID: "c", Clean: true, Will: &raw.Will{Topic: "will", Retain: retain}})
		c.Drop()
		wantPublish(t, watch.Expect(raw.PUBLISH), raw.Publish{Topic: "will", Retain: retain})
		if n := s.Hub.Stats().Retained; (n == 0) != retain {
			t.Errorf("%d messages are retained", n)
		}
	}
}

func willCancelled(t *testing.T) {
	watched(t, func(s *fakeClock, watch *raw.Conn) {
		connect := withWill(1000, 10, "cancelled")
		for range 3 {
			s.drop(s.open(connect))
			s.pass(10*time.Second - 1)
		}
		s.open(connect) // still connected through a take-over
		c := s.open(connect)
		s.pass(time.Minute)
		watch.Quiet()
		s.goodbye(c, raw.Disconnect{})
		s.pass(time.Hour)
		watch.Quiet()
		s.drop(s.open(connect))
		s.pass(10*time.Second - 1)
		watch.Quiet()
		s.pass(1)
		watch.ExpectPublish("will", "cancelled")
	})
}

func willProperties(t *testing.T) {
	props := raw.Props{
		raw.User("z", "1"), raw.User("a", "2"), raw.PayloadFormat.Int(1), raw.ContentType.Text("text/plain"), raw.User("z", "1"),
		raw.ResponseTopic.Text("answers/here"), raw.CorrelationData.Bytes([]byte("\x00\xff")), raw.User("", ""), raw.User("m", "3"),
	}
	onFakeClock(t, options{}, func(s *fakeClock) {
		late := raw.Connect{ClientID: "late", Props: raw.Props{raw.SessionExpiry.Int(1000)}}
		c := s.open(late)
		c.Subscribe(1, "will")
		s.drop(c)
		watch := s.open(raw.Connect{ClientID: "watch", Clean: true})
		watch.Subscribe(2, "will")
		connect := withWill(100, 10, "payload")
		connect.Will.QoS = 2
		connect.Will.Props = append(connect.Will.Props, raw.MessageExpiry.Int(50))
		connect.Will.Props = append(connect.Will.Props, props...)
		c = s.open(connect)
		s.pass(100 * time.Second)
		s.drop(c)
		wantPublish(t, watch.Deliver(), raw.Publish{Topic: "will", Payload: "payload", QoS: 2, Props: append(raw.Props{raw.MessageExpiry.Int(50)}, props...)})
		s.pass(20 * time.Second)
		c = s.open(late)
		wantPublish(t, c.Deliver(), raw.Publish{Topic: "will", Payload: "payload", QoS: 1, Props: append(raw.Props{raw.MessageExpiry.Int(30)}, props...)})

		// What was not given is not made up.
		connect = withWill(0, 0, "bare")
		s.drop(s.open(connect))
		wantPublish(t, watch.Deliver(), raw.Publish{Topic: "will", Payload: "bare"})
	})
}
