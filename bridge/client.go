package bridge

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Client is one authenticated device, user or link attached to the hub, whatever it speaks. It lives as long as its
// session: an MQTT session keeps its client while it is offline. Publishing methods must not be called concurrently for one
// client; all others may.
type Client struct {
	hub      *Hub
	id       string
	serial   uint32
	counters *Counters
	closer   func(Reason)
	identity atomic.Pointer[Identity]

	mu   sync.Mutex
	subs []*Subscription // sorted by filter

	memos *[memoSlots]memo // topics published before; made at the first publish
	pace  pace
}

// ID is the client id, unique within its endpoint.
func (c *Client) ID() string { return c.id }

// Endpoint names the endpoint.
func (c *Client) Endpoint() string { return c.counters.Name }

// Identity is who the client is, with the rules in force.
func (c *Client) Identity() *Identity { return c.identity.Load() }

// SetIdentity is called when a session is resumed under newly checked credentials.
func (c *Client) SetIdentity(id *Identity) {
	c.identity.Store(id)
	c.reconsider(*c.hub.access.Load())
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.subs {
		s.access.Store(0)
	}
	c.memos = nil
}

// reconsider asks a for the rules of the client and closes it where there are none any more.
func (c *Client) reconsider(a Access) {
	old := c.identity.Load()
	p, ok := a.Permissions(old)
	if !ok {
		c.identity.CompareAndSwap(old, &Identity{User: old.User, ClientID: old.ClientID, Permissions: nothing{}})
		c.closer(NotAuthorized)
		return
	}
	next := *old
	next.Permissions = p
	c.identity.CompareAndSwap(old, &next)
}

// nothing are the permissions of a client that is being closed.
type nothing struct{}

func (nothing) Allowed(Action, Topic) bool { return false }
func (nothing) Covers(Filter) Coverage     { return CoversNone }
func (nothing) Explain(Action, string) (bool, string) {
	return false, "the client's user is not admitted any more"
}

// memo remembers what was decided about a topic, so that a client that publishes to few topics pays for the checks once.
type memo struct {
	topic string
	rules uint64 // generation it was decided under
	err   error
}

const memoSlots = 4

// admit decides whether c may publish to the topic at all.
func (c *Client) admit(topic Topic) error {
	rules := c.hub.rules.Load()
	if c.memos == nil {
		c.memos = new([memoSlots]memo)
	}
	n := len(topic)
	if n == 0 {
		return Refuse(BadTopic, "topic name is empty")
	}
	// The last bytes are where the topics of one client differ most.
	m := &c.memos[(n+int(topic[n-1])+int(topic[n/2]))%memoSlots]
	if m.topic == string(topic) && m.rules == rules {
		return m.err
	}
	err := c.judge(topic)
	if ReasonOf(err) == BadTopic {
		return err // garbage is not worth remembering
	}
	m.topic, m.rules, m.err = strings.Clone(string(topic)), rules, err
	return err
}

func (c *Client) judge(topic Topic) error {
	if err := c.hub.checkTopic(topic); err != nil {
		return err
	}
	if strings.HasPrefix(string(topic), "$SYS/") && !c.ownState(topic) {
		return &Error{Op: "publishing", Topic: string(topic), Reason: NotAuthorized, Err: errors.New("$SYS is the server's")}
	}
	if !c.identity.Load().Permissions.Allowed(Write, topic) {
		return &Error{Op: "publishing", Topic: strings.Clone(string(topic)), Reason: NotAuthorized}
	}
	return nil
}

// ownState is the one topic below $SYS that a client may write: a Mosquitto bridge announces its connection there.
func (c *Client) ownState(topic Topic) bool {
	return string(topic) == "$SYS/broker/connection/"+c.id+"/state"
}

// checkTopic validates a topic once on entry and holds it against the limits.
func (h *Hub) checkTopic(topic Topic) error {
	l := h.limits.Load()
	// Before anything that takes time linear in the length.
	if len(topic) > l.TopicBytes {
		return Refuse(BadTopic, fmt.Sprintf("topic is longer than %d bytes", l.TopicBytes))
	}
	if _, err := ParseTopic(string(topic)); err != nil {
		return err
	}
	if Levels(topic) > l.TopicLevels {
		return Refuse(BadTopic, fmt.Sprintf("topic has more than %d levels", l.TopicLevels))
	}
	return nil
}

// CheckFilter validates a filter and holds it against the limits. The error carries BadFilter.
func (h *Hub) CheckFilter(filter string) (Filter, error) {
	l := h.limits.Load()
	if len(filter) > l.TopicBytes {
		return "", Refuse(BadFilter, fmt.Sprintf("filter is longer than %d bytes", l.TopicBytes))
	}
	f, err := ParseFilter(filter)
	if err != nil {
		return "", err
	}
	if _, inner := f.Share(); Levels(inner) > l.TopicLevels {
		return "", Refuse(BadFilter, fmt.Sprintf("filter has more than %d levels", l.TopicLevels))
	}
	return f, nil
}

// Admit decides whether c may publish m now, without publishing it: for wills, which are checked when they are announced
// and again when they are sent.
func (c *Client) Admit(m *Message) error { return c.judge(m.Topic) }

// PublishAsync authorises m, keeps it as retained value where it asks for that, and delivers it. The message may be
// borrowed. When the error is nil every live subscriber has it in its buffer, and everything durable is kept once the store
// has synced up to the result's Receipt; results of one client are in the order of its calls. The error carries a Reason;
// then nothing was delivered.
func (c *Client) PublishAsync(b *Batch, m *Message) (Result, error) {
	b.counters = c.counters
	b.tally(c.counters).in[m.QoS]++
	if err := c.admit(m.Topic); err != nil {
		b.drop(c.counters, DropRefused)
		return Result{}, err
	}
	return c.publish(b, m)
}

