package broker_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// smallBuffer is what both sides of a connection that is to stall may have in the kernel: the less, the sooner it stalls.
const smallBuffer = 16 << 10

// tight accepts connections with small buffers.
type tight struct{ net.Listener }

func (l tight) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err == nil {
		nc.(*net.TCPConn).SetWriteBuffer(smallBuffer)
	}
	return nc, err
}

// listen has the server accept on another port, in its own way, and returns the address.
func (s *server) listen(wrap func(net.Listener) net.Listener) (addr string) {
	s.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { s.Serve(ctx, wrap(ln), broker.Listener{}) })
	s.t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return ln.Addr().String()
}

// dialSmall connects so that a client that does not read stalls soon.
func (s *server) dialSmall() *raw.Conn {
	t := s.t
	t.Helper()
	addr := s.listen(func(ln net.Listener) net.Listener { return tight{ln} })
	d := net.Dialer{Control: func(_, _ string, rc syscall.RawConn) error {
		var err error
		cerr := rc.Control(func(fd uintptr) { err = setReceiveBuffer(fd, smallBuffer) })
		if cerr != nil {
			return cerr
		}
		return err
	}}
	nc, err := d.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	return raw.On(t, nc)
}

// stalled connects a client that subscribes and then reads nothing more.
func (s *server) stalled(connect raw.Connect, qos byte, filters ...string) *raw.Conn {
	c := s.dialSmall()
	c.Connected(connect)
	c.Subscribe(qos, filters...)
	return c
}

// unpaced lets one client send as fast as it can.
var unpaced = bridge.Limits{MessagesPerSecond: 1 << 30, BytesPerSecond: 1 << 40}

// drops is how many messages were dropped for a reason.
func (s *server) drops(r bridge.DropReason) int { return int(s.stats().Dropped[r]) }

// fill publishes to topic until the one who is subscribed to it has no room any more, and returns how many messages that took.
func (s *server) fill(pub *raw.Conn, topic string, qos byte) (sent int) {
	full := func() bool {
		st := s.stats()
		return st.Dropped[bridge.DropSlowConsumer] > 0 || st.Queued > 0
	}
	before := s.drops(bridge.DropSlowConsumer)
	for !full() || s.drops(bridge.DropSlowConsumer) == before && s.stats().Queued == 0 {
		pub.Publish(raw.Publish{Topic: topic, Payload: strings.Repeat("x", 16<<10), QoS: qos, ID: 1})
		pub.Quiet()
		sent++
	}
	return sent
}

// crowd are clients that read and acknowledge everything they are given.
type crowd struct {
	wg  sync.WaitGroup
	got atomic.Int64
	bad atomic.Int64 // came out of order
}

func newCrowd(t testing.TB, s *server, n int, filter string) *crowd {
	c := new(crowd)
	for i := range n {
		sub := s.open(raw.Connect{Version: raw.V311, ClientID: fmt.Sprintf("reader %d", i), Clean: true})
		sub.Subscribe(2, filter)
		c.wg.Go(func() { c.read(sub) })
		t.Cleanup(func() { sub.Drop() })
	}
	return c
}

func (c *crowd) read(sub *raw.Conn) {
	r := bufio.NewReader(sub.Net)
	last := ""
	sub.Net.SetDeadline(time.Time{})
	for {
		p, err := raw.ReadPacket(r, raw.V311)
		if err != nil {
			return
		}
		switch {
		case p.Type == raw.PUBREL:
			sub.Net.Write(raw.Pubcomp{ID: p.ID}.Encode(nil, raw.V311))
			continue
		case p.QoS == 1:
			sub.Net.Write(raw.Puback{ID: p.ID}.Encode(nil, raw.V311))
		case p.QoS == 2:
			sub.Net.Write(raw.Pubrec{ID: p.ID}.Encode(nil, raw.V311))
		}
		if text := p.Text(); text > last {
			last = text
		} else {
			c.bad.Add(1)
		}
		c.got.Add(1)
	}
}

