package broker

import "github.com/isthmus-iot/isthmus/bridge"

// queued is a message that waits for its session's client, for room in its window, or for room in its connection.
type queued struct {
	msg    *bridge.Message // kept
	shared bridge.Filter   // the shared subscription it came by; empty: none
	ids    []uint32
	qos    bridge.QoS
	retain bool

	position uint64         // among the messages of a stored session
	receipt  bridge.Receipt // of the commit that stores it; 0: not stored
	body     uint64         // bridge.Kept.Body
	size     uint32         // bridge.Kept.Size; 0: not stored
}

// queue holds a session's messages in the order of their arrival. The session's lock guards it.
type queue interface {
	// push appends q.
	push(q queued)
	// front is the oldest; ok is false where there is none.
	front() (q queued, ok bool)
	// pop removes the oldest.
	pop()
	// size counts messages and bytes.
	size() (messages, bytes int)
}

// memoryQueue is a queue for sessions that are not kept on disk.
type memoryQueue struct {
	items []queued
	head  int
	bytes int
}

func (m *memoryQueue) push(q queued) {
	m.items = append(m.items, q)
	m.bytes += q.msg.Size()
}

func (m *memoryQueue) front() (queued, bool) {
	if m.head == len(m.items) {
		return queued{}, false
	}
	return m.items[m.head], true
}

func (m *memoryQueue) pop() {
	m.bytes -= m.items[m.head].msg.Size()
	m.items[m.head] = queued{}
	m.head++
	switch {
	case m.head == len(m.items):
		m.items, m.head = nil, 0
	case m.head >= 64 && 2*m.head >= len(m.items):
		n := copy(m.items, m.items[m.head:])
		clear(m.items[n:])
		m.items, m.head = m.items[:n], 0
	}
}

func (m *memoryQueue) size() (messages, bytes int) { return len(m.items) - m.head, m.bytes }
