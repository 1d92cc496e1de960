package bridge

import (
	"context"
	"runtime/debug"
	"sync/atomic"
)

// durable is the hub's side of durability: which topics are kept how, and what to do while the store cannot keep anything.
type durable struct {
	store RetainedStore // nil: nothing is kept
	rules atomic.Pointer[durabilityRules]
}

type durabilityRules struct {
	rules     []DurabilityRule
	otherwise Durability
}

// DurabilityRule says how the messages of some topics are kept.
type DurabilityRule struct {
	Filter     Filter
	Durability Durability
}

// UseStore gives the hub its store, before the first client comes, and loads the retained values. Without one nothing
// outlives the process. The store calls Stored.
func (h *Hub) UseStore(s RetainedStore) error {
	h.durable.store, h.retained.store = s, s
	return h.retained.load()
}

// SetDurability changes how topics are kept: the first rule that matches a topic decides. Before it is called everything is
// kept by Fsync. What is kept already stays as it is.
func (h *Hub) SetDurability(rules []DurabilityRule, otherwise Durability) {
	h.durable.rules.Store(&durabilityRules{rules, otherwise})
	for _, c := range h.Clients() {
		c.epoch.Add(epochStep)
	}
}

// of decides how a topic is kept.
func (d *durable) of(topic Topic) Durability {
	if d.store == nil {
		return Memory
	}
	if rules := d.rules.Load(); rules != nil {
		for _, r := range rules.rules {
			if r.Filter.Match(topic) {
				return r.Durability
			}
		}
		return rules.otherwise
	}
	return Fsync
}

// Durability is how messages of a topic are kept.
func (h *Hub) Durability(topic Topic) Durability { return h.durable.of(topic) }

// refuses says why the store cannot keep anything at the moment; nil while it can.
func (d *durable) refuses() error {
	switch {
	case d.store == nil:
		return nil
	case d.store.Err() != nil:
		return Refuse(Unavailable, "the store has failed")
	case d.store.Full():
		return Refuse(QuotaExceeded, "the limit on disk use is reached")
	}
	return nil
}

// Keeper is a sink that keeps messages beyond its connection, and with a store beyond the process.
type Keeper interface {
	Sink
	// Keeps reports whether it would store a message now.
	Keeps() bool
}

// wantsStore reports whether a message must be stored: as a retained value, or because somebody keeps it. It is only asked
// while nothing can be stored: live traffic goes on meanwhile, and nobody gets what would have to be refused to others.
func (b *Batch) wantsStore(m *Message) bool {
	if b.durability == Memory {
		return false
	}
	if m.Retain && len(m.Payload) > 0 {
		return true
	}
	if m.QoS == 0 {
		return false
	}
	keeps := func(places []place) bool {
		for i := range places {
			if s := places[i].Load(); s != nil && s.Options.QoS > 0 {
				if k, ok := s.sink.(Keeper); ok && k.Keeps() {
					return true
				}
			}
		}
		return false
	}
	b.found = b.hub.table.match(string(m.Topic), b.found[:0])
	defer clear(b.found)
	for _, l := range b.found {
		if keeps(l.plain.places()) {
			return true
		}
		for _, g := range l.shared() {
			if keeps(g.members.places()) {
				return true
			}
		}
	}
	return false
}

// sole reports whether one sink at most will be given the message that is being routed.
func (b *Batch) sole() bool {
	n := 0
	for _, l := range b.found {
		n += len(l.shared())
		places := l.plain.places()
		for i := range places {
			if places[i].Load() != nil {
				n++
			}
			if n > 1 {
				return false
			}
		}
	}
	return n <= 1
}

// endBody lets the store know that the message that was being routed has reached everybody.
func (b *Batch) endBody() {
	if b.body.ID != 0 {
		b.hub.durable.store.EndBody(b.body.ID)
	}
}

// Wait returns when the store has synced r. The error carries Unavailable where it has failed, or is that of ctx.
func (h *Hub) Wait(ctx context.Context, r Receipt) error {
	s := h.durable.store
	if r == 0 || s == nil {
		return nil
	}
	for s.Synced() < r {
		if s.Err() != nil {
			return Refuse(Unavailable, "the store has failed")
		}
		told := make(signal, 1)
		if !s.Await(r, told) {
			continue
		}
		select {
		case <-told:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// signal is a Waiter for somebody who may wait.
type signal chan struct{}

func (s signal) Stored(*Batch) { s <- struct{}{} }

// Stored tells waiters that a commit of the store has ended; the store calls it, one commit after the other.
func (h *Hub) Stored(waiters []Waiter) {
	for len(waiters) > 0 {
		n := min(len(waiters), storedPerBatch)
		h.tell(waiters[:n])
		waiters = waiters[n:]
	}
}

// storedPerBatch is how many waiters share a flush: one alone must not wait for thousands of others.
const storedPerBatch = 128

func (h *Hub) tell(waiters []Waiter) {
	b := h.Begin()
	defer b.End()
	for _, w := range waiters {
		func() {
			defer func() {
				if p := recover(); p != nil {
					h.log.Error("panic", "while", "telling that a commit has ended", "panic", p, "stack", string(debug.Stack()))
				}
			}()
			w.Stored(b)
		}()
	}
}
