package store

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/isthmus-iot/isthmus/bridge"
)

// Policy says what a named queue does with a message for which it has no room.
type Policy uint8

// The policies.
const (
	DropOldest Policy = iota // removes the oldest, until there is room
	DropNewest               // does not take the message
	LastValue                // has one message per topic, the newest; where that is too many, it removes the oldest
	Refuse                   // does not take the message, and says so
)

var policyNames = [...]string{"drop-oldest", "drop-newest", "last-value", "refuse"}

// String is the name in the configuration.
func (p Policy) String() string { return policyNames[p] }

// QueueLimits says what a named queue may hold. Zero: no limit.
type QueueLimits struct {
	Bytes    int64 // by bridge.Message.Size
	Messages int
	Age      time.Duration // since the message entered
	Overflow Policy
}

// QueueDrops counts messages that a named queue has dropped since it was opened, by reason.
type QueueDrops struct {
	Overflow uint64 // there was no room
	Replaced uint64 // by a newer one of the same topic
	Expired  uint64 // by the message's own expiry
	Aged     uint64 // by the limit of the queue
}

// ErrQueueGone is the error of a queue that was deleted.
var ErrQueueGone = errors.New("queue is deleted")

// Queue is a named queue: one that belongs to no session, for example a link's to another broker. Its entries are like those of
// sessions, under a number of its own. Its methods may be called from any goroutine.
//
// In memory it has only what the database does not show yet, the entries under way, and for LastValue a hash of each topic.
type Queue struct {
	store  *Store
	name   string
	number uint64

	mu       sync.Mutex
	limits   QueueLimits
	gone     bool
	head     uint64 // no entry is before
	next     uint64
	messages int
	bytes    int64
	drops    QueueDrops
	tail     []queueItem                        // appended, by position, and maybe not committed
	removed  map[uint64]bridge.Receipt          // removed, and maybe the database shows it yet
	peeked   map[uint64]queueItem               // given out and not acknowledged
	topics   map[[topicHashSize]byte]*queueItem // LastValue
}

// queueItem is what must be known of an entry to remove it.
type queueItem struct {
	position uint64
	receipt  bridge.Receipt
	stored   uint32 // what the entry takes
	size     int    // of the message
	topic    [topicHashSize]byte
}

const topicHashSize = 16

// queues are the named queues that are open.
type queues struct {
	mu   sync.Mutex
	open map[string]*Queue
	gone map[string]bridge.Receipt // the last that were deleted
}

func (q *queues) init() {
	q.open = map[string]*Queue{}
	q.gone = map[string]bridge.Receipt{}
}

const queueRecordSize = 1 + 8 + 8 + 8 + 8 + 1

func appendQueueRecord(b []byte, number uint64, l QueueLimits) []byte {
	b = append(b, entryVersion)
	b = binary.BigEndian.AppendUint64(b, number)
	b = binary.BigEndian.AppendUint64(b, uint64(l.Bytes))
	b = binary.BigEndian.AppendUint64(b, uint64(l.Messages))
	b = binary.BigEndian.AppendUint64(b, uint64(l.Age))
	return append(b, byte(l.Overflow))
}

func readQueueRecord(b []byte) (number uint64, l QueueLimits, err error) {
	r := reader{rest: b}
	if len(b) != queueRecordSize || r.byte() != entryVersion {
		return 0, l, errRecord
	}
	number = r.uint64()
	l.Bytes, l.Messages, l.Age, l.Overflow = int64(r.uint64()), int(r.uint64()), time.Duration(r.uint64()), Policy(r.byte())
	if l.Overflow > Refuse {
		return 0, l, errRecord
	}
	return number, l, nil
}