// TestASubscriberThatStopsReadingSlowsNobody stalls one client of a thousand at each QoS: all messages of the others arrive
// while it stalls, publishers go on, what it costs stays within the limits, and its client id can be taken over at once.
func TestASubscriberThatStopsReadingSlowsNobody(t *testing.T) {
	t.Parallel()
	const readers, messages = 999, 20
	limits := broker.Limits{UnsentBytes: 64 << 10, QueueBytes: 128 << 10, QueueMessages: 50, WriteStall: time.Hour}
	s := start(t, options{limits: limits})
	others := newCrowd(t, s, readers, "all")
	pub := s.open(raw.Connect{ClientID: "publisher", Clean: true})
	round := 0
	for qos := range byte(3) {
		id := fmt.Sprintf("stalled at QoS %d", qos)
		// No keep alive: nothing but the limits ends it.
		s.stalled(raw.Connect{Version: raw.V311, ClientID: id}, qos, "all", "only")
		s.fill(pub, "only", qos)
		for range messages {
			round++
			pub.Publish(raw.Publish{Topic: "all", Payload: fmt.Sprintf("%06d", round), QoS: qos, ID: 1})
		}
		eventually(t, func() error {
			if got := others.got.Load(); got != int64(readers*round) {
				return fmt.Errorf("at QoS %d the others got %d messages, want %d", qos, got, readers*round)
			}
			return nil
		})
		st := s.stats()
		if st.QueuedBytes > int64(limits.QueueBytes) || st.Queued > int64(limits.QueueMessages) {
			t.Errorf("at QoS %d %d messages of %d bytes are queued", qos, st.Queued, st.QueuedBytes)
		}
		// The one that takes over is given the queue, so that the next one starts from nothing.
		next, _ := raw.Open(t, s.Addr, raw.Connect{Version: raw.V311, ClientID: id, Clean: true})
		next.Close()
	}
	if n := others.bad.Load(); n != 0 {
		t.Errorf("%d messages came out of order", n)
	}
	s.stop()
	others.wg.Wait()
}

func TestAfterAStallWhatWasNotDroppedArrives(t *testing.T) {
	t.Parallel()
	for _, version := range []raw.Version{raw.V311, raw.V5} {
		for qos := range byte(3) {
			t.Run(fmt.Sprintf("version %v, QoS %d", version, qos), func(t *testing.T) {
				limits := broker.Limits{UnsentBytes: 64 << 10, QueueBytes: 128 << 10, WriteStall: time.Hour}
				s := start(t, options{limits: limits})
				slow := s.stalled(raw.Connect{Version: version, ClientID: "slow", Clean: true}, qos, "#")
				pub := s.open(raw.Connect{ClientID: "publisher", Clean: true})
				filled := s.fill(pub, "a", qos)
				publish := func(from, n int) {
					for i := from; i < from+n; i++ {
						pub.Publish(raw.Publish{Topic: "b", Payload: fmt.Sprintf("%06d%*s", i, 8<<10, ""), QoS: qos, ID: 1})
					}
				}
				publish(0, 50)
				pub.Quiet()
				if st := s.stats(); st.QueuedBytes > int64(limits.QueueBytes) || qos > 0 && st.Dropped[bridge.DropQueueFull] == 0 {
					t.Errorf("%d bytes are queued, dropped are %v", st.QueuedBytes, st.Dropped)
				}
				var more sync.WaitGroup // go on while it begins to read
				more.Go(func() { publish(50, 50) })
				defer more.Wait()
				sent := filled + 100
				received, last := 0, ""
				for received+s.drops(bridge.DropSlowConsumer)+s.drops(bridge.DropQueueFull) < sent {
					p := slow.Read()
					slow.Ack(p)
					if p.Type != raw.PUBLISH {
						continue
					}
					received++
					if p.Topic == "b" {
						if p.Text() <= last {
							t.Fatalf("%.6s came after %.6s", p.Text(), last)
						}
						last = p.Text()
					}
				}
				slow.Send(raw.Pingreq{})
				for slow.Read().Type != raw.PINGRESP {
				}
				if st := s.stats(); st.Queued != 0 || received+s.drops(bridge.DropSlowConsumer)+s.drops(bridge.DropQueueFull) != sent {
					t.Errorf("%d of %d messages came, %d are queued, dropped are %v", received, sent, st.Queued, st.Dropped)
				}
				if qos > 0 && s.drops(bridge.DropSlowConsumer) > 0 {
					t.Errorf("%d messages of QoS %d were dropped before the queue was full", s.drops(bridge.DropSlowConsumer), qos)
				}
			})
		}
	}
}

