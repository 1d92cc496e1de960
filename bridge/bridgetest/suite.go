package bridgetest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
)

// TestEndpoint checks that an endpoint keeps the hub's promises. make starts one on the hub; the suite stops it.
func TestEndpoint(t *testing.T, make func(t testing.TB, hub *bridge.Hub) Endpoint) {
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) { c.do(t, make) })
	}
}

// check is one promise.
type check struct {
	name  string
	needs func(Endpoint) bool // nil: every endpoint has it
	run   func(*bench)
}

var checks = slices.Concat(exchangeChecks, orderChecks, pressureChecks, refusalChecks, sessionChecks, shutdownChecks)

func (c check) do(t testing.TB, make func(testing.TB, *bridge.Hub) Endpoint) {
	NoLeak(t)
	b := newBench(t, make)
	if c.needs != nil && !c.needs(b.ep) {
		t.Skip("the protocol has no such thing")
	}
	c.run(b)
}

// user is whom peers connect as unless a check says otherwise.
const user, password = "user", "secret"

// local is the user of the in-process client, which may do everything under all rules.
const local = "local"

// rulesFor lets peers, with or without a user name, write and read some topics.
func rulesFor(topics ...bridge.Filter) Rules {
	return Rules{
		user: {Password: password, Write: topics, Read: topics}, "": {Write: topics, Read: topics},
		local: {Write: []bridge.Filter{"#"}, Read: []bridge.Filter{"#"}},
	}
}

// bench is a hub with the endpoint under test on one side and an in-process client on the other.
type bench struct {
	testing.TB
	hub   *bridge.Hub
	ep    Endpoint
	local *bridge.Client
	ctx   context.Context // ends when patience does
}

func newBench(t testing.TB, make func(testing.TB, *bridge.Hub) Endpoint) *bench {
	t.Helper()
	hub, err := bridge.New(bridge.Config{Access: rulesFor("#")})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{TB: t, hub: hub}
	b.ep = make(t, hub)
	t.Cleanup(func() {
		if err := b.ep.Stop(time.Second); err != nil {
			t.Errorf("stopping the endpoint: %v", err)
		}
	})
	b.local, err = hub.Attach(&bridge.Identity{User: local, ClientID: local}, hub.Counters("bridgetest"), func(bridge.Reason) {})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 6*patience)
	t.Cleanup(cancel)
	b.ctx = ctx
	return b
}

// dial connects a peer, which is gone at the end of the test.
func (b *bench) dial(id string) Peer { b.Helper(); return b.dialAs(DialOptions{ID: id}) }

func (b *bench) dialAs(o DialOptions) Peer {
	b.Helper()
	p, err := b.tryDial(o)
	if err != nil {
		b.Fatalf("connecting %s: %v", o.ID, err)
	}
	return p
}

func (b *bench) tryDial(o DialOptions) (Peer, error) {
	b.Helper()
	if b.ep.Passwords && o.User == "" {
		o.User, o.Password = user, password
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	p, err := b.ep.Dial(ctx, o)
	if err == nil {
		b.Cleanup(func() { _ = p.Abort() })
	}
	return p, err
}

// record subscribes the in-process client.
func (b *bench) record(filter string) *Recorder {
	b.Helper()
	r := new(Recorder)
	f, err := b.hub.CheckFilter(filter)
	if err != nil {
		b.Fatal(err)
	}
	if _, _, err := b.local.Subscribe(f, bridge.SubscribeOptions{QoS: 2}, r); err != nil {
		b.Fatal(err)
	}
	return r
}

// publish publishes from the in-process client. The bytes are borrowed, as those of an endpoint are, and used again at once.
func (b *bench) publish(topic, payload string, qos bridge.QoS, retain bool) {
	b.Helper()
	buf := []byte(payload)
	done := make(chan error, 1)
	go func() {
		done <- b.local.Publish(b.ctx, &bridge.Message{Topic: bridge.Topic(topic), Payload: buf, QoS: qos, Retain: retain, Borrowed: true})
		clear(buf)
	}()
	select {
	case err := <-done:
		if err != nil {
			b.Fatalf("publishing to %s through the hub: %v", topic, err)
		}
	case <-time.After(patience):
		b.Fatalf("publishing to %s did not return: the publisher waits for a subscriber", topic)
	}
}

func (b *bench) send(p Peer, topic, payload string, qos bridge.QoS, retain bool) error {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	return p.Publish(ctx, bridge.Message{Topic: bridge.Topic(topic), Payload: []byte(payload), QoS: qos, Retain: retain})
}

func (b *bench) mustSend(p Peer, topic, payload string, qos bridge.QoS) {
	b.Helper()
	if err := b.send(p, topic, payload, qos, false); err != nil {
		b.Fatalf("publishing to %s at QoS %d: %v", topic, qos, err)
	}
}

func (b *bench) trySubscribe(p Peer, s Subscription) error {
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	return p.Subscribe(ctx, s)
}

func (b *bench) subscribe(p Peer, filter string, qos bridge.QoS) {
	b.Helper()
	if err := b.trySubscribe(p, Subscription{Filter: filter, QoS: qos}); err != nil {
		b.Fatalf("subscribing to %s: %v", filter, err)
	}
}

func (b *bench) receive(p Peer) bridge.Message {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	m, err := p.Receive(ctx)
	if err != nil {
		b.Fatalf("receiving: %v", err)
	}
	return m
}

func (b *bench) expect(p Peer, topic, payload string) bridge.Message {
	b.Helper()
	m := b.receive(p)
	if string(m.Topic) != topic || string(m.Payload) != payload {
		b.Fatalf("received %s, want %s", brief(string(m.Topic), m.Payload), brief(topic, []byte(payload)))
	}
	return m
}

func (b *bench) expectRecorded(r *Recorder, topic, payload string) Delivery {
	b.Helper()
	d := r.Next(b)
	if string(d.Message.Topic) != topic || string(d.Message.Payload) != payload {
		b.Fatalf("the hub was given %s, want %s", brief(string(d.Message.Topic), d.Message.Payload), brief(topic, []byte(payload)))
	}
	return d
}

// expectEnd waits until the peer's connection has ended.
func (b *bench) expectEnd(p Peer, why string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	for {
		if _, err := p.Receive(ctx); err != nil {
			if ctx.Err() != nil {
				b.Errorf("the connection is still open %v after %s", patience, why)
			}
			return
		}
	}
}

func brief(topic string, payload []byte) string {
	return fmt.Sprintf("%.40q (%d bytes) on %q", payload, len(payload), topic)
}

// eventually waits for what happens in another goroutine of the endpoint.
func (b *bench) eventually(what string, ok func() bool) {
	b.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			b.Fatalf("%v passed and still not: %s", patience, what)
		}
	}
}

func (b *bench) stats() bridge.EndpointStats {
	for _, e := range b.hub.Stats().Endpoints {
		if e.Name == b.ep.Name {
			return e
		}
	}
	return bridge.EndpointStats{}
}

// drops are all of the endpoint's, whatever the reason.
func (b *bench) drops() (n uint64) {
	for _, k := range b.stats().Dropped {
		n += k
	}
	return n
}

func (b *bench) topQoS() bridge.QoS { return b.ep.QoS[len(b.ep.QoS)-1] }

// clients counts those that the endpoint has attached.
func (b *bench) clients() (n int) {
	for _, c := range b.hub.Clients() {
		if c.Endpoint() == b.ep.Name {
			n++
		}
	}
	return n
}
