package store

import (
	"github.com/cockroachdb/pebble/v2"

	"github.com/isthmus-iot/isthmus/bridge"
)

// A body has a reference for each entry with its number, and one for the delivery until [Store.EndBody]. Only numbers above one
// are kept: most bodies that last have one, and a body without is removed.

// newBody appends a body, which the delivery has a reference to. log.mu is held.
func (s *Store) newBody(b *pebble.Batch, message []byte) (id uint64) {
	s.lastBody++
	id = newBodyID(s.lastBody, numberKeySize+len(message))
	key := numberKey(kindBody, id)
	b.Set(key[:], message, nil)
	s.space.use(bodySize(id))
	return id
}

// useBody adds a reference to a body that has one. log.mu is held.
func (s *Store) useBody(id uint64) {
	s.bodies[id] = max(s.bodies[id], 1) + 1
	s.manyBodies = s.manyBodies || len(s.bodies) > manyBodies
}

// manyBodies is how many references make a map that is not worth keeping when they are gone.
const manyBodies = 4096

// dropBody takes a reference from a body and removes it with the last. log.mu is held.
func (s *Store) dropBody(b *pebble.Batch, id uint64) {
	switch n := s.bodies[id]; {
	case n > 2:
		s.bodies[id] = n - 1
	case n == 2:
		delete(s.bodies, id)
		if s.manyBodies && len(s.bodies) == 0 {
			s.bodies, s.manyBodies = map[uint64]uint32{}, false // a map does not shrink
		}
	default:
		key := numberKey(kindBody, id)
		b.SingleDelete(key[:], nil)
		s.space.use(-bodySize(id))
	}
}

// EndBody says that no further queue will refer to a body; see [bridge.Body].
func (s *Store) EndBody(id uint64) {
	if id == 0 {
		return
	}
	s.append(bridge.Memory, func(b *pebble.Batch) { s.dropBody(b, id) })
}
