package broker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
	packet "github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// TestTheWindowHoldsWhatAMapWould does at random what sessions do, past the end of the identifiers.
func TestTheWindowHoldsWhatAMapWould(t *testing.T) {
	t.Parallel()
	type flown struct {
		id  uint16
		msg *bridge.Message
	}
	for _, most := range []int{1, 2, 3, 50, 2000} {
		rng := rand.New(rand.NewPCG(4, uint64(most)))
		var w window
		var open []flown
		last := uint16(0)
		for range 200_000 {
			switch n := rng.IntN(10); {
			case n < 5 && len(open) < most && w.n < spanLimit(most):
				m := new(bridge.Message)
				id := w.add(flight{queued: queued{msg: m}, state: flightSent})
				if want := last%65535 + 1; id != want {
					t.Fatalf("identifier %d came after %d", id, last)
				}
				if n == 0 { // it was not sent
					w.undo()
					continue
				}
				last = id
				open = append(open, flown{id, m})
			case len(open) > 0:
				i := 0
				if n > 7 {
					i = rng.IntN(len(open))
				}
				k, f := w.find(open[i].id)
				if f == nil || f.msg != open[i].msg || w.id(k) != open[i].id {
					t.Fatalf("identifier %d is not found", open[i].id)
				}
				w.done(k)
				if _, f := w.find(open[i].id); f != nil {
					t.Fatalf("identifier %d is found after its end", open[i].id)
				}
				open = slices.Delete(open, i, i+1)
			}
			if w.open != len(open) || w.n < w.open || len(open) > 0 && w.at(0).msg != open[0].msg {
				t.Fatalf("%d are open, want %d, over %d places", w.open, len(open), w.n)
			}
		}
		k := 0
		for _, f := range open { // in the order of their sending
			for w.at(k).state == flightDone {
				k++
			}
			if w.at(k).msg != f.msg {
				t.Fatal("the order is lost")
			}
			k++
		}
		for len(open) > 0 {
			k, _ := w.find(open[len(open)-1].id)
			w.done(k)
			open = open[:len(open)-1]
		}
		if w.n != 0 || w.open != 0 || len(w.ring) > smallRing {
			t.Errorf("%d places and a ring of %d are left", w.n, len(w.ring))
		}
	}
}

func TestTheWindowKnowsNoIdentifierThatItDidNotGive(t *testing.T) {
	t.Parallel()
	var w window
	for range 10 {
		w.add(flight{state: flightSent})
	}
	w.done(0)
	w.done(3) // identifier 5
	for id := range 65536 {
		_, f := w.find(uint16(id))
		if want := id >= 2 && id <= 10 && id != 5; (f != nil) != want {
			t.Errorf("identifier %d: found is %t", id, f != nil)
		}
	}
}

func TestTheQueueIsFirstInFirstOut(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(5, 5))
	var q queue = &memoryQueue{}
	var model []*bridge.Message
	for range 100_000 {
		if rng.IntN(2) == 0 || len(model) == 0 {
			m := &bridge.Message{Payload: make([]byte, rng.IntN(100))}
			q.push(queued{msg: m})
			model = append(model, m)
		} else {
			front, ok := q.front()
			if !ok || front.msg != model[0] {
				t.Fatal("the front is not the oldest")
			}
			q.pop()
			model = model[1:]
		}
		size := 0
		if rng.IntN(100) == 0 {
			for _, m := range model {
				size += m.Size()
			}
			if n, b := q.size(); n != len(model) || b != size {
				t.Fatalf("%d messages of %d bytes, want %d of %d", n, b, len(model), size)
			}
		}
	}
}

func TestAQueueThatWasLongKeepsNothing(t *testing.T) {
	t.Parallel()
	q := &memoryQueue{}
	for range 10_000 {
		q.push(queued{msg: new(bridge.Message)})
	}
	for range 9_900 {
		q.pop()
	}
	if len(q.items) > 400 {
		t.Errorf("100 messages are kept in %d places", len(q.items))
	}
	for range 100 {
		q.pop()
	}
	if q.items != nil {
		t.Error("an empty queue keeps its places")
	}
}