// TestWhatIsSentAgainComesBeforeWhatIsNewAlsoToASlowReader has a client come back that does not read, so that not all of what
// it has not acknowledged finds room at once.
func TestWhatIsSentAgainComesBeforeWhatIsNewAlsoToASlowReader(t *testing.T) {
	t.Parallel()
	s := start(t, options{limits: broker.Limits{UnsentBytes: 256 << 10, WriteStall: time.Hour}})
	connect := raw.Connect{ClientID: "slow", Props: raw.Props{raw.SessionExpiry.Int(100)}}
	slow := s.open(connect)
	slow.Subscribe(1, "x")
	pub := s.open(raw.Connect{ClientID: "publisher", Clean: true})
	publish := func(from, n int) {
		for i := from; i < from+n; i++ {
			pub.Publish(raw.Publish{Topic: "x", Payload: fmt.Sprintf("%06d%*s", i, 4<<10, ""), QoS: 1, ID: 1})
		}
	}
	const again, fresh = 60, 60
	publish(0, again)
	for range again {
		slow.Expect(raw.PUBLISH)
	}
	slow.Drop()
	s.alone(1)
	slow = s.dialSmall()
	slow.Connected(connect)
	publish(again, fresh)
	for i := range again + fresh {
		p := slow.Expect(raw.PUBLISH)
		if want := fmt.Sprintf("%06d", i); p.Text()[:6] != want || p.Dup != (i < again) {
			t.Fatalf("got message %.6s with dup=%t, want %s", p.Text(), p.Dup, want)
		}
		slow.Ack(p)
	}
	slow.Quiet()
}

// TestAMessageThatFoundNoRoomIsSentWhenThereIsRoom has QoS 0 traffic use up the room for unsent bytes, so that no
// acknowledgement is due that would make the session look at its queue.
func TestAMessageThatFoundNoRoomIsSentWhenThereIsRoom(t *testing.T) {
	t.Parallel()
	s := start(t, options{limits: broker.Limits{UnsentBytes: 64 << 10, WriteStall: time.Hour}})
	slow := s.stalled(raw.Connect{ClientID: "slow", Clean: true}, 1, "#")
	pub := s.open(raw.Connect{ClientID: "publisher", Clean: true})
	sent := s.fill(pub, "a", 0)
	// 16 KiB do not fit, whatever is left.
	pub.Publish(raw.Publish{Topic: "b", Payload: strings.Repeat("y", 16<<10), QoS: 1, ID: 1})
	if s.stats().Queued != 1 {
		t.Fatal("the message is not queued")
	}
	for range sent - s.drops(bridge.DropSlowConsumer) {
		slow.ExpectPublish("a", strings.Repeat("x", 16<<10))
	}
	slow.ExpectPublish("b", strings.Repeat("y", 16<<10))
}

