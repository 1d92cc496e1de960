package store

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/isthmus-iot/isthmus/bridge"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// eventually waits until ok reports true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// waiter is told of a receipt, on the channel it is.
type waiter chan struct{}

func (w waiter) Stored(*bridge.Batch) { close(w) }

// notify tells waiters.
func notify(list []bridge.Waiter) {
	for _, w := range list {
		w.Stored(nil)
	}
}

// opened is a store with nothing loaded but its sessions.
func opened(t testing.TB, c Config) *Store {
	t.Helper()
	s, _ := loaded(t, c)
	return s
}

// loaded opens a store and loads its sessions. It is closed with the test.
func loaded(t testing.TB, c Config) (*Store, []bridge.StoredSession) {
	t.Helper()
	if c.Dir == "" {
		c.Dir = "store"
		if c.FS == nil {
			c.FS = vfs.NewMem()
		}
	}
	if c.Notify == nil {
		c.Notify = notify
	}
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, sessions(t, s)
}

func sessions(t testing.TB, s *Store) (list []bridge.StoredSession) {
	t.Helper()
	err := s.LoadSessions(func(x *bridge.StoredSession) error {
		list = append(list, *x)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func retained(t testing.TB, s *Store) (list []*bridge.Message) {
	t.Helper()
	err := s.LoadRetained(func(m *bridge.Message) error {
		list = append(list, m)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// wait waits until r is synced.
func wait(t testing.TB, s *Store, r bridge.Receipt) {
	t.Helper()
	w := make(waiter)
	if s.Await(r, w) {
		select {
		case <-w:
		case <-time.After(patience):
			t.Fatal("not told of a receipt")
		}
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	if s.Synced() < r {
		t.Fatalf("synced %d, want %d", s.Synced(), r)
	}
}

func message(topic string, payload string) *bridge.Message {
	return &bridge.Message{Topic: bridge.Topic(topic), Payload: []byte(payload), QoS: 1, Time: 1}
}

// push pushes a message with a body of its own.
func push(s *Store, number, position uint64, m *bridge.Message) (bridge.Kept, bridge.Receipt) {
	k := bridge.Kept{Position: position, Message: m, QoS: m.QoS}
	r := s.Push(number, &k, &bridge.Body{Sole: true}, bridge.Fsync)
	return k, r
}

// keys counts the records in the database by kind.
func keys(t testing.TB, s *Store) map[byte]int {
	t.Helper()
	m := map[byte]int{}
	if err := scan(s.db, nil, nil, func(key, _ []byte) error { m[key[0]]++; return nil }); err != nil {
		t.Fatal(err)
	}
	return m
}

// sink counts what it is told.
type sink struct {
	mu   sync.Mutex
	told int
}

func (c *sink) Stored(*bridge.Batch) {
	c.mu.Lock()
	c.told++
	c.mu.Unlock()
}

func (c *sink) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.told
}

func positions(list []bridge.Kept) (text string) {
	for _, k := range list {
		text += fmt.Sprintf("%d ", k.Position)
	}
	return text
}
