package bridge

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestTheTableAgreesWithTheNaiveMatcher lets clients subscribe, replace and unsubscribe in any order and compares what each
// is given with what the specification says.
func TestTheTableAgreesWithTheNaiveMatcher(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, err := New(Config{Access: everything()})
		if err != nil {
			t.Fatal(err)
		}
		type key struct {
			client int
			filter string
		}
		var clients [4]*Client
		inboxes := make([]inbox, len(clients))
		for i := range clients {
			clients[i], err = h.Attach(&Identity{ClientID: name("c", i)}, h.Counters("test"), func(Reason) {})
			if err != nil {
				t.Fatal(err)
			}
		}
		model := make(map[key]SubscribeOptions)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			k := key{rapid.IntRange(0, len(clients)-1).Draw(t, "client"), someFilter.Draw(t, "filter")}
			if rapid.IntRange(0, 3).Draw(t, "shared") == 0 {
				k.filter = "$share/" + rapid.SampledFrom([]string{"g", "h"}).Draw(t, "group") + "/" + k.filter
			}
			if len(model) > 0 && rapid.Bool().Draw(t, "one that is there") {
				all := slices.SortedFunc(maps.Keys(model), func(a, b key) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
				k = rapid.SampledFrom(all).Draw(t, "which")
			}
			_, there := model[k]
			if rapid.IntRange(0, 2).Draw(t, "remove") == 0 {
				if got := clients[k.client].Unsubscribe(Filter(k.filter)); (got != nil) != there {
					t.Fatalf("unsubscribing %v: %v, want %v", k, got != nil, there)
				}
				delete(model, k)
			} else {
				o := SubscribeOptions{QoS: QoS(rapid.IntRange(0, 2).Draw(t, "qos"))}
				if _, existed, err := clients[k.client].Subscribe(Filter(k.filter), o, &inboxes[k.client]); err != nil || existed != there {
					t.Fatalf("subscribing %v: existed %v, want %v; %v", k, existed, there, err)
				}
				model[k] = o
			}

			topic := someTopic.Draw(t, "topic")
			b := h.Begin()
			r, err := clients[0].PublishAsync(b, &Message{Topic: Topic(topic), QoS: 2})
			b.End()
			if err != nil {
				t.Fatal(err)
			}
			want := make([]int, len(clients)) // QoS plus 1 of the one delivery for ordinary subscriptions
			groups := make(map[string][]int)
			for k, o := range model {
				switch {
				case !naive(k.filter, topic):
				case strings.HasPrefix(k.filter, sharePrefix):
					groups[k.filter] = append(groups[k.filter], k.client)
				default:
					want[k.client] = max(want[k.client], int(o.QoS)+1)
				}
			}
			reached := 0
			for i := range inboxes {
				plain := 0
				for _, d := range inboxes[i].take() {
					reached++
					if f := string(d.Filter); strings.HasPrefix(f, sharePrefix) {
						if !slices.Contains(groups[f], i) {
							t.Fatalf("client %d got %q for group %q, whose members are %v", i, topic, f, groups[f])
						}
						delete(groups, f)
						continue
					}
					if plain != 0 {
						t.Fatalf("client %d got %q twice", i, topic)
					}
					plain = int(d.QoS) + 1
				}
				if plain != want[i] {
					t.Fatalf("client %d got %q at QoS %d, want %d", i, topic, plain-1, want[i]-1)
				}
			}
			if len(groups) != 0 || reached != r.Reached {
				t.Fatalf("%q did not reach the groups %v; %d deliveries, reported as %d", topic, groups, reached, r.Reached)
			}
			if n := h.Stats().Subscriptions; n != len(model) {
				t.Fatalf("%d subscriptions counted, want %d", n, len(model))
			}
		}
		for _, c := range clients {
			c.Close()
		}
		expectEmpty(t, h)
	})
}

