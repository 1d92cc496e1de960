package mqttclient

import (
	"context"
	"sync"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// Message is a message from the server. It belongs to the receiver.
type Message struct {
	Topic   string
	Payload []byte
	QoS     byte
	Retain  bool
	Dup     bool
	Props   wire.Props // MQTT 5

	client *Client
	ack    *pendingAck
}

// Ack tells the server that the message is kept. Acknowledgements leave in the order in which messages came, so one that is
// missing holds up those behind it. It does nothing for QoS 0, the second time and after the connection has ended: then the
// server sends the message again on the next one.
func (m *Message) Ack() {
	if m.ack == nil {
		return
	}
	if err := m.client.acks.acknowledge(m.client, m.ack); err != nil {
		m.client.fail(err)
	}
}

// Receive waits for the next message. After the connection has ended it returns what had come before, then the error of
// [Client.Err]. It must not be used together with a Handler.
func (c *Client) Receive(ctx context.Context) (*Message, error) {
	m, err := c.in.take(ctx, c)
	if err == nil && !c.cfg.ManualAck {
		m.Ack()
	}
	return m, err
}

// handle feeds the Handler.
func (c *Client) handle() {
	for {
		m, err := c.in.take(context.Background(), c)
		if err != nil {
			return
		}
		c.cfg.Handler(m)
		if !c.cfg.ManualAck {
			m.Ack()
		}
	}
}

// inbox holds the messages that nobody has taken yet.
type inbox struct {
	limit, byteLimit int

	mu    sync.Mutex
	queue []*Message
	bytes int
	came  chan struct{} // holds one token when the queue is not empty
	left  chan struct{} // holds one token when there may be room
}

func newInbox(messages, bytes int) *inbox {
	return &inbox{limit: messages, byteLimit: bytes, came: make(chan struct{}, 1), left: make(chan struct{}, 1)}
}

// full reports whether the reader has to wait.
func (i *inbox) full() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return len(i.queue) >= i.limit || i.bytes >= i.byteLimit
}

// put appends m, after waiting for room. There is one caller, the reader.
func (i *inbox) put(c *Client, m *Message) error {
	for i.full() {
		select {
		case <-i.left:
		case <-c.done:
			return c.Err()
		}
	}
	i.mu.Lock()
	i.queue = append(i.queue, m)
	i.bytes += m.size()
	i.mu.Unlock()
	token(i.came)
	return nil
}

func (i *inbox) take(ctx context.Context, c *Client) (*Message, error) {
	for {
		i.mu.Lock()
		if len(i.queue) > 0 {
			m := i.queue[0]
			i.queue[0] = nil
			i.queue = i.queue[1:]
			i.bytes -= m.size()
			more := len(i.queue) > 0
			i.mu.Unlock()
			token(i.left)
			if more {
				token(i.came) // for another receiver
			}
			return m, nil
		}
		i.mu.Unlock()
		select {
		case <-i.came:
		case <-c.done:
			i.mu.Lock()
			empty := len(i.queue) == 0
			i.mu.Unlock()
			if empty {
				return nil, c.Err()
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func token(to chan struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

// size is what m counts against the queue's limit.
func (m *Message) size() int { return len(m.Topic) + len(m.Payload) + 64*len(m.Props) + 128 }

// ackQueue holds the acknowledgements that are due, in the order of the messages.
type ackQueue struct {
	limit int

	mu  sync.Mutex
	due []*pendingAck
}

type pendingAck struct {
	id   uint16
	qos  byte
	done bool
}

type ackState int

const (
	ackExpected ackState = iota
	ackRepeated
	ackOverLimit
)

// expect notes that m will be acknowledged.
func (q *ackQueue) expect(m *Message, id uint16) ackState {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.due) >= q.limit {
		return ackOverLimit
	}
	if m.Dup {
		for _, a := range q.due {
			if a.id == id {
				return ackRepeated // servers for 3.1 send again on a living connection
			}
		}
	}
	m.ack = &pendingAck{id: id, qos: m.QoS}
	q.due = append(q.due, m.ack)
	return ackExpected
}

// acknowledge sends the acknowledgements that are not held up by an earlier one.
func (q *ackQueue) acknowledge(c *Client, a *pendingAck) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	a.done = true
	for len(q.due) > 0 && q.due[0].done {
		first := q.due[0]
		q.due = q.due[1:]
		p := wire.Ack{Type: wire.PUBACK, ID: first.id}
		if first.qos == 2 {
			p.Type = wire.PUBREC
			c.session.keep(c, first.id)
		}
		if err := c.answer(p); err != nil {
			return err
		}
	}
	return nil
}
