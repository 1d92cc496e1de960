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
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func retain(t testing.TB, c *Client, topic, payload string) {
	t.Helper()
	publish(t, c, Message{Topic: Topic(topic), Payload: []byte(payload), Retain: true})
}

// values lists what the client is given for a filter, as topic=payload.
func values(c *Client, f Filter) []string {
	var list []string
	for m := range c.Retained(f).All() {
		list = append(list, string(m.Topic)+"="+string(m.Payload))
	}
	slices.Sort(list)
	return list
}

func expectValues(t *testing.T, c *Client, f Filter, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, values(c, f)); diff != "" {
		t.Errorf("%q: %s", f, diff)
	}
}

// expectNothingRetained checks that the tree is empty inside too.
func expectNothingRetained(t rapid.TB, h *Hub) {
	t.Helper()
	r := h.retained
	if n, bytes := r.size(); n != 0 || bytes != 0 || len(r.expiring) != 0 || r.root.below.live != 0 || !r.root.below.empty() {
		t.Errorf("%d values of %d bytes, %d expiring, %d topics are left", n, bytes, len(r.expiring), r.root.below.live)
	}
}

func TestARetainedValueIsSetReplacedAndCleared(t *testing.T) {
	h := newHub(t, Config{})
	c := attach(t, h, "c")
	retain(t, c, "a/b", "1")
	publish(t, c, Message{Topic: "a/c", Payload: []byte("not retained")})
	expectValues(t, c, "#", "a/b=1")
	retain(t, c, "a/b", "2")
	retain(t, c, "a", "3")
	retain(t, c, "/", "4")
	expectValues(t, c, "#", "/=4", "a/b=2", "a=3")
	expectValues(t, c, "a/#", "a/b=2", "a=3")
	expectValues(t, c, "+", "a=3")
	expectValues(t, c, "+/+", "/=4", "a/b=2")
	expectValues(t, c, "a/b", "a/b=2")
	expectValues(t, c, "a/b/c")
	expectValues(t, c, "$share/g/a/b", "a/b=2")
	if m := c.RetainedValue("a/b"); m == nil || string(m.Payload) != "2" || !m.Retain || m.Origin.Client != "c" {
		t.Errorf("the value at a/b is %+v", m)
	}
	if s := h.Stats(); s.Retained != 3 || s.RetainedBytes == 0 {
		t.Errorf("counted as %d values of %d bytes", s.Retained, s.RetainedBytes)
	}
	retain(t, c, "a", "")
	retain(t, c, "never set", "")
	retain(t, c, "a/b/c", "")
	expectValues(t, c, "#", "/=4", "a/b=2")
	retain(t, c, "a/b", "")
	retain(t, c, "/", "")
	expectNothingRetained(t, h)
}

func TestRetainedValuesHideTheDollarFromWildcards(t *testing.T) {
	h := newHub(t, Config{})
	c := attach(t, h, "c")
	for _, topic := range []string{"$x/a", "$x", "a/$x", "b"} {
		retain(t, c, topic, "v")
	}
	expectValues(t, c, "#", "a/$x=v", "b=v")
	expectValues(t, c, "+/#", "a/$x=v", "b=v")
	expectValues(t, c, "+", "b=v")
	expectValues(t, c, "+/a")
	expectValues(t, c, "$x/#", "$x/a=v", "$x=v")
	expectValues(t, c, "$x/+", "$x/a=v")
	expectValues(t, c, "a/+", "a/$x=v")
}

