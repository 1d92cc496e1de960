package bridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
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
	epoch    atomic.Uint64 // grows after each change of identity, rules or limits: what was decided in an older one is void

	mu     sync.Mutex
	closed bool
	subs   []*Subscription // sorted by filter

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
	if !c.reconsider(id) {
		c.closer(NotAuthorized)
	}
}

// reconsider asks the Access in force for the rules of id, or of who the client is already, and reports whether there are
// any.
func (c *Client) reconsider(id *Identity) bool {
	// The Access is read under the lock: of two that reconsider at a time the last one has the newest.
	c.mu.Lock()
	defer c.mu.Unlock()
	if id == nil {
		id = c.identity.Load()
	}
	next := *id
	p, ok := (*c.hub.access.Load()).Permissions(id)
	if !ok {
		p = nothing{}
	}
	next.Permissions = p
	c.identity.Store(&next)
	// Only now: what is decided in the new epoch is decided by the new rules.
	c.epoch.Add(epochStep)
	return ok
}

// epochStep leaves room for a Coverage beside an epoch.
const epochStep = 4

// nothing are the permissions of who is not admitted (any more).
type nothing struct{}

func (nothing) Allowed(Action, Topic) bool { return false }
func (nothing) Covers(Filter) Coverage     { return CoversNone }
func (nothing) Explain(Action, string) (bool, string) {
	return false, "the user is not admitted"
}

// memo remembers what was decided about a topic, so that a client that publishes to few topics pays for the checks once.
type memo struct {
	topic []byte // used again, so that a client of many topics does not allocate for each message
	epoch uint64 // it was decided in
	err   error
	kept  Durability // of the topic
}

const memoSlots = 4

