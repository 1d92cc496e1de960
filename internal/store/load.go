package store

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/isthmus-iot/isthmus/bridge"
)

// LoadSessions yields all sessions, for a start. It must be called, once, before anything is appended: it also finds out what
// refers to what. What is yielded is the callee's.
func (s *Store) LoadSessions(yield func(*bridge.StoredSession) error) error {
	l := loader{store: s, leftover: map[uint64]bool{}}
	if err := s.read(func(db *pebble.DB) error { return l.load(db, yield) }); err != nil {
		return fmt.Errorf("loading sessions: %w", err)
	}
	l.finish()
	return nil
}

// loader walks the records of all sessions side by side: each kind is in order of the sessions' numbers.
type loader struct {
	store    *Store
	db       *pebble.DB
	cursors  [4]cursor         // of the kinds below
	queues   map[uint64]string // the named queues, by their numbers
	leftover map[uint64]bool   // sessions that are gone and whose records are not all
	bodies   []uint64          // of all entries
	used     int64
	entries  int64
}

// The places of a loader's cursors.
const (
	subscriptions = iota
	entries
	flights
	received
)

var loaderKinds = [...]byte{kindSubscription, kindEntry, kindFlight, kindReceived}

func (l *loader) load(db *pebble.DB, yield func(*bridge.StoredSession) error) (err error) {
	l.db = db
	if l.queues, err = queueNumbers(db); err != nil {
		return err
	}
	defer func() {
		for i := range l.cursors {
			if e := l.cursors[i].close(); err == nil {
				err = e
			}
		}
	}()
	for i, kind := range loaderKinds {
		if err := l.cursors[i].open(db, kind); err != nil {
			return err
		}
	}
	err = scan(db, []byte{kindEnded}, []byte{kindEnded + 1}, func(key, _ []byte) error {
		number, _ := numberOf(key)
		l.leftover[number] = true
		return nil
	})
	if err != nil {
		return err
	}
	err = scan(db, []byte{kindSession}, []byte{kindSession + 1}, func(key, value []byte) error {
		number, ok := numberOf(key)
		if !ok || len(key) != numberKeySize {
			return damaged(key, errRecord)
		}
		if err := l.skip(number); err != nil {
			return err
		}
		session := &bridge.StoredSession{Number: number, Record: slices.Clone(value)}
		if err := l.fill(session); err != nil {
			return err
		}
		return yield(session)
	})
	if err != nil {
		return err
	}
	return l.skip(1<<64 - 1)
}

