package bridge

import (
	"runtime"
	"time"
)

// Batch is the hub's side of one read of an endpoint: the sinks to flush at its end, and the scratch memory that makes
// matching and delivery free of allocation. It is taken from a pool when data is there ([Hub.Begin]) and given back with
// [Batch.End], so an idle connection owns none. A Batch is used by one goroutine.
type Batch struct {
	hub        *Hub
	Now        int64 // Unix nanoseconds, taken when the batch began
	touched    []Flusher
	counters   *Counters // of the current publisher's endpoint
	tallies    []tally   // by Counters.index
	receipt    Receipt
	body       Body       // of the current message in the store
	durability Durability // of the current message
	reached    int        // sinks that took the current message

	found     []*leaf
	sets      [][]place // of the leaves found, as read once
	overlap   overlap
	delivery  Delivery
	ids       [1]uint32
	forms     []form
	formsUsed int
}

// Flusher is what a sink registers to have its bytes pushed out at the end of the batch. Flush never waits for a peer.
type Flusher interface {
	Flush()
	// Crowded reports that other batches often have something for the same sink at the same time.
	Crowded() bool
}

type form struct {
	key uint32
	buf []byte
}

// Begin takes a batch for what one read brought. The endpoint sees to it that it ends however handling the read ends: bytes
// that a sink has taken are not sent before.
func (h *Hub) Begin() *Batch {
	b, _ := h.batches.Get().(*Batch)
	if b == nil {
		b = &Batch{hub: h}
		b.delivery.Batch = b
	}
	b.Now = time.Now().UnixNano()
	return b
}

// Touch registers f for the flush. A sink calls it when the message is the first unsent one of its connection: whoever
// makes a buffer non-empty sees to it that it is flushed.
func (b *Batch) Touch(f Flusher) { b.touched = append(b.touched, f) }

// Touched is how many sinks wait for the flush.
func (b *Batch) Touched() int { return len(b.touched) }

// Flush pushes out what the batch touched so far.
func (b *Batch) Flush() {
	for i := 0; i < len(b.touched); i++ { // Flush may touch others
		f := b.touched[i]
		b.touched[i] = nil
		f.Flush()
	}
	b.touched = b.touched[:0]
}

// yield lets the goroutines run that are ready, if one of the sinks is crowded. They are the readers of other publishers; what
// they have for the sink joins what is there, and one write takes it all. With 100 publishers and one subscriber this was
// measured to save more than half of the broker's CPU; where nobody is ready it costs next to nothing.
func (b *Batch) yield() {
	for _, f := range b.touched {
		if f.Crowded() {
			runtime.Gosched()
			return
		}
	}
}

// End flushes, adds up the counters and gives the batch back.
func (b *Batch) End() {
	b.yield()
	b.Flush()
	for i := range b.tallies {
		if t := &b.tallies[i]; t.any {
			t.addTo(b.hub.endpoint(i))
		}
	}
	for i := range b.forms {
		if cap(b.forms[i].buf) > maxScratch {
			b.forms[i].buf = nil
		}
	}
	b.delivery = Delivery{Batch: b}
	b.hub.batches.Put(b)
}

// maxScratch is what a pooled batch may keep of one encoding.
const maxScratch = 64 << 10

func (b *Batch) tally(c *Counters) *tally {
	for len(b.tallies) <= c.index {
		b.tallies = append(b.tallies, tally{})
	}
	t := &b.tallies[c.index]
	t.any = true
	return t
}

func (b *Batch) drop(c *Counters, r DropReason) { b.tally(c).dropped[r]++ }

func (b *Batch) form(key uint32) *[]byte {
	for i := range b.forms[:b.formsUsed] {
		if b.forms[i].key == key {
			return &b.forms[i].buf
		}
	}
	if b.formsUsed == len(b.forms) {
		b.forms = append(b.forms, form{})
	}
	f := &b.forms[b.formsUsed]
	f.key, f.buf = key, f.buf[:0]
	b.formsUsed++
	return &f.buf
}

// route delivers m to everything that matches. from is the publisher, for No Local; nil if it is not attached any more.
func (b *Batch) route(from *Client, m *Message) {
	b.formsUsed, b.reached, b.body = 0, 0, Body{}
	b.found = b.hub.table.match(string(m.Topic), b.found[:0])
	// One reading of each set decides both whether filters overlap and who is in them.
	b.sets = b.sets[:0]
	for _, l := range b.found {
		if set := l.plain.places(); set != nil {
			b.sets = append(b.sets, set)
		}
	}
	if len(b.sets) == 1 {
		set := b.sets[0]
		for i := range set {
			s := set[i].Load()
			if s == nil || s.Options.NoLocal && s.owner.published(from, m) {
				continue
			}
			if !s.covered() && !s.mayRead(m.Topic) {
				b.drop(s.owner.counters, DropNotAuthorized)
				continue
			}
			b.give(s, m, anybody)
		}
	} else if len(b.sets) > 1 {
		b.routeOverlapping(from, m)
	}
	for _, l := range b.found {
		for _, g := range l.shared() {
			g.deliver(b, m, nil)
		}
	}
	b.endBody()
	clear(b.found)
	clear(b.sets)
}

// give hands m to one subscription's sink and reports whether it took responsibility.
func (b *Batch) give(s *Subscription, m *Message, w want) bool {
	d := &b.delivery
	d.Message, d.Subscription, d.QoS = m, s, min(m.QoS, s.Options.QoS)
	d.LiveOnly, d.Connected, d.member = w == ready, w == connected, s.group != nil
	d.Retain = m.Retain && s.Options.RetainAsPublished
	d.Identifiers = nil
	if s.Options.Identifier != 0 {
		b.ids[0] = s.Options.Identifier
		d.Identifiers = b.ids[:]
	}
	return b.hand(d)
}

// hand lets the sink have d and adds up what came of it.
func (b *Batch) hand(d *Delivery) bool {
	switch d.Subscription.sink.Deliver(d) {
	case Delivered:
		b.tally(d.Subscription.owner.counters).out[d.QoS]++
	case Queued:
	default:
		return false
	}
	b.reached++
	return true
}
