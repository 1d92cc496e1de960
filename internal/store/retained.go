package store

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/isthmus-iot/isthmus/bridge"
)

// Retain keeps m, which is not borrowed, as the value of its topic in place of old, which may be nil.
func (s *Store) Retain(m, old *bridge.Message, d bridge.Durability) bridge.Receipt {
	buf := getBuffer()
	defer putBuffer(buf)
	*buf = appendTextKey(*buf, kindRetained, string(m.Topic))
	n := len(*buf)
	*buf = appendMessage(*buf, m)
	key, value := (*buf)[:n], (*buf)[n:]
	grow := int64(len(*buf))
	if old != nil {
		grow -= retainedSize(old)
	}
	return s.append(d, func(b *pebble.Batch) {
		b.Set(key, value, nil)
		s.space.use(grow)
	})
}

// Forget removes old, the value of its topic.
func (s *Store) Forget(old *bridge.Message) bridge.Receipt {
	buf := getBuffer()
	defer putBuffer(buf)
	*buf = appendTextKey(*buf, kindRetained, string(old.Topic))
	return s.append(s.durability, func(b *pebble.Batch) {
		b.Delete(*buf, nil)
		s.space.use(-retainedSize(old))
	})
}

// LoadRetained yields all values that are kept, for a start. What is yielded is the callee's.
func (s *Store) LoadRetained(yield func(*bridge.Message) error) error {
	size := int64(0)
	err := s.read(func(db *pebble.DB) error {
		return scan(db, []byte{kindRetained}, []byte{kindRetained + 1}, func(key, value []byte) error {
			m, err := decodeMessage(value)
			if err != nil {
				return damaged(key, err)
			}
			if string(m.Topic) != string(key[1:]) {
				return damaged(key, fmt.Errorf("%w: it has topic %q", errRecord, m.Topic))
			}
			size += int64(len(key) + len(value))
			return yield(m)
		})
	})
	if err != nil {
		return fmt.Errorf("loading retained values: %w", err)
	}
	s.space.use(size)
	return nil
}