// OpenQueue opens the queue of a name, and makes one where there is none. What is in it is kept to the limits, which may differ
// from those of before; an open queue gets them too. It is called after LoadSessions.
func (s *Store) OpenQueue(name string, l QueueLimits) (*Queue, error) {
	s.queues.mu.Lock()
	defer s.queues.mu.Unlock()
	q := s.queues.open[name]
	if q == nil {
		if r, is := s.queues.gone[name]; is { // the database may show the old one
			if err := s.waitSynced(s.context, r); err != nil {
				return nil, err
			}
			delete(s.queues.gone, name)
		}
		q = &Queue{store: s, name: name, removed: map[uint64]bridge.Receipt{}, peeked: map[uint64]queueItem{}}
		if err := q.find(); err != nil {
			return nil, fmt.Errorf("opening queue %q: %w", name, err)
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.limits = l
	if err := q.index(); err != nil {
		return nil, fmt.Errorf("opening queue %q: %w", name, err)
	}
	if l.Overflow == DropOldest || l.Overflow == LastValue {
		if err := q.shrink(0); err != nil {
			return nil, fmt.Errorf("opening queue %q: %w", name, err)
		}
	}
	key, value := appendTextKey(nil, kindQueue, name), appendQueueRecord(nil, q.number, l)
	s.append(s.durability, func(b *pebble.Batch) { b.Set(key, value, nil) })
	s.queues.open[name] = q
	return q, nil
}

// find finds the number of a queue that was kept, or gives it one.
func (q *Queue) find() error {
	found := false
	err := q.store.read(func(db *pebble.DB) (err error) {
		found, err = get(db, appendTextKey(nil, kindQueue, q.name), func(v []byte) (err error) {
			q.number, _, err = readQueueRecord(v)
			return err
		})
		return err
	})
	if err == nil && !found {
		q.number = q.store.NewSession()
	}
	return err
}

// index counts what is in the queue, and knows topics if it must. For an open queue it only makes sure of the topics.
func (q *Queue) index() error {
	if q.limits.Overflow != LastValue {
		q.topics = nil
	}
	if q.next != 0 && (q.limits.Overflow != LastValue || q.topics != nil) {
		return nil
	}
	if q.next != 0 { // an open queue that becomes one of last values: the database must show all of it
		if err := q.store.waitSynced(q.store.context, q.store.pendingReceipt()); err != nil {
			return err
		}
	}
	q.settle()
	q.head, q.messages, q.bytes, q.next = math.MaxUint64, 0, 0, max(q.next, 1)
	if q.limits.Overflow == LastValue {
		q.topics = map[[topicHashSize]byte]*queueItem{}
	}
	var older []queueItem // of a topic of which there is a newer one
	err := q.scan(0, func(i queueItem, e *entry) error {
		if q.topics != nil {
			m, err := decodeMessage(e.message)
			if err != nil {
				return err
			}
			i.topic = hashTopic(m.Topic)
			if old := q.topics[i.topic]; old != nil {
				older = append(older, *old)
			}
			q.topics[i.topic] = &i
		}
		q.count(i)
		q.head = min(q.head, i.position)
		q.next = i.position + 1
		return nil
	})
	q.head = min(q.head, q.next)
	for _, i := range older {
		q.remove(i)
		q.drops.Replaced++
	}
	return err
}

func hashTopic(t bridge.Topic) (h [topicHashSize]byte) {
	sum := sha256.Sum256([]byte(t))
	copy(h[:], sum[:])
	return h
}

func (q *Queue) count(i queueItem) {
	q.messages++
	q.bytes += int64(i.size)
}

// scan goes through the entries that the database shows and that are not removed, from a position on.
func (q *Queue) scan(from uint64, f func(i queueItem, e *entry) error) error {
	lower, upper := positionKey(kindEntry, q.number, from), numberKey(kindEntry, q.number+1)
	return q.store.read(func(db *pebble.DB) error {
		return scan(db, lower[:], upper[:], func(key, value []byte) error {
			position, ok := positionOf(key)
			e, err := readEntry(value)
			if err != nil || !ok || e.body != 0 {
				return damaged(key, errRecord)
			}
			if _, is := q.removed[position]; is {
				return nil
			}
			return f(queueItem{position: position, stored: e.stored, size: e.size}, &e)
		})
	})
}

// settle forgets what the database shows by now.
func (q *Queue) settle() {
	synced := q.store.Synced()
	n := 0
	for n < len(q.tail) && q.tail[n].receipt <= synced {
		n++
	}
	q.tail = q.tail[n:]
	if len(q.tail) == 0 {
		q.tail = nil
	}
	for p, r := range q.removed {
		if r <= synced {
			delete(q.removed, p)
		}
	}
}

// settleEvery is how much is appended or removed between two calls of settle.
const settleEvery = 256

func (q *Queue) maybeSettle() {
	if len(q.tail)+len(q.removed) >= settleEvery && (len(q.tail)+len(q.removed))%settleEvery == 0 {
		q.settle()
	}
}

// Append appends m, which may be borrowed. Where there is no room, what happens is the queue's policy: the error carries
// [bridge.QuotaExceeded] with Refuse, and a message that is dropped has the zero Receipt.
func (q *Queue) Append(m *bridge.Message, d bridge.Durability) (bridge.Receipt, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gone {
		return 0, ErrQueueGone
	}
	size := m.Size()
	var topic [topicHashSize]byte
	var old *queueItem
	if q.topics != nil {
		topic = hashTopic(m.Topic)
		old = q.topics[topic]
	}
	full := q.store.Full()
	switch fits := q.fits(1, size) && !full; q.limits.Overflow {
	case Refuse:
		if !fits {
			return 0, bridge.Refuse(bridge.QuotaExceeded, fmt.Sprintf("queue %s is full", q.name))
		}
	case DropNewest:
		if !fits {
			q.drops.Overflow++
			return 0, nil
		}
	default:
		if q.limits.Bytes > 0 && int64(size) > q.limits.Bytes {
			q.drops.Overflow++
			return 0, nil
		}
	}
	k := bridge.Kept{Position: q.next, Message: m, QoS: m.QoS, Retain: m.Retain}
	r := q.store.Push(q.number, &k, &bridge.Body{Sole: true}, d)
	i := queueItem{position: q.next, receipt: r, stored: k.Size, size: size, topic: topic}
	q.next++
	q.count(i)
	q.tail = append(q.tail, i)
	q.maybeSettle()
	// What makes room is removed after the message is there: a crash between the two leaves one too many, which OpenQueue
	// removes, and not one too few.
	if q.topics != nil {
		q.topics[topic] = &i
	}
	want := 0
	if full {
		want = size
	}
	if old != nil {
		q.remove(*old)
		q.drops.Replaced++
		want -= old.size
	}
	if err := q.shrink(want); err != nil {
		return r, fmt.Errorf("queue %s: %w", q.name, err)
	}
	return r, nil
}

// fits reports whether there is room for more.
func (q *Queue) fits(messages, size int) bool {
	return (q.limits.Messages <= 0 || q.messages+messages <= q.limits.Messages) &&
		(q.limits.Bytes <= 0 || q.bytes+int64(size) <= q.limits.Bytes)
}

// shrink removes the oldest entries, but not the newest, until the queue is within its limits and so many bytes are removed.
func (q *Queue) shrink(want int) error {
	for q.messages > 1 && (want > 0 || !q.fits(0, 0)) {
		i, err := q.oldest()
		if err != nil {
			return err
		}
		want -= i.size
		q.remove(i)
		q.drops.Overflow++
	}
	return nil
}

// oldest finds the first entry. There is one.
func (q *Queue) oldest() (first queueItem, err error) {
	found := false
	err = q.scan(q.head, func(i queueItem, e *entry) error {
		first, found = i, true
		if q.topics == nil {
			return errStop
		}
		m, err := decodeMessage(e.message)
		if err != nil {
			return err
		}
		first.topic = hashTopic(m.Topic)
		return errStop
	})
	if err != nil {
		return first, err
	}
	if found {
		q.head = first.position // what is before need not be looked at again
		return first, nil
	}
	for _, i := range q.tail {
		if _, is := q.removed[i.position]; !is && i.position >= q.head {
			return i, nil
		}
	}
	return first, errors.New("an entry is missing")
}

// remove removes an entry that is there.
func (q *Queue) remove(i queueItem) bridge.Receipt {
	r := q.store.Remove(q.number, &bridge.Kept{Position: i.position, Size: i.stored})
	q.removed[i.position] = r
	q.messages--
	q.bytes -= int64(i.size)
	delete(q.peeked, i.position)
	if q.topics != nil {
		if at := q.topics[i.topic]; at != nil && at.position == i.position {
			delete(q.topics, i.topic)
		}
	}
	if i.position == q.head {
		q.head++
	}
	q.maybeSettle()
	return r
}

// Peek reads the oldest messages that are committed, at most max, and leaves them in the queue until [Queue.Ack]. What has
// expired is dropped.
func (q *Queue) Peek(max int) ([]bridge.Kept, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gone {
		return nil, ErrQueueGone
	}
	q.settle()
	now := time.Now().UnixNano()
	var list []bridge.Kept
	var late []queueItem
	first := uint64(math.MaxUint64)
	err := q.scan(q.head, func(i queueItem, e *entry) error {
		if len(list) >= max {
			return errStop
		}
		first = min(first, i.position)
		m, err := decodeMessage(e.message)
		if err != nil {
			return err
		}
		if q.topics != nil {
			i.topic = hashTopic(m.Topic)
		}
		switch {
		case m.Expired(now):
			q.drops.Expired++
			late = append(late, i)
		case q.limits.Age > 0 && now-m.Time >= int64(q.limits.Age):
			q.drops.Aged++
			late = append(late, i)
		default:
			k := e.kept(i.position)
			k.Message = m
			q.peeked[i.position] = i
			list = append(list, k)
		}
		return nil
	})
	if first != math.MaxUint64 {
		q.head = first
	}
	for _, i := range late {
		q.remove(i)
	}
	if err != nil {
		return nil, fmt.Errorf("queue %s: %w", q.name, err)
	}
	return list, nil
}

// Ack removes a message that Peek gave out. One that is not there any more is passed over.
func (q *Queue) Ack(position uint64) bridge.Receipt {
	q.mu.Lock()
	defer q.mu.Unlock()
	i, ok := q.peeked[position]
	if !ok || q.gone {
		return 0
	}
	return q.remove(i)
}

// Len is how many messages are in the queue.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.messages
}

// Bytes is how many bytes these have, by [bridge.Message.Size].
func (q *Queue) Bytes() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes
}

