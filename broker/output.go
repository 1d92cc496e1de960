package broker

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
)

// output is what waits to be written to one connection. The idea, measured at a fifth of the CPU of a writer goroutine with
// a channel:
//
// Whoever has something for the peer appends it under a short lock. The one that makes the buffer non-empty registers the
// connection with its batch and flushes it when the batch ends, with one write that does not block. If others append while
// that write runs they register nothing: the flusher looks again before it leaves. Only where the socket is full, or where
// a write may block (TLS), a goroutine writes the rest; it ends when the buffer is empty. The lock is never held across a
// system call, so a peer that stops reading holds up nobody.
type output struct {
	mu      sync.Mutex
	buf     *buffer       // appended and not yet taken for writing; nil: nothing
	unsent  int           // bytes in buf and in the hands of a writer
	writing bool          // somebody is writing and will look at buf again
	parted  bool          // DISCONNECT is appended: nothing may follow it (MQTT-3.14.4-1)
	closing bool          // close when everything is written
	closed  bool          // nothing is taken any more
	drained chan struct{} // closed when unsent falls below the limit or the connection ends; nil: nobody waits

	crowd crowd

	limit int           // of unsent bytes
	stall time.Duration // a peer that takes no byte for so long is closed

	nc       net.Conn
	hangup   func()                            // says goodbye to the peer when everything is written
	try      func(p []byte) (n int, err error) // one write that does not block; nil: there is none
	refill   func() bool                       // appends what waited for room; reports whether there is more; called without the lock
	waiting  bool                              // refill has something
	failed   func(error)                       // told once of a write error or stall
	bytesOut func(n int)
}

// room reports whether a message of n bytes may be appended where limit bytes may be unsent; o.mu is held. A buffer that is empty takes any message.
func (o *output) room(n, limit int) bool {
	return !o.over() && (o.unsent == 0 || o.unsent+n <= limit)
}

// over reports whether nothing is taken any more; o.mu is held.
func (o *output) over() bool { return o.closed || o.closing || o.parted }

// begin returns the buffer to append to, registering f with the batch if it was empty; o.mu is held. The caller gives the
// longer slice to end.
func (o *output) begin(b *bridge.Batch, f bridge.Flusher) []byte {
	if o.buf == nil {
		o.buf = takeBuffer()
		if !o.writing {
			b.Touch(f)
		}
	}
	o.crowd.appended(b)
	return o.buf.b
}

// end takes the slice from begin with what was appended; o.mu is held.
func (o *output) end(p []byte) {
	o.unsent += len(p) - len(o.buf.b)
	o.buf.b = p
}

// flush writes what is there, once, without blocking.
func (o *output) flush() {
	o.mu.Lock()
	if o.writing || o.closed || o.buf == nil && !o.waiting {
		o.mu.Unlock()
		return
	}
	o.writing = true
	if o.try == nil || o.buf == nil {
		o.mu.Unlock()
		go o.drain(nil, 0)
		return
	}
	// A few rounds, for what was appended meanwhile; a connection that is always being appended to gets its own goroutine
	// rather than this one for ever.
	for range maxRounds {
		buf := o.buf
		o.buf = nil
		o.crowd.taken()
		o.mu.Unlock()
		n, err := o.try(buf.b)
		o.bytesOut(n)
		if err != nil {
			o.fail(err)
			return
		}
		if n < len(buf.b) {
			go o.drain(buf, n)
			return
		}
		o.mu.Lock()
		o.wrote(n)
		giveBuffer(buf)
		if o.buf == nil {
			o.leave()
			return
		}
	}
	o.mu.Unlock()
	go o.drain(nil, 0)
}

// maxRounds is how often a flusher looks again before it leaves the connection to a goroutine.
const maxRounds = 8

// wrote accounts for n bytes; o.mu is held.
func (o *output) wrote(n int) {
	o.unsent -= n
	if o.unsent <= o.limit/2 {
		o.wake()
	}
}

