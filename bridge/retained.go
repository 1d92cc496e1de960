package bridge

import (
	"container/heap"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
)

// retained is the tree of retained values (MQTT 5 section 3.3.1.3). Readers walk it without a lock, so that somebody who
// subscribes to a million values holds up no publisher; setting and removing take the lock.
type retained struct {
	hashOf func(string) uint32
	store  RetainedStore // nil: nothing is stored
	root   value
	count  atomic.Int64
	bytes  atomic.Int64

	mu        sync.Mutex
	expiring  expiryHeap
	forgotten Receipt // of the last removal from the store
}

// value is a node of the tree: the message retained at its topic, if any, and the topics below.
type value struct {
	below   index[value]
	message atomic.Pointer[Message]
	due     int  // place in the expiry heap plus 1; 0: not in it
	stored  bool // the store has it
}

func newRetained(hashOf func(string) uint32) *retained { return &retained{hashOf: hashOf} }

func (r *retained) size() (values int, bytes int64) { return int(r.count.Load()), r.bytes.Load() }

// set keeps m at its topic; an empty payload removes what is there (MQTT-3.3.1-6, MQTT-3.3.1-7). It is kept once the store
// has synced up to the Receipt. The error carries QuotaExceeded.
func (r *retained) set(m *Message, l Limits, d Durability) (Receipt, error) {
	if len(m.Payload) == 0 {
		return r.remove(string(m.Topic)), nil
	}
	m = m.Keep() // not under the lock: it may be long
	r.mu.Lock()
	defer r.mu.Unlock()
	v := r.find(string(m.Topic))
	var old *Message
	if v != nil {
		old = v.message.Load()
	}
	if old == nil && int(r.count.Load()) >= l.RetainedValues {
		return 0, Refuse(QuotaExceeded, fmt.Sprintf("limit of %d retained values reached", l.RetainedValues))
	}
	grow := r.cost(m) - r.cost(old)
	if grow > 0 && r.bytes.Load()+grow > l.RetainedBytes {
		return 0, Refuse(QuotaExceeded, fmt.Sprintf("limit of %d bytes of retained values reached", l.RetainedBytes))
	}
	if v == nil {
		v = r.grow(string(m.Topic))
	}
	v.message.Store(m)
	r.bytes.Add(grow)
	if old == nil {
		r.count.Add(1)
	}
	r.schedule(v)
	return r.keep(v, m, old, d), nil
}

// keep stores m, the new value of v, in place of old; r.mu is held, so that the store has the values in their order.
func (r *retained) keep(v *value, m, old *Message, d Durability) Receipt {
	switch {
	case d != Memory:
		if !v.stored {
			old = nil
		}
		v.stored = true
		return r.store.Retain(m, old, d)
	case v.stored:
		v.stored = false
		r.forgotten = r.store.Forget(old)
		return r.forgotten
	}
	return r.forgotten // the same removal may have been asked for before, and not be kept yet
}

// load puts back what the store has kept; what has expired meanwhile goes as everything does that expires. Nobody else uses
// the tree yet.
func (r *retained) load() error {
	return r.store.LoadRetained(func(m *Message) error {
		v := r.grow(string(m.Topic))
		v.message.Store(m)
		v.stored = true
		r.bytes.Add(r.cost(m))
		r.count.Add(1)
		r.schedule(v)
		return nil
	})
}

// levelOverhead is what a level of a topic may cost in the tree.
const levelOverhead = 128

// cost is what m counts against the limit on bytes. Each level is counted as if no other topic had it: values at the end of
// long topics that share nothing must not cost more than the limit says.
func (r *retained) cost(m *Message) int64 {
	if m == nil {
		return 0
	}
	return int64(m.Size() + Levels(m.Topic)*levelOverhead)
}

// grow makes the path to topic.
func (r *retained) grow(topic string) *value {
	v := &r.root
	for level, tail, more := "", topic, true; more; {
		level, tail, more = strings.Cut(tail, "/")
		h := r.hashOf(level)
		next := v.below.get(h, level)
		if next == nil {
			next = v.below.put(h, strings.Clone(level), nil)
		}
		v = next
	}
	return v
}

// schedule puts v into the expiry heap, moves it there or takes it out, as its message asks.
func (r *retained) schedule(v *value) {
	m := v.message.Load()
	wants := m != nil && m.Expires != 0
	switch {
	case wants && v.due == 0:
		heap.Push(&r.expiring, v)
	case wants:
		heap.Fix(&r.expiring, v.due-1)
	case v.due != 0:
		heap.Remove(&r.expiring, v.due-1)
	}
}

// get finds the message retained at topic, or nil.
func (r *retained) get(topic string) *Message {
	if v := r.find(topic); v != nil {
		return v.message.Load()
	}
	return nil
}

// find finds the node of topic, or nil.
func (r *retained) find(topic string) *value {
	v := &r.root
	for level, tail, more := "", topic, true; more; {
		level, tail, more = strings.Cut(tail, "/")
		if v.below.empty() {
			return nil
		}
		if v = v.below.get(r.hashOf(level), level); v == nil {
			return nil
		}
	}
	return v
}

// remove is kept once the store has synced up to the Receipt, also where there is nothing to remove: it may have been removed
// a moment ago.
func (r *retained) remove(topic string) Receipt {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.removeBelow(&r.root, topic)
	return r.forgotten
}

// removeBelow removes the message at the topic rest below v and frees the path that only it needed.
func (r *retained) removeBelow(v *value, rest string) {
	level, tail, more := strings.Cut(rest, "/")
	h := r.hashOf(level)
	next := v.below.get(h, level)
	if next == nil {
		return
	}
	if more {
		r.removeBelow(next, tail)
	} else if m := next.message.Load(); m != nil {
		if next.due != 0 {
			heap.Remove(&r.expiring, next.due-1)
		}
		next.message.Store(nil)
		r.count.Add(-1)
		r.bytes.Add(-r.cost(m))
		if next.stored {
			next.stored = false
			r.forgotten = r.store.Forget(m)
		}
	}
	if next.message.Load() == nil && next.below.live == 0 {
		v.below.del(h, level)
	}
}

// expireBatch bounds how long the lock is held at a time.
const expireBatch = 1000

// expire removes what has expired. Its cost is that of what expires.
func (r *retained) expire(now int64) {
	for {
		r.mu.Lock()
		n := 0
		for ; n < expireBatch && len(r.expiring) > 0; n++ {
			m := r.expiring[0].message.Load()
			if !m.Expired(now) {
				break
			}
			r.removeBelow(&r.root, string(m.Topic))
		}
		r.mu.Unlock()
		if n < expireBatch {
			return
		}
	}
}

// expiryHeap orders values by when they expire.
type expiryHeap []*value

func (h expiryHeap) Len() int { return len(h) }
func (h expiryHeap) Less(i, j int) bool {
	return h[i].message.Load().Expires < h[j].message.Load().Expires
}
func (h expiryHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].due, h[j].due = i+1, j+1
}
func (h *expiryHeap) Push(x any) {
	v := x.(*value)
	*h = append(*h, v)
	v.due = len(*h)
}
func (h *expiryHeap) Pop() any {
	old := *h
	n := len(old) - 1
	v := old[n]
	old[n] = nil
	*h = old[:n]
	if n > 64 && n < cap(old)/4 {
		*h = append(make(expiryHeap, 0, 2*n), old[:n]...)
	}
	v.due = 0
	return v
}
