package bridge

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// flushes is a sink that registers for the flush whenever it is the first message since the last one.
type flushes struct {
	waiting, flushed int
	also             Flusher // touched during the flush
	batch            *Batch
}

func (f *flushes) Deliver(d *Delivery) Outcome {
	if f.waiting++; f.waiting == 1 {
		f.batch = d.Batch
		d.Batch.Touch(f)
	}
	return Delivered
}

func (f *flushes) Flush() {
	f.waiting = 0
	f.flushed++
	if f.also != nil {
		f.batch.Touch(f.also)
		f.also = nil
	}
}

func TestABatchFlushesEachTouchedSinkOnce(t *testing.T) {
	h := newHub(t, Config{})
	p, c := attach(t, h, "p"), attach(t, h, "c")
	var a, other flushes
	a.also = &other
	subscribe(t, c, "a", SubscribeOptions{}, &a)
	b := h.Begin()
	for range 100 {
		if _, err := p.PublishAsync(b, &Message{Topic: "a"}); err != nil {
			t.Fatal(err)
		}
	}
	if a.flushed != 0 {
		t.Error("flushed before the batch ended")
	}
	b.Flush()
	if a.flushed != 1 || a.waiting != 0 || other.flushed != 1 {
		t.Errorf("flushed %d times, %d waiting; what the flush touched %d times", a.flushed, a.waiting, other.flushed)
	}
	b.End()
	if a.flushed != 1 {
		t.Error("flushed again for nothing")
	}
}

func TestAResultTellsTheReceiptAndWhoTookResponsibility(t *testing.T) {
	h := newHub(t, Config{})
	p := attach(t, h, "p")
	for i, o := range []Outcome{Delivered, Queued, NotNow, Dropped} {
		subscribe(t, attach(t, h, name("c", i)), "a", SubscribeOptions{}, sinkFunc(func(d *Delivery) Outcome {
			d.Later(Receipt(10 - i))
			if o == Dropped {
				return d.Drop(DropQueueFull)
			}
			return o
		}))
	}
	b := h.Begin()
	defer b.End()
	for _, tt := range []struct {
		topic Topic
		want  Result
	}{{"a", Result{10, 2}}, {"b", Result{0, 0}}, {"a", Result{10, 2}}} {
		r, err := p.PublishAsync(b, &Message{Topic: tt.topic})
		if err != nil || r != tt.want {
			t.Errorf("%q: %+v, %v; want %+v", tt.topic, r, err, tt.want)
		}
	}
}

func TestAnEncodingIsSharedByTheSinksOfOneMessage(t *testing.T) {
	h := newHub(t, Config{})
	p := attach(t, h, "p")
	encoded := 0
	for i := range 10 {
		key := uint32(i % 3)
		subscribe(t, attach(t, h, name("c", i)), "a", SubscribeOptions{}, sinkFunc(func(d *Delivery) Outcome {
			buf := d.Form(key)
			want := fmt.Sprintf("%d:%s", key, d.Message.Payload)
			if len(*buf) == 0 {
				encoded++
				*buf = append(*buf, want...)
			}
			if string(*buf) != want {
				t.Errorf("form %d holds %q, want %q", key, *buf, want)
			}
			return Delivered
		}))
	}
	b := h.Begin()
	for i := range 5 {
		if _, err := p.PublishAsync(b, &Message{Topic: "a", Payload: fmt.Appendf(make([]byte, 0, 100<<i), "%d", i)}); err != nil {
			t.Fatal(err)
		}
	}
	if encoded != 15 {
		t.Errorf("5 messages in 3 forms were encoded %d times", encoded)
	}
	b.forms[0].buf = make([]byte, maxScratch+1)
	b.End()
	if b.forms[0].buf != nil {
		t.Error("a pooled batch keeps a large encoding")
	}
}

func TestABatchWhosePublishPanickedCanBeUsedAgain(t *testing.T) {
	h := newHub(t, Config{})
	p := attach(t, h, "p")
	var first flushes
	subscribe(t, attach(t, h, "a"), "a", SubscribeOptions{}, &first)
	broken := attach(t, h, "b")
	subscribe(t, broken, "a", SubscribeOptions{}, sinkFunc(func(*Delivery) Outcome { panic("a bug in a sink") }))
	subscribe(t, broken, "#", SubscribeOptions{}, sinkFunc(func(*Delivery) Outcome { panic("a bug in a sink") }))
	func() {
		b := h.Begin()
		defer func() { _ = recover() }()
		defer b.End()
		_, _ = p.PublishAsync(b, &Message{Topic: "a"})
		t.Error("no panic")
	}()
	if first.waiting != 0 {
		t.Error("bytes that a sink had taken before the panic were not flushed")
	}
	broken.Close()
	b := h.Begin()
	defer b.End()
	if r, err := p.PublishAsync(b, &Message{Topic: "a"}); r.Reached != 1 || err != nil {
		t.Errorf("afterwards: %+v, %v", r, err)
	}
}

