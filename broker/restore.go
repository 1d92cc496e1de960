package broker

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
)

// Restore brings back the sessions that a store has kept and keeps them there from now on. It must be the store of the hub
// and comes before the first connection. Without a store sessions are kept in memory and end with the process.
func (s *Server) Restore(store Store) error {
	s.store = store
	now := time.Now()
	var over []uint64
	err := s.store.LoadSessions(func(st *bridge.StoredSession) error {
		var r sessionRecord
		if err := json.Unmarshal(st.Record, &r); err != nil {
			return fmt.Errorf("session %d: %w", st.Number, err)
		}
		left := now
		if r.Left != 0 && r.Left < now.UnixNano() {
			left = time.Unix(0, r.Left)
		}
		expiry := time.Duration(r.Expiry) * time.Second
		if r.Expiry == 0 {
			over = append(over, st.Number) // it ended with the process
			return nil
		}
		return s.restore(st, &r, left, expiry)
	})
	if err != nil {
		return err
	}
	for _, number := range over {
		s.store.EndSession(number)
	}
	return nil
}

// restore makes one session as it was, offline since left.
func (s *Server) restore(st *bridge.StoredSession, r *sessionRecord, left time.Time, expiry time.Duration) error {
	sess := &session{srv: s, id: r.ClientID, number: st.Number, next: max(1, st.Next), expiry: expiry, received: st.Received}
	sess.ids = identifiers{next: r.Identifiers, reserved: r.Identifiers}
	var err error
	sess.client, err = s.hub.Restore(&bridge.Identity{User: r.User, ClientID: r.ClientID}, s.counters, sess.kick)
	if err != nil {
		return fmt.Errorf("session of %q: %w", r.ClientID, err)
	}
	for _, sub := range st.Subscriptions {
		var o subscriptionRecord
		if err := json.Unmarshal(sub.Record, &o); err != nil {
			return fmt.Errorf("subscription of %q to %q: %w", r.ClientID, sub.Filter, err)
		}
		options := bridge.SubscribeOptions{
			QoS: o.QoS, NoLocal: o.NoLocal, RetainAsPublished: o.Published, RetainHandling: o.Handling, Identifier: o.Identifier,
		}
		f, err := bridge.ParseFilter(sub.Filter)
		if err == nil {
			_, err = sess.client.Restore(f, options, sess)
		}
		if err != nil {
			s.log.Warn("a subscription cannot be restored", "client", r.ClientID, "topic", sub.Filter, "error", err)
		}
	}
	for i := range st.InFlight {
		k := &st.InFlight[i]
		f := flight{queued: fromStore(k), state: flightSent}
		if k.Released {
			f.state = flightReleased
		}
		sess.window.restore(f, k.PacketID)
	}
	s.counters.Inflight.Add(int64(sess.window.open))
	if st.Messages > 0 {
		sess.queue = &storedQueue{
			store: s.store, number: st.Number, log: s.log, head: st.Head, onDisk: st.Messages, messages: st.Messages, bytes: st.Bytes,
		}
		s.counters.Queued.Add(int64(st.Messages))
		s.counters.QueuedBytes.Add(int64(st.Bytes))
	}
	sess.backlog.Store(sess.window.n > 0 || st.Messages > 0)
	s.mu.Lock()
	s.sessions[r.ClientID] = sess
	s.mu.Unlock()
	s.counters.Sessions.Add(1)
	sess.resumeTimers(r, left)
	return nil
}

// resumeTimers lets the time go on that ran for an offline session before the restart. A client that was connected then has
// lost its connection with the restart.
func (s *session) resumeTimers(r *sessionRecord, left time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endTimer = time.AfterFunc(max(0, time.Until(left.Add(s.expiry))), s.expired)
	if s.will = r.Will.will(); s.will != nil {
		delay := min(time.Duration(s.will.delay)*time.Second, s.expiry)
		s.willTimer = time.AfterFunc(max(0, time.Until(left.Add(delay))), s.willDue)
	}
	if s.leftAt = left.UnixNano(); r.Left == 0 {
		s.save()
	}
}