// TestRetainedValuesAgreeWithAModel sets, replaces, clears and expires values and compares what any filter is given.
func TestRetainedValuesAgreeWithAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, err := New(Config{Access: everything()})
		if err != nil {
			t.Fatal(err)
		}
		r, model := h.retained, make(map[string]*Message)
		now := int64(0)
		for i := range rapid.IntRange(1, 80).Draw(t, "steps") {
			topic := someTopic.Draw(t, "topic")
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0:
				if _, err := r.set(&Message{Topic: Topic(topic)}, DefaultLimits(), Memory); err != nil {
					t.Fatal(err)
				}
				delete(model, topic)
			case 1:
				now += int64(rapid.IntRange(0, 20).Draw(t, "time passes"))
				r.expire(now)
				maps.DeleteFunc(model, func(_ string, m *Message) bool { return m.Expired(now) })
			default:
				m := &Message{Topic: Topic(topic), Payload: fmt.Append(nil, i)}
				if rapid.Bool().Draw(t, "expires") {
					m.Expires = now + int64(rapid.IntRange(1, 50).Draw(t, "in"))
				}
				if _, err := r.set(m, DefaultLimits(), Memory); err != nil {
					t.Fatal(err)
				}
				model[topic] = m
			}
			f := someFilter.Draw(t, "filter")
			var got, want []string
			for m := range r.cursor(Filter(f)).All() {
				got = append(got, string(m.Topic)+"="+string(m.Payload))
			}
			var bytes int64
			due := 0
			for topic, m := range model {
				if naive(f, topic) {
					want = append(want, topic+"="+string(m.Payload))
				}
				bytes += r.cost(m)
				if m.Expires != 0 {
					due++
				}
			}
			slices.Sort(got)
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%q: %s", f, diff)
			}
			if n, b := r.size(); n != len(model) || b != bytes || len(r.expiring) != due {
				t.Fatalf("%d values, %d bytes, %d expiring; want %d, %d, %d", n, b, len(r.expiring), len(model), bytes, due)
			}
			for i, v := range r.expiring {
				if v.due != i+1 {
					t.Fatalf("place %d of the heap holds one that believes it is at %d", i, v.due-1)
				}
			}
		}
		for topic := range model {
			r.remove(topic)
		}
		expectNothingRetained(t, h)
	})
}

func TestRetainedValuesExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, Config{})
		go h.Run(t.Context())
		c := attach(t, h, "c")
		for i := range 2500 { // more than one go of the expiry
			publish(t, c, Message{
				Topic: Topic(name("short/", i)), Payload: []byte("x"), Retain: true, Expires: time.Now().Add(10 * time.Second).UnixNano(),
			})
		}
		publish(t, c, Message{Topic: "long", Payload: []byte("x"), Retain: true, Expires: time.Now().Add(time.Hour).UnixNano()})
		publish(t, c, Message{Topic: "ever", Payload: []byte("x"), Retain: true})
		time.Sleep(9 * time.Second)
		if n := h.Stats().Retained; n != 2502 {
			t.Fatalf("after 9 s %d values are left", n)
		}
		time.Sleep(3 * time.Second)
		expectValues(t, c, "#", "ever=x", "long=x")
		publish(t, c, Message{Topic: "long", Payload: []byte("y"), Retain: true}) // does not expire any more
		time.Sleep(2 * time.Hour)
		expectValues(t, c, "#", "ever=x", "long=y")
	})
}

func TestTheLimitCapsTheExpiryOfMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, Config{Limits: Limits{MaxMessageExpirySecond: 60}})
		c := attach(t, h, "c")
		now := time.Now().UnixNano()
		for given, want := range map[int64]int64{0: 60, 10: 10, 100: 60} {
			m := Message{Topic: "a"}
			if given != 0 {
				m.Expires = now + given*int64(time.Second)
			}
			b := h.Begin()
			if _, err := c.PublishAsync(b, &m); err != nil {
				t.Fatal(err)
			}
			b.End()
			if s, ok := m.ExpirySeconds(now); !ok || int64(s) != want {
				t.Errorf("a message of %d s expires in %d s, %v; want %d", given, s, ok, want)
			}
		}
	})
}

func TestRetainedValuesAreLimitedInNumberAndBytes(t *testing.T) {
	h := newHub(t, Config{Limits: Limits{RetainedValues: 3, RetainedBytes: 4000}})
	c := attach(t, h, "c")
	set := func(topic string, n int) Reason {
		return ReasonOf(c.Publish(t.Context(), &Message{Topic: Topic(topic), Payload: make([]byte, n), Retain: true}))
	}
	var in inbox
	subscribe(t, attach(t, h, "s"), "#", SubscribeOptions{}, &in)
	for _, step := range []struct {
		topic string
		bytes int
		want  Reason
	}{
		{"a", 10, OK}, {"b", 10, OK}, {"c", 10, OK}, {"d", 10, QuotaExceeded}, {"a", 20, OK}, {"a", 5000, QuotaExceeded}, {"a", 0, OK}, {"d", 10, OK},
		{"b", 0, OK}, {"e", 3000, QuotaExceeded}, {"e", 2000, OK}, {"e", 2500, OK}, {"e", 100, OK},
	} {
		if got := set(step.topic, step.bytes); got != step.want {
			t.Fatalf("%d bytes at %q: %v, want %v", step.bytes, step.topic, got, step.want)
		}
	}
	if got := len(in.take()); got != 10 {
		t.Errorf("%d messages were delivered, want the 10 that were not refused", got)
	}
	if n := dropped(h, DropRefused); n != 3 {
		t.Errorf("%d refusals counted, want 3", n)
	}
	h.SetLimits(Limits{RetainedValues: 1})
	if set("c", 1) != OK || set("new", 1) != QuotaExceeded || h.Stats().Retained != 3 {
		t.Error("a lowered limit must keep what is there, let it be replaced and refuse what is new")
	}
}

