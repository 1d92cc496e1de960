package bridge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAHubNeedsAnAccessAndSaneLimits(t *testing.T) {
	for _, cfg := range []Config{
		{}, {Access: everything(), Limits: Limits{TopicBytes: 70000}}, {Access: everything(), Limits: Limits{TopicLevels: -1}},
		{Access: everything(), Limits: Limits{Hops: 256}}, {Access: everything(), Limits: Limits{Clients: -1}},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("New(%+v) worked", cfg)
		}
	}
	if l := newHub(t, Config{Limits: Limits{Clients: 7}}).Limits(); l.Clients != 7 || l.TopicLevels != DefaultLimits().TopicLevels {
		t.Errorf("limits are %+v", l)
	}
}

func TestAttachRefusesDuplicatesAndTooMany(t *testing.T) {
	h := newHub(t, Config{Limits: Limits{Clients: 2}})
	a := attach(t, h, "a")
	try := func(endpoint, id string) Reason {
		_, err := h.Attach(&Identity{ClientID: id}, h.Counters(endpoint), func(Reason) {})
		return ReasonOf(err)
	}
	if got := try("test", "a"); got != Internal {
		t.Errorf("the same client once more: %v", got)
	}
	if got := try("other", "a"); got != OK {
		t.Errorf("the same id at another endpoint: %v", got)
	}
	if got := try("test", "b"); got != QuotaExceeded {
		t.Errorf("over the limit: %v", got)
	}
	if h.Client("test", "a") != a || h.Client("test", "x") != nil || len(h.Clients()) != 2 || h.Stats().Clients != 2 {
		t.Error("the list of clients is wrong")
	}
	a.Close()
	if got := try("test", "a"); got != OK {
		t.Errorf("after the first has gone: %v", got)
	}
	a.Close() // must not remove its successor
	if h.Client("test", "a") == nil {
		t.Error("closing twice removed the successor")
	}
}

func TestAClosedClientCannotSubscribe(t *testing.T) {
	h := newHub(t, Config{})
	for i := range 200 {
		c := attach(t, h, name("c", i))
		var wg sync.WaitGroup
		wg.Go(func() {
			for k := range 20 {
				_, _, err := c.Subscribe(Filter(name("a/", k)), SubscribeOptions{}, nowhere{})
				if r := ReasonOf(err); r != OK && r != Unavailable {
					t.Errorf("subscribing: %v", err)
				}
			}
		})
		wg.Go(c.Close)
		wg.Wait()
	}
	expectEmpty(t, h)
	if n := len(h.Clients()); n != 0 {
		t.Errorf("%d clients are left", n)
	}
}

func TestSubscriptionsPerClientAreLimited(t *testing.T) {
	h := newHub(t, Config{Limits: Limits{Subscriptions: 2}})
	c := attach(t, h, "c")
	try := func(f Filter) Reason {
		_, _, err := c.Subscribe(f, SubscribeOptions{}, nowhere{})
		return ReasonOf(err)
	}
	if try("a") != OK || try("b") != OK || try("c") != QuotaExceeded || try("a") != OK {
		t.Error("a third subscription was let in, or replacing one was not")
	}
	c.Unsubscribe("a")
	if try("c") != OK {
		t.Error("there is room for one more")
	}
	var list []Filter
	for _, s := range c.Subscriptions() {
		list = append(list, s.Filter)
	}
	if diff := cmp.Diff([]Filter{"b", "c"}, list); diff != "" {
		t.Error(diff)
	}
}

