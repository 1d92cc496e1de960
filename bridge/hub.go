package bridge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what a [Hub] is made of.
type Config struct {
	Limits Limits         // zero fields mean the defaults
	Access Access         // required
	Shared SharedStrategy // how shared groups choose
	Log    *slog.Logger   // default: discard
	Node   string         // name of this node, for loop prevention; may be empty
}

// Hub is the centre: it lets clients in, authorises, keeps retained values, matches and delivers.
type Hub struct {
	log      *slog.Logger
	node     string
	shared   SharedStrategy
	table    *table
	retained *retained
	batches  sync.Pool
	durable  durable

	limits atomic.Pointer[Limits]
	access atomic.Pointer[Access]

	mu      sync.Mutex
	clients map[clientKey]*Client
	serial  uint32

	endpoints atomic.Pointer[[]*Counters]
}

type clientKey struct{ endpoint, id string }

// New makes a hub.
func New(cfg Config) (*Hub, error) {
	if cfg.Access == nil {
		return nil, errors.New("making the hub: no Access given")
	}
	if err := cfg.Limits.Validate(); err != nil {
		return nil, fmt.Errorf("making the hub: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	h := &Hub{log: cfg.Log, node: cfg.Node, shared: cfg.Shared, table: newTable(), clients: make(map[clientKey]*Client)}
	h.retained = newRetained(h.table.hashOf)
	limits := cfg.Limits.WithDefaults()
	h.limits.Store(&limits)
	h.access.Store(&cfg.Access)
	h.endpoints.Store(&[]*Counters{})
	return h, nil
}

// Run expires retained values until ctx ends.
func (h *Hub) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			h.retained.expire(now.UnixNano())
		}
	}
}

// Counters finds or makes the counters of an endpoint.
func (h *Hub) Counters(name string) *Counters {
	h.mu.Lock()
	defer h.mu.Unlock()
	old := *h.endpoints.Load()
	for _, c := range old {
		if c.Name == name {
			return c
		}
	}
	c := &Counters{Name: name, index: len(old)}
	list := append(append([]*Counters(nil), old...), c)
	h.endpoints.Store(&list)
	return c
}

func (h *Hub) endpoint(i int) *Counters { return (*h.endpoints.Load())[i] }

// Limits are the limits in force.
func (h *Hub) Limits() Limits { return *h.limits.Load() }

// SetLimits changes the limits; what is over a new one stays, but nothing is added to it.
func (h *Hub) SetLimits(l Limits) {
	l = l.WithDefaults()
	h.limits.Store(&l)
	for _, c := range h.Clients() {
		c.epoch.Add(epochStep)
	}
}

// SetAccess changes users and rules. Clients that would no longer be let in are closed with NotAuthorized; for all others
// the new rules hold from the next message on.
func (h *Hub) SetAccess(a Access) {
	h.access.Store(&a)
	for _, c := range h.Clients() {
		if !c.reconsider(nil) {
			h.log.Info("client is not admitted any more", "endpoint", c.Endpoint(), "client", c.id)
			c.closer(NotAuthorized)
		}
	}
}

// Authenticate is the one door: every protocol asks here who a client is. The error carries Unauthenticated, NotAuthorized
// or Unavailable.
func (h *Hub) Authenticate(ctx context.Context, c Credentials) (*Identity, error) {
	id, err := (*h.access.Load()).Authenticate(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("authenticating: %w", err)
	}
	return id, nil
}

// Attach adds an authenticated client. closer is called, from any goroutine, when the hub wants the client gone, at the
// earliest before Attach returns; it must not wait for a peer. The pair of endpoint and client id must not be attached
// already. The error carries QuotaExceeded at the limit on clients, and NotAuthorized where a reload since Authenticate does
// not let the client in any more.
func (h *Hub) Attach(id *Identity, counters *Counters, closer func(Reason)) (*Client, error) {
	c, err := h.attach(id, counters, closer, h.Limits().Clients)
	if err != nil {
		return nil, err
	}
	admitted := false
	defer func() {
		if !admitted { // or the Access has panicked
			c.Close()
		}
	}()
	// A reload between Authenticate and here has not seen c.
	if !c.reconsider(id) {
		return nil, &Error{Op: "attaching", Reason: NotAuthorized, Err: errors.New("the user is not admitted any more")}
	}
	admitted = true
	return c, nil
}

