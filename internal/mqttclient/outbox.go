package mqttclient

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// outbox collects bytes for the connection; one goroutine writes all that is there with one write.
type outbox struct {
	limit int
	sent  atomic.Int64 // time of the last write

	mu      sync.Mutex
	buf     []byte
	spare   []byte
	writing bool
	wake    chan struct{} // holds one token when there is something to write
	drained chan struct{} // closed and replaced when everything has been written
	ended   chan struct{} // closed when nothing will be written any more
}

func newOutbox(limit int) *outbox {
	return &outbox{limit: limit, wake: make(chan struct{}, 1), drained: make(chan struct{}), ended: make(chan struct{})}
}

// put appends a packet, after waiting for room.
func (o *outbox) put(ctx context.Context, c *Client, add func([]byte) []byte) error {
	if err := o.room(ctx, c); err != nil {
		return err
	}
	return o.force(add)
}

// room waits until there is room for a packet.
func (o *outbox) room(ctx context.Context, c *Client) error {
	if err := c.Err(); err != nil {
		return err
	}
	return o.wait(ctx, c, func() bool { return len(o.buf) < o.limit })
}

// flush waits until everything has been written. A server that closes as soon as it has read the last packet may end the
// connection before the writer has come back from writing it: that is no error.
func (o *outbox) flush(ctx context.Context, c *Client) error {
	written := func() bool { return len(o.buf) == 0 && !o.writing }
	err := o.wait(ctx, c, written)
	if err != nil && c.Err() != nil {
		<-o.ended
		o.mu.Lock()
		defer o.mu.Unlock()
		if written() {
			return nil
		}
	}
	return err
}

func (o *outbox) wait(ctx context.Context, c *Client, until func() bool) error {
	for {
		o.mu.Lock()
		ok, drained := until(), o.drained
		o.mu.Unlock()
		if ok {
			return nil
		}
		if err := c.Err(); err != nil {
			return err
		}
		select {
		case <-drained:
		case <-c.done:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// force appends a packet without waiting. Only a peer that sends and does not read can make it fail.
func (o *outbox) force(add func([]byte) []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.buf) > 4*o.limit+1<<20 {
		return ErrSlowPeer
	}
	o.buf = add(o.buf)
	select {
	case o.wake <- struct{}{}:
	default:
	}
	return nil
}

// last makes one attempt to write b behind what is there already, unless a write is going on.
func (o *outbox) last(c *Client, b []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.writing {
		return
	}
	o.buf, b = nil, append(o.buf, b...)
	c.conn.SetWriteDeadline(time.Now().Add(time.Second))
	c.conn.Write(b)
}

// keptBuffer is the size above which an output buffer is not used again.
const keptBuffer = 64 << 10

// run writes until the connection ends.
func (o *outbox) run(c *Client) {
	defer close(o.ended)
	for {
		select {
		case <-c.done:
			return
		case <-o.wake:
		}
		o.mu.Lock()
		b := o.buf
		o.buf, o.spare, o.writing = o.spare[:0], nil, len(b) > 0
		o.mu.Unlock()
		if len(b) > 0 {
			c.conn.SetWriteDeadline(time.Now().Add(c.cfg.Timeout))
			if _, err := c.conn.Write(b); err != nil {
				c.fail(err)
				return
			}
			o.sent.Store(time.Now().UnixNano())
		}
		o.mu.Lock()
		o.writing = false
		if cap(b) <= keptBuffer {
			o.spare = b
		}
		close(o.drained)
		o.drained = make(chan struct{})
		o.mu.Unlock()
	}
}