// Drops counts what was dropped.
func (q *Queue) Drops() QueueDrops {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.drops
}

// DeleteQueue removes a queue and all that is in it. The space comes back in the background.
func (s *Store) DeleteQueue(name string) (bridge.Receipt, error) {
	s.queues.mu.Lock()
	defer s.queues.mu.Unlock()
	q := s.queues.open[name]
	if q == nil {
		q = &Queue{store: s, name: name}
		if err := q.find(); err != nil {
			return 0, fmt.Errorf("deleting queue %q: %w", name, err)
		}
	}
	q.mu.Lock()
	q.gone = true
	q.mu.Unlock()
	delete(s.queues.open, name)
	key, ended := appendTextKey(nil, kindQueue, name), numberKey(kindEnded, q.number)
	r := s.append(s.durability, func(b *pebble.Batch) {
		b.Set(ended[:], nil, nil)
		b.Delete(key, nil)
	})
	s.sweeper.add(q.number, r)
	s.queues.gone[name] = r
	return r, nil
}

// queueNumbers are the numbers of all named queues that are kept.
func queueNumbers(db *pebble.DB) (numbers map[uint64]string, err error) {
	numbers = map[uint64]string{}
	err = scan(db, []byte{kindQueue}, []byte{kindQueue + 1}, func(key, value []byte) error {
		number, _, err := readQueueRecord(value)
		if err != nil {
			return damaged(key, err)
		}
		numbers[number] = string(key[1:])
		return nil
	})
	return numbers, err
}
