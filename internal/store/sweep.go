package store

import (
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/isthmus-iot/isthmus/bridge"
)

// Records that the sweeper removes before it waits for the disk, and keys of a kind that it removes one by one before it takes
// the range instead: a range costs every reader a little until it is compacted away, and most sessions have few records.
const (
	sweepRecords = 4096
	sweepRange   = 256
)

// sweeper removes what is left of sessions that have ended, in the background.
type sweeper struct {
	mu   sync.Mutex
	list []ended
	wake chan struct{}

	// referenced are the bodies that entries referred to at the start, in order; before is the last body that had been made
	// then.
	referenced []uint64
	before     uint64
}

type ended struct {
	number  uint64
	receipt bridge.Receipt // of its end
}

func (w *sweeper) init() { w.wake = make(chan struct{}, 1) }

func (w *sweeper) add(number uint64, r bridge.Receipt) {
	w.mu.Lock()
	w.list = append(w.list, ended{number, r})
	w.mu.Unlock()
	signal(w.wake)
}

func (w *sweeper) take() []ended {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.list
	w.list = nil
	return list
}

// sweep is the sweeper.
func (s *Store) sweep() {
	ok := s.sweepBodies(s.sweeper.referenced)
	s.sweeper.referenced = nil
	for ok {
		select {
		case <-s.sweeper.wake:
		case <-s.context.Done():
			return
		case <-s.log.down:
			return
		}
		swept := 0
		for _, e := range s.sweeper.take() {
			if s.waitSynced(s.context, e.receipt) != nil || s.Err() != nil {
				return
			}
			n, err := s.sweepSession(e.number)
			if err != nil {
				ok = s.sweepFailed(err)
				break
			}
			if swept += n; swept >= sweepRecords {
				swept = 0
				if s.waitSynced(s.context, s.pendingReceipt()) != nil {
					return
				}
			}
		}
	}
}

// sweepFailed says what went wrong. Sweeping is over until the next start.
func (s *Store) sweepFailed(err error) bool {
	if s.Err() == nil && s.context.Err() == nil {
		s.logger.Error("removing what is left of sessions", "error", err)
	}
	return false
}

// sweepSession removes all records of a session that has ended.
func (s *Store) sweepSession(number uint64) (records int, err error) {
	n, err := s.sweepQueue(number)
	if err != nil {
		return 0, err
	}
	records += n
	for _, kind := range [...]byte{kindSubscription, kindFlight, kindReceived} {
		n, err := s.sweepKind(kind, number)
		if err != nil {
			return 0, err
		}
		records += n
	}
	key := numberKey(kindEnded, number)
	s.append(bridge.OS, func(b *pebble.Batch) { b.Delete(key[:], nil) })
	return records + 1, nil
}

// sweepQueue removes a queue, one entry after the other because of the bodies, and a part at a time.
func (s *Store) sweepQueue(number uint64) (records int, err error) {
	type found struct {
		position uint64
		body     uint64
		size     uint32
	}
	var part []found
	for from := uint64(0); ; from = part[len(part)-1].position + 1 {
		part = part[:0]
		lower, upper := positionKey(kindEntry, number, from), numberKey(kindEntry, number+1)
		err := s.read(func(db *pebble.DB) error {
			return scan(db, lower[:], upper[:], func(key, value []byte) error {
				e, err := readEntry(value)
				if err != nil {
					return damaged(key, err)
				}
				position, _ := positionOf(key)
				part = append(part, found{position, e.body, e.stored})
				if len(part) == sweepRecords {
					return errStop
				}
				return nil
			})
		})
		if err != nil {
			return 0, err
		}
		if len(part) == 0 {
			return records, nil
		}
		r := s.append(bridge.OS, func(b *pebble.Batch) {
			for i := range part {
				s.remove(b, number, &bridge.Kept{Position: part[i].position, Body: part[i].body, Size: part[i].size})
			}
		})
		records += len(part)
		if len(part) < sweepRecords {
			return records, nil
		}
		if err := s.waitSynced(s.context, r); err != nil {
			return 0, err
		}
	}
}

// sweepKind removes the records of a kind that a session has.
func (s *Store) sweepKind(kind byte, number uint64) (records int, err error) {
	var keys [][]byte
	lower, upper := numberKey(kind, number), numberKey(kind, number+1)
	err = s.read(func(db *pebble.DB) error {
		return scan(db, lower[:], upper[:], func(key, _ []byte) error {
			keys = append(keys, slices.Clone(key))
			if len(keys) > sweepRange {
				return errStop
			}
			return nil
		})
	})
	if err != nil || len(keys) == 0 {
		return 0, err
	}
	s.append(bridge.OS, func(b *pebble.Batch) {
		if len(keys) > sweepRange {
			b.DeleteRange(lower[:], upper[:], nil)
			return
		}
		for _, key := range keys {
			b.Delete(key, nil)
		}
	})
	return len(keys), nil
}

// sweepBodies removes bodies that nothing refers to: the process ended while they were being delivered.
func (s *Store) sweepBodies(referenced []uint64) bool {
	upper := numberKey(kindBody, (s.sweeper.before+1)<<bodySizeBits)
	for from, more := uint64(0), true; more; {
		var orphans [][]byte
		seen := 0
		lower := numberKey(kindBody, from)
		more = false
		err := s.read(func(db *pebble.DB) error {
			return scan(db, lower[:], upper[:], func(key, _ []byte) error {
				id, ok := numberOf(key)
				if !ok {
					return damaged(key, errRecord)
				}
				for len(referenced) > 0 && referenced[0] < id {
					referenced = referenced[1:]
				}
				if len(referenced) == 0 || referenced[0] != id {
					orphans = append(orphans, slices.Clone(key))
				}
				from = id + 1
				if seen++; seen == sweepRecords {
					more = true
					return errStop
				}
				return nil
			})
		})
		if err != nil {
			return s.sweepFailed(err)
		}
		if len(orphans) > 0 {
			r := s.append(bridge.OS, func(b *pebble.Batch) {
				for _, key := range orphans {
					b.SingleDelete(key, nil)
				}
			})
			if s.waitSynced(s.context, r) != nil {
				return false
			}
		}
		if s.context.Err() != nil {
			return false
		}
	}
	return true
}