func TestRefusedMessagesReachNobody(t *testing.T) {
	h := newHub(t, Config{Access: perUser{"p": {write: []Filter{"ok/#", "$SYS/#"}}, "s": everything()}, Limits: Limits{Hops: 3}})
	p, s := attach(t, h, "p"), attach(t, h, "s")
	var in inbox
	for _, f := range []string{"#", "ok/a", "$SYS/#", "$share/g/#"} {
		subscribe(t, s, f, SubscribeOptions{QoS: 2}, &in)
	}
	for _, tt := range []struct {
		m    Message
		want Reason
	}{
		{Message{Topic: "no"}, NotAuthorized}, {Message{Topic: ""}, BadTopic}, {Message{Topic: "ok/#"}, BadTopic}, {Message{Topic: "ok/\xff"}, BadTopic},
		{Message{Topic: "$SYS/broker/uptime"}, NotAuthorized}, {Message{Topic: "ok/a", Origin: Origin{Hops: 4}}, Loop},
	} {
		for q := range QoS(3) {
			for _, retain := range []bool{false, true} {
				for range 2 { // decided and remembered
					m := tt.m
					m.QoS, m.Retain, m.Payload = q, retain, []byte("x")
					b := h.Begin()
					_, err := p.PublishAsync(b, &m)
					b.End()
					if wrapped := fmt.Errorf("a: %w", fmt.Errorf("b: %w", err)); err == nil || ReasonOf(wrapped) != tt.want {
						t.Errorf("%q QoS %d retain %v: %v, want %v", m.Topic, q, retain, err, tt.want)
					}
				}
			}
		}
	}
	if got := in.take(); got != nil {
		t.Errorf("delivered: %v", got)
	}
	if h.Stats().Retained != 0 {
		t.Error("a refused message was retained")
	}
	if refused, loops := dropped(h, DropRefused), dropped(h, DropLoop); refused != 5*12 || loops != 12 {
		t.Errorf("counted %d refused and %d loops, want 60 and 12", refused, loops)
	}
	publish(t, p, Message{Topic: "$SYS/broker/connection/p/state"}) // a bridge of Mosquitto
	publish(t, p, Message{Topic: "ok/a", Origin: Origin{Hops: 3}})
	if got := in.take(); len(got) != 3 { // one of $SYS, one of ok/a merged, one shared
		t.Errorf("allowed messages were delivered %d times: %v", len(got), got)
	}
}

func TestAnErrorOutlivesTheBytesOfItsTopic(t *testing.T) {
	h := newHub(t, Config{Access: &grants{}})
	c := attach(t, h, "c")
	for _, topic := range []string{"secret/a", "$SYS/x"} {
		buf := []byte(topic)
		b := h.Begin()
		_, err := c.PublishAsync(b, &Message{Topic: Topic(view(buf)), Borrowed: true})
		b.End()
		_, _, err2 := c.Subscribe(Filter(view(buf)), SubscribeOptions{}, nowhere{})
		clear(buf)
		for _, err := range []error{err, err2} {
			if err == nil || !strings.Contains(err.Error(), topic) {
				t.Errorf("%q: the error became %v", topic, err)
			}
		}
	}
}

func TestARevokedRightHoldsFromTheNextMessage(t *testing.T) {
	allowed := perUser{"p": everything(), "s": everything()}
	h := newHub(t, Config{Access: allowed})
	p, s := attach(t, h, "p"), attach(t, h, "s")
	var exact, merged inbox
	subscribe(t, s, "a/b", SubscribeOptions{QoS: 1}, &exact)
	s2, err := h.Attach(&Identity{User: "s", ClientID: "s2"}, h.Counters("test"), func(Reason) {})
	if err != nil {
		t.Fatal(err)
	}
	subscribe(t, s2, "a/+", SubscribeOptions{QoS: 1}, &merged)
	subscribe(t, s2, "#", SubscribeOptions{QoS: 0}, &merged)
	send := func() error {
		b := h.Begin()
		defer b.End()
		_, err := p.PublishAsync(b, &Message{Topic: "a/b"})
		return err
	}
	expect := func(what string, publishes, n, k int) {
		t.Helper()
		if err := send(); (err == nil) != (publishes == 1) {
			t.Errorf("%s: publishing: %v", what, err)
		}
		if a, b := len(exact.take()), len(merged.take()); a != n || b != k {
			t.Errorf("%s: delivered %d and %d times, want %d and %d", what, a, b, n, k)
		}
	}
	expect("before", 1, 1, 1)
	h.SetAccess(perUser{"p": everything(), "s": {read: []Filter{"x"}}})
	expect("reading revoked", 1, 0, 0)
	if n := dropped(h, DropNotAuthorized); n != 2 {
		t.Errorf("%d messages counted as not authorized, want one for each client", n)
	}
	h.SetAccess(perUser{"p": everything(), "s": {read: []Filter{"a/b"}}})
	expect("reading granted for a part", 1, 1, 1)
	h.SetAccess(perUser{"p": {}, "s": everything()})
	expect("writing revoked", 0, 0, 0)
	h.SetAccess(allowed)
	expect("after", 1, 1, 1)

	p.SetIdentity(&Identity{User: "s", ClientID: "p"})
	h.SetAccess(perUser{"p": everything(), "s": {}})
	expect("the client came back as somebody else", 0, 0, 0)
}