// drip is a connection that brings its bytes in pieces of given sizes, and then an error.
type drip struct {
	memoryConn
	p     []byte
	sizes func() int
	end   error
}

func (d *drip) Read(p []byte) (int, error) {
	if len(d.p) == 0 {
		return 0, d.end
	}
	n := min(len(p), len(d.p), d.sizes())
	copy(p, d.p[:n])
	d.p = d.p[n:]
	return n, nil
}

// TestInputHandsOnEveryByteOnceHoweverItComes frames packets of all sizes out of reads of all sizes.
func TestInputHandsOnEveryByteOnceHoweverItComes(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(6, 6))
	var all []byte
	var want [][]byte
	for _, n := range []int{0, 1, 2, 127, 128, 511, 512, 513, 8190, 8191, 8192, 8193, 16383, 16384, 16385, 100_000, 0, 70_000, 3, 1 << 20, 5} {
		body := make([]byte, n)
		for i := range body {
			body[i] = byte(rng.IntN(256))
		}
		whole := append(appendVarint([]byte{0x30}, n), body...)
		want = append(want, whole)
		all = append(all, whole...)
	}
	for name, sizes := range map[string]func() int{
		"whole":    func() int { return 1 << 30 },
		"thousand": func() int { return 1000 },
		"small":    func() int { return smallRead },
		"random":   func() int { return 1 + rng.IntN(20_000) },
		"tiny":     func() int { return 1 + rng.IntN(60) },
	} {
		in := &streamInput{nc: &drip{p: all, sizes: sizes, end: io.EOF}}
		var got [][]byte
		most := 0
		err := in.run(func(_ *workspace, p []byte) ([]byte, error) {
			most = max(most, cap(in.carry))
			for {
				_, length, size, err := scanHeader(p)
				if err != nil {
					return nil, err
				}
				if size == 0 || len(p) < size+length {
					return p, nil
				}
				got = append(got, bytes.Clone(p[:size+length]))
				p = p[size+length:]
			}
		})
		if !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
		if !slices.EqualFunc(got, want, bytes.Equal) {
			t.Errorf("%s: %d packets came, or they are not what was sent", name, len(got))
		}
		if most > 3<<20 {
			t.Errorf("%s: %d bytes are held for a packet of 1 MiB", name, most)
		}
	}
}

// pipe is an output whose socket takes as much as room says, and then nothing until more is given.
type pipe struct {
	memoryConn
	mu     sync.Mutex
	cond   *sync.Cond
	room   int
	got    []byte
	closed bool
}

func newPipe(room int) *pipe {
	p := &pipe{room: room}
	p.cond = sync.NewCond(&p.mu)
	return p
}

func (p *pipe) try(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, net.ErrClosed
	}
	n := min(len(b), p.room)
	p.room -= n
	p.got = append(p.got, b[:n]...)
	return n, nil
}

func (p *pipe) Write(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n < len(b) {
		for p.room == 0 && !p.closed {
			p.cond.Wait()
		}
		if p.closed {
			return n, net.ErrClosed
		}
		k := min(len(b)-n, p.room)
		p.room -= k
		p.got = append(p.got, b[n:n+k]...)
		n += k
	}
	return n, nil
}

func (p *pipe) give(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.room += n
	p.cond.Broadcast()
}

func (p *pipe) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.cond.Broadcast()
	return nil
}

func (p *pipe) taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.got)
}

// newOutput is an output into a pipe, with what flushes it.
func newOutput(p *pipe, limit int, blocks bool) (*output, flusher) {
	o := &output{nc: p, limit: limit, stall: time.Hour, refill: func() bool { return false }, failed: func(error) {}, hangup: func() {}, bytesOut: func(int) {}}
	if !blocks {
		o.try = p.try
	}
	return o, flusher{o}
}

type flusher struct{ o *output }

func (f flusher) Flush()        { f.o.flush() }
func (f flusher) Crowded() bool { return false }