func TestEveryLevelOfARetainedTopicIsPaidFor(t *testing.T) {
	h := newHub(t, Config{})
	c := attach(t, h, "c")
	const n = 2000
	before := heapInUse()
	for i := range n {
		retain(t, c, name("x", i)+strings.Repeat("/y", 60), "v")
	}
	used, counted := heapInUse()-before, h.Stats().RetainedBytes
	if used > counted {
		t.Errorf("values counted as %d bytes take %d", counted, used)
	}
	t.Logf("%d bytes a value, counted as %d", used/n, counted/n)
}

func TestDistinctRetainedTopicsComeAndGoAndLeaveNothing(t *testing.T) {
	h := newHub(t, Config{})
	c := attach(t, h, "c")
	topic := func(i int) string { return fmt.Sprintf("site%d/%d/x/%d", i%7, i, i%3) }
	const n = 20_000
	for range 2 {
		for i := range n {
			publish(t, c, Message{Topic: Topic(topic(i)), Payload: []byte("v"), Retain: true, Expires: int64(1 + i%2*i)})
		}
		for _, i := range rand.Perm(n) {
			retain(t, c, topic(i), "")
		}
		expectNothingRetained(t, h)
	}
	for i := range n {
		publish(t, c, Message{Topic: Topic(topic(i)), Payload: []byte("v"), Retain: true, Expires: int64(1 + i)})
	}
	h.retained.expire(n + 1)
	expectNothingRetained(t, h)
	if n := cap(h.retained.expiring); n > 1024 {
		t.Errorf("the empty expiry heap has room for %d", n)
	}
}

// TestACursorMeetsWhatStaysWhileOthersChange walks while values around the ones that stay are set, replaced and cleared.
func TestACursorMeetsWhatStaysWhileOthersChange(t *testing.T) {
	h := newHub(t, Config{})
	c := attach(t, h, "c")
	const stay = 50
	for i := range stay {
		retain(t, c, fmt.Sprintf("s/%d/v", i), "0")
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	for w := range 2 {
		p := attach(t, h, name("w", w))
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				retain(t, p, fmt.Sprintf("s/%d/v", i%stay), fmt.Sprint(i)) // replaced, never away
				retain(t, p, fmt.Sprintf("s/x%d-%d/v", w, i%300), "x")
				retain(t, p, fmt.Sprintf("s/x%d-%d/v", w, (i*7)%300), "")
				retain(t, p, fmt.Sprintf("s/%d/v/below%d", i%stay, w), "x")
				retain(t, p, fmt.Sprintf("s/%d/v/below%d", (i*3)%stay, w), "")
			}
		})
	}
	for _, f := range []Filter{"#", "s/#", "s/+/v", "s/+/#"} {
		for range 50 {
			seen := make(map[Topic]int)
			for m := range c.Retained(f).All() {
				seen[m.Topic]++
				if !f.Match(m.Topic) || len(m.Payload) == 0 {
					t.Fatalf("%q met %q with %q", f, m.Topic, m.Payload)
				}
			}
			for i := range stay {
				if topic := Topic(fmt.Sprintf("s/%d/v", i)); seen[topic] != 1 {
					t.Fatalf("%q met %q %d times", f, topic, seen[topic])
				}
			}
		}
	}
	stop.Store(true)
	wg.Wait()
}

