package broker

import (
	"log/slog"

	"github.com/isthmus-iot/isthmus/bridge"
)

// storedQueue is the queue of a stored session. What is in it is on disk; memory holds only the next few to be sent and the
// last ones that no commit has synced yet, which cannot be read from the disk. In between nothing but two numbers is known: a
// million messages cost a session no more than a hundred.
//
//	loaded (next to be sent) → on disk: [head, …) → recent (pushed lately)
//
// Messages that are not to be stored (QoS 0 behind others, durability memory) wait in loose; positions tell their place
// among the others.
type storedQueue struct {
	store  Store
	number uint64
	log    *slog.Logger

	loaded []queued
	head   uint64 // where the entries on disk begin that are neither loaded nor recent
	onDisk int    // how many these are
	recent []queued
	loose  []queued

	messages, bytes int
	complained      bool
}

// What is loaded at a time, and how much of what was pushed lately stays in memory for a connected client.
const (
	loadMessages = 64
	loadBytes    = 256 << 10
	keepRecent   = 64
)

func (q *storedQueue) size() (messages, bytes int) { return q.messages, q.bytes }

func (q *storedQueue) push(m queued) {
	q.messages++
	q.bytes += m.msg.Size()
	if m.receipt == 0 {
		q.loose = append(q.loose, m)
		return
	}
	q.recent = append(q.recent, m)
}

// stored is the oldest stored message, read from the disk where need be; nil: there is none.
func (q *storedQueue) stored() *queued {
	if len(q.loaded) == 0 && q.onDisk > 0 {
		q.load()
	}
	switch {
	case len(q.loaded) > 0:
		return &q.loaded[0]
	case q.onDisk == 0 && len(q.recent) > 0:
		return &q.recent[0]
	}
	return nil
}

func (q *storedQueue) load() {
	before := ^uint64(0)
	if len(q.recent) > 0 {
		before = q.recent[0].position
	}
	entries, err := q.store.Read(q.number, q.head, before, loadMessages, loadBytes)
	if err != nil || len(entries) == 0 {
		// Nothing is sent rather than something left out. A store that has failed has said so itself.
		if q.store.Err() == nil && !q.complained {
			q.complained = true
			q.log.Error("queued messages cannot be read; isthmus store check says what is damaged", "session", q.number, "from", q.head, "missing", q.onDisk, "error", err)
		}
		return
	}
	q.loaded = make([]queued, len(entries))
	for i := range entries {
		q.loaded[i] = fromStore(&entries[i])
	}
	q.onDisk -= len(entries)
	q.head = entries[len(entries)-1].Position + 1
}

func fromStore(k *bridge.Kept) queued {
	return queued{
		msg: k.Message, shared: k.Shared, ids: k.Identifiers, qos: k.QoS, retain: k.Retain,
		position: k.Position, body: k.Body, size: k.Size,
	}
}

func (q *storedQueue) front() (queued, bool) {
	s := q.stored()
	if len(q.loose) > 0 && (s == nil && q.onDisk == 0 || s != nil && q.loose[0].position < s.position) {
		return q.loose[0], true
	}
	if s == nil {
		return queued{}, false
	}
	return *s, true
}

// pop forgets the message that front returned. It stays in the store.
func (q *storedQueue) pop() {
	m, ok := q.front()
	if !ok {
		return
	}
	q.messages--
	q.bytes -= m.msg.Size()
	switch {
	case len(q.loose) > 0 && q.loose[0].position == m.position:
		q.loose = drop(q.loose)
	case len(q.loaded) > 0:
		q.loaded = drop(q.loaded)
	default:
		q.recent = drop(q.recent)
	}
}

// drop removes the first of list.
func drop(list []queued) []queued {
	list[0] = queued{}
	if len(list) == 1 {
		return nil
	}
	return list[1:]
}

// settle leaves to the disk what is synced there. It returns what to wait for before there is more of that.
func (q *storedQueue) settle(synced bridge.Receipt, connected bool) (next bridge.Receipt) {
	stay := 0
	if connected {
		stay = keepRecent
	}
	n := 0
	for len(q.recent)-n > stay && q.recent[n].receipt <= synced {
		n++
	}
	if n > 0 {
		if q.onDisk == 0 {
			q.head = q.recent[0].position
		}
		q.onDisk += n
		q.recent = append([]queued(nil), q.recent[n:]...)
	}
	if len(q.recent) > stay {
		return q.recent[len(q.recent)-1].receipt
	}
	return 0
}

// park gives back the memory of what was loaded, when the client has gone, and takes out what is not kept for it.
func (q *storedQueue) park() (unkept []queued) {
	if len(q.loaded) > 0 {
		q.head = q.loaded[0].position
		q.onDisk += len(q.loaded)
		q.loaded = nil
	}
	kept := q.loose[:0]
	for _, m := range q.loose {
		if m.qos > 0 {
			kept = append(kept, m)
			continue
		}
		unkept = append(unkept, m)
		q.messages--
		q.bytes -= m.msg.Size()
	}
	clear(q.loose[len(kept):])
	q.loose = kept
	return unkept
}