func TestAStalledClientIsTakenOverAtOnceAndLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, version := range []raw.Version{raw.V311, raw.V5} {
		t.Run(version.String(), func(t *testing.T) {
			s := start(t, options{limits: broker.Limits{WriteStall: time.Hour}})
			pub := s.open(raw.Connect{ClientID: "publisher", Clean: true})
			for range 3 {
				s.stalled(raw.Connect{Version: version, ClientID: "stalled"}, 0, "#")
				s.fill(pub, "a", 0)
				next := s.open(raw.Connect{Version: version, ClientID: "stalled", Clean: true})
				next.Quiet()
				next.Close()
			}
			// The stalled peers have never hung up: their connections are cut after a while.
			eventually(t, func() error {
				if n := s.stats().Connections; n != 1 {
					return fmt.Errorf("%d connections are left, want the publisher's", n)
				}
				return nil
			})
			pub.Quiet()
			for range 20 { // and what becomes of them disturbs no connection that comes after them
				c := s.open(raw.Connect{ClientID: "later", Clean: true})
				c.Quiet()
				c.Close()
			}
			pub.Quiet()
		})
	}
}

func TestTheStallLimitEndsAPeerThatTakesNothing(t *testing.T) {
	t.Parallel()
	s := start(t, options{limits: broker.Limits{UnsentBytes: 64 << 10, WriteStall: 50 * time.Millisecond}})
	pub := s.open(raw.Connect{ClientID: "publisher", Clean: true})
	s.stalled(raw.Connect{Version: raw.V311, ClientID: "stalled"}, 0, "a")
	for s.stats().Connections == 2 {
		pub.Publish(raw.Publish{Topic: "a", Payload: strings.Repeat("x", 16<<10)})
		pub.Quiet()
	}
	pub.Quiet()
}

func TestAPublisherThatNeverReadsItsAcknowledgementsIsNotReadFrom(t *testing.T) {
	t.Parallel()
	for _, qos := range []byte{1, 2} {
		t.Run(fmt.Sprintf("QoS %d", qos), func(t *testing.T) {
			s := start(t, options{limits: broker.Limits{UnsentBytes: 16 << 10, WriteStall: 100 * time.Millisecond}, hub: unpaced})
			c := s.dialSmall()
			c.Connected(raw.Connect{Version: raw.V311, ClientID: "deaf", Clean: true})
			<-flood(c, burst(1000, raw.Publish{Topic: "x", QoS: qos, ID: 1}))
		})
	}
}

func TestAPublisherThatReadsItsAcknowledgementsLateGetsAllOfThem(t *testing.T) {
	t.Parallel()
	s := start(t, options{limits: broker.Limits{UnsentBytes: 16 << 10, WriteStall: time.Hour}, hub: unpaced})
	c := s.dialSmall()
	c.Connected(raw.Connect{Version: raw.V311, ClientID: "late", Clean: true})
	const messages = 50_000
	var packets []byte
	for i := range messages {
		packets = raw.Publish{Topic: "x", QoS: 1, ID: uint16(i + 1)}.Encode(packets, raw.V311)
	}
	var written sync.WaitGroup
	written.Go(func() { c.Net.Write(packets) })
	for i := range messages {
		c.ExpectAck(raw.PUBACK, uint16(i+1), 0)
	}
	written.Wait()
	c.Quiet()
}

func TestAClientThatDoesNotReadBlocksNoShutdown(t *testing.T) {
	t.Parallel()
	s := start(t, options{limits: broker.Limits{WriteStall: time.Hour}})
	pub := s.open(raw.Connect{ClientID: "publisher", Clean: true})
	s.stalled(raw.Connect{Version: raw.V311, ClientID: "stalled"}, 0, "#")
	s.fill(pub, "a", 0)
	s.stop()
	if n := s.stats().Connections; n != 0 {
		t.Errorf("%d connections are left", n)
	}
}