// TestOutputWritesEverythingInOrderWhoeverAppends has many append at a time while the socket takes its bytes in pieces.
func TestOutputWritesEverythingInOrderWhoeverAppends(t *testing.T) {
	t.Parallel()
	for _, blocks := range []bool{false, true} {
		hub, err := bridge.New(bridge.Config{Access: everybody{}})
		if err != nil {
			t.Fatal(err)
		}
		p := newPipe(0)
		o, f := newOutput(p, 1<<30, blocks)
		const writers, each = 8, 2000
		var all sync.WaitGroup
		for w := range writers {
			all.Go(func() {
				for i := range each {
					b := hub.Begin()
					o.mu.Lock()
					o.end(fmt.Appendf(o.begin(b, f), "%d %d\n", w, i))
					o.mu.Unlock()
					b.End()
				}
			})
		}
		var stop atomic.Bool
		var feeder sync.WaitGroup
		feeder.Go(func() {
			for n := 1; !stop.Load(); n = n%97 + 1 {
				p.give(n * 10)
			}
		})
		all.Wait()
		wait(t, "everything to be written", func() bool {
			o.mu.Lock()
			defer o.mu.Unlock()
			return o.unsent == 0 && !o.writing && o.buf == nil
		})
		stop.Store(true)
		feeder.Wait()
		next := make(map[string]int)
		for line := range strings.Lines(string(p.got)) {
			w, i, _ := strings.Cut(strings.TrimSpace(line), " ")
			if i != fmt.Sprint(next[w]) {
				t.Fatalf("of writer %s %s came, want %d", w, i, next[w])
			}
			next[w]++
		}
		if len(next) != writers || next["0"] != each {
			t.Errorf("got %v", next)
		}
	}
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// TestAStalledPeerCostsNoMoreThanTheLimit delivers to one that takes nothing.
func TestAStalledPeerCostsNoMoreThanTheLimit(t *testing.T) {
	t.Parallel()
	const limit, message = 64 << 10, 1000
	for qos := range bridge.QoS(3) {
		hub, err := bridge.New(bridge.Config{Access: everybody{}})
		if err != nil {
			t.Fatal(err)
		}
		srv, err := New(Config{Hub: hub, Limits: Limits{UnsentBytes: limit, InflightOut: 1000, QueueMessages: 50}})
		if err != nil {
			t.Fatal(err)
		}
		p := newPipe(0)
		c := srv.open(p, nil, false)
		c.out.try = p.try
		p.give(1 << 10) // for CONNACK and SUBACK
		feed := func(q []byte) {
			b := hub.Begin()
			defer b.End()
			if _, _, err := c.handle(b, new(workspace), q); err != nil {
				t.Fatal(err)
			}
		}
		feed(packet.Connect{Version: packet.V5, ClientID: "c", Clean: true}.Append(nil))
		feed(packet.Subscribe{ID: 1, Filters: []packet.Filter{{Filter: "x", QoS: byte(qos)}}}.Append(nil, packet.V5))
		for range 300 {
			b := hub.Begin()
			hub.PublishSystem(b, &bridge.Message{Topic: "x", Payload: make([]byte, message), QoS: qos})
			b.End()
			c.out.mu.Lock()
			unsent := c.out.unsent
			c.out.mu.Unlock()
			if unsent > limit {
				t.Fatalf("at QoS %d %d bytes wait to be written", qos, unsent)
			}
		}
		n := srv.counters
		sent := n.Inflight.Load()
		if qos == 0 {
			sent = 300 - int64(n.Dropped[bridge.DropSlowConsumer].Load())
		}
		if got := sent + n.Queued.Load() + int64(n.Dropped[bridge.DropQueueFull].Load()) + int64(n.Dropped[bridge.DropSlowConsumer].Load()); got != 300 && qos > 0 || sent < 50 || sent > 66 {
			t.Errorf("at QoS %d %d were taken, %d are queued, dropped are %d and %d", qos, sent, n.Queued.Load(), n.Dropped[bridge.DropQueueFull].Load(), n.Dropped[bridge.DropSlowConsumer].Load())
		}
		// Nor do retained values, however many there are.
		b := hub.Begin()
		for i := range 100 {
			hub.PublishSystem(b, &bridge.Message{Topic: bridge.Topic(fmt.Sprint("r/", i)), Payload: make([]byte, message), QoS: qos, Retain: true})
		}
		b.End()
		feed(packet.Subscribe{ID: 2, Filters: []packet.Filter{{Filter: "r/#", QoS: byte(qos)}}}.Append(nil, packet.V5))
		if unsent := c.out.unsent; unsent > limit+100 { // and its SUBACK
			t.Errorf("at QoS %d %d bytes wait to be written", qos, unsent)
		}
		// And it is not read from once its acknowledgements alone are above the limit.
		var publishes []byte
		for range limit / 4 {
			publishes = packet.Publish{Topic: "y", QoS: 1, ID: 1}.Append(publishes, packet.V311)
		}
		b = hub.Begin()
		c.version = 4
		_, pause, err := c.handle(b, new(workspace), publishes)
		b.End()
		if err != nil || pause == nil {
			t.Errorf("it is read from though %d bytes wait to be written; %v", c.out.unsent, err)
		}
		c.out.close()
		c.end(errStopped)
		srv.ended(c)
	}
}

// TestWhoIsNotAdmittedAnyMoreIsSentAwayThoughItHadNoConnectionYet revokes a client between its being let in and its being
// connected.
func TestWhoIsNotAdmittedAnyMoreIsSentAwayThoughItHadNoConnectionYet(t *testing.T) {
	t.Parallel()
	hub, err := bridge.New(bridge.Config{Access: everybody{}})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := New(Config{Hub: hub})
	if err != nil {
		t.Fatal(err)
	}
	c := srv.open(memoryConn{}, nil, false)
	c.out.try = func(p []byte) (int, error) { return len(p), nil }
	id := &bridge.Identity{ClientID: "c", Permissions: everybody{}}
	s, fresh, err := srv.sessionFor("c", id)
	if err != nil || !fresh {
		t.Fatal(err, fresh)
	}
	s.kick(bridge.NotAuthorized)
	b := hub.Begin()
	s.enter(b, c, true, id, &connectPacket{clientID: "c", version: 4}, func(bool) {})
	b.End()
	wait(t, "the connection to end", c.out.ending)
	c.end(errStopped)
	srv.ended(c)
}

// TestASessionThatHasEndedTakesNothing delivers to one that a publisher has found before its subscriptions were removed.
func TestASessionThatHasEndedTakesNothing(t *testing.T) {
	t.Parallel()
	hub, err := bridge.New(bridge.Config{Access: everybody{}})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := New(Config{Hub: hub})
	if err != nil {
		t.Fatal(err)
	}
	client, err := hub.Attach(&bridge.Identity{ClientID: "c", Permissions: everybody{}}, srv.counters, func(bridge.Reason) {})
	if err != nil {
		t.Fatal(err)
	}
	for _, filter := range []bridge.Filter{"x", "$share/g/x"} {
		if _, _, err := client.Subscribe(filter, bridge.SubscribeOptions{QoS: 2}, &session{srv: srv, ended: true, expiry: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	for qos := range bridge.QoS(3) {
		b := hub.Begin()
		hub.PublishSystem(b, &bridge.Message{Topic: "x", QoS: qos})
		b.End()
	}
	if n := srv.counters; n.Queued.Load() != 0 || n.QueuedBytes.Load() != 0 || n.Dropped[bridge.DropSessionEnded].Load() != 2 {
		t.Errorf("%d messages of %d bytes are queued, %d are dropped", n.Queued.Load(), n.QueuedBytes.Load(), n.Dropped[bridge.DropSessionEnded].Load())
	}
}

// TestWhatWaitsForRoomIsCalledForHoweverThingsFallTogether has sessions add to what waits while a writer is about to leave:
// a lost wake-up would leave it there for ever.
func TestWhatWaitsForRoomIsCalledForHoweverThingsFallTogether(t *testing.T) {
	t.Parallel()
	hub, err := bridge.New(bridge.Config{Access: everybody{}})
	if err != nil {
		t.Fatal(err)
	}
	for _, blocks := range []bool{false, true} {
		p := newPipe(1 << 40)
		o, f := newOutput(p, 100, blocks)
		var mu sync.Mutex // as a session's: it guards what waits
		waiting, appended := 0, 0
		pump := func(b *bridge.Batch) (more bool) {
			for waiting > 0 {
				o.mu.Lock()
				if !o.room(10, 50) {
					o.waiting = true
					o.mu.Unlock()
					b.Touch(f)
					return true
				}
				o.end(append(o.begin(b, f), "0123456789"...))
				o.mu.Unlock()
				waiting--
				appended++
			}
			o.mu.Lock()
			o.waiting = false
			o.mu.Unlock()
			return false
		}
		o.refill = func() bool {
			b := hub.Begin()
			defer b.End()
			mu.Lock()
			defer mu.Unlock()
			return pump(b)
		}
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range 5000 {
					b := hub.Begin()
					mu.Lock()
					waiting += 3
					pump(b)
					mu.Unlock()
					b.End()
				}
			})
		}
		all.Wait()
		wait(t, "what waits to be written", func() bool { return p.taken() == 4*5000*3*10 })
		if appended != 4*5000*3 {
			t.Errorf("%d were appended", appended)
		}
	}
}

func TestWhoWaitsForRoomIsWokenByTheEnd(t *testing.T) {
	t.Parallel()
	hub, err := bridge.New(bridge.Config{Access: everybody{}})
	if err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func(*output){"close": (*output).close, "finish": (*output).finish, "fail": func(o *output) { o.fail(os.ErrClosed) }} {
		p := newPipe(0)
		o, f := newOutput(p, 10, false)
		b := hub.Begin()
		o.mu.Lock()
		o.end(append(o.begin(b, f), make([]byte, 100)...))
		o.mu.Unlock()
		b.End()
		full := o.full()
		if full == nil {
			t.Fatal("there is room")
		}
		end(o)
		select {
		case <-full:
		case <-time.After(10 * time.Second):
			t.Errorf("%s wakes nobody", name)
		}
		p.Close()
		if o.full() != nil {
			t.Errorf("after %s there is something to wait for", name)
		}
	}
}

// intruder is a connection that is taken over in the moment in which its reader sets its first keep alive deadline.
type intruder struct {
	memoryConn
	c     *conn
	began atomic.Bool
}

func (i *intruder) SetReadDeadline(at time.Time) error {
	if i.c != nil && i.c.ready.Load() && (at.IsZero() || at.After(time.Now())) && !i.began.Swap(true) {
		i.c.kick(codeSessionTakenOver, "session taken over", "")
	}
	return nil
}

func TestATakeOverWhileTheReaderSetsItsDeadlineIsNoticed(t *testing.T) {
	t.Parallel()
	for _, keepAlive := range []uint16{0, 60} {
		hub, err := bridge.New(bridge.Config{Access: everybody{}})
		if err != nil {
			t.Fatal(err)
		}
		srv, err := New(Config{Hub: hub})
		if err != nil {
			t.Fatal(err)
		}
		nc := &intruder{}
		c := srv.open(nc, nil, false)
		nc.c = c
		c.out.try = func(p []byte) (int, error) { return len(p), nil }
		b := hub.Begin()
		_, _, err = c.handle(b, new(workspace), packet.Connect{Version: packet.V311, ClientID: "c", Clean: true, KeepAlive: keepAlive}.Append(nil))
		b.End()
		if !nc.began.Load() || !errors.Is(err, errStopped) {
			t.Errorf("the reader goes on: %v", err)
		}
		c.end(err)
		srv.ended(c)

		// And later, when the deadline is moved on.
		nc = &intruder{}
		c = srv.open(nc, nil, false)
		c.out.try = func(p []byte) (int, error) { return len(p), nil }
		b = hub.Begin()
		_, _, err = c.handle(b, new(workspace), packet.Connect{Version: packet.V311, ClientID: "c", Clean: true, KeepAlive: keepAlive}.Append(nil))
		b.End()
		if err != nil {
			t.Fatal(err)
		}
		nc.c = c
		if err := c.deadlinePassed(); !errors.Is(err, errStopped) {
			t.Errorf("the reader goes on: %v", err)
		}
		c.end(errStopped)
		srv.ended(c)
	}
}

func TestTheGateCountsByAddressAndInAll(t *testing.T) {
	t.Parallel()
	var limits atomic.Pointer[Limits]
	l := Limits{ConnectRate: 10, ConnectBurst: 5, ConnectsPerAddress: 3}.WithDefaults()
	limits.Store(&l)
	from := func(a string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(a)) }
	now := time.Unix(1000, 0)
	admitted := func(g *gate, n int, addr func(i int) string) (in int) {
		for i := range n {
			if g.admit(from(addr(i)), now) {
				in++
			}
		}
		return in
	}
	g := newGate(&limits)
	if n := admitted(g, 10, func(int) string { return "192.0.2.1:1" }); n != 3 {
		t.Errorf("%d connections of one address are let in, want 3", n)
	}
	if n := admitted(g, 10, func(i int) string { return fmt.Sprintf("192.0.2.%d:1", 10+i) }); n != 2 {
		t.Errorf("%d of other addresses are let in, want the 2 that are left", n)
	}
	if n := admitted(g, 100, func(int) string { return "127.0.0.1:1" }); n != 100 {
		t.Errorf("%d of loopback are let in", n)
	}
	now = now.Add(300 * time.Millisecond)
	if n := admitted(g, 10, func(i int) string { return fmt.Sprintf("192.0.2.%d:1", 30+i) }); n != 3 {
		t.Errorf("%d are let in after 300 ms at 10 per second", n)
	}
	now = now.Add(11 * time.Second)
	if n := admitted(g, 10, func(i int) string { return fmt.Sprintf("[2001:db8::%d]:1", i) }); n != 3 {
		t.Errorf("%d of one IPv6 network are let in, want 3", n)
	}
}