func TestSharedFiltersFollowTheDollarRule(t *testing.T) {
	h := newHub(t, Config{})
	var in inbox
	c := attach(t, h, "c")
	for _, f := range []string{"#", "+/x", "$share/g/#", "$share/g/+/x"} {
		subscribe(t, c, f, SubscribeOptions{}, &in)
	}
	b := h.Begin()
	h.PublishSystem(b, &Message{Topic: "$SYS/x"})
	b.End()
	if got := in.take(); got != nil {
		t.Fatalf("wildcards at the beginning got %v", got)
	}
	subscribe(t, c, "$share/g/$SYS/+", SubscribeOptions{}, &in)
	b = h.Begin()
	h.PublishSystem(b, &Message{Topic: "$SYS/x"})
	b.End()
	if got := in.take(); len(got) != 1 || got[0].Filter != "$share/g/$SYS/+" {
		t.Fatalf("got %v", got)
	}
}

func TestUnsubscribingTwiceChangesNothing(t *testing.T) {
	h := newHub(t, Config{})
	c := attach(t, h, "c")
	for _, f := range []Filter{"a/b", "a/+", "a/#", "#", "$share/g/a", "$share/g/+"} {
		subscribe(t, c, string(f), SubscribeOptions{}, nowhere{})
		if c.Unsubscribe(f) == nil || c.Unsubscribe(f) != nil || c.Unsubscribe("other/"+f) != nil {
			t.Errorf("unsubscribing %q went wrong", f)
		}
	}
	expectEmpty(t, h)
}

func TestDistinctFiltersComeAndGoAndLeaveNothing(t *testing.T) {
	h := newHub(t, Config{Limits: Limits{Subscriptions: 1 << 20}})
	const n = 20_000
	filter := func(i int) Filter {
		return Filter(strings.Replace(shapes[i%4].filter(i), "site", name("site", i), 1))
	}
	clients := make([]*Client, 20)
	for i := range clients {
		clients[i] = attach(t, h, name("c", i))
	}
	for range 2 {
		for i := range n {
			subscribe(t, clients[i%len(clients)], string(filter(i)), SubscribeOptions{}, nowhere{})
		}
		if got := h.Stats().Subscriptions; got != n {
			t.Fatalf("%d subscriptions, want %d", got, n)
		}
		for _, i := range rand.Perm(n) {
			if clients[i%len(clients)].Unsubscribe(filter(i)) == nil {
				t.Fatalf("%q was not there", filter(i))
			}
		}
		expectEmpty(t, h)
	}
	for i := range n {
		subscribe(t, clients[i%len(clients)], string(filter(i)), SubscribeOptions{}, nowhere{})
	}
	for _, c := range clients {
		c.Close()
	}
	expectEmpty(t, h)
}

func TestSubscriptionsOfOneFilterShareItsString(t *testing.T) {
	h := newHub(t, Config{})
	for _, f := range []string{"a/b", "a/+", "$share/g/a/b", "$share/g/#"} {
		buf := []byte(f)
		var first *Subscription
		for i := range 3 {
			c := attach(t, h, name(f, i))
			s, _, err := c.Subscribe(Filter(view(buf)), SubscribeOptions{}, nowhere{})
			if err != nil {
				t.Fatal(err)
			}
			if first == nil {
				first = s
			}
			if same(string(s.Filter), view(buf)) || !same(string(s.Filter), string(first.Filter)) {
				t.Errorf("%q: the subscription keeps the caller's bytes or has a copy of its own", f)
			}
		}
		clear(buf)
		if string(first.Filter) != f {
			t.Errorf("%q became %q when the caller used its buffer again", f, first.Filter)
		}
	}
}

