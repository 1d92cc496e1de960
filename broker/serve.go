package broker

import (
	"context"
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
	stored  bool // something was given to the store
}

const readSize = 16 << 10

var workspaces = sync.Pool{New: func() any { return new(workspace) }}

// serve reads a connection that no poller can read until it ends. It is the connection's one goroutine, and the edge at
// which a panic ends.
func (c *conn) serve() {
	defer c.srv.ended(c)
	var err error
	if !c.srv.contain("serving a connection", func() { err = c.read() }) {
		err = bridge.Refuse(bridge.Internal, "internal error")
	}
	c.end(err)
	c.linger()
}

// start begins to serve the connection.
func (c *conn) start() {
	if c.socket != nil {
		c.watched()
		return
	}
	go c.serve()
}

// end leaves the session and says goodbye, after the last byte was read.
func (c *conn) end(err error) {
	c.logEnd(err)
	c.out.finish()
	close(c.done)
	if c.session != nil {
		c.srv.contain("leaving a session", func() { c.session.left(c) })
	}
}

// contain is the edge at which a panic ends: what f was about is given up, everything else goes on. It reports whether f came
// to its end.
func (s *Server) contain(what string, f func()) (ok bool) {
	defer func() {
		if p := recover(); p != nil {
			s.counters.Panics.Add(1)
			s.log.Error("panic", "while", what, "panic", p, "stack", string(debug.Stack()))
		}
	}()
	f()
	return true
}

// hangup ends our side of the connection. Closing at once would reset it where the client has sent more than was read, and
// with the reset the client would lose the packet that tells it why.
func (c *conn) hangup() {
	c.nc.SetReadDeadline(time.Now().Add(lingerTime))
	if c.woken.Load() {
		c.wake() // whichever of the two came first
	}
	if h, ok := c.nc.(interface{ CloseWrite() error }); !ok {
		c.nc.Close()
	} else if h.CloseWrite() != nil {
		c.wake()
	}
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
	for {
		err := in.run(c.handleAlone)
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

// handleAlone takes the bytes of one read as one batch.
func (c *conn) handleAlone(w *workspace, p []byte) (rest []byte, err error) {
	b := c.srv.hub.Begin()
	defer b.End()
	used, wait, err := c.handle(b, w, p)
	if err != nil {
		return nil, err
	}
	if wait != nil {
		if err := wait(); err != nil {
			return nil, err
		}
	}
	if c.out.ending() {
		return nil, errStopped // however much more the client has to say
	}
	return p[used:], nil
}

// handle takes the bytes of one read and returns how many it used. Where wait is not nil nothing more may be read before it
// has returned; what the batch has touched is flushed already.
func (c *conn) handle(b *bridge.Batch, w *workspace, p []byte) (used int, wait func() error, err error) {
	c.lastRead = b.Now
	w.packets, w.stored = 0, false
	used, _, err = c.feed(b, w, p)
	if err != nil {
		c.fail(b, err)
		return 0, nil, err
	}
	c.srv.counters.BytesIn.Add(uint64(used))
	owed := time.Duration(0)
	if c.phase == connected {
		owed = c.client.Pace(b.Now, w.packets, used)
	}
	full, over := c.out.full(), c.overOwed()
	crowded := w.stored && c.srv.store.Crowded()
	if owed == 0 && full == nil && over == nil && !crowded {
		return used, nil, nil
	}
	b.Flush()
	return used, func() error {
		if err := c.awaitStore(crowded, over); err != nil {
			return err
		}
		return c.pause(owed, full)
	}, nil
}

// awaitStore returns when the store has room again and few enough acknowledgements are owed, or when the connection is ending.
func (c *conn) awaitStore(crowded bool, over <-chan struct{}) error {
	for crowded && !c.out.ending() {
		ctx, cancel := context.WithTimeout(context.Background(), maxPause)
		crowded = c.srv.store.WaitRoom(ctx) != nil
		cancel()
	}
	if over == nil {
		return nil
	}
	tick := time.NewTicker(maxPause)
	defer tick.Stop()
	for !c.out.ending() {
		select {
		case <-over:
			return nil
		case <-tick.C:
		}
	}
	return errStopped
}

// pause returns when a client may be read from again that is over its rate, or that sends and does not take its
// acknowledgements; the stall limit ends the latter.
func (c *conn) pause(owed time.Duration, full <-chan struct{}) error {
	for ; owed > 0 && !c.out.ending(); owed -= maxPause {
		time.Sleep(min(owed, maxPause))
	}
	if full != nil {
		<-full
	}
	c.lastRead = time.Now().UnixNano() // it was us who were silent
	if c.out.ending() {
		return errStopped // however much more the client has to say
	}
	return nil
}

// maxPause is how long a take-over may wait for a reader that pauses.
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
	next := time.Time{}
	if c.keepAlive != 0 {
		limit := c.keepAlive + c.keepAlive/2
		silent := time.Duration(time.Now().UnixNano() - c.lastRead)
		if silent >= limit {
			return &violation{codeKeepAliveTimeout, "keep alive timeout"}
		}
		next = time.Now().Add(limit - silent)
	}
	c.nc.SetReadDeadline(next)
	if c.out.ending() { // and has perhaps set a deadline before ours
		return errStopped
	}
	return nil
}

// refill is called by the output's goroutine when what waited for room can go on.
func (c *conn) refill() (more bool) {
	s := c.session
	ok := c.srv.contain("sending what waited", func() {
		b := c.srv.hub.Begin()
		defer b.End()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.live.Load() == c {
			more = !s.pump(b)
		}
	})
	if !ok {
		c.kick(codeUnspecified, "internal error", "")
	}
	return more && ok
}

// writeFailed ends the connection after a write error or a stall; the reader notices the closed socket.
func (c *conn) writeFailed(err error) {
	c.log.Debug("write failed", "remote", remoteOf(c.nc), "error", err)
	c.wake()
}

// farewell tells a client that it has to leave, and lets what waits go out.
func (c *conn) farewell(code byte, text, reference string) {
	b := c.srv.hub.Begin()
	defer b.End()
	if c.ready.Load() && c.version == 5 {
		c.sendLast(b, encodeDisconnect(code, text, reference, c.maxPacket))
	}
	b.Flush()
	c.out.finish()
}