// TestPropertiesOfEveryKindAreHeldAgainstTheTable tries every property in every packet, once and twice.
func TestPropertiesOfEveryKindAreHeldAgainstTheTable(t *testing.T) {
	t.Parallel()
	value := map[propertyKind][]byte{
		kindByte: {1}, kindUint16: {0, 1}, kindUint32: {0, 0, 0, 1}, kindVarint: {1}, kindString: {0, 1, 'x'}, kindBytes: {0, 1, 'x'}, kindPair: {0, 1, 'x', 0, 1, 'y'},
	}
	for id := range 256 {
		kind := kindNone
		if id < len(propertyKinds) {
			kind = propertyKinds[id]
		}
		for _, set := range []propertySet{propsOfConnect, propsOfWill, propsOfPublish, propsOfAck, propsOfSubscribe, propsOfUnsubscribe, propsOfDisconnect, propsOfAuth} {
			one := append([]byte{byte(id)}, value[kind]...)
			check := func(p []byte, want bool) {
				t.Helper()
				r := reader{p: append(appendVarint(nil, len(p)), p...)}
				r.properties(set)
				if err := r.end(); (err == nil) != want {
					t.Errorf("property 0x%02X as % X in %b: %v", id, p, set, err)
				}
			}
			allowed := kind != kindNone && set.has(byte(id))
			check(one, allowed)
			check(append(one, one...), allowed && id == pUserProperty)
			for n := 1; n < len(one); n++ {
				check(one[:n], false)
			}
		}
	}
}

