package bridge

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestAFanoutBehavesAsASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var f fanout
		var model []*Subscription
		pick := func() int { return rapid.IntRange(0, len(model)-1).Draw(t, "which") }
		// Growing and shrinking phases, or the size would stay small.
		for range rapid.IntRange(1, 4).Draw(t, "phases") {
			adds := rapid.IntRange(1, 9).Draw(t, "of ten steps, adding")
			for range rapid.IntRange(0, 120).Draw(t, "steps") {
				switch k := rapid.IntRange(0, 10).Draw(t, "step"); {
				case k < adds || len(model) == 0:
					s := new(Subscription)
					f.add(s)
					model = append(model, s)
				case k == 10:
					i := pick()
					s := new(Subscription)
					before := len(f.places())
					f.replace(model[i], s)
					if s.place != model[i].place || len(f.places()) != before {
						t.Fatalf("a replacement took place %d instead of %d", s.place, model[i].place)
					}
					model[i] = s
				default:
					i := pick()
					f.remove(model[i])
					model = slices.Delete(model, i, i+1)
				}
				checkFanout(t, &f, model)
			}
		}
	})
}

func checkFanout(t *rapid.T, f *fanout, model []*Subscription) {
	list := f.places()
	n := 0
	for i := range list {
		if s := list[i].Load(); s != nil {
			n++
			if int(s.place) != i || i >= int(f.used) {
				t.Fatalf("place %d of %d holds a subscription that believes it is at %d", i, f.used, s.place)
			}
		}
	}
	if n != len(model) || int(f.live) != n {
		t.Fatalf("%d subscriptions, counted as %d, want %d", n, f.live, len(model))
	}
	for _, s := range model {
		if list[s.place].Load() != s {
			t.Fatal("a subscription is not where it believes to be")
		}
	}
	if f.empty() != (len(model) == 0) {
		t.Fatalf("empty: %v with %d", f.empty(), len(model))
	}
	if len(list)&(len(list)-1) != 0 || len(list) > 8 && n*4 < len(list) {
		t.Fatalf("%d places for %d", len(list), n)
	}
}

func TestARemovedSubscriptionIsNotPinned(t *testing.T) {
	var f fanout
	subs := make([]*Subscription, 100)
	for i := range subs {
		subs[i] = new(Subscription)
		f.add(subs[i])
	}
	for i, s := range subs {
		if i%3 != 0 {
			f.remove(s)
		}
	}
	list := f.places()
	for i := range list {
		if s := list[i].Load(); s != nil && slices.Index(subs, s)%3 != 0 {
			t.Errorf("place %d still holds a subscription that was removed", i)
		}
	}
}
