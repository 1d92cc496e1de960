package bridge

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

// grants are the rules of the tests: a list of filters for each action. They are Permissions and Access at once: everybody
// has the same ones. A user in gone is not let in.
type grants struct {
	all         bool
	write, read []Filter
	refuses     Filter // refused as a whole, whatever its topics
	gone        map[string]bool
	asked       func() // called for each decision about a topic
}

// everything lets everybody do everything.
func everything() *grants { return &grants{all: true} }

func (g *grants) Allowed(a Action, topic Topic) bool {
	if g.asked != nil {
		g.asked()
	}
	list := g.read
	if a == Write {
		list = g.write
	}
	for _, f := range list {
		if f.Match(topic) {
			return true
		}
	}
	return g.all
}

func (g *grants) Covers(f Filter) Coverage {
	switch {
	case g.refuses == f:
		return CoversNone
	case g.all:
		return CoversAll
	}
	c := CoversNone
	for _, r := range g.read {
		switch {
		case r.Covers(f):
			return CoversAll
		case r.Overlaps(f):
			c = CoversPart
		}
	}
	return c
}

func (g *grants) Explain(a Action, topic string) (bool, string) {
	if g.Allowed(a, Topic(topic)) {
		return true, "granted in the test"
	}
	return false, "no rule matches"
}

func (g *grants) Authenticate(_ context.Context, c Credentials) (*Identity, error) {
	id := &Identity{User: c.User, ClientID: c.ClientID}
	if g.gone[c.User] {
		return nil, Refuse(Unauthenticated, "unknown user")
	}
	id.Permissions = g
	return id, nil
}

func (g *grants) Permissions(id *Identity) (Permissions, bool) {
	if g.gone[id.User] {
		return nil, false
	}
	return g, true
}

func newHub(t testing.TB, cfg Config) *Hub {
	t.Helper()
	if cfg.Access == nil {
		cfg.Access = everything()
	}
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// attach adds a client of the endpoint "test" whose user is called as its id, or as given.
func attach(t testing.TB, h *Hub, id string, user ...string) *Client {
	t.Helper()
	c, err := h.Attach(&Identity{User: append(user, id)[0], ClientID: id}, h.Counters("test"), func(Reason) {})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func subscribe(t testing.TB, c *Client, filter string, o SubscribeOptions, sink Sink) *Subscription {
	t.Helper()
	f, err := c.hub.CheckFilter(filter)
	if err != nil {
		t.Fatal(err)
	}
	s, _, err := c.Subscribe(f, o, sink)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func publish(t testing.TB, c *Client, m Message) Result {
	t.Helper()
	b := c.hub.Begin()
	defer b.End()
	r, err := c.PublishAsync(b, &m)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// delivered is what a sink saw of one delivery.
type delivered struct {
	Topic       Topic
	Payload     string
	QoS         QoS
	Retain      bool
	Identifiers []uint32
	Filter      Filter
	LiveOnly    bool
}

// inbox is a sink that writes down what it is given. answer, if set, decides the outcome.
type inbox struct {
	answer func(*Delivery) Outcome

	mu  sync.Mutex
	got []delivered
}

func (s *inbox) Deliver(d *Delivery) Outcome {
	o := Delivered
	if s.answer != nil {
		o = s.answer(d)
	}
	if o == Delivered || o == Queued {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.got = append(s.got, delivered{
			d.Message.Topic, string(d.Message.Payload), d.QoS, d.Retain, append([]uint32(nil), d.Identifiers...), d.Subscription.Filter,
			d.LiveOnly,
		})
	}
	return o
}

func (s *inbox) take() []delivered {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.got
	s.got = nil
	return got
}

// payloads empties the inbox and returns the payloads only.
func (s *inbox) payloads() []string {
	var list []string
	for _, d := range s.take() {
		list = append(list, d.Payload)
	}
	return list
}

// nowhere is a sink that takes everything and does nothing.
type nowhere struct{}

func (nowhere) Deliver(*Delivery) Outcome { return Delivered }

// dropped reads how many drops of one reason the endpoint "test" has counted.
func dropped(h *Hub, r DropReason) uint64 { return h.Counters("test").Dropped[r].Load() }

// expectEmpty checks that the routing table holds nothing, inside too.
func expectEmpty(t rapid.TB, h *Hub) {
	t.Helper()
	tb := h.table
	if tb.exact.live != 0 || tb.exact.slots.Load() != nil {
		t.Errorf("%d exact filters are left", tb.exact.live)
	}
	if !tb.wild.useless() || tb.wild.children.slots.Load() != nil {
		t.Error("the trie is not empty")
	}
	if w, n := tb.wilds.Load(), tb.total.Load(); w != 0 || n != 0 {
		t.Errorf("counters say %d subscriptions, %d with wildcards", n, w)
	}
}

func name(prefix string, i int) string { return fmt.Sprintf("%s%d", prefix, i) }

// sinkFunc is a function as a sink.
type sinkFunc func(*Delivery) Outcome

func (f sinkFunc) Deliver(d *Delivery) Outcome { return f(d) }

// view is b as a string without a copy: what an endpoint's parser hands to the hub.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// same reports whether a and b are the same bytes in memory.
func same(a, b string) bool { return unsafe.StringData(a) == unsafe.StringData(b) }

// perUser is an Access with rules of its own for each user; others are not let in.
type perUser map[string]*grants

func (p perUser) Authenticate(ctx context.Context, c Credentials) (*Identity, error) {
	if g := p[c.User]; g != nil {
		return g.Authenticate(ctx, c)
	}
	return nil, Refuse(Unauthenticated, "unknown user")
}

func (p perUser) Permissions(id *Identity) (Permissions, bool) {
	g, ok := p[id.User]
	return g, ok
}
