package store

import (
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/isthmus-iot/isthmus/bridge"
)

// NewSession gives out the number of a new session. It is no other session's, nor one's whose records are still being removed.
func (s *Store) NewSession() (number uint64) { return s.lastSession.Add(1) }

// SaveSession keeps the record of a session in place of the one before.
func (s *Store) SaveSession(number uint64, record []byte) bridge.Receipt {
	key := numberKey(kindSession, number)
	return s.append(s.durability, func(b *pebble.Batch) { b.Set(key[:], record, nil) })
}

// EndSession removes a session and all that is kept of it. It takes effect at once; the space comes back in the background, also
// after a restart. Nothing may be appended for the session any more.
func (s *Store) EndSession(number uint64) bridge.Receipt {
	session, ended := numberKey(kindSession, number), numberKey(kindEnded, number)
	r := s.append(s.durability, func(b *pebble.Batch) {
		b.Set(ended[:], nil, nil)
		b.Delete(session[:], nil)
	})
	s.sweeper.add(number, r)
	return r
}

// SaveSubscription keeps the record of a subscription in place of the one before.
func (s *Store) SaveSubscription(number uint64, filter string, record []byte) bridge.Receipt {
	buf := getBuffer()
	defer putBuffer(buf)
	*buf = appendSubscriptionKey(*buf, number, filter)
	return s.append(s.durability, func(b *pebble.Batch) { b.Set(*buf, record, nil) })
}

// RemoveSubscription removes the record of a subscription.
func (s *Store) RemoveSubscription(number uint64, filter string) bridge.Receipt {
	buf := getBuffer()
	defer putBuffer(buf)
	*buf = appendSubscriptionKey(*buf, number, filter)
	return s.append(s.durability, func(b *pebble.Batch) { b.Delete(*buf, nil) })
}

// Push appends k to the queue of a session. No entry of it may have had k's position before. It sets k.Body and k.Size, and
// body.ID if this is the first queue of a message for several: all pushes of one message share body, and are over before
// [Store.EndBody]. k.Message may be borrowed.
func (s *Store) Push(number uint64, k *bridge.Kept, body *bridge.Body, d bridge.Durability) bridge.Receipt {
	// Encoding happens outside the lock, which is everybody's.
	buf := getBuffer()
	defer putBuffer(buf)
	key := positionKey(kindEntry, number, k.Position)
	value := appendEntry(*buf, k, body.Sole)
	k.Body = 0
	if body.Sole {
		value = appendMessage(value, k.Message)
		*buf = value
		k.Size = entrySize(len(value))
		return s.append(d, func(b *pebble.Batch) {
			b.Set(key[:], value, nil)
			s.addEntry(k)
		})
	}
	at := len(value)
	value = append(value, 0, 0, 0, 0, 0, 0, 0, 0)
	end := len(value)
	if body.ID == 0 {
		value = appendMessage(value, k.Message)
	}
	*buf = value
	entry, message := value[:end], value[end:]
	k.Size = entrySize(len(entry))
	return s.append(d, func(b *pebble.Batch) {
		if body.ID == 0 {
			body.ID = s.newBody(b, message)
		}
		s.useBody(body.ID)
		k.Body = body.ID
		binary.BigEndian.PutUint64(entry[at:], body.ID)
		b.Set(key[:], entry, nil)
		s.addEntry(k)
	})
}

func (s *Store) addEntry(k *bridge.Kept) {
	s.space.use(int64(k.Size))
	s.entries.Add(1)
}

// Sent notes the packet identifier that an entry was sent with.
func (s *Store) Sent(number, position uint64, packetID uint16) bridge.Receipt {
	return s.setFlight(number, position, flightSent, packetID)
}

// Released notes that PUBREC has come for an entry.
func (s *Store) Released(number, position uint64, packetID uint16) bridge.Receipt {
	return s.setFlight(number, position, flightReleased, packetID)
}

