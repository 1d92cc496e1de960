package bench

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// payloadHeader is what a payload begins with: the publisher's index and the message's number in 4 bytes each, and the time
// of sending in 8.
const payloadHeader = 16

// publisher sends numbered messages to one topic.
type publisher struct {
	*link
	run    *run
	index  int
	copies int // subscribers of each message

	mu   sync.Mutex
	seq  uint32 // messages sent
	buf  []byte
	wake chan struct{} // of the writer, where sending could block the goroutine that has to read; nil: send at once

	delivered atomic.Int64   // messages that every subscriber has
	acked     atomic.Int64   // messages whose handshake is over
	arrivals  []atomic.Int32 // copies received, by number modulo its length
	template  []byte         // one frame
	idAt      int            // of the packet identifier in it; 0: none
	limit     int            // messages that may be unacknowledged
	refused   atomic.Int64
}

// inlineBytes is how much may be in flight for the goroutine of a subscriber to send: it fits into the sockets' buffers, so
// that a broker which does not read before it has written cannot stop the two of them.
const inlineBytes = 64 << 10

func newPublisher(l *link, r *run, index, copies int) *publisher {
	c := r.cfg
	payload := make([]byte, c.Size)
	binary.BigEndian.PutUint32(payload, uint32(index))
	for i := payloadHeader; i < len(payload); i++ {
		payload[i] = byte('a' + i%26)
	}
	p := &publisher{link: l, run: r, index: index, copies: copies}
	p.template = wire.Publish{Topic: r.topic(index), Payload: payload, QoS: c.QoS, ID: 1}.Append(nil, c.Version)
	p.limit = min(l.receiveMaximum, c.Window*2+64)
	if c.QoS > 0 {
		p.idAt = len(p.template) - c.Size - 2
		if c.Version >= wire.V5 {
			p.idAt-- // the empty properties
		}
	}
	if copies > 1 {
		p.arrivals = make([]atomic.Int32, c.Window)
	}
	if c.Window*len(p.template) > inlineBytes {
		p.wake = make(chan struct{}, 1)
	}
	return p
}

// arrived notes one copy of message seq and reports whether it was the last.
func (p *publisher) arrived(seq uint32) bool {
	if p.arrivals == nil {
		return true
	}
	a := &p.arrivals[seq%uint32(len(p.arrivals))]
	if a.Add(1) < int32(p.copies) {
		return false
	}
	a.Store(0) // the message that uses it next is not sent before this one counts as delivered
	return true
}

// credit notes that n messages have reached everyone, and sends what may be sent now.
func (p *publisher) credit(n int64) {
	p.delivered.Add(n)
	p.kick()
}

// kick sends what may be sent, or wakes the writer to do so.
func (p *publisher) kick() {
	switch {
	case p.run.cfg.Mode == Latency:
	case p.wake == nil:
		p.advance()
	default:
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
}

// advance sends as many batches as the window allows.
func (p *publisher) advance() {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := &p.run.cfg
	for !p.run.stopping.Load() {
		room, n := int64(c.Window)-(int64(p.seq)-p.delivered.Load()), int64(c.Batch)
		if c.QoS > 0 {
			n = min(n, int64(p.limit))
			room = min(room, int64(p.limit)-(int64(p.seq)-p.acked.Load()))
		}
		if room < n {
			return
		}
		if err := p.send(int(n), time.Now()); err != nil {
			p.run.fail(fmt.Errorf("publisher %d: %w", p.index, err))
			return
		}
	}
}

// send sends n messages with one write. p.mu is held.
func (p *publisher) send(n int, at time.Time) error {
	p.buf = p.buf[:0]
	sent := uint64(at.Sub(p.run.epoch))
	for range n {
		from := len(p.buf)
		p.buf = append(p.buf, p.template...)
		frame := p.buf[from:]
		if p.idAt > 0 {
			binary.BigEndian.PutUint16(frame[p.idAt:], uint16(p.seq%65535)+1)
		}
		payload := frame[len(frame)-p.run.cfg.Size:]
		binary.BigEndian.PutUint32(payload[4:], p.seq)
		binary.BigEndian.PutUint64(payload[8:], sent)
		p.seq++
	}
	_, err := p.nc.Write(p.buf)
	return err
}

// write is the writer's loop.
func (p *publisher) write() {
	for {
		select {
		case <-p.wake:
			p.advance()
		case <-p.run.done:
			return
		}
	}
}

// read handles acknowledgements until the connection ends.
func (p *publisher) read() error {
	var out []byte
	for {
		acked := int64(0)
		out = out[:0]
		err := p.batch(func(header byte, body []byte) error {
			if len(body) < 2 {
				return p.unexpected(header, body)
			}
			failed := len(body) > 2 && body[2] >= 0x80
			switch wire.Type(header >> 4) {
			case wire.PUBACK, wire.PUBCOMP:
				acked++
			case wire.PUBREC:
				if failed {
					acked++
				} else {
					out = append(out, byte(wire.PUBREL)<<4|2, 2, body[0], body[1])
				}
			default:
				return p.unexpected(header, body)
			}
			if failed {
				p.refused.Add(1)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if len(out) > 0 {
			if _, err := p.nc.Write(out); err != nil {
				return err
			}
		}
		if acked > 0 {
			p.acked.Add(acked)
			p.kick()
		}
	}
}