// TestAMillionRetainedValuesAreStreamed walks them all: a cursor holds its way down and no list of what it will meet.
func TestAMillionRetainedValuesAreStreamed(t *testing.T) {
	n := 1_000_000
	if testing.Short() || raceEnabled {
		n = 50_000
	}
	h := newHub(t, Config{Limits: Limits{RetainedValues: n}})
	payload := []byte("21.5")
	for i := range n {
		m := &Message{Topic: Topic(fmt.Sprintf("site/%d/device/%d", i%1000, i)), Payload: payload, Retain: true}
		if _, err := h.retained.set(m, h.Limits(), Memory); err != nil {
			t.Fatal(err)
		}
	}
	cursor := attach(t, h, "c").Retained("site/+/device/#")
	before := heapInUse()
	for i := range n {
		if cursor.Next() == nil {
			t.Fatalf("the cursor ended after %d of %d", i, n)
		}
		if i == n/2 {
			if grown := heapInUse() - before; grown > 1<<20 {
				t.Errorf("half way through %d values the heap has grown by %d bytes", n, grown)
			}
		}
	}
	if m := cursor.Next(); m != nil || cursor.Next() != nil {
		t.Errorf("after all %d values there is %q", n, m.Topic)
	}
	if !raceEnabled {
		all := h.retained.cursor("#")
		if allocs := testing.AllocsPerRun(10_000, func() { all.Next() }); allocs != 0 {
			t.Errorf("a step of the cursor allocates %v times", allocs)
		}
	}
}

func TestACursorPassesOverWhatTheClientMayNotRead(t *testing.T) {
	h := newHub(t, Config{Access: perUser{
		"all": everything(), "part": {read: []Filter{"a/+", "c"}}, "none": {read: []Filter{"x"}},
	}})
	all := attach(t, h, "all")
	for _, topic := range []string{"a/1", "a/2", "a/2/3", "b", "c"} {
		retain(t, all, topic, "v")
	}
	part := attach(t, h, "part")
	expectValues(t, part, "#", "a/1=v", "a/2=v", "c=v")
	expectValues(t, part, "a/#", "a/1=v", "a/2=v")
	expectValues(t, part, "b")
	expectValues(t, attach(t, h, "none"), "#")

	cursor := all.Retained("#")
	if cursor.Next() == nil {
		t.Fatal("nothing is retained")
	}
	h.SetAccess(perUser{"all": {read: []Filter{"none of these"}}, "part": everything(), "none": everything()})
	if m := cursor.Next(); m != nil {
		t.Errorf("after the right was revoked %q is met", m.Topic)
	}
}

func TestACursorOutlivesTheBytesOfItsFilter(t *testing.T) {
	h := newHub(t, Config{})
	c := attach(t, h, "c")
	retain(t, c, "a/b/c", "v")
	buf := []byte("a/+/c")
	cursor := c.Retained(Filter(view(buf)))
	copy(buf, "xxxxx")
	if cursor.Next() == nil {
		t.Error("the cursor follows the caller's buffer")
	}
}

func TestARetainedValuePinsNothingButItself(t *testing.T) {
	h := newHub(t, Config{})
	c := attach(t, h, "c")
	buf := []byte("sensors/1:21.5")
	publish(t, c, Message{Topic: Topic(view(buf[:9])), Payload: buf[10:], Retain: true, Borrowed: true})
	clear(buf)
	expectValues(t, c, "#", "sensors/1=21.5")
}

// TestACursorGoesOnWhereItsAllowanceEnded walks with an allowance of a few looks at a time past values that do not match.
func TestACursorGoesOnWhereItsAllowanceEnded(t *testing.T) {
	h := newHub(t, Config{})
	c := attach(t, h, "c")
	for i := range 300 {
		retain(t, c, name("a/", i), "v")
		retain(t, c, fmt.Sprintf("b/%d/x", i), "v")
	}
	for _, f := range []Filter{"#", "+/+", "b/+/x", "+/7", "none/#", "b/+/none"} {
		var want, got []string
		for m := range c.Retained(f).All() {
			want = append(want, string(m.Topic))
		}
		cursor := c.Retained(f)
		for rounds := 0; ; rounds++ {
			if rounds > 10_000 {
				t.Fatalf("%q: no end", f)
			}
			looks := 1 + rounds%7
			m := cursor.NextWithin(&looks)
			if m == nil && looks > 0 {
				break
			}
			if looks < 0 {
				t.Fatalf("%q: looked at more than was allowed: %d", f, looks)
			}
			if m != nil {
				got = append(got, string(m.Topic))
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", f, diff)
		}
	}
}
