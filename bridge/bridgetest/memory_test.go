package bridgetest

import (
	"context"
	"encoding/gob"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
)

// memory is the reference endpoint: gob frames over net.Pipe. It keeps the contract in the simplest way; a flaw makes it
// break one promise, so that the suite itself can be tested.
type memory struct {
	hub      *bridge.Hub
	counters *bridge.Counters
	flaw     string
	wg       sync.WaitGroup
	never    chan struct{} // closed by nobody but the flawed endpoint's test

	mu       sync.Mutex
	stopping bool
	conns    map[*memoryConn]bool
	sessions map[string]*memorySession
}

const (
	memoryBacklog = 256 << 10
	memoryPayload = 64 << 10
)

// frame is everything that is said, in both directions.
type frame struct {
	Kind           string // connect, publish, subscribe, bye; ack, message
	N              int    // which request is acknowledged
	ID, User, Pass string
	Keep           bool
	Topic, Filter  string
	Payload        []byte
	QoS            bridge.QoS
	Retain, NoEcho bool
	Code           uint32
}

func newMemory(hub *bridge.Hub, flaw string) *memory {
	return &memory{
		hub: hub, counters: hub.Counters("memory"), flaw: flaw, never: make(chan struct{}), conns: make(map[*memoryConn]bool),
		sessions: make(map[string]*memorySession),
	}
}

func (e *memory) endpoint() Endpoint {
	return Endpoint{
		Name: "memory", Dial: e.dial, Stop: e.stop, Code: e.code, QoS: []bridge.QoS{0, 1}, Backlog: memoryBacklog, MaxPayload: memoryPayload,
		Passwords: true, NoEcho: true, Sessions: true, Retained: true,
	}
}

func (e *memory) code(r bridge.Reason) uint32 {
	if e.flaw == "hole in the table" && r == bridge.Expired {
		return 0
	}
	return 100 + uint32(r)
}

// memoryConn is the server's end of one connection. One goroutine reads, one writes.
type memoryConn struct {
	net     net.Conn
	session *memorySession // nil before connect; used by the reader

	mu   sync.Mutex
	acks []frame
	wake chan struct{}
	over bool
}

// memorySession is what a client owns across connections.
type memorySession struct {
	e      *memory
	client *bridge.Client
	keep   bool
	turn   sync.Mutex // held while a connection takes over or leaves

	mu    sync.Mutex
	live  *memoryConn
	queue []frame
	bytes int
	room  chan struct{}
}

func (e *memory) stop(grace time.Duration) error {
	e.mu.Lock()
	if e.flaw == "stops late" && !e.stopping {
		defer time.Sleep(grace + patience)
	}
	e.stopping = true
	for c := range e.conns {
		c.net.Close()
	}
	e.mu.Unlock()
	if e.flaw != "leaks a goroutine" {
		e.wg.Wait()
	}
	e.mu.Lock()
	sessions := e.sessions
	e.sessions = make(map[string]*memorySession)
	e.mu.Unlock()
	for _, s := range sessions {
		s.end()
	}
	return nil
}

func (e *memory) accept(nc net.Conn) bool {
	c := &memoryConn{net: nc, wake: make(chan struct{}, 1)}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopping {
		return false
	}
	e.conns[c] = true
	e.counters.Accepted.Add(1)
	e.counters.Connections.Add(1)
	written := make(chan struct{})
	e.wg.Go(func() {
		defer close(written)
		e.write(c)
	})
	e.wg.Go(func() {
		e.read(c)
		nc.Close()
		c.mu.Lock()
		c.over = true
		c.mu.Unlock()
		c.poke()
		<-written
		e.leave(c)
		e.mu.Lock()
		delete(e.conns, c)
		e.mu.Unlock()
		if e.flaw != "miscounts connections" {
			e.counters.Connections.Add(-1)
		}
	})
	if e.flaw == "leaks a goroutine" {
		go func() { <-e.never }()
	}
	return true
}

