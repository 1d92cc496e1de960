package broker

import (
	"errors"
	"io"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
)

// workspace is what handling one read needs. It is taken from a pool when data is there, so an idle connection holds none.
type workspace struct {
	buf     [readSize]byte
	msg     bridge.Message
	publish publishPacket
	packets int
}

const readSize = 16 << 10

var workspaces = sync.Pool{New: func() any { return new(workspace) }}

// serve reads the connection until it ends. It is the connection's one goroutine, and the edge at which a panic ends.
func (c *conn) serve() {
	defer c.srv.ended(c)
	var err error
	func() {
		defer func() {
			if p := recover(); p != nil {
				c.srv.counters.Panics.Add(1)
				c.log.Error("connection's handler panicked", "remote", remoteOf(c.nc), "panic", p, "stack", string(debug.Stack()))
				err = bridge.Refuse(bridge.Internal, "internal error")
			}
		}()
		err = c.read()
	}()
	c.logEnd(err)
	c.out.finish()
	close(c.done)
	if c.session != nil {
		c.session.left(c)
	}
	c.linger()
}

// hangup ends our side of the connection. Closing at once would reset it where the client has sent more than was read, and
// with the reset the client would lose the packet that tells it why.
func (c *conn) hangup() {
	c.nc.SetReadDeadline(time.Now().Add(lingerTime))
	if h, ok := c.nc.(interface{ CloseWrite() error }); ok && h.CloseWrite() == nil {
		return
	}
	c.nc.Close()
}

// The client has this long and this many bytes to notice that we have hung up.
const (
	lingerTime  = time.Second
	lingerBytes = 1 << 20
)

// linger waits for the client to hang up too.
func (c *conn) linger() {
	c.nc.SetReadDeadline(time.Now().Add(lingerTime))
	io.CopyN(io.Discard, c.nc, lingerBytes) // until the deadline at the latest
	c.nc.Close()
}

// read feeds the connection from its socket. A packet that is not complete is kept in a buffer of its own that grows with
// what arrives, never with what was announced; the pooled buffer goes back at once.
func (c *conn) read() error {
	in := newInput(c.nc)
	c.setDeadline(time.Now())
	for {
		err := in.run(c.handle)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			if err = c.deadlinePassed(); err == nil {
				continue
			}
			b := c.srv.hub.Begin()
			c.fail(b, err)
			b.End()
		}
		if errors.Is(err, io.EOF) {
			c.reason = codeUnspecified
		}
		return err
	}
}

// handle takes the bytes of one read: one batch.
func (c *conn) handle(w *workspace, p []byte) (rest []byte, err error) {
	b := c.srv.hub.Begin()
	defer b.End()
	c.lastRead = b.Now
	w.packets = 0
	used, _, err := c.feed(b, w, p)
	if err != nil {
		c.fail(b, err)
		return nil, err
	}
	c.srv.counters.BytesIn.Add(uint64(used))
	if c.phase == connected {
		if wait := c.client.Pace(b.Now, w.packets, used); wait > 0 {
			b.Flush()
			c.pause(wait)
		}
	}
	if full := c.out.full(); full != nil {
		// It sends and does not take its acknowledgements: nothing more is read until it does, or the stall limit ends it.
		b.Flush()
		<-full
	}
	return p[used:], nil
}

// pause stops reading for a client that is over its rate.
func (c *conn) pause(d time.Duration) {
	t := time.NewTimer(min(d, maxPause))
	defer t.Stop()
	<-t.C
}

// maxPause bounds a pause, so that a take-over does not wait long for a reader; what is still owed is paused for again.
const maxPause = 50 * time.Millisecond

// setDeadline sets when to look at the connection again though nothing came. Reading does not move it: it is moved when it
// passes, which costs one timer per keep alive and not one per read.
func (c *conn) setDeadline(now time.Time) {
	c.nc.SetReadDeadline(now.Add(c.srv.limits.Load().ConnectTimeout))
}

// deadlinePassed decides what the deadline means: the time to CONNECT is over, the client was silent for one and a half
// keep alives (MQTT-3.1.2-22), or it was not and the deadline moves on.
func (c *conn) deadlinePassed() error {
	switch {
	case c.out.ending():
		return errStopped
	case c.phase != connected:
		return &violation{codeUnspecified, "no CONNECT in time"} // a CONNACK has no code for it (MQTT-3.2.2-8)
	}
	if c.keepAlive == 0 {
		c.nc.SetReadDeadline(time.Time{})
		return nil
	}
	limit := c.keepAlive + c.keepAlive/2
	silent := time.Duration(time.Now().UnixNano() - c.lastRead)
	if silent >= limit {
		return &violation{codeKeepAliveTimeout, "keep alive timeout"}
	}
	c.nc.SetReadDeadline(time.Now().Add(limit - silent))
	return nil
}

// refill is called by the output's goroutine when what waited for room can go on.
func (c *conn) refill() bool {
	s := c.session
	if s == nil {
		return false
	}
	b := c.srv.hub.Begin()
	defer b.End()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live.Load() == c {
		s.pump(b)
	}
	return true
}

// writeFailed ends the connection after a write error or a stall; the reader notices the closed socket.
func (c *conn) writeFailed(err error) {
	c.log.Debug("write failed", "remote", remoteOf(c.nc), "error", err)
	c.nc.Close()
}

// farewell tells a client that the server goes away and lets what waits go out.
func (c *conn) farewell(code byte, reference string) {
	b := c.srv.hub.Begin()
	defer b.End()
	if c.ready.Load() && c.version == 5 {
		c.sendPacket(b, encodeDisconnect(code, "server shutting down", reference, c.maxPacket))
	}
	b.Flush()
	c.out.finish()
}