// TestCountersAddUp sends messages through every way of getting lost and checks that what arrived and what was counted as
// dropped is everything.
func TestCountersAddUp(t *testing.T) {
	h := newHub(t, Config{Access: perUser{
		"p": {write: []Filter{"a/#"}}, "all": everything(), "half": {read: []Filter{"a/0"}}, "lossy": everything(), "other": everything(),
	}})
	p := attach(t, h, "p")
	var all, half, lossy inbox
	subscribe(t, attach(t, h, "all"), "#", SubscribeOptions{QoS: 2}, &all)
	subscribe(t, attach(t, h, "half"), "a/+", SubscribeOptions{QoS: 1}, &half)
	k := 0
	lossy.answer = func(d *Delivery) Outcome {
		k++
		switch k % 4 {
		case 0:
			return d.Drop(DropQueueFull)
		case 1:
			return d.Drop(DropTooLarge)
		case 2:
			return Queued
		}
		return Delivered
	}
	other, err := h.Attach(&Identity{User: "other", ClientID: "other"}, h.Counters("other endpoint"), func(Reason) {})
	if err != nil {
		t.Fatal(err)
	}
	subscribe(t, other, "a/#", SubscribeOptions{}, &lossy)

	const n = 1200
	b := h.Begin()
	for i := range n {
		m := Message{Topic: Topic(fmt.Sprintf("a/%d", i%2)), QoS: QoS(i % 3)}
		if i%6 == 5 {
			m.Topic = "not allowed"
		}
		_, _ = p.PublishAsync(b, &m)
	}
	b.End()
	stats := map[string]EndpointStats{}
	for _, e := range h.Stats().Endpoints {
		stats[e.Name] = e
	}
	test, far := stats["test"], stats["other endpoint"]
	sum := func(x [3]uint64) uint64 { return x[0] + x[1] + x[2] }
	refused := test.Dropped[DropRefused]
	routed := uint64(n) - refused
	if sum(test.MessagesIn) != n || refused != n/6 || test.MessagesIn != [3]uint64{n / 3, n / 3, n / 3} {
		t.Errorf("in: %v, refused %d", test.MessagesIn, refused)
	}
	nAll, nHalf := uint64(len(all.take())), uint64(len(half.take()))
	if nAll != routed || nHalf+test.Dropped[DropNotAuthorized] != routed || sum(test.MessagesOut) != nAll+nHalf {
		t.Errorf("%d routed: all got %d, half %d, %d not authorized, %v out", routed, nAll, nHalf, test.Dropped[DropNotAuthorized], test.MessagesOut)
	}
	taken := uint64(len(lossy.take()))
	if taken+far.Dropped[DropQueueFull]+far.Dropped[DropTooLarge] != routed || sum(far.MessagesOut) != routed/4 || far.MessagesOut[1]+far.MessagesOut[2] != 0 {
		t.Errorf("the other endpoint took %d of %d, counted %v, %v out", taken, routed, far.Dropped, far.MessagesOut)
	}
	if diff := cmp.Diff([3]uint64{}, far.MessagesIn); diff != "" {
		t.Errorf("the other endpoint published nothing: %s", diff)
	}
	if h.Counters("test").Name != "test" || len(h.Stats().Endpoints) != 2 {
		t.Error("asking for counters again made new ones")
	}
}

func TestSystemMessagesAskForNoPermission(t *testing.T) {
	h := newHub(t, Config{Access: perUser{"s": everything()}})
	var in inbox
	s := attach(t, h, "s")
	subscribe(t, s, "$SYS/#", SubscribeOptions{}, &in)
	b := h.Begin()
	defer b.End()
	h.PublishSystem(b, &Message{Topic: "$SYS/uptime", Payload: []byte("1"), Retain: true})
	if got := in.payloads(); len(got) != 1 {
		t.Errorf("got %v", got)
	}
	m := s.RetainedValue("$SYS/uptime")
	if m == nil || m.Time == 0 {
		t.Errorf("retained as %+v", m)
	}
}