// TestSharedMessagesArriveWhateverTheMembersDo has a group with a member that reads, one that is offline and one that is
// stalled: the stalled one may hold what it was given, and hands it on when it is gone.
func TestSharedMessagesArriveWhateverTheMembersDo(t *testing.T) {
	t.Parallel()
	for _, qos := range []byte{0, 1} {
		t.Run(fmt.Sprintf("QoS %d", qos), func(t *testing.T) {
			s := start(t, options{limits: broker.Limits{InflightOut: 8, UnsentBytes: 64 << 10, WriteStall: time.Hour}})
			offline := s.open(raw.Connect{ClientID: "offline", Clean: true, Props: raw.Props{raw.SessionExpiry.Int(100)}})
			offline.Subscribe(qos, "$share/g/jobs")
			offline.Drop()
			eventually(t, func() error {
				if n := s.stats().Connections; n != 0 {
					return fmt.Errorf("%d connections", n)
				}
				return nil
			})
			pub := s.open(raw.Connect{ClientID: "publisher", Clean: true})
			stalled := s.stalled(raw.Connect{Version: raw.V311, ClientID: "stalled", Clean: true}, qos, "only", "$share/g/jobs")
			if qos == 0 {
				s.fill(pub, "only", 0)
			}
			live := s.open(raw.Connect{ClientID: "live", Clean: true})
			live.Subscribe(qos, "$share/g/jobs")
			const jobs = 100
			seen := make(map[string]bool)
			if qos == 0 {
				collect := func(c *raw.Conn) {
					c.Send(raw.Pingreq{})
					for p := c.Read(); p.Type != raw.PINGRESP; p = c.Read() {
						if p.Topic == "jobs" {
							seen[p.Text()] = true
						}
					}
				}
				for i := range jobs {
					pub.Publish(raw.Publish{Topic: "jobs", Payload: fmt.Sprintf("%d%16384s", i, "")})
					pub.Quiet()
					collect(live)
				}
				if len(seen) < jobs/2 {
					t.Errorf("the live member was given %d of %d jobs", len(seen), jobs)
				}
				collect(stalled) // the kernel may have made room for a few
				if len(seen) != jobs {
					t.Errorf("%d of %d jobs arrived", len(seen), jobs)
				}
			} else {
				for i := range jobs { // more than the live one may have unacknowledged: it is queued for, not the offline one
					pub.Publish(raw.Publish{Topic: "jobs", Payload: fmt.Sprint(i), QoS: qos, ID: 1})
				}
				for len(seen) < jobs {
					if len(seen) == jobs/2-8 {
						stalled.Drop()
					}
					seen[live.Deliver().Text()] = true
				}
			}
			live.Quiet()
			if st := s.stats(); st.Queued != 0 {
				t.Errorf("%d messages are queued", st.Queued)
			}
		})
	}
}

// TestAClientThatMustWaitKeepsNobodyElseWaiting has clients that are not read from for a while: one for its rate, one for the
// acknowledgements that it does not take. Whoever is read by the same goroutine is served as before.
func TestAClientThatMustWaitKeepsNobodyElseWaiting(t *testing.T) {
	t.Parallel()
	bystanders := func(s *server) (all []*raw.Conn) {
		for i := range 2 * runtime.GOMAXPROCS(0) { // some share a poller with the one that waits
			c := s.open(raw.Connect{ClientID: fmt.Sprint("bystander ", i), Clean: true})
			c.Subscribe(0, "last")
			all = append(all, c)
		}
		return all
	}
	t.Run("for its rate", func(t *testing.T) {
		t.Parallel()
		s := start(t, options{hub: bridge.Limits{MessagesPerSecond: 10}})
		all := bystanders(s)
		c := s.open(raw.Connect{ClientID: "fast", Clean: true})
		c.Send(burst(1000, raw.Publish{Topic: "x"}), raw.Publish{Topic: "last"}) // it owes a hundred seconds
		for _, b := range all {
			b.ExpectPublish("last", "")
			b.Quiet()
		}
		s.open(raw.Connect{ClientID: "fast", Clean: true}).Quiet() // who takes over does not wait for the rest of it
	})
	t.Run("for its acknowledgements", func(t *testing.T) {
		t.Parallel()
		s := start(t, options{limits: broker.Limits{UnsentBytes: 16 << 10, WriteStall: time.Hour}, hub: unpaced})
		all := bystanders(s)
		c := s.dialSmall()
		c.Connected(raw.Connect{Version: raw.V311, ClientID: "deaf", Clean: true})
		packets := raw.Encode(raw.V311, burst(1000, raw.Publish{Topic: "x", QoS: 1, ID: 1}))
		for {
			c.Net.SetWriteDeadline(time.Now().Add(time.Second))
			if _, err := c.Net.Write(packets); err != nil {
				break // not read from any more
			}
		}
		for _, b := range all {
			b.Quiet()
		}
	})
}