func (c *memoryConn) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (e *memory) read(c *memoryConn) {
	dec := gob.NewDecoder(c.net)
	var payload []byte // used again for each message, as a read buffer is
	for n := 0; ; n++ {
		f := frame{Payload: payload[:0]}
		if dec.Decode(&f) != nil || f.Kind == "bye" {
			return
		}
		if cap(f.Payload) > cap(payload) {
			payload = f.Payload
		}
		code, goOn := e.handle(c, &f)
		if f.Kind != "publish" || f.QoS > 0 {
			c.mu.Lock()
			c.acks = append(c.acks, frame{Kind: "ack", N: n, Code: code})
			c.mu.Unlock()
			c.poke()
		}
		if !goOn {
			// The refusal goes out first, but nobody waits for a peer that does not read it.
			c.net.SetDeadline(time.Now().Add(100 * time.Millisecond))
			_, _ = io.Copy(io.Discard, c.net)
			return
		}
	}
}

func (e *memory) handle(c *memoryConn, f *frame) (code uint32, goOn bool) {
	switch f.Kind {
	case "connect":
		err := e.connect(c, f)
		if err != nil {
			e.counters.Refused.Add(1)
		}
		return e.code(bridge.ReasonOf(err)), err == nil
	case "publish":
		if len(f.Payload) > memoryPayload && e.flaw != "takes any size" {
			return e.code(bridge.TooLarge), false
		}
		m := &bridge.Message{Topic: bridge.Topic(f.Topic), Payload: f.Payload, QoS: f.QoS, Retain: f.Retain, Borrowed: true}
		if e.flaw == "does not say that bytes are borrowed" {
			m.Borrowed = false
		}
		b := e.hub.Begin()
		defer b.End()
		if e.flaw == "asks nobody" {
			e.hub.PublishSystem(b, m)
			return e.code(bridge.OK), true
		}
		_, err := c.session.client.PublishAsync(b, m)
		return e.code(bridge.ReasonOf(err)), true
	}
	filter, err := e.hub.CheckFilter(f.Filter)
	if err != nil && e.flaw == "confirms anything" {
		return e.code(bridge.OK), true
	}
	if err == nil {
		o := bridge.SubscribeOptions{QoS: f.QoS, NoLocal: f.NoEcho && e.flaw != "echoes"}
		s := c.session
		// Retained values first: live ones wait until they are in the queue.
		if _, _, err = s.client.Subscribe(filter, o, s); err == nil && e.flaw != "forgets retained values" {
			var values []frame
			s.mu.Lock()
			for m := range s.client.Retained(filter).All() {
				values = append(values, s.frame(m, min(m.QoS, f.QoS), true))
			}
			for _, v := range values {
				s.push(v)
			}
			s.mu.Unlock()
			c.poke()
		}
	}
	return e.code(bridge.ReasonOf(err)), true
}

func (e *memory) connect(c *memoryConn, f *frame) error {
	id, err := e.hub.Authenticate(context.Background(), bridge.Credentials{
		Endpoint: "memory", ClientID: f.ID, User: f.User, HasUser: f.User != "", Password: []byte(f.Pass),
	})
	if err != nil {
		return err
	}
	for {
		e.mu.Lock()
		s := e.sessions[f.ID]
		if s == nil {
			s = &memorySession{e: e, keep: f.Keep, live: c, room: make(chan struct{}, 1)}
			s.client, err = e.hub.Attach(id, e.counters, func(bridge.Reason) {
				s.mu.Lock()
				defer s.mu.Unlock()
				if s.live != nil && e.flaw != "keeps removed users" {
					s.live.net.Close()
				}
			})
			if err == nil {
				e.sessions[f.ID] = s
				e.counters.Sessions.Add(1)
				c.session = s
			}
			e.mu.Unlock()
			return err
		}
		e.mu.Unlock()
		s.turn.Lock()
		s.mu.Lock()
		old := s.live
		if old != nil {
			s.live = nil
			old.net.Close()
		}
		resumes := s.keep && f.Keep && !s.gone()
		if resumes {
			s.live = c
		}
		if e.flaw == "forgets the queue" {
			s.drain(bridge.DropSessionEnded)
		}
		s.mu.Unlock()
		if resumes {
			s.client.SetIdentity(id)
			c.session = s
		} else {
			e.forget(s)
		}
		s.turn.Unlock()
		if resumes {
			c.poke()
			return nil
		}
	}
}

// gone reports whether s was forgotten meanwhile; s.turn is held.
func (s *memorySession) gone() bool {
	s.e.mu.Lock()
	defer s.e.mu.Unlock()
	return s.e.sessions[s.client.ID()] != s
}