// Restore attaches the client of a session that was kept across a restart, without a connection. Where the user is not
// admitted any more, the client has no permissions until a reload or its return changes that. No limit on clients refuses it.
func (h *Hub) Restore(id *Identity, counters *Counters, closer func(Reason)) (*Client, error) {
	c, err := h.attach(id, counters, closer, math.MaxInt)
	if err != nil {
		return nil, err
	}
	c.reconsider(id)
	return c, nil
}

func (h *Hub) attach(id *Identity, counters *Counters, closer func(Reason), limit int) (*Client, error) {
	c := &Client{hub: h, id: id.ClientID, counters: counters, closer: closer}
	c.identity.Store(id)
	key := clientKey{counters.Name, c.id}
	h.mu.Lock()
	switch {
	case h.clients[key] != nil:
		h.mu.Unlock()
		return nil, &Error{Op: "attaching", Reason: Internal, Err: fmt.Errorf("client %q is attached already", c.id)}
	case len(h.clients) >= limit:
		h.mu.Unlock()
		return nil, &Error{Op: "attaching", Reason: QuotaExceeded, Err: errors.New("limit on clients reached")}
	}
	h.serial++
	c.serial = h.serial
	h.clients[key] = c
	h.mu.Unlock()
	return c, nil
}

// Clients lists who is attached.
func (h *Hub) Clients() []*Client {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := make([]*Client, 0, len(h.clients))
	for _, c := range h.clients {
		list = append(list, c)
	}
	return list
}

// Client finds an attached client; nil if there is none.
func (h *Hub) Client(endpoint, id string) *Client {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.clients[clientKey{endpoint, id}]
}

// Stats reads all counters.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	n := len(h.clients)
	h.mu.Unlock()
	values, bytes := h.retained.size()
	s := Stats{Clients: n, Subscriptions: int(h.table.total.Load()), Retained: values, RetainedBytes: bytes}
	for _, c := range *h.endpoints.Load() {
		s.Endpoints = append(s.Endpoints, c.read())
	}
	return s
}

// Result is what became of a publish.
type Result struct {
	Receipt Receipt // everything durable is kept once the store has synced up to here
	Reached int     // sinks that took responsibility
}

// PublishSystem routes a message of the server itself, such as $SYS topics: no permission is asked and retained values are
// set. m must not be borrowed.
func (h *Hub) PublishSystem(b *Batch, m *Message) {
	c := h.Counters("system")
	b.counters = c
	m.Time = b.Now
	b.durability = Memory // what the server says of itself is out of date after a restart
	if m.Retain {
		if _, err := h.retained.set(m, h.Limits(), Memory); err != nil {
			b.drop(c, DropRefused)
			return
		}
	}
	b.route(nil, m)
}

// Redeliver gives a message that a member of a shared group has not acknowledged to another member (MQTT 5 section 4.8.2).
// filter has the share prefix; except is the member that leaves. If nobody takes it, it is counted as dropped. The store
// must not forget the leaver's copy before it has synced up to the result's Receipt.
func (h *Hub) Redeliver(b *Batch, filter Filter, m *Message, except *Client) Result {
	b.counters = except.counters
	b.formsUsed, b.receipt, b.reached = 0, 0, 0
	b.durability, b.body = h.durable.of(m.Topic), Body{Sole: true}
	if m.Expired(b.Now) {
		b.drop(b.counters, DropExpired)
		return Result{}
	}
	g := h.table.group(m.Topic, filter)
	if g == nil {
		b.drop(b.counters, DropNoMember)
		return Result{}
	}
	g.deliver(b, m, except)
	return Result{b.receipt, b.reached}
}
