package broker

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
)

// session is what a client id owns across connections (MQTT 5 section 4.1): subscriptions (in client), messages under way
// in both directions, the queue, the will. The connection that is using it changes; take-over is serialised by turn.
type session struct {
	srv    *Server
	id     string
	client *bridge.Client
	turn   sync.Mutex // held by a connection while it takes the session over or leaves it

	live    atomic.Pointer[conn] // who is using it; nil: offline. Changed under mu
	backlog atomic.Bool          // something must go out before a new message: the queue or what is to be sent again

	number uint64 // in the store; 0: the session is not stored
	ids    identifiers

	unsubscribed bridge.Receipt // of the last subscription that was removed; for the connection's reader

	mu        sync.Mutex
	next      uint64         // position of the next message that is stored or queued
	awaiting  bool           // the store will call
	written   bridge.Receipt // of the last change to received
	leftAt    int64          // when its last connection ended, Unix nanoseconds; 0: one has it
	expiry    time.Duration  // how long it is kept after a connection; 0: not at all
	window    window
	resend    int   // place in window from which on the present connection has not sent yet
	sent      int   // sent on the present connection and not completed: what Receive Maximum counts
	queue     queue // nil: empty
	cursors   []retainedStream
	received  []uint16 // identifiers of QoS 2 messages received and not released (MQTT-4.3.3-10)
	will      *will
	willTimer *time.Timer
	endTimer  *time.Timer
	ended     bool
	flaps     flaps
	barred    atomic.Bool // the hub wants the client gone
}

// retainedStream is what is left to send of the retained values of one SUBSCRIBE.
type retainedStream struct {
	cursor *bridge.RetainedCursor
	sub    *bridge.Subscription
	ids    []uint32
	topic  bridge.Topic // taken from the cursor and not sent yet; empty: none
}

// persistent reports whether the session outlives its connection; s.mu is held.
func (s *session) persistent() bool { return s.expiry > 0 }