// TestASubscriberWhoseWritesBlockSlowsNobody has one that reads nothing, behind a connection that takes no byte before it is
// read, as TLS over a full socket.
func TestASubscriberWhoseWritesBlockSlowsNobody(t *testing.T) {
	t.Parallel()
	for qos := range byte(3) {
		t.Run(fmt.Sprintf("QoS %d", qos), func(t *testing.T) {
			t.Parallel()
			limits := broker.Limits{UnsentBytes: 64 << 10, QueueMessages: 50, WriteStall: time.Hour}
			s := start(t, options{limits: limits})
			ours, theirs := net.Pipe()
			go s.ServeConn(theirs)
			connect := raw.Connect{ClientID: "stalled", Clean: true}
			stalled := raw.On(t, ours)
			stalled.Connected(connect)
			stalled.Subscribe(qos, "x")
			other, pub := s.open(raw.Connect{ClientID: "other", Clean: true}), s.open(raw.Connect{ClientID: "pub", Clean: true})
			other.Subscribe(qos, "x")
			for i := range 300 {
				payload := fmt.Sprintf("%06d%1000s", i, "")
				pub.Publish(raw.Publish{Topic: "x", Payload: payload, QoS: qos, ID: 1})
				if p := other.Deliver(); p.Text() != payload {
					t.Fatalf("got message %.6s, want %d", p.Text(), i)
				}
			}
			if st := s.stats(); st.Queued > int64(limits.QueueMessages) || qos == 0 && s.drops(bridge.DropSlowConsumer) == 0 || qos > 0 && s.drops(bridge.DropQueueFull) == 0 {
				t.Errorf("%d messages are queued, dropped are %v", st.Queued, st.Dropped)
			}
			next := s.open(connect)
			next.Quiet()
			pub.Quiet()
		})
	}
}

// TestAQueueHoldsAsManyMessagesAsItsLimitSaysAndDropsTheOldest fills it with messages that are far below its limit in bytes.
func TestAQueueHoldsAsManyMessagesAsItsLimitSaysAndDropsTheOldest(t *testing.T) {
	t.Parallel()
	const limit, messages = 5, 12
	s := start(t, options{limits: broker.Limits{QueueMessages: limit}})
	connect := raw.Connect{ClientID: "away", Props: raw.Props{raw.SessionExpiry.Int(100)}}
	c := s.open(connect)
	c.Subscribe(1, "x")
	c.Drop()
	s.alone(0)
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	for i := range messages {
		pub.Publish(raw.Publish{Topic: "x", Payload: fmt.Sprint(i), QoS: 1, ID: 1})
	}
	pub.Quiet() // what a batch has counted is added up at its end
	if st := s.stats(); st.Queued != limit || s.drops(bridge.DropQueueFull) != messages-limit {
		t.Errorf("%d messages are queued, dropped are %v", st.Queued, st.Dropped)
	}
	c = s.open(connect)
	for i := messages - limit; i < messages; i++ {
		c.Ack(c.ExpectPublish("x", fmt.Sprint(i)))
	}
	c.Quiet()
}