func TestASubscriptionThatMayNotBeReadAddsNothingToAMergedDelivery(t *testing.T) {
	h := newHub(t, Config{Access: perUser{"p": everything(), "s": everything()}})
	p, s := attach(t, h, "p"), attach(t, h, "s")
	var in inbox
	for _, filters := range [][]string{{"a/b", "a/+"}, {"a/+", "a/b"}} {
		h.SetAccess(perUser{"p": everything(), "s": everything()})
		for i, f := range filters {
			subscribe(t, s, f, SubscribeOptions{QoS: QoS(2 - i), Identifier: uint32(len(f))}, &in)
		}
		// Rules that refuse one filter as such, though they grant the topic.
		h.SetAccess(perUser{"p": everything(), "s": {all: true, refuses: Filter(filters[0])}})
		publish(t, p, Message{Topic: "a/b", QoS: 2})
		want := []delivered{{Topic: "a/b", QoS: 1, Identifiers: []uint32{3}, Filter: Filter(filters[1])}}
		if diff := cmp.Diff(want, in.take()); diff != "" {
			t.Errorf("%v: %s", filters, diff)
		}
	}
	if n := dropped(h, DropNotAuthorized); n != 0 {
		t.Errorf("%d drops counted, but the message was delivered", n)
	}
}

func TestRemovedUsersAreClosed(t *testing.T) {
	h := newHub(t, Config{Access: everything()})
	closed := make(map[string]Reason)
	for _, user := range []string{"stays", "goes"} {
		_, err := h.Attach(&Identity{User: user, ClientID: user}, h.Counters("test"), func(r Reason) { closed[user] = r })
		if err != nil {
			t.Fatal(err)
		}
	}
	goes := h.Client("test", "goes")
	h.SetAccess(&grants{all: true, gone: map[string]bool{"goes": true}})
	if diff := cmp.Diff(map[string]Reason{"goes": NotAuthorized}, closed); diff != "" {
		t.Error(diff)
	}
	if err := goes.Publish(t.Context(), &Message{Topic: "a"}); ReasonOf(err) != NotAuthorized {
		t.Errorf("until it is closed it publishes: %v", err)
	}
	if _, err := h.Attach(&Identity{User: "goes", ClientID: "again"}, h.Counters("test"), func(Reason) {}); ReasonOf(err) != NotAuthorized {
		t.Errorf("attaching with an identity from before the reload: %v", err)
	}
	if h.Client("test", "again") != nil {
		t.Error("a client that was refused stays attached")
	}
	if _, err := h.Authenticate(t.Context(), Credentials{User: "goes"}); ReasonOf(err) != Unauthenticated {
		t.Errorf("authenticating: %v", err)
	}
	h.Client("test", "stays").SetIdentity(&Identity{User: "goes", ClientID: "stays"})
	if closed["stays"] != NotAuthorized {
		t.Error("a session resumed by a removed user was not closed")
	}
}

// TestAReloadBesideAttachLeavesNobodyWithOldRules attaches and resumes clients while the access changes; in the end each
// must have the rules of the last one.
func TestAReloadBesideAttachLeavesNobodyWithOldRules(t *testing.T) {
	h := newHub(t, Config{Access: &grants{}})
	var wg sync.WaitGroup
	const reloads = 200
	wg.Go(func() {
		for i := range reloads {
			h.SetAccess(&grants{read: []Filter{Filter(name("f", i))}, write: []Filter{Filter(name("t", i))}})
		}
	})
	for w := range 2 {
		wg.Go(func() {
			for i := range 300 {
				id := &Identity{User: "u", ClientID: fmt.Sprint(w, "-", i)}
				c, err := h.Attach(id, h.Counters("test"), func(Reason) {})
				if err != nil {
					t.Error(err)
					return
				}
				c.Subscribe(Filter(name("f", i%reloads)), SubscribeOptions{}, nowhere{})
				c.SetIdentity(id)
			}
		})
	}
	// Publishers fill the caches meanwhile.
	p := attach(t, h, "p")
	wg.Go(func() {
		b := h.Begin()
		defer b.End()
		for i := range 5000 {
			p.PublishAsync(b, &Message{Topic: Topic(name("t", i%reloads))})
		}
	})
	wg.Wait()
	last := *h.access.Load()
	for _, c := range h.Clients() {
		if c.Identity().Permissions != Permissions(last.(*grants)) {
			t.Fatalf("%s has rules of an earlier reload", c.ID())
		}
		for _, s := range c.Subscriptions() {
			if got, want := c.coverage(&s.access, s.Filter), last.(*grants).Covers(s.Filter); got != want {
				t.Fatalf("%s may read %v of %q, want %v", c.ID(), got, s.Filter, want)
			}
		}
	}
	for i := range reloads {
		b := h.Begin()
		_, err := p.PublishAsync(b, &Message{Topic: Topic(name("t", i))})
		b.End()
		if (err == nil) != (i == reloads-1) {
			t.Errorf("t%d: %v", i, err)
		}
	}
}

