package broker

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
)

// Store keeps sessions across restarts: those that have a session expiry. Each has a number there. All methods may be called
// with a session's lock held; they wait for nothing but memory.
type Store interface {
	bridge.Log
	// Crowded reports that so much waits to be written that who brings more should be read from no further.
	Crowded() bool
	// WaitRoom returns when Crowded is over, or at once where the store has failed.
	WaitRoom(ctx context.Context) error

	// LoadSessions yields what was kept, before anything else is called.
	LoadSessions(yield func(*bridge.StoredSession) error) error
	NewSession() (number uint64)
	SaveSession(number uint64, record []byte) bridge.Receipt
	EndSession(number uint64) bridge.Receipt
	SaveSubscription(number uint64, filter string, record []byte) bridge.Receipt
	RemoveSubscription(number uint64, filter string) bridge.Receipt

	// Push adds k to the session's queue and sets its Body and Size.
	Push(number uint64, k *bridge.Kept, body *bridge.Body, d bridge.Durability) bridge.Receipt
	// Sent notes the identifier that an entry is sent with, Released that its PUBREC has come.
	Sent(number, position uint64, packetID uint16) bridge.Receipt
	Released(number, position uint64, packetID uint16) bridge.Receipt
	// Remove removes an entry; of k it needs Position, PacketID, Body and Size.
	Remove(number uint64, k *bridge.Kept) bridge.Receipt
	// Read returns up to max synced entries with from <= Position < before, in their order.
	Read(number, from, before uint64, max, maxBytes int) ([]bridge.Kept, error)

	// Receive notes a QoS 2 message of the client that is not released yet, Release that it is.
	Receive(number uint64, packetID uint16) bridge.Receipt
	Release(number uint64, packetID uint16) bridge.Receipt
}

// sessionRecord is what a store keeps of a session besides its subscriptions and messages.
type sessionRecord struct {
	ClientID string      `json:"client_id"`
	User     string      `json:"user,omitempty"`
	Expiry   int64       `json:"expiry_seconds"`
	Left     int64       `json:"left,omitempty"` // when it was left, in Unix nanoseconds; 0: a connection has it
	Will     *willRecord `json:"will,omitempty"`
	// Identifiers is how many packet identifiers may have been used so far.
	Identifiers uint64 `json:"identifiers,omitempty"`
}

// willRecord is a will in a store.
type willRecord struct {
	Topic         string                `json:"topic"`
	Payload       []byte                `json:"payload"`
	QoS           bridge.QoS            `json:"qos,omitempty"`
	Retain        bool                  `json:"retain,omitempty"`
	Format        bridge.PayloadFormat  `json:"format,omitempty"`
	ContentType   string                `json:"content_type,omitempty"`
	ResponseTopic string                `json:"response_topic,omitempty"`
	Correlation   []byte                `json:"correlation,omitempty"`
	Properties    []bridge.UserProperty `json:"user_properties,omitempty"`
	Delay         uint32                `json:"delay,omitempty"`
	Expiry        uint32                `json:"message_expiry,omitempty"`
}

// subscriptionRecord is a subscription in a store; its filter is the key.
type subscriptionRecord struct {
	QoS        bridge.QoS            `json:"qos"`
	NoLocal    bool                  `json:"no_local,omitempty"`
	Published  bool                  `json:"retain_as_published,omitempty"`
	Handling   bridge.RetainHandling `json:"retain_handling,omitempty"`
	Identifier uint32                `json:"identifier,omitempty"`
}

