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
	var later []func() // what may append to the store: not before everything is loaded
	err := s.store.LoadSessions(func(st *bridge.StoredSession) error {
		var r sessionRecord
		if err := json.Unmarshal(st.Record, &r); err != nil {
			return fmt.Errorf("session %d: %w", st.Number, err)
		}
		left := now
		if r.Left != 0 && r.Left < now.UnixNano() {
			left = time.Unix(0, r.Left)
		}
		if s.sessions[r.ClientID] != nil {
			s.log.Warn("a second session of one client is left out", "client", r.ClientID, "session", st.Number)
			later = append(later, func() { s.store.EndSession(st.Number) })
			return nil
		}
		sess, err := s.restore(st, &r, time.Duration(r.Expiry)*time.Second)
		if err == nil {
			later = append(later, func() { sess.resumeTimers(&r, left) })
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, resume := range later {
		resume()
	}
	return nil
}

// restore makes one session as it was.
func (s *Server) restore(st *bridge.StoredSession, r *sessionRecord, expiry time.Duration) (*session, error) {
	sess := &session{srv: s, id: r.ClientID, number: st.Number, next: max(1, st.Next), expiry: expiry, received: st.Received}
	sess.ids = identifiers{next: r.Identifiers, reserved: r.Identifiers}
	var err error
	sess.client, err = s.hub.Restore(&bridge.Identity{User: r.User, ClientID: r.ClientID}, s.counters, sess.kick)
	if err != nil {
		return nil, fmt.Errorf("session of %q: %w", r.ClientID, err)
	}
	for _, sub := range st.Subscriptions {
		var o subscriptionRecord
		if err := json.Unmarshal(sub.Record, &o); err != nil {
			return nil, fmt.Errorf("subscription of %q to %q: %w", r.ClientID, sub.Filter, err)
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
		sess.window.skipTo(k.PacketID)
		sess.window.add(f)
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
	return sess, nil
}

// resumeTimers lets the time go on that ran for an offline session before the restart. A client that was connected then has
// lost its connection with the restart; a session without an expiry has ended with it.
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