// TestASubscriptionThatStaysGetsEveryMessage publishes while subscriptions of the same and other filters come and go. Those
// that stay, and those that are only ever replaced, must get every message of every publisher in order.
func TestASubscriptionThatStaysGetsEveryMessage(t *testing.T) {
	h := newHub(t, Config{Limits: Limits{Subscriptions: 1 << 20}})
	const publishers = 3
	messages := 4000
	if testing.Short() {
		messages = 1000
	}
	filters := []string{"a/b", "a/+", "a/#", "+/b", "#", "$share/only/a/b"}
	type steady struct {
		filter string
		next   [publishers]atomic.Int64
	}
	var all []*steady
	var stop atomic.Bool
	var churn sync.WaitGroup
	for i, f := range filters {
		for _, replaced := range []bool{false, true} {
			if replaced && strings.HasPrefix(f, sharePrefix) {
				continue // the group has one member, or messages would be spread
			}
			st := &steady{filter: f}
			all = append(all, st)
			sink := sinkFunc(func(d *Delivery) Outcome {
				p := int(d.Message.Payload[0] - '0')
				if want := fmt.Sprintf("%d:%d", p, st.next[p].Add(1)-1); string(d.Message.Payload) != want {
					t.Errorf("%q: got %s, want %s", f, d.Message.Payload, want)
				}
				return Delivered
			})
			c := attach(t, h, fmt.Sprint(f, replaced))
			subscribe(t, c, f, SubscribeOptions{}, sink)
			if replaced {
				churn.Go(func() {
					for q := 0; !stop.Load(); q++ {
						if _, existed, err := c.Subscribe(Filter(f), SubscribeOptions{QoS: QoS(q % 3)}, sink); !existed || err != nil {
							t.Errorf("replacing %q: existed %v, %v", f, existed, err)
							return
						}
					}
				})
			}
		}
		if strings.HasPrefix(f, sharePrefix) {
			continue
		}
		c := attach(t, h, name("comes and goes ", i))
		c2 := attach(t, h, name("comes and goes with many ", i))
		churn.Go(func() {
			for k := 0; !stop.Load(); k++ {
				c.Subscribe(Filter(f), SubscribeOptions{}, nowhere{})
				for j := range 20 {
					c2.Subscribe(Filter(fmt.Sprintf("%s%d", strings.TrimRight(f, "+#"), j)), SubscribeOptions{}, nowhere{})
				}
				c.Unsubscribe(Filter(f))
				for _, s := range c2.Subscriptions() {
					c2.Unsubscribe(s.Filter)
				}
			}
		})
	}
	var publishing sync.WaitGroup
	for p := range publishers {
		c := attach(t, h, name("p", p))
		publishing.Go(func() {
			b := h.Begin()
			defer b.End()
			for i := range messages {
				if _, err := c.PublishAsync(b, &Message{Topic: "a/b", Payload: fmt.Appendf(nil, "%d:%d", p, i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	publishing.Wait()
	stop.Store(true)
	churn.Wait()
	for _, st := range all {
		for p := range publishers {
			if n := st.next[p].Load(); n != int64(messages) {
				t.Errorf("%q got %d of the %d messages of publisher %d", st.filter, n, messages, p)
			}
		}
	}
	for _, c := range h.Clients() {
		c.Close()
	}
	expectEmpty(t, h)
}

func TestMatchingFindsEachFilterOnce(t *testing.T) {
	h := newHub(t, Config{})
	c := attach(t, h, "c")
	for _, f := range []string{"a/b", "a/+", "+/b", "+/+", "#", "a/#", "+/#", "a/b/#", "a/+/#", "a", "b/#", "a/b/c", "$share/g/a/b", "$share/g/#"} {
		subscribe(t, c, f, SubscribeOptions{}, nowhere{})
	}
	var got []string
	for _, l := range h.table.match("a/b", nil) {
		got = append(got, l.filter)
	}
	slices.Sort(got)
	want := []string{"#", "+/#", "+/+", "+/b", "a/#", "a/+", "a/+/#", "a/b", "a/b/#"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := h.table.match("", nil); len(got) != 2 { // never published, but it must not crash: "#" and "+/#"
		t.Errorf("the empty topic matches %d filters", len(got))
	}
}
