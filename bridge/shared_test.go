package bridge

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// member is a sink whose state the test sets.
type member struct {
	inbox
	offline bool // queues, and is asked for nothing live
	full    bool // drops what it should queue, takes nothing live
}

func newMember(t *testing.T, h *Hub, id, filter string) (*Client, *member) {
	t.Helper()
	m := new(member)
	m.answer = func(d *Delivery) Outcome {
		switch {
		case !m.offline && !m.full:
			return Delivered
		case d.LiveOnly:
			return NotNow
		case m.full:
			return d.Drop(DropQueueFull)
		}
		return Queued
	}
	c := attach(t, h, id)
	subscribe(t, c, filter, SubscribeOptions{QoS: 1}, m)
	return c, m
}

func jobs(t *testing.T, p *Client, n int) {
	t.Helper()
	for i := range n {
		publish(t, p, Message{Topic: "jobs", Payload: []byte(name("", i)), QoS: 1})
	}
}

func TestAGroupTakesTurns(t *testing.T) {
	h := newHub(t, Config{})
	p := attach(t, h, "p")
	var members [5]*member
	for i := range members {
		_, members[i] = newMember(t, h, name("m", i), "$share/g/jobs")
	}
	jobs(t, p, 100)
	for i, m := range members {
		if n := len(m.take()); n != 20 {
			t.Errorf("member %d of 5 got %d of 100 jobs", i, n)
		}
	}
}

// TestMembersThatCannotTakeAreNoBurdenToTheirNeighbour covers offline members as well as gaps that members left.
func TestMembersThatCannotTakeAreNoBurdenToTheirNeighbour(t *testing.T) {
	h := newHub(t, Config{})
	p := attach(t, h, "p")
	var members []*member
	for i := range 12 {
		c, m := newMember(t, h, name("m", i), "$share/g/jobs")
		switch {
		case i < 4:
			m.offline = true
		case i < 8:
			c.Unsubscribe("$share/g/jobs")
			continue
		}
		members = append(members, m)
	}
	jobs(t, p, 400)
	for i, m := range members {
		want := 0
		if !m.offline {
			want = 100
		}
		if n := len(m.take()); n != want {
			t.Errorf("member %d got %d jobs, want %d", i, n, want)
		}
	}
}

func TestAGroupPrefersALiveMemberAndQueuesOtherwise(t *testing.T) {
	h := newHub(t, Config{})
	p := attach(t, h, "p")
	_, live := newMember(t, h, "live", "$share/g/jobs")
	_, offline := newMember(t, h, "offline", "$share/g/jobs")
	_, stalled := newMember(t, h, "stalled", "$share/g/jobs")
	offline.offline, stalled.full = true, true
	jobs(t, p, 100)
	if a, b, c := len(live.take()), len(offline.take()), len(stalled.take()); a != 100 || b != 0 || c != 0 {
		t.Fatalf("live got %d, offline %d, stalled %d of 100", a, b, c)
	}
	live.offline = true
	jobs(t, p, 100)
	a, b := live.take(), offline.take()
	if len(a)+len(b) != 100 || len(a) < 30 || len(b) < 30 || len(stalled.take()) != 0 {
		t.Fatalf("nobody is live: %d and %d of 100 were queued", len(a), len(b))
	}
	for r := range dropReasons {
		if n := dropped(h, r); n != 0 {
			t.Errorf("%d drops counted as %v, but every job was taken", n, r)
		}
	}
	live.full, offline.full = true, true
	jobs(t, p, 10)
	if n := dropped(h, DropNoMember); n != 10 {
		t.Errorf("%d drops counted as %v, want 10", n, DropNoMember)
	}
	if n := dropped(h, DropQueueFull); n != 0 {
		t.Errorf("each drop is counted for every member too: %d", n)
	}
}

func TestEachGroupGetsItsOwnCopy(t *testing.T) {
	h := newHub(t, Config{})
	p := attach(t, h, "p")
	var all []*member
	for i, f := range []string{"$share/g/jobs", "$share/h/jobs", "$share/g/+", "$share/g/#", "jobs"} {
		_, m := newMember(t, h, name("m", i), f)
		all = append(all, m)
	}
	// A client that is in a group and subscribed otherwise too gets one of each.
	both, in := newMember(t, h, "both", "$share/x/jobs")
	subscribe(t, both, "jobs", SubscribeOptions{QoS: 1}, in)
	jobs(t, p, 3)
	for i, m := range all {
		if diff := cmp.Diff([]string{"0", "1", "2"}, m.payloads()); diff != "" {
			t.Errorf("member %d: %s", i, diff)
		}
	}
	if n := len(in.take()); n != 6 {
		t.Errorf("the client with two subscriptions got %d, want 6", n)
	}
}