// skip passes what belongs to no session before the one with number.
func (l *loader) skip(number uint64) error {
	for i := range l.cursors {
		for c := &l.cursors[i]; c.valid && c.number < number; {
			if _, is := l.queues[c.number]; !is {
				l.leftover[c.number] = true
			}
			if i == entries {
				e, err := readEntry(c.value)
				if err != nil {
					return damaged(c.it.Key(), err)
				}
				l.count(&e)
			}
			if err := c.next(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *loader) count(e *entry) {
	l.used += int64(e.stored)
	l.entries++
	if e.body != 0 {
		l.bodies = append(l.bodies, e.body)
	}
}

// fill adds to a session what the cursors have of it.
func (l *loader) fill(s *bridge.StoredSession) error {
	for c := &l.cursors[subscriptions]; c.valid && c.number == s.Number; {
		s.Subscriptions = append(s.Subscriptions, bridge.StoredSubscription{
			Filter: string(c.it.Key()[numberKeySize:]),
			Record: slices.Clone(c.value),
		})
		if err := c.next(); err != nil {
			return err
		}
	}
	if err := l.fillQueue(s); err != nil {
		return err
	}
	for c := &l.cursors[received]; c.valid && c.number == s.Number; {
		if len(c.it.Key()) != receivedKeySize {
			return damaged(c.it.Key(), errRecord)
		}
		s.Received = append(s.Received, binary.BigEndian.Uint16(c.it.Key()[numberKeySize:]))
		if err := c.next(); err != nil {
			return err
		}
	}
	return nil
}

// fillQueue goes through a session's queue and what is in flight of it.
func (l *loader) fillQueue(s *bridge.StoredSession) error {
	c, f := &l.cursors[entries], &l.cursors[flights]
	headed := false
	for c.valid && c.number == s.Number {
		position, ok := positionOf(c.it.Key())
		e, err := readEntry(c.value)
		if err != nil || !ok {
			return damaged(c.it.Key(), errRecord)
		}
		l.count(&e)
		packetID, released, err := f.flight(s.Number, position, &e)
		if err != nil {
			return err
		}
		if packetID == 0 {
			if !headed {
				s.Head, headed = position, true
			}
			s.Messages++
			s.Bytes += e.size
		} else {
			k := e.kept(position)
			k.PacketID, k.Released = packetID, released
			if !released {
				if k.Message, err = e.load(l.db); err != nil {
					return damaged(c.it.Key(), err)
				}
			}
			s.InFlight = append(s.InFlight, k)
		}
		s.Next = position + 1
		if err := c.next(); err != nil {
			return err
		}
	}
	for f.valid && f.number == s.Number {
		if err := f.next(); err != nil {
			return err
		}
	}
	if !headed {
		s.Head = s.Next
	}
	return nil
}

// flight finds what was noted of an entry after it was pushed, with the cursor of flights.
func (f *cursor) flight(number, position uint64, e *entry) (packetID uint16, released bool, err error) {
	for f.valid && f.number == number {
		at, ok := positionOf(f.it.Key())
		if !ok {
			return 0, false, damaged(f.it.Key(), errRecord)
		}
		if at > position {
			break
		}
		if at == position {
			if packetID, released, err = readFlight(f.value); err != nil {
				return 0, false, damaged(f.it.Key(), err)
			}
		}
		if err := f.next(); err != nil {
			return 0, false, err
		}
	}
	if packetID == 0 {
		packetID = e.packetID
	}
	return packetID, released, nil
}

// finish tells the store what was found, and has the sweeper begin.
func (l *loader) finish() {
	s := l.store
	slices.Sort(l.bodies)
	references := map[uint64]uint32{}
	for i := 0; i < len(l.bodies); {
		id, n := l.bodies[i], i
		for i < len(l.bodies) && l.bodies[i] == id {
			i++
		}
		if i-n > 1 {
			references[id] = uint32(i - n)
		}
		l.used += bodySize(id)
	}
	s.log.mu.Lock()
	s.bodies = references
	s.sweeper.before = s.lastBody
	s.log.mu.Unlock()
	s.space.use(l.used)
	s.entries.Add(l.entries)
	for number := range l.leftover {
		s.sweeper.add(number, 0)
	}
	if !s.leaving.Load() {
		s.sweeper.referenced = l.bodies
		s.helpers.Go(s.sweep)
	}
}

// cursor goes through the records of a kind.
type cursor struct {
	it     *pebble.Iterator
	valid  bool
	number uint64 // of the session whose record it is at
	value  []byte
}

func (c *cursor) open(db *pebble.DB, kind byte) (err error) {
	c.it, err = db.NewIter(&pebble.IterOptions{LowerBound: []byte{kind}, UpperBound: []byte{kind + 1}})
	if err != nil {
		return err
	}
	return c.at(c.it.First())
}

func (c *cursor) next() error { return c.at(c.it.Next()) }

func (c *cursor) at(valid bool) (err error) {
	c.valid = valid
	if !valid {
		return c.it.Error()
	}
	var ok bool
	if c.number, ok = numberOf(c.it.Key()); !ok {
		return damaged(c.it.Key(), errRecord)
	}
	c.value, err = c.it.ValueAndErr()
	return err
}

func (c *cursor) close() error {
	if c.it == nil {
		return nil
	}
	return c.it.Close()
}