// forget ends a session once; s.turn is held.
func (e *memory) forget(s *memorySession) {
	e.mu.Lock()
	mine := e.sessions[s.client.ID()] == s
	if mine {
		delete(e.sessions, s.client.ID())
	}
	e.mu.Unlock()
	if mine {
		s.end()
	}
}

func (e *memory) leave(c *memoryConn) {
	s := c.session
	if s == nil {
		return
	}
	s.turn.Lock()
	defer s.turn.Unlock()
	s.mu.Lock()
	mine := s.live == c
	if mine {
		s.live = nil
	}
	s.mu.Unlock()
	if mine && !s.keep {
		e.forget(s)
	}
}

func (s *memorySession) end() {
	s.client.Close()
	s.e.counters.Sessions.Add(-1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drain(bridge.DropSessionEnded)
}

func (s *memorySession) drain(r bridge.DropReason) {
	for range s.queue {
		s.e.counters.Dropped[r].Add(1)
	}
	s.e.counters.Queued.Add(-int64(len(s.queue)))
	s.e.counters.QueuedBytes.Add(-int64(s.bytes))
	s.queue, s.bytes = nil, 0
}

func (s *memorySession) frame(m *bridge.Message, q bridge.QoS, retain bool) frame {
	m = m.Keep()
	return frame{Kind: "message", Topic: string(m.Topic), Payload: m.Payload, QoS: q, Retain: retain}
}

// push appends to the queue; s.mu is held.
func (s *memorySession) push(f frame) {
	s.queue = append(s.queue, f)
	s.bytes += len(f.Payload)
	s.e.counters.Queued.Add(1)
	s.e.counters.QueuedBytes.Add(int64(len(f.Payload)))
	if n := len(s.queue); s.e.flaw == "swaps messages" && n > 1 {
		s.queue[n-1], s.queue[n-2] = s.queue[n-2], s.queue[n-1]
	}
}

func (s *memorySession) Deliver(d *bridge.Delivery) bridge.Outcome {
	s.mu.Lock()
	defer s.mu.Unlock()
	offline, full := s.live == nil, s.bytes+len(d.Message.Payload) > memoryBacklog && s.e.flaw != "has no limit"
	for full && s.e.flaw == "waits for room" {
		s.mu.Unlock()
		<-s.room
		s.mu.Lock()
		full = s.bytes+len(d.Message.Payload) > memoryBacklog
	}
	switch {
	case d.LiveOnly && (offline || full):
		return bridge.NotNow
	case full && s.e.flaw == "drops in silence":
		return bridge.Dropped
	case full:
		return d.Drop(bridge.DropQueueFull)
	case offline && d.QoS == 0:
		return d.Drop(bridge.DropOffline)
	}
	s.push(s.frame(d.Message, d.QoS, d.Retain))
	if offline {
		return bridge.Queued
	}
	s.live.poke()
	return bridge.Delivered
}

// write sends what waits, acknowledgements first.
func (e *memory) write(c *memoryConn) {
	enc := gob.NewEncoder(c.net)
	for range c.wake {
		for {
			f, s, over := e.next(c)
			if over {
				return
			}
			if f == nil {
				break
			}
			if enc.Encode(f) != nil {
				return
			}
			if s != nil {
				s.sent(c)
			}
		}
	}
}

func (e *memory) next(c *memoryConn) (*frame, *memorySession, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return nil, nil, true
	}
	if len(c.acks) > 0 {
		f := c.acks[0]
		c.acks = c.acks[1:]
		return &f, nil, false
	}
	e.mu.Lock()
	var mine *memorySession
	for _, s := range e.sessions {
		s.mu.Lock()
		if s.live == c {
			mine = s
		}
		s.mu.Unlock()
	}
	e.mu.Unlock()
	if mine == nil {
		return nil, nil, false
	}
	mine.mu.Lock()
	defer mine.mu.Unlock()
	if mine.live != c || len(mine.queue) == 0 {
		return nil, nil, false
	}
	f := mine.queue[0]
	return &f, mine, false
}

// sent removes the message that has just been taken by the peer.
func (s *memorySession) sent(c *memoryConn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live != c || len(s.queue) == 0 {
		return
	}
	n := len(s.queue[0].Payload)
	s.queue[0] = frame{}
	s.queue = s.queue[1:]
	s.bytes -= n
	s.e.counters.Queued.Add(-1)
	s.e.counters.QueuedBytes.Add(-int64(n))
	select {
	case s.room <- struct{}{}:
	default:
	}
}