func TestWhatAClientLeavesBehindIsPublishedUnderItsName(t *testing.T) {
	h := newHub(t, Config{Access: perUser{"c": {all: true}, "x": {}}})
	c := attach(t, h, "c")
	var local, in inbox
	subscribe(t, c, "will", SubscribeOptions{NoLocal: true}, &local)
	subscribe(t, attach(t, h, "d", "c"), "will", SubscribeOptions{}, &in)
	if err := c.PublishNow(&Message{Topic: "will", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	if got := in.take(); len(got) != 1 || len(local.take()) != 0 {
		t.Errorf("got %v", got)
	}
	if err := attach(t, h, "x").PublishNow(&Message{Topic: "will"}); ReasonOf(err) != NotAuthorized {
		t.Errorf("a will without permission: %v", err)
	}
	if err := h.Admit(c.Identity(), "will"); err != nil {
		t.Error(err)
	}
}

func TestPaceLetsABurstThroughAndThenTheRate(t *testing.T) {
	h := newHub(t, Config{Limits: Limits{MessagesPerSecond: 100, BytesPerSecond: 1000}})
	c := attach(t, h, "c")
	now := time.Now().UnixNano()
	if d := c.Pace(now, 100, 0); d != 0 {
		t.Errorf("the allowance of one second costs a pause of %v", d)
	}
	if d := c.Pace(now, 50, 0); d != 500*time.Millisecond {
		t.Errorf("50 messages too many cost a pause of %v", d)
	}
	now += int64(500 * time.Millisecond)
	if d := c.Pace(now, 0, 0); d != 0 {
		t.Errorf("after the pause: %v", d)
	}
	if d := c.Pace(now, 1, 0); d != 10*time.Millisecond {
		t.Errorf("one message more: %v", d)
	}
	now += int64(time.Hour) // saves up one second, not an hour
	if d := c.Pace(now, 101, 0); d != 10*time.Millisecond {
		t.Errorf("after an idle hour: %v", d)
	}
	now += int64(time.Second)
	if d := c.Pace(now, 1, 3000); d != 2*time.Second {
		t.Errorf("2000 bytes too many: %v", d)
	}
	if d := c.Pace(now-int64(time.Hour), 0, 0); d != 2*time.Second {
		t.Errorf("a clock that steps back: %v", d)
	}
	// The rate over a long time is what is configured.
	sent, end := 0, now+int64(100*time.Second)
	for now < end {
		sent++
		now += int64(c.Pace(now, 1, 1))
		now += int64(time.Microsecond)
	}
	if sent < 9_700 || sent > 10_200 {
		t.Errorf("%d messages in 100 s at 100/s", sent)
	}
}

// TestDeliveryAllocatesNothing is the promise for QoS 0 to live sinks.
func TestDeliveryAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	part := &grants{write: []Filter{"#"}, read: []Filter{"site/+/#"}}
	for _, tt := range []struct {
		name    string
		n       int
		access  Access
		filters []string
		topics  int
	}{
		{"one subscriber", 1, everything(), []string{"site/a/b"}, 1},
		{"a thousand", 1000, everything(), []string{"site/a/b"}, 1},
		{"a thousand, ACL asked for each", 1000, part, []string{"#"}, 1},
		{"a thousand, overlapping", 1000, everything(), []string{"site/a/b", "site/+/b", "#"}, 1},
		{"a thousand, overlapping, ACL asked for each", 1000, part, []string{"#", "+/a/b"}, 1},
		{"a shared group", 100, everything(), []string{"$share/g/site/#"}, 1},
		{"a publisher of many topics", 1, everything(), []string{"#"}, 100},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHub(t, Config{Access: tt.access})
			for i := range tt.n {
				c := attach(t, h, name("c", i))
				for k, f := range tt.filters {
					subscribe(t, c, f, SubscribeOptions{Identifier: uint32(k + 1)}, nowhere{})
				}
			}
			p := attach(t, h, "p")
			topics := []Topic{"site/a/b"}
			for i := range tt.topics - 1 {
				topics = append(topics, Topic(name("site/a/", i)))
			}
			m := Message{Payload: make([]byte, 64), Borrowed: true}
			i := 0
			b := h.Begin()
			defer b.End()
			publish := func() {
				m.Topic = topics[i%len(topics)]
				if r, err := p.PublishAsync(b, &m); err != nil || r.Reached == 0 {
					t.Fatal(r, err)
				}
				i++
			}
			for range 2 * len(topics) {
				publish()
			}
			if allocs := testing.AllocsPerRun(1000, publish); allocs != 0 {
				t.Errorf("a publish allocates %v times", allocs)
			}
		})
	}
}

func (f *flushes) Crowded() bool { return false }