func (s *Store) setFlight(number, position uint64, state byte, packetID uint16) bridge.Receipt {
	key := positionKey(kindFlight, number, position)
	value := flightRecord(state, packetID)
	return s.append(s.durability, func(b *pebble.Batch) { b.Set(key[:], value[:], nil) })
}

// Remove removes an entry from its session's queue. Of k it needs Position, PacketID, Body and Size as they came from Push, Read
// or LoadSessions; PacketID also as it was given to Sent.
func (s *Store) Remove(number uint64, k *bridge.Kept) bridge.Receipt {
	return s.append(s.durability, func(b *pebble.Batch) { s.remove(b, number, k) })
}

// remove appends the removal of an entry. log.mu is held.
func (s *Store) remove(b *pebble.Batch, number uint64, k *bridge.Kept) {
	// An entry is written once and removed once, which is what SingleDelete is for: the two vanish as soon as they meet.
	key := positionKey(kindEntry, number, k.Position)
	b.SingleDelete(key[:], nil)
	if k.PacketID != 0 || k.Released {
		key[0] = kindFlight
		b.Delete(key[:], nil)
	}
	s.space.use(-int64(k.Size))
	s.entries.Add(-1)
	if k.Body != 0 {
		s.dropBody(b, k.Body)
	}
}

// Read reads entries of a session's queue that are committed, in order: those with from <= position < before, at most max of
// them, and no further than until their messages have maxBytes, by [bridge.Message.Size]; at least one, if there is one.
func (s *Store) Read(number, from, before uint64, max, maxBytes int) (list []bridge.Kept, err error) {
	lower, upper := positionKey(kindEntry, number, from), positionKey(kindEntry, number, before)
	err = s.read(func(db *pebble.DB) error {
		if from >= before || max <= 0 {
			return nil
		}
		return scan(db, lower[:], upper[:], func(key, value []byte) error {
			e, err := readEntry(value)
			position, ok := positionOf(key)
			if err != nil || !ok {
				return damaged(key, errRecord)
			}
			if maxBytes -= e.size; maxBytes < 0 && len(list) > 0 {
				return errStop
			}
			k := e.kept(position)
			if k.Message, err = e.load(db); err != nil {
				return damaged(key, err)
			}
			list = append(list, k)
			if len(list) == max {
				return errStop
			}
			return nil
		})
	})
	if err != nil {
		return nil, fmt.Errorf("reading a queue: %w", err)
	}
	return list, nil
}

// load decodes the message of an entry.
func (e *entry) load(db *pebble.DB) (m *bridge.Message, err error) {
	if e.body == 0 {
		return decodeMessage(e.message)
	}
	key := numberKey(kindBody, e.body)
	found, err := get(db, key[:], func(v []byte) error {
		m, err = decodeMessage(v)
		return err
	})
	if err == nil && !found {
		err = fmt.Errorf("%s: missing", printKey(key[:]))
	}
	return m, err
}

// Receive notes the packet identifier of a QoS 2 message that has come from the client.
func (s *Store) Receive(number uint64, packetID uint16) bridge.Receipt {
	key := receivedKey(number, packetID)
	return s.append(s.durability, func(b *pebble.Batch) { b.Set(key[:], nil, nil) })
}

// Release forgets a packet identifier of [Store.Receive].
func (s *Store) Release(number uint64, packetID uint16) bridge.Receipt {
	key := receivedKey(number, packetID)
	return s.append(s.durability, func(b *pebble.Batch) { b.Delete(key[:], nil) })
}

// buffers are for encoding.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

// bufferKept is how large a buffer may be to be used again.
const bufferKept = 64 << 10

func getBuffer() *[]byte { return buffers.Get().(*[]byte) }

func putBuffer(b *[]byte) {
	if cap(*b) <= bufferKept {
		*b = (*b)[:0]
		buffers.Put(b)
	}
}