func TestPermissionIsAskedOncePerDeliveryAtMost(t *testing.T) {
	var asked atomic.Int64
	g := &grants{write: []Filter{"#"}, read: []Filter{"a/+"}, asked: func() { asked.Add(1) }}
	h := newHub(t, Config{Access: g})
	p, s := attach(t, h, "p"), attach(t, h, "s")
	subscribe(t, s, "a/+", SubscribeOptions{}, nowhere{}) // covered: no delivery asks
	for range 10 {
		publish(t, p, Message{Topic: "a/b"})
	}
	if n := asked.Swap(0); n != 1 {
		t.Errorf("10 messages on one topic to a covered filter asked %d times, want once for the publisher", n)
	}
	subscribe(t, s, "#", SubscribeOptions{QoS: 1}, nowhere{}) // a part, but the other filter covers the topic
	publish(t, p, Message{Topic: "a/b"})
	if n := asked.Swap(0); n != 0 {
		t.Errorf("asked %d times where one of two filters is covered", n)
	}
	s.Unsubscribe("a/+")
	subscribe(t, s, "+/b", SubscribeOptions{}, nowhere{})
	publish(t, p, Message{Topic: "a/b"})
	if n := asked.Swap(0); n != 1 {
		t.Errorf("a merged delivery asked %d times, want once", n)
	}
}

func TestAPublisherOfManyTopicsIsRememberedWithoutMixingThemUp(t *testing.T) {
	h := newHub(t, Config{Access: &grants{write: []Filter{"ok/+"}}})
	c := attach(t, h, "c")
	for range 3 {
		for i := range 50 {
			for _, prefix := range []string{"ok/", "no/"} {
				b := h.Begin()
				_, err := c.PublishAsync(b, &Message{Topic: Topic(name(prefix, i))})
				b.End()
				if (err == nil) != (prefix == "ok/") {
					t.Fatalf("%s%d: %v", prefix, i, err)
				}
			}
		}
	}
}

func TestALoweredTopicLimitHoldsFromTheNextMessage(t *testing.T) {
	h := newHub(t, Config{})
	c := attach(t, h, "c")
	publish(t, c, Message{Topic: "a/b/c"})
	h.SetLimits(Limits{TopicLevels: 2})
	b := h.Begin()
	defer b.End()
	if _, err := c.PublishAsync(b, &Message{Topic: "a/b/c"}); ReasonOf(err) != BadTopic {
		t.Errorf("publishing three levels: %v", err)
	}
}

func TestReasonsHaveNamesAndSurviveWrapping(t *testing.T) {
	seen := make(map[string]bool)
	for _, r := range Reasons() {
		s := r.String()
		if s == "" || seen[s] || strings.HasPrefix(s, "reason ") {
			t.Errorf("reason %d is called %q", r, s)
		}
		seen[s] = true
		if r == OK {
			continue
		}
		err := error(&Error{Op: "doing", Topic: "a", Reason: r, Err: context.Canceled})
		for range 2 {
			err = fmt.Errorf("wrapped: %w", err)
		}
		if ReasonOf(err) != r || !errors.Is(err, context.Canceled) {
			t.Errorf("%v became %v", r, ReasonOf(err))
		}
	}
	if Reason(200).String() != "reason 200" || ReasonOf(nil) != OK || ReasonOf(context.Canceled) != Internal {
		t.Error("the edges of Reason are wrong")
	}
	if got := (&Error{Op: "publishing", Topic: "a", Reason: Loop}).Error(); got != `publishing: "a": loop` {
		t.Errorf("an error reads %q", got)
	}
	names := make(map[string]bool)
	for _, r := range DropReasons() {
		if s := r.String(); s == "" || names[s] {
			t.Errorf("drop reason %d is called %q", r, s)
		}
		names[r.String()] = true
	}
	if !slices.IsSorted(Reasons()) || len(Reasons()) != int(reasonCount) || len(DropReasons()) != int(dropReasons) {
		t.Error("a list is not complete")
	}
}