// Deliver is the session's side of the routing table (see bridge.Sink): it takes the message onto the connection, into the
// queue, or drops it.
func (s *session) Deliver(d *bridge.Delivery) bridge.Outcome {
	if d.QoS == 0 && !s.backlog.Load() {
		c := s.live.Load()
		if c == nil {
			return offlineQoS0(d)
		}
		return c.deliverQoS0(d)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.live.Load()
	if d.QoS == 0 {
		if c == nil {
			return offlineQoS0(d)
		}
		if s.queueEmpty() && !s.lined() {
			return c.deliverQoS0(d)
		}
		// Behind an older message of perhaps the same publisher and topic.
		if d.LiveOnly {
			return bridge.NotNow
		}
		return s.enqueue(d)
	}
	if c != nil && s.queueEmpty() && s.mayFly(c) && (s.resend >= s.window.n || s.stores(d)) {
		o, ok := c.deliverAcked(d, s)
		if ok {
			return o
		}
		if !d.LiveOnly {
			c.expectRoom(d.Batch) // no acknowledgement may be due that would call pump
		}
	}
	switch {
	case d.LiveOnly, d.Connected && c == nil:
		return bridge.NotNow
	case s.ended: // the publisher found the subscription before it was removed
		return d.Drop(bridge.DropSessionEnded)
	}
	return s.enqueue(d)
}

// lined reports whether messages are lined up in the window that were never sent: they wait for the store; s.mu is held.
func (s *session) lined() bool { return s.resend < s.window.n && s.window.at(s.window.n-1).fresh }

func offlineQoS0(d *bridge.Delivery) bridge.Outcome {
	if d.LiveOnly || d.Connected {
		return bridge.NotNow
	}
	return d.Drop(bridge.DropOffline)
}

// Forecast says what Deliver would do, for explain.
func (s *session) Forecast(m *bridge.Message, _ *bridge.Subscription, qos bridge.QoS) (bridge.Outcome, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.live.Load()
	n, size := s.queueSize()
	switch {
	case c == nil && qos == 0:
		return bridge.Dropped, bridge.DropOffline.String()
	case c != nil && c.maxPacket != 0 && m.Size() > c.maxPacket:
		return bridge.Dropped, bridge.DropTooLarge.String()
	case n > 0 || c == nil || qos > 0 && !s.hasCredit(c):
		l := s.srv.limits.Load()
		if n >= l.QueueMessages || size+m.Size() > l.QueueBytes {
			return bridge.Queued, "the queue is full: the oldest message is dropped for it"
		}
		return bridge.Queued, "behind others or offline"
	}
	return bridge.Delivered, ""
}

// hasCredit reports whether one more QoS 1 or 2 message may be under way, behind those that are to be sent before it; s.mu is
// held.
func (s *session) hasCredit(c *conn) bool {
	return s.sent+s.window.n-s.resend < c.sendMax && s.window.n < spanLimit(c.sendMax)
}

func (s *session) queueEmpty() bool {
	n, _ := s.queueSize()
	return n == 0
}

func (s *session) queueSize() (messages, bytes int) {
	if s.queue == nil {
		return 0, 0
	}
	return s.queue.size()
}

// enqueue keeps a message for later. A full queue drops its oldest messages for it; s.mu is held.
func (s *session) enqueue(d *bridge.Delivery) bridge.Outcome {
	q := keep(d)
	l := s.srv.limits.Load()
	size := q.msg.Size()
	if size > l.QueueBytes {
		return d.Drop(bridge.DropQueueFull)
	}
	if s.queue == nil {
		s.queue = s.newQueue()
	}
	for range maxDrops { // where a limit was lowered, the next messages go on
		if n, bytes := s.queue.size(); n == 0 || n < l.QueueMessages && bytes+size <= l.QueueBytes {
			break
		}
		if !s.drop(bridge.DropQueueFull) {
			return d.Drop(bridge.DropFailed)
		}
	}
	if s.stores(d) {
		q.receipt = s.store(&q, 0, d.Body(), d.Durability())
		d.Later(q.receipt)
		s.await(q.receipt)
	} else {
		q.position = s.next
		s.next++
	}
	s.queue.push(q)
	s.srv.counters.Queued.Add(1)
	s.srv.counters.QueuedBytes.Add(int64(size))
	s.backlog.Store(true)
	return bridge.Queued
}

// maxDrops bounds how many messages are dropped while the session is locked.
const maxDrops = 1024

// keep makes of a delivery what can wait.
func keep(d *bridge.Delivery) queued {
	q := queued{msg: d.Message.Keep(), qos: d.QoS, retain: d.Retain}
	if len(d.Identifiers) > 0 {
		q.ids = append(q.ids, d.Identifiers...)
	}
	if d.Subscription.Shared() {
		q.shared = d.Subscription.Filter
	}
	return q
}

func (s *session) newQueue() queue {
	if s.number == 0 {
		return &memoryQueue{}
	}
	return &storedQueue{store: s.srv.store, number: s.number, log: s.srv.log}
}

// pop takes the oldest message, which is q, out of the queue, but not out of the store; s.mu is held.
func (s *session) pop(q *queued) {
	s.srv.counters.Queued.Add(-1)
	s.srv.counters.QueuedBytes.Add(-int64(q.msg.Size()))
	s.queue.pop()
}

// drop removes the oldest queued message and counts why; s.mu is held. It reports false where it cannot be read.
func (s *session) drop(r bridge.DropReason) bool {
	q, ok := s.queue.front()
	if !ok {
		return false
	}
	s.pop(&q)
	s.unstore(&q, 0)
	s.srv.counters.Dropped[r].Add(1)
	return true
}

// pump sends what waits, as far as window and connection have room: first what an earlier connection left
// unacknowledged, then the queue, then retained values of new subscriptions; s.mu is held. It is called when a connection
// takes the session over, when an acknowledgement makes room, when the output has been drained and after SUBSCRIBE.
// It reports false where the output shall call again when it has been drained.
func (s *session) pump(b *bridge.Batch) (roomy bool) {
	c := s.live.Load()
	if c == nil {
		return true
	}
	for {
		roomy = s.pumpWindow(b, c) && s.pumpQueue(b, c) && s.pumpRetained(b, c)
		// What queue and retained values have put behind others, or behind a commit, may be due already.
		if lined := s.resend; !roomy || lined == s.window.n {
			break
		} else if roomy = s.pumpWindow(b, c); !roomy || s.resend == lined {
			break
		}
	}
	s.backlog.Store(s.resend < s.window.n || !s.queueEmpty())
	c.out.mu.Lock()
	c.out.waiting = !roomy
	c.out.mu.Unlock()
	if !roomy {
		b.Touch(c) // whoever flushed meanwhile has not seen that more waits
	}
	return roomy
}

// pumpBytes is how much of what waits is encoded ahead of the socket, where the limit on unsent bytes is not less.
const pumpBytes = 64 << 10

func (c *conn) pumpLimit() int { return min(pumpBytes, c.out.limit) }

// The pumps report false where the connection's buffer has no room: the rest goes when it is drained.

func (s *session) pumpWindow(b *bridge.Batch, c *conn) bool {
	for s.resend < s.window.n && s.sent < c.sendMax {
		k := s.resend
		f := s.window.at(k)
		if !s.srv.synced(f.receipt) && !s.await(f.receipt) {
			return true
		}
		switch f.state {
		case flightSent:
			if f.msg == nil || f.msg.Expired(b.Now) && (f.qos == 1 || f.fresh) {
				// Not sent yet on this connection, so it may still be left out (MQTT-3.3.2-5).
				s.srv.counters.Dropped[bridge.DropExpired].Add(1)
				s.complete(k)
				continue
			}
			switch c.sendOwn(b, f.msg, f.qos, f.retain, !f.fresh, f.ids, s.window.id(k), c.pumpLimit()) {
			case noRoom:
				return false
			case tooLarge:
				s.srv.counters.Dropped[bridge.DropTooLarge].Add(1)
				s.complete(k)
				continue
			}
			if f.fresh {
				f.fresh = false
				s.srv.counters.MessagesOut[f.qos].Add(1)
			}
		case flightReleased:
			if !c.sendAck(b, tPubrel<<4|2, s.window.id(k), codeSuccess, "") {
				return false
			}
		default:
			s.resend++
			continue
		}
		s.resend++
		s.sent++
	}
	return true
}

// complete ends the flight at place k; s.mu is held.
func (s *session) complete(k int) {
	s.unstore(&s.window.at(k).queued, s.window.id(k))
	moved := s.window.done(k)
	s.resend = max(0, s.resend-moved)
	s.srv.counters.Inflight.Add(-1)
}

func (s *session) pumpQueue(b *bridge.Batch, c *conn) bool {
	if s.queue == nil {
		return true
	}
	for drops := 0; ; {
		q, ok := s.queue.front()
		if !ok {
			if s.queueEmpty() {
				s.queue = nil
			}
			return true
		}
		if q.msg.Expired(b.Now) {
			s.drop(bridge.DropExpired)
			if drops++; drops == maxDrops {
				return false
			}
			continue
		}
		if q.qos > 0 && !s.mayFly(c) {
			return true
		}
		if waits := s.resend < s.window.n; q.size != 0 && (waits || q.qos == 2) {
			s.pop(&q)
			s.line(q)
			continue
		} else if waits {
			return true
		}
		switch s.sendQueued(b, c, q) {
		case noRoom:
			return false
		case tooLarge:
			s.drop(bridge.DropTooLarge)
		default:
			s.pop(&q)
		}
	}
}

// line gives a stored message the next identifier and a place in the window behind others that are to be sent before. A QoS 2
// message is not sent before its identifier is kept: after a crash it must not come again under another; s.mu is held.
func (s *session) line(q queued) {
	var r bridge.Receipt
	id := s.window.next()
	if q.size != 0 {
		r = s.srv.store.Sent(s.number, q.position, id)
	} else {
		r = s.store(&q, id, &bridge.Body{Sole: true}, s.srv.hub.Durability(q.msg.Topic))
	}
	s.enlist(q, r)
}

// enlist puts a stored message at the end of the window, to be sent when what is before it has been, and in QoS 2 not before
// r is kept; s.mu is held.
func (s *session) enlist(q queued, r bridge.Receipt) {
	q.receipt = 0
	if q.qos == 2 {
		q.receipt = r
	}
	s.fly(flight{queued: q, state: flightSent, fresh: true})
	s.srv.counters.Inflight.Add(1)
	s.backlog.Store(true)
}

// sendQueued sends one message that waited, giving it an identifier where its QoS asks for one; s.mu is held.
func (s *session) sendQueued(b *bridge.Batch, c *conn, q queued) sendResult {
	if q.qos == 0 {
		r := c.sendOwn(b, q.msg, 0, q.retain, false, q.ids, 0, c.pumpLimit())
		if r == sent {
			s.srv.counters.MessagesOut[0].Add(1)
		}
		return r
	}
	f := flight{queued: q, state: flightSent}
	f.receipt = 0
	if !s.persistent() && q.shared == "" {
		f.msg, f.ids = nil, nil
	}
	id := s.window.next()
	r := c.sendOwn(b, q.msg, q.qos, q.retain, false, q.ids, id, c.pumpLimit())
	if r == sent {
		if q.size != 0 {
			s.srv.store.Sent(s.number, q.position, id)
		}
		s.fly(f)
		s.resend = s.window.n
		s.sent++
		s.srv.counters.Inflight.Add(1)
		s.srv.counters.MessagesOut[q.qos].Add(1)
	}
	return r
}

// pumpRetained streams the retained values of new subscriptions. Each value is read while s.mu is held, so that it is at
// least as new as every live message that was delivered before. It waits for the queue: what is queued is older.
func (s *session) pumpRetained(b *bridge.Batch, c *conn) bool {
	looks := maxLooks
	for len(s.cursors) > 0 {
		if !s.queueEmpty() || s.resend < s.window.n && !s.stored() {
			return true
		}
		r := &s.cursors[0]
		var m *bridge.Message
		if r.topic != "" {
			// There was no room for it the last time; it may have changed since.
			if m = s.client.RetainedValue(r.topic); m == nil {
				r.topic = ""
				continue
			}
		} else if m = r.cursor.NextWithin(&looks); m == nil {
			if looks <= 0 {
				return false
			}
			s.cursors[0] = retainedStream{}
			if s.cursors = s.cursors[1:]; len(s.cursors) == 0 {
				s.cursors = nil
			}
			continue
		}
		r.topic = m.Topic
		if m.Expired(b.Now) || !s.client.MayRead(m.Topic) {
			r.topic = ""
			continue
		}
		q := queued{msg: m, qos: min(m.QoS, r.sub.Options.QoS), retain: true, ids: r.ids}
		if q.qos > 0 && !s.mayFly(c) {
			return true
		}
		if q.qos > 0 && s.stored() && s.srv.hub.Durability(m.Topic) != bridge.Memory {
			s.line(q)
			r.topic = ""
			continue
		}
		if s.resend < s.window.n {
			return true
		}
		switch s.sendQueued(b, c, q) {
		case noRoom:
			return false
		case tooLarge:
			s.srv.counters.Dropped[bridge.DropTooLarge].Add(1)
		}
		r.topic = ""
	}
	return true
}

// maxLooks bounds how many retained values, sent or not, are looked at while the session is locked: whoever has a message for
// it waits meanwhile, and a filter may lead past a million values that it does not match.
const maxLooks = 4096

// release removes what the session holds, hands shared messages that were not acknowledged to other members of their
// groups, and detaches the client. Called once, when the session ends; it is gone for good when the receipt is kept.
func (s *session) release(b *bridge.Batch) (gone bridge.Receipt) {
	s.mu.Lock()
	var give []queued
	for k := range s.window.n {
		// A QoS 2 message that was sent must reach nobody else (MQTT-4.8.2-5).
		if f := s.window.at(k); f.state == flightSent && f.shared != "" && (f.qos == 1 || f.fresh) {
			give = append(give, f.queued)
		}
	}
	s.srv.counters.Inflight.Add(-int64(s.window.open))
	q := s.queue
	s.window = window{}
	s.queue, s.cursors, s.received, s.ended = nil, nil, nil, true
	s.backlog.Store(false)
	s.mu.Unlock()

	give = append(give, s.empty(q)...) // nobody else has the queue any more
	s.client.Close()
	for i := range give {
		s.srv.contain("giving a shared message to another member", func() {
			release := s.srv.hold() // after a crash one of the two has it
			defer release()
			s.srv.hub.Redeliver(b, give[i].shared, give[i].msg, s.client)
			s.unstore(&give[i], 1)
		})
	}
	if s.number != 0 {
		gone = s.srv.store.EndSession(s.number)
	}
	return gone
}

// empty drops what was queued and returns the messages of shared subscriptions, which other members shall have. A stored queue
// is only read where there are such subscriptions: the store removes it as a whole.
func (s *session) empty(q queue) (shared []queued) {
	if q == nil {
		return nil
	}
	n, bytes := q.size()
	if _, stored := q.(*storedQueue); !stored || s.hasShared() {
		for {
			m, ok := q.front()
			if !ok {
				break
			}
			q.pop()
			if m.shared != "" {
				shared = append(shared, m)
			}
		}
	}
	s.srv.counters.Queued.Add(-int64(n))
	s.srv.counters.QueuedBytes.Add(-int64(bytes))
	s.srv.counters.Dropped[bridge.DropSessionEnded].Add(uint64(n - len(shared)))
	return shared
}

func (s *session) hasShared() bool {
	for _, sub := range s.client.Subscriptions() {
		if sub.Shared() {
			return true
		}
	}
	return false
}
