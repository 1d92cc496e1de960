package bridge

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestOverlappingSubscriptionsAreDeliveredOnceAtTheHighestQoS(t *testing.T) {
	h := newHub(t, Config{})
	p := attach(t, h, "p")
	var in inbox
	c := attach(t, h, "c")
	subscribe(t, c, "a/b", SubscribeOptions{QoS: 0, Identifier: 1}, &in)
	subscribe(t, c, "a/+", SubscribeOptions{QoS: 2, Identifier: 2}, &in)
	subscribe(t, c, "a/#", SubscribeOptions{QoS: 1, Identifier: 3, RetainAsPublished: true}, &in)
	subscribe(t, c, "#", SubscribeOptions{QoS: 1}, &in)
	subscribe(t, c, "other", SubscribeOptions{QoS: 2, Identifier: 9}, &in)

	publish(t, p, Message{Topic: "a/b", Payload: []byte("x"), QoS: 2, Retain: true})
	got := in.take()
	for i := range got {
		slices.Sort(got[i].Identifiers)
	}
	want := []delivered{{Topic: "a/b", Payload: "x", QoS: 2, Retain: true, Identifiers: []uint32{1, 2, 3}, Filter: "a/+"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	publish(t, p, Message{Topic: "a/b", Payload: []byte("x"), QoS: 1})
	if got := in.take(); len(got) != 1 || got[0].QoS != 1 || got[0].Retain {
		t.Errorf("published at QoS 1, got %+v", got)
	}
}

func TestNoLocalConcernsOneSubscriptionOnly(t *testing.T) {
	h := newHub(t, Config{})
	var in inbox
	c := attach(t, h, "c")
	subscribe(t, c, "a", SubscribeOptions{QoS: 2, NoLocal: true, Identifier: 1}, &in)
	publish(t, c, Message{Topic: "a", QoS: 2})
	if got := in.take(); got != nil {
		t.Fatalf("no local, got %v", got)
	}
	subscribe(t, c, "+", SubscribeOptions{QoS: 1, Identifier: 2}, &in)
	publish(t, c, Message{Topic: "a", QoS: 2})
	want := []delivered{{Topic: "a", QoS: 1, Identifiers: []uint32{2}, Filter: "+"}}
	if diff := cmp.Diff(want, in.take()); diff != "" {
		t.Error(diff)
	}
	if n := dropped(h, DropNotAuthorized); n != 0 {
		t.Errorf("%d drops counted: no local is none", n)
	}
}

// TestMergingAgreesWithAModel merges any subscriptions of any clients and compares QoS, identifiers and RETAIN flag.
func TestMergingAgreesWithAModel(t *testing.T) {
	filters := []string{"a/b", "a/+", "+/b", "+/+", "a/#", "#", "+/#", "a/b/#"}
	rapid.Check(t, func(t *rapid.T) {
		h, err := New(Config{Access: everything()})
		if err != nil {
			t.Fatal(err)
		}
		n := rapid.IntRange(1, 40).Draw(t, "clients")
		inboxes, want := make([]inbox, n), make([]*delivered, n)
		clients := make([]*Client, n)
		for i := range clients {
			if clients[i], err = h.Attach(&Identity{ClientID: name("c", i)}, h.Counters("test"), func(Reason) {}); err != nil {
				t.Fatal(err)
			}
		}
		qos, from := QoS(rapid.IntRange(0, 2).Draw(t, "published at")), rapid.IntRange(0, n-1).Draw(t, "publisher")
		for i, c := range clients {
			for _, k := range rapid.SliceOfDistinct(rapid.IntRange(0, len(filters)-1), rapid.ID[int]).Draw(t, "filters") {
				o := SubscribeOptions{
					QoS: QoS(rapid.IntRange(0, 2).Draw(t, "qos")), NoLocal: rapid.Bool().Draw(t, "no local"),
					RetainAsPublished: rapid.Bool().Draw(t, "as published"), Identifier: uint32(rapid.IntRange(0, 3).Draw(t, "id")),
				}
				if _, _, err := c.Subscribe(Filter(filters[k]), o, &inboxes[i]); err != nil {
					t.Fatal(err)
				}
				if o.NoLocal && i == from {
					continue
				}
				if want[i] == nil {
					want[i] = &delivered{Topic: "a/b"}
				}
				w := want[i]
				w.QoS = max(w.QoS, min(qos, o.QoS))
				w.Retain = w.Retain || o.RetainAsPublished
				if o.Identifier != 0 {
					w.Identifiers = append(w.Identifiers, o.Identifier)
				}
			}
		}
		b := h.Begin()
		defer b.End()
		for range 2 { // the second finds the scratch memory used
			if _, err := clients[from].PublishAsync(b, &Message{Topic: "a/b", QoS: qos, Retain: true}); err != nil {
				t.Fatal(err)
			}
			for i := range inboxes {
				got := inboxes[i].take()
				if want[i] == nil {
					if len(got) != 0 {
						t.Fatalf("client %d got %v", i, got)
					}
					continue
				}
				if len(got) != 1 {
					t.Fatalf("client %d got %d deliveries", i, len(got))
				}
				slices.Sort(got[0].Identifiers)
				slices.Sort(want[i].Identifiers)
				got[0].Filter = ""
				if diff := cmp.Diff(*want[i], got[0]); diff != "" {
					t.Fatalf("client %d: %s", i, diff)
				}
			}
		}
	})
}

func TestAPooledBatchKeepsNobodyAlive(t *testing.T) {
	h := newHub(t, Config{})
	for i := range 3000 { // more than a pooled batch keeps
		c := attach(t, h, name("c", i))
		subscribe(t, c, "a", SubscribeOptions{}, nowhere{})
		subscribe(t, c, "#", SubscribeOptions{}, nowhere{})
		b := h.Begin()
		if i%500 != 0 {
			b.End()
			continue
		}
		p := attach(t, h, name("p", i))
		if _, err := p.PublishAsync(b, &Message{Topic: "a"}); err != nil {
			t.Fatal(err)
		}
		for _, s := range b.overlap.slots {
			if s.owner != nil {
				t.Fatal("the merging table refers to a client")
			}
		}
		for _, m := range b.overlap.merged[:cap(b.overlap.merged)] {
			if m.sub != nil {
				t.Fatal("the merging table refers to a subscription")
			}
		}
		b.End()
		if b.delivery.Message != nil || b.delivery.Subscription != nil {
			t.Fatal("the pooled batch refers to a message")
		}
		for _, l := range b.found[:cap(b.found)] {
			if l != nil {
				t.Fatal("the pooled batch refers to a filter")
			}
		}
	}
}