func (c *Client) publish(b *Batch, m *Message) (Result, error) {
	l := c.hub.limits.Load()
	m.kept = nil
	m.Time = b.Now
	m.Origin.Endpoint, m.Origin.Client = c.counters.Name, c.id
	if m.Origin.Hops != 0 && int(m.Origin.Hops) > l.Hops {
		b.drop(c.counters, DropLoop)
		return Result{}, Refuse(Loop, "message crossed too many links")
	}
	if l.MaxMessageExpirySecond != 0 {
		limit := b.Now + int64(l.MaxMessageExpirySecond)*int64(time.Second)
		if m.Expires == 0 || m.Expires > limit {
			m.Expires = limit
		}
	}
	if m.Retain {
		if err := c.hub.retained.set(m, *l); err != nil {
			b.drop(c.counters, DropRefused)
			return Result{}, err
		}
	}
	b.route(c, m)
	return Result{b.receipt, b.reached}, nil
}

// Publish is PublishAsync in a batch of its own. It returns when everything durable is kept.
func (c *Client) Publish(_ context.Context, m *Message) error {
	b := c.hub.Begin()
	defer b.End()
	b.counters = c.counters
	b.tally(c.counters).in[m.QoS]++
	if err := c.judge(m.Topic); err != nil {
		b.drop(c.counters, DropRefused)
		return err
	}
	_, err := c.publish(b, m)
	return err
}

// published reports whether m came from c (No Local).
func (c *Client) published(from *Client, m *Message) bool {
	return c == from || from == nil && m.Origin.Client == c.id && m.Origin.Endpoint == c.counters.Name
}

// mayRead decides whether the owner of s may be given topic. Where the rules cover the whole filter, which is decided once
// per subscription and change of rules, this is one comparison.
func (c *Client) mayRead(s *Subscription, topic Topic) bool {
	rules := c.hub.rules.Load()
	a := s.access.Load()
	if a>>2 != rules {
		a = rules<<2 | uint64(c.identity.Load().Permissions.Covers(s.Filter))
		s.access.Store(a)
	}
	switch Coverage(a & 3) {
	case CoversAll:
		return true
	case CoversNone:
		return false
	}
	return c.identity.Load().Permissions.Allowed(Read, topic)
}

func (c *Client) mayReadCounted(b *Batch, s *Subscription, topic Topic) bool {
	if c.mayRead(s, topic) {
		return true
	}
	b.drop(c.counters, DropNotAuthorized)
	return false
}

// Subscribe adds or replaces the subscription to f, which [Hub.CheckFilter] has checked. existed says that it replaces one.
// The error carries NotAuthorized or QuotaExceeded; then nothing has changed.
func (c *Client) Subscribe(f Filter, o SubscribeOptions, sink Sink) (s *Subscription, existed bool, err error) {
	rules := c.hub.rules.Load()
	covers := c.identity.Load().Permissions.Covers(f)
	if covers == CoversNone {
		return nil, false, &Error{Op: "subscribing", Topic: string(f), Reason: NotAuthorized}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i, old := c.find(f)
	if old == nil && len(c.subs) >= c.hub.limits.Load().Subscriptions {
		return nil, false, &Error{Op: "subscribing", Topic: string(f), Reason: QuotaExceeded,
			Err: errors.New("limit on subscriptions per client reached")}
	}
	s = &Subscription{Filter: f, Options: o, owner: c, sink: sink}
	if strings.HasPrefix(string(f), sharePrefix) {
		s.Filter = Filter(strings.Clone(string(f)))
	}
	s.access.Store(rules<<2 | uint64(covers))
	c.hub.table.add(s, old)
	if old != nil {
		c.subs[i] = s
		return s, true, nil
	}
	c.subs = append(c.subs, nil)
	copy(c.subs[i+1:], c.subs[i:])
	c.subs[i] = s
	return s, false, nil
}

// find looks f up in the sorted list; c.mu is held.
func (c *Client) find(f Filter) (int, *Subscription) {
	i := sort.Search(len(c.subs), func(i int) bool { return c.subs[i].Filter >= f })
	if i < len(c.subs) && c.subs[i].Filter == f {
		return i, c.subs[i]
	}
	return i, nil
}

// Unsubscribe removes the subscription to f, compared character by character (MQTT-3.10.4-1), and returns it; nil if there
// was none. A delivery that is under way may still arrive.
func (c *Client) Unsubscribe(f Filter) *Subscription {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, s := c.find(f)
	if s == nil {
		return nil
	}
	c.subs = append(c.subs[:i], c.subs[i+1:]...)
	if len(c.subs) == 0 {
		c.subs = nil
	}
	c.hub.table.remove(s)
	return s
}

// Subscriptions lists them by filter.
func (c *Client) Subscriptions() []*Subscription {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*Subscription(nil), c.subs...)
}

// Retained walks the retained values that match f and that the client may read. The caller takes them one at a time, when
// it has room.
func (c *Client) Retained(f Filter) *RetainedCursor { return c.hub.retained.cursor(f) }

// MayRead decides about one topic, for retained values.
func (c *Client) MayRead(t Topic) bool { return c.identity.Load().Permissions.Allowed(Read, t) }

// Close detaches the client and removes its subscriptions.
func (c *Client) Close() {
	c.mu.Lock()
	subs := c.subs
	c.subs = nil
	c.mu.Unlock()
	for _, s := range subs {
		c.hub.table.remove(s)
	}
	h := c.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	if key := (clientKey{c.counters.Name, c.id}); h.clients[key] == c {
		delete(h.clients, key)
	}
}