// memoryPeer is the client's end.
type memoryPeer struct {
	net  net.Conn
	enc  *gob.Encoder
	n    int
	wg   sync.WaitGroup
	gate atomic.Pointer[chan struct{}]

	mu    sync.Mutex
	acks  map[int]chan uint32
	inbox []frame
	wake  chan struct{}
	ended bool
}

var errEnded = errors.New("connection has ended")

func (e *memory) dial(ctx context.Context, o DialOptions) (Peer, error) {
	a, z := net.Pipe()
	if !e.accept(z) {
		return nil, errEnded
	}
	p := &memoryPeer{net: a, enc: gob.NewEncoder(a), acks: make(map[int]chan uint32), wake: make(chan struct{})}
	p.wg.Go(p.read)
	if err := p.ask(ctx, e, frame{Kind: "connect", ID: o.ID, User: o.User, Pass: o.Password, Keep: o.Keep}); err != nil {
		_ = p.Abort()
		return nil, err
	}
	return &memoryClient{p, e}, nil
}

// memoryClient is a peer that knows the codes.
type memoryClient struct {
	*memoryPeer
	e *memory
}

func (p *memoryPeer) read() {
	dec := gob.NewDecoder(p.net)
	for {
		if g := p.gate.Load(); g != nil {
			<-*g
		}
		var f frame
		err := dec.Decode(&f)
		p.mu.Lock()
		switch {
		case err != nil:
			p.ended = true
			for _, ch := range p.acks {
				close(ch)
			}
			p.acks = nil
		case f.Kind == "ack":
			if ch := p.acks[f.N]; ch != nil {
				ch <- f.Code
				delete(p.acks, f.N)
			}
		default:
			p.inbox = append(p.inbox, f)
		}
		close(p.wake)
		p.wake = make(chan struct{})
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (p *memoryPeer) ask(ctx context.Context, e *memory, f frame) error {
	var ch chan uint32
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		return errEnded
	}
	if f.Kind != "publish" || f.QoS > 0 {
		ch = make(chan uint32, 1)
		p.acks[p.n] = ch
	}
	p.n++
	p.mu.Unlock()
	if err := p.enc.Encode(f); err != nil || ch == nil {
		return err
	}
	select {
	case code, ok := <-ch:
		switch {
		case !ok:
			return errEnded
		case code != e.code(bridge.OK):
			return &Refused{Code: code}
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *memoryClient) Publish(ctx context.Context, m bridge.Message) error {
	return c.ask(ctx, c.e, frame{Kind: "publish", Topic: string(m.Topic), Payload: m.Payload, QoS: m.QoS, Retain: m.Retain})
}

func (c *memoryClient) Subscribe(ctx context.Context, s Subscription) error {
	return c.ask(ctx, c.e, frame{Kind: "subscribe", Filter: s.Filter, QoS: s.QoS, NoEcho: s.NoEcho})
}

func (p *memoryPeer) Receive(ctx context.Context) (bridge.Message, error) {
	for {
		p.mu.Lock()
		if len(p.inbox) > 0 {
			f := p.inbox[0]
			p.inbox = p.inbox[1:]
			p.mu.Unlock()
			return bridge.Message{Topic: bridge.Topic(f.Topic), Payload: f.Payload, QoS: f.QoS, Retain: f.Retain}, nil
		}
		wake, ended := p.wake, p.ended
		p.mu.Unlock()
		if ended {
			return bridge.Message{}, errEnded
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return bridge.Message{}, ctx.Err()
		}
	}
}

func (p *memoryPeer) Stall() {
	g := make(chan struct{})
	p.gate.Store(&g)
}

func (p *memoryPeer) Resume() {
	if g := p.gate.Swap(nil); g != nil {
		close(*g)
	}
}

func (p *memoryPeer) Close() error {
	p.net.SetWriteDeadline(time.Now().Add(time.Second))
	_ = p.enc.Encode(frame{Kind: "bye"})
	return p.Abort()
}

func (p *memoryPeer) Abort() error {
	p.net.Close()
	p.Resume()
	p.wg.Wait()
	return nil
}
