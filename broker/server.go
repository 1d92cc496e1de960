// Package broker is the MQTT endpoint of Isthmus: MQTT 3.1, 3.1.1 and 5.0 over anything that is a net.Conn. It parses
// packets, keeps sessions and speaks to its clients in their version's words; who may do what, and who gets which message,
// is the hub's business (package bridge).
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
)

// Server is an MQTT endpoint. It serves any number of listeners (see [Server.Serve]).
type Server struct {
	cfg      Config
	hub      *bridge.Hub
	store    Store // set by Restore; nil: nothing is stored
	log      *slog.Logger
	counters *bridge.Counters
	limits   atomic.Pointer[Limits]
	gate     *gate
	started  time.Time
	letFlap  bool // for tests that take over as fast as they can

	mu       sync.Mutex // never held while another lock but the hub's is taken
	sessions map[string]*session
	leaving  map[string]bridge.Receipt // by client id: of sessions whose removal from the store may not be kept yet
	conns    map[*conn]struct{}
	closing  bool
	readers  sync.WaitGroup
	polling  polling
}

var _ bridge.Endpoint = (*Server)(nil)

// New makes a server; it does nothing until Serve and Run are called.
func New(cfg Config) (*Server, error) {
	if cfg.Hub == nil {
		return nil, errors.New("making the MQTT endpoint: no Hub given")
	}
	if cfg.Name == "" {
		cfg.Name = "mqtt"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := cfg.Limits.Validate(); err != nil {
		return nil, fmt.Errorf("making the MQTT endpoint: %w", err)
	}
	s := &Server{
		cfg: cfg, hub: cfg.Hub, log: cfg.Log.With("endpoint", cfg.Name), counters: cfg.Hub.Counters(cfg.Name),
		sessions: make(map[string]*session), conns: make(map[*conn]struct{}), started: time.Now(),
	}
	l := cfg.Limits.WithDefaults()
	s.limits.Store(&l)
	s.gate = newGate(&s.limits)
	return s, nil
}

// Name is the endpoint's name in logs and metrics.
func (s *Server) Name() string { return s.cfg.Name }

// SetLimits changes the limits. What was announced to connected clients stays true for them until they leave.
func (s *Server) SetLimits(l Limits) {
	l = l.WithDefaults()
	s.limits.Store(&l)
}

// Run publishes the $SYS topics until ctx ends. Sessions work without it.
func (s *Server) Run(ctx context.Context) error {
	if s.cfg.SysInterval <= 0 {
		<-ctx.Done()
		return nil
	}
	return s.publishSys(ctx)
}

// ServeConn serves one connection that somebody else has accepted, such as a WebSocket. It returns when the connection has
// ended.
func (s *Server) ServeConn(nc net.Conn) {
	if c := s.open(nc, nil, false); c != nil {
		c.serve()
	}
}

// open registers a connection, for a poller where it can be; nil during shutdown or at the limit on connections.
func (s *Server) open(nc net.Conn, via net.Listener, poll bool) *conn {
	l := s.limits.Load()
	c := &conn{srv: s, nc: nc, via: via, log: s.log, done: make(chan struct{})}
	c.out = output{
		nc: nc, limit: l.UnsentBytes, stall: l.WriteStall, try: tryWriter(nc), refill: c.refill, failed: c.writeFailed, hangup: c.hangup,
		bytesOut: func(n int) { s.counters.BytesOut.Add(uint64(n)) },
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || len(s.conns) >= l.Connections+l.Connections/64+1 {
		nc.Close()
		s.counters.Refused.Add(1)
		return nil
	}
	if poll && s.adopt(c) {
		c.out.nc, c.out.try = c.socket, c.socket.try
	}
	c.setDeadline(time.Now())
	s.conns[c] = struct{}{}
	s.readers.Add(1)
	s.counters.Connections.Add(1)
	s.counters.Accepted.Add(1)
	return c
}

// ended unregisters a connection.
func (s *Server) ended(c *conn) {
	s.counters.Connections.Add(-1)
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.readers.Done()
}

// sessionExpiry is how long a session is kept that asks for seconds.
func (s *Server) sessionExpiry(seconds uint32) time.Duration {
	return min(time.Duration(seconds)*time.Second, s.limits.Load().SessionExpiry)
}

// join gives c its session: the one of its client id, or a new one (MQTT 5 section 3.1.2.4). An older connection with that
// id is sent away first; nothing is waited for but its reader, which never waits for a peer. connack is called when nothing
// can fail any more and before the session sends anything.
func (s *Server) join(b *bridge.Batch, c *conn, id *bridge.Identity, pk *connectPacket, connack func(present bool)) (present bool, err error) {
	for {
		sess, fresh, err := s.sessionFor(pk.clientID, id)
		if err != nil {
			return false, err
		}
		sess.calm(c)
		entered, err := sess.enter(b, c, fresh, id, pk, connack)
		if entered || err != nil {
			return !fresh, err
		}
	}
}

// enter gives the session to c when its turn has come. It reports false where the session has ended, or ends for c.
func (s *session) enter(b *bridge.Batch, c *conn, fresh bool, id *bridge.Identity, pk *connectPacket, connack func(bool)) (bool, error) {
	s.turn.Lock()
	defer s.turn.Unlock()
	if s.ended { // while we waited
		return false, nil
	}
	if s.srv.store != nil && s.srv.store.Err() != nil && (fresh && s.srv.sessionExpiry(pk.expiry) > 0 || !fresh && pk.clean && s.number != 0) {
		if fresh {
			s.srv.end(s)
		}
		// CONNACK would promise that a session is kept, or that the old one is gone, and after a restart neither is true.
		return false, bridge.Refuse(bridge.Unavailable, "the store has failed: no session can begin or end")
	}
	if !fresh {
		s.sendAway()
		if pk.clean || !s.persistent() {
			s.srv.end(s)
			return false, s.srv.settled(s.id, 0) // who waits here for the same client id keeps its place
		}
		s.barred.Store(false)
		s.client.SetIdentity(id)
	}
	if fresh {
		if err := s.srv.settled(s.id, s.begin(pk)); err != nil {
			s.srv.end(s)
			return false, err
		}
	}
	s.take(b, c, pk, !fresh, connack)
	return true, nil
}

// begin has a new session stored, if it is to be kept.
func (s *session) begin(pk *connectPacket) (kept bridge.Receipt) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expiry = s.srv.sessionExpiry(pk.expiry)
	if s.srv.store == nil || !s.persistent() {
		return 0
	}
	s.number, s.next = s.srv.store.NewSession(), 1
	s.ids.reserved = idBlock
	return s.save()
}

// settled returns when r is kept and so is the end of the last session of a client id: what CONNACK says of a session must be
// true after a crash, too. Where the store has failed, a client without a former session can still come for live traffic.
func (s *Server) settled(clientID string, r bridge.Receipt) error {
	if s.store == nil {
		return nil
	}
	s.mu.Lock()
	gone := s.leaving[clientID]
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), s.limits.Load().ConnectTimeout)
	defer cancel()
	if err := s.hub.Wait(ctx, max(r, gone)); err != nil && (s.store.Err() == nil || !s.synced(gone)) {
		return bridge.Refuse(bridge.Unavailable, "the end of a session is not kept yet")
	}
	return nil
}