// solo is a pipe that is to be written to by one at a time.
type solo struct {
	*pipe
	t       *testing.T
	writers atomic.Int32
}

func (s *solo) alone(write func([]byte) (int, error), b []byte) (int, error) {
	if n := s.writers.Add(1); n > 1 {
		s.t.Errorf("%d write at a time", n)
	}
	defer s.writers.Add(-1)
	return write(b)
}

func (s *solo) try(b []byte) (int, error)   { return s.alone(s.pipe.try, b) }
func (s *solo) Write(b []byte) (int, error) { return s.alone(s.pipe.Write, b) }

// TestOutputHasOneWriterAtATime appends while a writer waits for the peer: a second one might overtake it.
func TestOutputHasOneWriterAtATime(t *testing.T) {
	t.Parallel()
	for _, blocks := range []bool{false, true} {
		hub, err := bridge.New(bridge.Config{Access: everybody{}})
		if err != nil {
			t.Fatal(err)
		}
		p := &solo{pipe: newPipe(5), t: t}
		o, f := newOutput(p.pipe, 1<<20, blocks)
		o.nc = p
		if !blocks {
			o.try = p.try
		}
		say := func(text string) {
			b := hub.Begin()
			defer b.End()
			o.mu.Lock()
			defer o.mu.Unlock()
			o.end(append(o.begin(b, f), text...))
		}
		say("0123456789")
		wait(t, "a writer that waits", func() bool { return p.writers.Load() == 1 && p.taken() == 5 })
		want := "0123456789"
		for i := range 10 {
			say(fmt.Sprint(i))
			want += fmt.Sprint(i)
		}
		p.give(100)
		wait(t, "everything to be written", func() bool { return p.taken() == len(want) })
		if got := string(p.got); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// TestAPublisherKeepsItsRateWhenASubscriberStopsReading compares what a message to a thousand subscribers costs its publisher
// where all of them read and where one of them does not, in turns. In the place of the network is the cheapest system call that
// writes, which makes much of what the one costs. Whatever else the machine does only makes single messages slow: the fastest of
// each kind count, and there are more of them until they are as they must be.
func TestAPublisherKeepsItsRateWhenASubscriberStopsReading(t *testing.T) {
	const readers, atLeast, atMost, wanted = 999, 200, 1500, 0.95
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	crowd := func(qos byte, last *pipe) (publish func() time.Duration, leave func()) {
		hub, err := bridge.New(bridge.Config{Access: everybody{}})
		if err != nil {
			t.Fatal(err)
		}
		limits := Limits{UnsentBytes: 1000, QueueMessages: 50, InflightOut: 2 * atMost, WriteStall: time.Hour}
		srv, err := New(Config{Hub: hub, Limits: limits})
		if err != nil {
			t.Fatal(err)
		}
		var all []*conn
		for i := range readers + 1 {
			c := srv.open(memoryConn{}, nil, false)
			c.out.try = null.Write
			if i == readers && last != nil {
				c.out.nc, c.out.try = last, last.try
			}
			all = append(all, c)
			for _, p := range [][]byte{
				packet.Connect{Version: packet.V311, ClientID: fmt.Sprint(i), Clean: true}.Append(nil),
				packet.Subscribe{ID: 1, Filters: []packet.Filter{{Filter: "x", QoS: qos}}}.Append(nil, packet.V311),
			} {
				b := hub.Begin()
				if _, _, err := c.handle(b, new(workspace), p); err != nil {
					t.Fatal(err)
				}
				b.End()
			}
		}
		publish = func() time.Duration {
			began := time.Now()
			b := hub.Begin()
			hub.PublishSystem(b, &bridge.Message{Topic: "x", Payload: []byte("some bytes"), QoS: bridge.QoS(qos)})
			b.End()
			return time.Since(began)
		}
		return publish, func() {
			for _, c := range all {
				c.out.close()
				c.end(errStopped)
				srv.ended(c)
			}
		}
	}
	for qos := range byte(3) {
		stalled := newPipe(9) // CONNACK and SUBACK, and then nothing
		before, leave := crowd(qos, nil)
		after, leaveToo := crowd(qos, stalled)
		for range 200 { // until there is no room and the queue is full
			after()
		}
		alike, slow, ratio := time.Hour, time.Hour, 0.0
		for n := 0; n < atLeast || n < atMost && ratio < wanted; n++ {
			alike = min(alike, before())
			slow = min(slow, after())
			ratio = float64(alike) / float64(slow)
		}
		t.Logf("QoS %d: a message to %d takes %v, where one does not read %v: %.0f %% of the rate", qos, readers+1, alike, slow, 100*ratio)
		if ratio < wanted {
			t.Errorf("at QoS %d publishers keep %.0f %% of their rate, want %.0f %%", qos, 100*ratio, 100*wanted)
		}
		leave()
		leaveToo()
	}
}