// admit decides whether c may publish to the topic at all, and how its messages are kept.
func (c *Client) admit(topic Topic) (Durability, error) {
	epoch := c.epoch.Load()
	if c.memos == nil {
		c.memos = new([memoSlots]memo)
	}
	n := len(topic)
	if n == 0 {
		return 0, Refuse(BadTopic, "topic name is empty")
	}
	// The last bytes are where the topics of one client differ most.
	m := &c.memos[(n+int(topic[n-1])+int(topic[n/2]))%memoSlots]
	if string(m.topic) == string(topic) && m.epoch == epoch {
		return m.kept, m.err
	}
	err := c.hub.Admit(c.identity.Load(), topic)
	if ReasonOf(err) == BadTopic {
		return 0, err // garbage is not worth remembering
	}
	m.topic, m.epoch, m.err, m.kept = append(m.topic[:0], topic...), epoch, err, c.hub.durable.of(topic)
	return m.kept, err
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

// Admit decides whether an identity may publish to a topic now: for wills, which are checked when they are announced and
// again when they are sent.
func (h *Hub) Admit(id *Identity, topic Topic) error {
	if err := h.checkTopic(topic); err != nil {
		return err
	}
	// The one topic below $SYS that a client may write: a Mosquitto bridge announces its connection there.
	if strings.HasPrefix(string(topic), "$SYS/") && string(topic) != "$SYS/broker/connection/"+id.ClientID+"/state" {
		return &Error{Op: "publishing", Topic: strings.Clone(string(topic)), Reason: NotAuthorized, Err: errors.New("$SYS is the server's")}
	}
	if !id.Permissions.Allowed(Write, topic) {
		return &Error{Op: "publishing", Topic: strings.Clone(string(topic)), Reason: NotAuthorized}
	}
	return nil
}

// PublishAsync authorises m, keeps it as retained value where it asks for that, and delivers it. The message may be
// borrowed. When the error is nil every live subscriber has it in its buffer, and everything durable is kept once the store
// has synced up to the result's Receipt; results of one client are in the order of its calls. The error carries a Reason;
// then nothing was delivered.
func (c *Client) PublishAsync(b *Batch, m *Message) (Result, error) {
	b.counters = c.counters
	b.tally(c.counters).in[m.QoS]++
	kept, err := c.admit(m.Topic)
	if err != nil {
		b.drop(c.counters, DropRefused)
		return Result{}, err
	}
	b.durability = kept
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
	if err := c.hub.durable.refuses(); err != nil && b.wantsStore(m) {
		b.drop(c.counters, DropRefused)
		return Result{}, err
	}
	b.receipt = 0
	if m.Retain {
		var err error
		if b.receipt, err = c.hub.retained.set(m, *l, b.durability); err != nil {
			b.drop(c.counters, DropRefused)
			return Result{}, err
		}
	}
	b.route(c, m)
	return Result{b.receipt, b.reached}, nil
}

// Publish is PublishAsync in a batch of its own. It returns when everything durable is kept.
func (c *Client) Publish(ctx context.Context, m *Message) error {
	result, err := c.publishAlone(m)
	if err != nil {
		return err
	}
	return c.hub.Wait(ctx, result.Receipt)
}

// PublishNow is Publish without waiting for the store: for messages of the server on behalf of a client, such as wills. It
// may be called concurrently with everything else.
func (c *Client) PublishNow(m *Message) error {
	_, err := c.publishAlone(m)
	return err
}

func (c *Client) publishAlone(m *Message) (Result, error) {
	b := c.hub.Begin()
	defer b.End()
	b.counters = c.counters
	b.tally(c.counters).in[m.QoS]++
	if err := c.hub.Admit(c.identity.Load(), m.Topic); err != nil {
		b.drop(c.counters, DropRefused)
		return Result{}, err
	}
	b.durability = c.hub.durable.of(m.Topic)
	return c.publish(b, m)
}

// published reports whether m came from c (No Local).
func (c *Client) published(from *Client, m *Message) bool {
	return c == from || from == nil && m.Origin.Client == c.id && m.Origin.Endpoint == c.counters.Name
}

// coverage is how much of f the client may read. It is decided once per epoch and kept in cache with it.
func (c *Client) coverage(cache *atomic.Uint64, f Filter) Coverage {
	epoch := c.epoch.Load()
	a := cache.Load()
	if a&^3 != epoch {
		a = epoch | uint64(c.identity.Load().Permissions.Covers(f))
		cache.Store(a)
	}
	return Coverage(a & 3)
}

// covered reports whether the owner of s is known to be allowed to read the whole filter: the usual case, and small enough to
// be inlined.
func (s *Subscription) covered() bool {
	return s.access.Load() == s.owner.epoch.Load()|uint64(CoversAll)
}

// mayRead decides whether the owner of s may be given topic.
func (s *Subscription) mayRead(topic Topic) bool {
	return s.owner.reads(s.owner.coverage(&s.access, s.Filter), topic)
}

func (c *Client) reads(of Coverage, topic Topic) bool {
	return of == CoversAll || of == CoversPart && c.MayRead(topic)
}

// Subscribe adds or replaces the subscription to f, which [Hub.CheckFilter] has checked. existed says that it replaces one.
// f may be borrowed. The error carries NotAuthorized, QuotaExceeded, or Unavailable after Close; then nothing has changed.
func (c *Client) Subscribe(f Filter, o SubscribeOptions, sink Sink) (s *Subscription, existed bool, err error) {
	return c.subscribe(f, o, sink, false)
}

// Restore adds a subscription that was granted before a restart. It stays also where the rules forbid all of it now, as it
// does when rules change: nothing is delivered by it meanwhile.
func (c *Client) Restore(f Filter, o SubscribeOptions, sink Sink) (*Subscription, error) {
	s, _, err := c.subscribe(f, o, sink, true)
	return s, err
}

func (c *Client) subscribe(f Filter, o SubscribeOptions, sink Sink, restored bool) (s *Subscription, existed bool, err error) {
	refuse := func(r Reason, text string) error {
		e := &Error{Op: "subscribing", Topic: strings.Clone(string(f)), Reason: r}
		if text != "" {
			e.Err = errors.New(text)
		}
		return e
	}
	s = &Subscription{Filter: f, Options: o, owner: c, sink: sink}
	if c.coverage(&s.access, f) == CoversNone && !restored {
		return nil, false, refuse(NotAuthorized, "")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	i, old := c.find(f)
	switch {
	case c.closed:
		return nil, false, refuse(Unavailable, "client is closed")
	case old == nil && !restored && len(c.subs) >= c.hub.limits.Load().Subscriptions:
		return nil, false, refuse(QuotaExceeded, "limit on subscriptions per client reached")
	}
	c.hub.table.add(s, old)
	if old != nil {
		c.subs[i] = s
		return s, true, nil
	}
	c.subs = slices.Insert(c.subs, i, s)
	return s, false, nil
}

// find looks f up in the sorted list; c.mu is held.
func (c *Client) find(f Filter) (int, *Subscription) {
	i, ok := slices.BinarySearchFunc(c.subs, f, func(s *Subscription, f Filter) int { return cmp.Compare(s.Filter, f) })
	if !ok {
		return i, nil
	}
	return i, c.subs[i]
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
	c.subs = slices.Delete(c.subs, i, i+1)
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
	return slices.Clone(c.subs)
}

// Retained walks the retained values that match f and that the client may read. The caller takes them one at a time, when
// it has room. f may be borrowed.
func (c *Client) Retained(f Filter) *RetainedCursor {
	r := c.hub.retained.cursor(f)
	r.client = c
	return r
}

// RetainedValue is the value retained at one topic, or nil, whether the client may read it or not.
func (c *Client) RetainedValue(t Topic) *Message { return c.hub.retained.get(string(t)) }

// MayRead decides about one topic, for retained values.
func (c *Client) MayRead(t Topic) bool { return c.identity.Load().Permissions.Allowed(Read, t) }

// Close detaches the client and removes its subscriptions.
func (c *Client) Close() {
	c.mu.Lock()
	subs := c.subs
	c.subs, c.closed = nil, true
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