func TestGroupsSkipMembersThatMayNotRead(t *testing.T) {
	h := newHub(t, Config{})
	p := attach(t, h, "p")
	_, a := newMember(t, h, "a", "$share/g/jobs")
	_, b := newMember(t, h, "b", "$share/g/jobs")
	h.SetAccess(perUser{"p": everything(), "a": {read: []Filter{"other"}}, "b": everything()})
	jobs(t, p, 10)
	if n, k := len(a.take()), len(b.take()); n != 0 || k != 10 {
		t.Errorf("who may not read got %d, who may %d of 10", n, k)
	}
	h.SetAccess(perUser{"p": everything(), "a": {read: []Filter{"other"}}, "b": {}})
	jobs(t, p, 10)
	if n := dropped(h, DropNoMember); n != 10 {
		t.Errorf("%d counted as %v, want 10", n, DropNoMember)
	}
}

func TestAStrategyKeepsAKeyWithOneMember(t *testing.T) {
	for _, s := range []SharedStrategy{ByPublisher, ByTopic} {
		t.Run(fmt.Sprint(s), func(t *testing.T) {
			h := newHub(t, Config{Shared: s})
			const keys = 400
			counts := make(map[string]int) // jobs by member
			owner := make(map[string]string)
			for i := range 10 {
				id := name("m", i)
				c := attach(t, h, id)
				subscribe(t, c, "$share/g/#", SubscribeOptions{QoS: 1}, sinkFunc(func(d *Delivery) Outcome {
					key := string(d.Message.Topic)
					if s == ByPublisher {
						key = d.Message.Origin.Client
					}
					if was := owner[key]; was != "" && was != id {
						t.Errorf("%s went to %s and %s", key, was, id)
					}
					owner[key] = id
					counts[id]++
					return Delivered
				}))
				if i%2 == 1 {
					c.Close() // leaves a gap
				}
			}
			for i := range keys {
				p := attach(t, h, name("p", i))
				for k := range 5 {
					topic := Topic(name("t", i))
					if s == ByPublisher {
						topic += Topic(name("/", k))
					}
					publish(t, p, Message{Topic: topic})
				}
			}
			if len(owner) != keys || len(counts) != 5 {
				t.Fatalf("%d keys went to %d members", len(owner), len(counts))
			}
			for id, n := range counts {
				if share := n * 5 / keys; share < 2 || share > 9 { // 5 is even; 400 keys on 5 members
					t.Errorf("%s got %d of %d jobs: %v", id, n, keys*5, counts)
				}
			}
		})
	}
}

func TestAJobThatWasNotAcknowledgedGoesToAnotherMember(t *testing.T) {
	h := newHub(t, Config{})
	a, ina := newMember(t, h, "a", "$share/g/jobs")
	b, inb := newMember(t, h, "b", "$share/g/jobs")
	_, other := newMember(t, h, "other", "$share/h/jobs")
	m := &Message{Topic: "jobs", Payload: []byte("job"), QoS: 1}
	redeliver := func(except *Client) Result {
		batch := h.Begin()
		defer batch.End()
		return h.Redeliver(batch, "$share/g/jobs", m, except)
	}
	for range 4 {
		if r := redeliver(a); r.Reached != 1 {
			t.Fatalf("redelivery reached %d", r.Reached)
		}
	}
	if n, k := len(ina.take()), len(inb.take()); n != 0 || k != 4 {
		t.Errorf("the leaver got %d, the other %d of 4", n, k)
	}
	if n := len(other.take()); n != 0 {
		t.Errorf("another group got %d", n)
	}
	b.Close()
	if r := redeliver(a); r.Reached != 0 || dropped(h, DropNoMember) != 1 {
		t.Errorf("the leaver is the only member: reached %d, counted %d", r.Reached, dropped(h, DropNoMember))
	}
	a.Close()
	if r := redeliver(a); r.Reached != 0 || dropped(h, DropNoMember) != 2 {
		t.Errorf("no member is left: reached %d, counted %d", r.Reached, dropped(h, DropNoMember))
	}
	m = &Message{Topic: "jobs", Expires: 1}
	if r := redeliver(a); r.Reached != 0 || dropped(h, DropExpired) != 1 {
		t.Errorf("expired: reached %d, counted %d", r.Reached, dropped(h, DropExpired))
	}
}

func TestAGroupIsFreedWithItsLastMember(t *testing.T) {
	h := newHub(t, Config{})
	var clients []*Client
	for i := range 20 {
		c, _ := newMember(t, h, name("c", i), fmt.Sprintf("$share/g%d/jobs", i%4))
		clients = append(clients, c)
	}
	if n := len(h.table.match("jobs", nil)[0].shared()); n != 4 {
		t.Fatalf("%d groups, want 4", n)
	}
	for i, c := range slices.Backward(clients) {
		c.Close()
		if i == 3 {
			if n := len(h.table.match("jobs", nil)[0].shared()); n != 3 {
				t.Errorf("%d groups, want 3", n)
			}
		}
	}
	expectEmpty(t, h)
}