// hasGone notes that the removal of a client id's session is part of commit r; s.mu is held.
func (s *Server) hasGone(clientID string, r bridge.Receipt) {
	if s.leaving == nil {
		s.leaving = make(map[string]bridge.Receipt)
	}
	if len(s.leaving) >= maxLeaving {
		maps.DeleteFunc(s.leaving, func(_ string, r bridge.Receipt) bool { return s.synced(r) })
	}
	s.leaving[clientID] = r
}

// maxLeaving is how many ended sessions are remembered before those are forgotten whose end is kept.
const maxLeaving = 1024

// sessionFor finds or makes the session of a client id.
func (s *Server) sessionFor(clientID string, id *bridge.Identity) (sess *session, fresh bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sess := s.sessions[clientID]; sess != nil {
		return sess, false, nil
	}
	if s.closing {
		return nil, false, bridge.Refuse(bridge.Unavailable, "server is shutting down")
	}
	sess = &session{srv: s, id: clientID}
	sess.client, err = s.hub.Attach(id, s.counters, sess.kick)
	if err != nil {
		return nil, false, err
	}
	s.sessions[clientID] = sess
	s.counters.Sessions.Add(1)
	return sess, true, nil
}

// take makes c the connection of the session; s.turn is held.
func (s *session) take(b *bridge.Batch, c *conn, pk *connectPacket, present bool, connack func(bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.endTimer != nil {
		s.endTimer.Stop()
		s.endTimer = nil
	}
	if s.willTimer != nil { // back in time: the will is not sent (MQTT-3.1.2-10)
		s.willTimer.Stop()
		s.willTimer = nil
	}
	s.will = pk.will
	s.expiry = s.srv.sessionExpiry(pk.expiry)
	s.leftAt = 0
	s.ids.receipt = s.save()
	s.resend, s.sent = 0, 0
	c.session, c.client = s, s.client
	connack(present)
	c.ready.Store(true)
	s.live.Store(c)
	if s.barred.Load() { // before anybody could see c
		go c.kick(codeNotAuthorized, bridge.NotAuthorized.String(), "")
	}
	s.pump(b)
}

// sendAway ends the session's present connection, if there is one, and waits until its reader has left; s.turn is held.
func (s *session) sendAway() {
	old := s.live.Load()
	if old == nil {
		return
	}
	old.kick(codeSessionTakenOver, "session taken over", "")
	<-old.done
	s.leave(old)
}

// kick ends the connection because the hub says so.
func (s *session) kick(r bridge.Reason) {
	s.barred.Store(true)
	if c := s.live.Load(); c != nil {
		go c.kick(wire[r].disconnect, r.String(), "")
	}
}

// left is called by the reader of a connection when it has ended.
func (s *session) left(c *conn) {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.leave(c)
}

// leave takes the session offline after c: will, expiry, or the end; s.turn is held. Nothing happens if c was left already.
func (s *session) leave(c *conn) {
	if s.leaveKept(c) {
		s.srv.end(s)
	}
}

// leaveKept does what leave does, but for a session that ends with its connection: then it reports true.
func (s *session) leaveKept(c *conn) (ends bool) {
	release := s.srv.hold() // that a will is sent and that it is not to be sent again are kept together
	defer release()
	w, left := s.goOffline(c)
	if !left {
		return false
	}
	if w != nil {
		w.publish(s.srv, s.client)
	}
	return s.expiry == 0 // nobody but who has the turn changes it
}

// goOffline takes the connection away and returns the will that is due.
func (s *session) goOffline(c *conn) (w *will, left bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended || !s.live.CompareAndSwap(c, nil) {
		return nil, false
	}
	s.dropUnkept()
	w, s.will = s.will, nil
	if c.noWill {
		w = nil
	}
	if w != nil && w.delay > 0 && s.expiry > 0 {
		delay := min(time.Duration(w.delay)*time.Second, s.expiry)
		s.will = w
		s.willTimer = time.AfterFunc(delay, s.willDue)
		w = nil
	}
	if s.expiry > 0 {
		s.endTimer = time.AfterFunc(s.expiry, s.expired)
	}
	s.leftAt = time.Now().UnixNano()
	s.save()
	return w, true
}

// dropUnkept drops what is not kept for an offline session: QoS 0 messages in the queue and retained values under way;
// s.mu is held.
func (s *session) dropUnkept() {
	s.cursors = nil
	switch old := s.queue.(type) {
	case nil:
		return
	case *storedQueue:
		unkept := old.park()
		if r := old.settle(s.srv.store.Synced(), false); r != 0 {
			s.await(r)
		}
		for _, q := range unkept {
			s.srv.counters.Queued.Add(-1)
			s.srv.counters.QueuedBytes.Add(-int64(q.msg.Size()))
			s.srv.counters.Dropped[bridge.DropOffline].Add(1)
		}
		s.backlog.Store(!s.queueEmpty())
		return
	}
	old := s.queue
	s.queue = &memoryQueue{}
	for q, ok := old.front(); ok; q, ok = old.front() {
		old.pop()
		if q.qos > 0 {
			s.queue.push(q)
			continue
		}
		s.srv.counters.Queued.Add(-1)
		s.srv.counters.QueuedBytes.Add(-int64(q.msg.Size()))
		s.srv.counters.Dropped[bridge.DropOffline].Add(1)
	}
	s.backlog.Store(!s.queueEmpty())
}

// willDue sends a delayed will, unless the client came back meanwhile.
func (s *session) willDue() {
	s.turn.Lock()
	defer s.turn.Unlock()
	release := s.srv.hold()
	defer release()
	s.mu.Lock()
	w := s.will
	if s.willTimer == nil || s.ended {
		w = nil
	} else {
		s.will, s.willTimer = nil, nil
		s.save()
	}
	s.mu.Unlock()
	if w != nil {
		w.publish(s.srv, s.client)
	}
}

// expired ends a session whose client did not come back.
func (s *session) expired() {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.mu.Lock()
	back := s.endTimer == nil || s.live.Load() != nil
	s.mu.Unlock()
	if !back {
		s.srv.end(s)
	}
}

// end ends a session that has no connection: its delayed will goes out, its subscriptions and queue go; sess.turn is held.
func (s *Server) end(sess *session) {
	if !s.endWill(sess) {
		return
	}
	b := s.hub.Begin()
	defer b.End()
	gone := sess.release(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sessions[sess.id] == sess {
		delete(s.sessions, sess.id)
		s.counters.Sessions.Add(-1)
	}
	if gone != 0 {
		s.hasGone(sess.id, gone)
	}
}

// endWill sends the will of a session that ends (MQTT-3.1.2-8: the session's end ends the delay). It reports false where the
// session has ended already.
func (s *Server) endWill(sess *session) bool {
	release := s.hold() // as in leaveKept
	defer release()
	sess.mu.Lock()
	if sess.ended {
		sess.mu.Unlock()
		return false
	}
	w := sess.will
	if sess.will = nil; w != nil {
		sess.save()
	}
	for _, t := range []*time.Timer{sess.willTimer, sess.endTimer} {
		if t != nil {
			t.Stop()
		}
	}
	sess.willTimer, sess.endTimer = nil, nil
	sess.mu.Unlock()
	if w != nil {
		w.publish(s, sess.client)
	}
	return true
}

// Shutdown sends everybody away and waits until the readers have ended or ctx does. Kept sessions stay as they are.
func (s *Server) Shutdown(ctx context.Context) error { return s.Drain(ctx, codeShuttingDown, "") }

// Drain is Shutdown with a hint where to go: code is 0x9C (use another server) or 0x9D (server moved), and reference the
// Server Reference of MQTT 5 section 4.13.2.
func (s *Server) Drain(ctx context.Context, code byte, reference string) error {
	s.mu.Lock()
	s.closing = true
	conns := make([]*conn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.farewell(code, "server shutting down", reference)
	}
	done := make(chan struct{})
	go func() { s.readers.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		for _, c := range conns {
			go c.out.close() // each may wait for its reader
		}
		<-done
	}
	s.endPolling()
	s.stopTimers()
	return ctx.Err()
}

// stopTimers ends what would fire after the server.
func (s *Server) stopTimers() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sess := range s.sessions {
		sess.mu.Lock()
		for _, t := range []*time.Timer{sess.willTimer, sess.endTimer} {
			if t != nil {
				t.Stop()
			}
		}
		sess.mu.Unlock()
	}
}

func cores() int { return runtime.GOMAXPROCS(0) }