// save stores the session's record, where it is stored at all; s.mu is held.
func (s *session) save() bridge.Receipt {
	if s.number == 0 {
		return 0
	}
	r := sessionRecord{ClientID: s.id, User: s.client.Identity().User, Expiry: int64(s.expiry / time.Second), Left: s.leftAt, Identifiers: s.ids.reserved}
	if w := s.will; w != nil {
		m := w.message
		r.Will = &willRecord{
			Topic: string(m.Topic), Payload: m.Payload, QoS: m.QoS, Retain: m.Retain, Format: m.PayloadFormat, ContentType: m.ContentType,
			ResponseTopic: string(m.ResponseTopic), Correlation: m.CorrelationData, Properties: m.UserProperties,
			Delay: w.delay, Expiry: w.expiry,
		}
	}
	return s.srv.store.SaveSession(s.number, mustMarshal(r))
}

func (w *willRecord) will() *will {
	if w == nil {
		return nil
	}
	return &will{
		message: &bridge.Message{
			Topic: bridge.Topic(w.Topic), Payload: w.Payload, QoS: w.QoS, Retain: w.Retain, PayloadFormat: w.Format, ContentType: w.ContentType,
			ResponseTopic: bridge.Topic(w.ResponseTopic), CorrelationData: w.Correlation, UserProperties: w.Properties,
		},
		delay: w.Delay, expiry: w.Expiry,
	}
}

// mustMarshal encodes a record, all of whose fields can be encoded.
func mustMarshal(v any) []byte {
	p, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encoding %T: %v", v, err))
	}
	return p
}

// stores reports whether d is to be stored for this session.
func (s *session) stores(d *bridge.Delivery) bool {
	return d.QoS > 0 && s.stored() && d.Durability() != bridge.Memory
}

// stored reports whether the session is to survive the process. One that was resumed without session expiry is not, though
// it has a number; s.mu is held.
func (s *session) stored() bool { return s.number != 0 && s.persistent() }

// Keeps reports whether the session stores what it is given; see bridge.Keeper.
func (s *session) Keeps() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stored() && !s.ended
}

// store puts a message into the stored queue; id is the identifier that it is sent with, 0 where that is later; s.mu is held.
func (s *session) store(q *queued, id uint16, body *bridge.Body, d bridge.Durability) bridge.Receipt {
	k := q.kept(id)
	k.Position = s.next
	s.next++
	r := s.srv.store.Push(s.number, &k, body, d)
	q.position, q.body, q.size = k.Position, k.Body, k.Size
	return r
}

// kept is q as stores know it.
func (q *queued) kept(id uint16) bridge.Kept {
	return bridge.Kept{
		Position: q.position, Message: q.msg, QoS: q.qos, Retain: q.retain, Identifiers: q.ids, Shared: q.shared, PacketID: id,
		Body: q.body, Size: q.size,
	}
}

// unstore removes a message that is done with from the store; id is the identifier that it was sent with, 0 where it was not;
// s.mu is held.
func (s *session) unstore(q *queued, id uint16) {
	if q.size != 0 {
		k := q.kept(id)
		s.srv.store.Remove(s.number, &k)
	}
}

// synced reports whether r is kept.
func (s *Server) synced(r bridge.Receipt) bool { return r == 0 || s.store.Synced() >= r }

// await has the session told when r is kept; s.mu is held. It reports true where there is nothing to wait for any more.
func (s *session) await(r bridge.Receipt) (kept bool) {
	if !s.awaiting {
		s.awaiting = s.srv.store.Await(r, s)
	}
	return !s.awaiting && s.srv.synced(r)
}

// Stored is called when a commit that the session waits for has ended: what was waiting for it goes out, and what is kept on
// disk now need not be kept in memory.
func (s *session) Stored(b *bridge.Batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.awaiting = false
	if s.ended {
		return
	}
	s.pump(b)
	if s.srv.store.Err() != nil {
		return // what is not to be stored goes on
	}
	if q, ok := s.queue.(*storedQueue); ok {
		if r := q.settle(s.srv.store.Synced(), s.live.Load() != nil); r != 0 {
			s.await(r)
		}
	}
}

// hold keeps in one commit what is appended until release.
func (s *Server) hold() (release func()) {
	if s.store == nil {
		return func() {}
	}
	return s.store.Hold()
}