// leave ends a flusher's or writer's turn with the buffer empty; o.mu is held and released.
func (o *output) leave() {
	switch {
	case o.waiting && !o.closing && !o.closed:
		o.mu.Unlock()
		go o.drain(nil, 0)
	case o.closing && !o.closed:
		o.writing = false
		o.shut()
		o.mu.Unlock()
		o.hangup()
	default:
		o.writing = false
		o.mu.Unlock()
	}
}

// drain writes buf from byte n on and then what was appended or waits to be refilled, and may block. It runs in its own
// goroutine while o.writing is set.
func (o *output) drain(buf *buffer, n int) {
	for {
		if buf == nil {
			o.mu.Lock()
			if o.buf == nil && o.waiting && !o.closing && !o.closed {
				o.mu.Unlock()
				more := o.refill()
				o.mu.Lock()
				if o.buf == nil && !more {
					o.waiting = false
				}
			}
			buf, n = o.buf, 0
			o.buf = nil
			if buf == nil {
				o.waiting = o.waiting && !o.closing && !o.closed
				o.leave()
				return
			}
			o.crowd.taken()
			o.mu.Unlock()
			if o.try != nil {
				k, err := o.try(buf.b)
				o.bytesOut(k)
				if err != nil {
					o.fail(err)
					return
				}
				n = k
			}
		}
		for n < len(buf.b) {
			o.nc.SetWriteDeadline(time.Now().Add(o.stall))
			k, err := o.nc.Write(buf.b[n:min(len(buf.b), n+writeChunk)])
			o.bytesOut(k)
			n += k
			if err != nil && !(k > 0 && errors.Is(err, os.ErrDeadlineExceeded)) {
				o.fail(err)
				return
			}
		}
		o.mu.Lock()
		o.wrote(len(buf.b))
		o.mu.Unlock()
		giveBuffer(buf)
		buf = nil
	}
}

// writeChunk bounds one blocking write, so that the stall limit measures a peer that takes nothing and not one that is slow.
const writeChunk = 64 << 10

// fail ends the output after a write error.
func (o *output) fail(err error) {
	o.mu.Lock()
	o.writing = false
	o.shut()
	o.mu.Unlock()
	o.failed(err)
}

// shut drops what waits and wakes who waits; o.mu is held.
func (o *output) shut() {
	o.closed = true
	o.buf = nil
	o.unsent = 0
	o.wake()
}

// wake wakes who waits for room; o.mu is held.
func (o *output) wake() {
	if o.drained != nil {
		close(o.drained)
		o.drained = nil
	}
}

// close drops what waits and closes the connection at once.
func (o *output) close() {
	o.mu.Lock()
	o.shut()
	o.mu.Unlock()
	o.nc.Close()
}

// finish hangs up when what waits has been written; where the peer does not take it, after the stall time.
func (o *output) finish() {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return
	}
	o.closing = true
	o.wake()
	if o.buf == nil && !o.writing {
		o.shut()
		o.mu.Unlock()
		if o.try == nil {
			go o.hangup() // it may write, too
			return
		}
		o.hangup()
		return
	}
	o.mu.Unlock()
	o.flush()
}

// ending reports whether the connection was told to end.
func (o *output) ending() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closing || o.closed
}

// full returns a channel to wait on before more is read from this peer; nil if there is no need to.
func (o *output) full() <-chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.unsent <= o.limit || o.closing || o.closed {
		return nil
	}
	if o.drained == nil {
		o.drained = make(chan struct{})
	}
	return o.drained
}

// buffer is a pooled byte slice.
type buffer struct{ b []byte }

// Pools are the one kind of package variable here: they hold no state that anything depends on.
var (
	smallBuffers = sync.Pool{New: func() any { return &buffer{make([]byte, 0, 4<<10)} }}
)

// maxPooled keeps a burst to one client from staying in the pool.
const maxPooled = 128 << 10

func takeBuffer() *buffer { return smallBuffers.Get().(*buffer) }

func giveBuffer(b *buffer) {
	if cap(b.b) <= maxPooled {
		b.b = b.b[:0]
		smallBuffers.Put(b)
	}
}
