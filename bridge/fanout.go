package bridge

import "sync/atomic"

// fanout is the set of subscriptions of one filter: an array in which a subscription keeps its place for as long as it
// stays. A publisher walks it without a lock and skips the empty places, so whatever comes and goes meanwhile, one that
// stays is met exactly once, and one that is replaced is met as the old or the new. Changes need the table's lock and cost
// the same for the first and the millionth subscription, but for the copies to a larger or smaller array.
type fanout struct {
	list atomic.Pointer[[]place]
	// for the writer only
	live int32 // subscriptions
	used int32 // places given out; from here on all are empty
}

// place holds one subscription, or nil.
type place = atomic.Pointer[Subscription]

// places is what a publisher walks; nil if there is nobody. Their number is a power of two.
func (f *fanout) places() []place {
	if p := f.list.Load(); p != nil {
		return *p
	}
	return nil
}

func (f *fanout) empty() bool { return f.list.Load() == nil }

// all lists the subscriptions, for those who have time.
func (f *fanout) all() (list []*Subscription) {
	places := f.places()
	for i := range places {
		if s := places[i].Load(); s != nil {
			list = append(list, s)
		}
	}
	return list
}

func (f *fanout) add(s *Subscription) {
	if int(f.used) == len(f.places()) {
		f.rebuild()
	}
	s.place = f.used
	f.used++
	f.live++
	f.places()[s.place].Store(s)
}

func (f *fanout) remove(s *Subscription) {
	list := f.places()
	list[s.place].Store(nil)
	f.live--
	if s.place == f.used-1 {
		f.used--
	}
	switch {
	case f.live == 0:
		f.list.Store(nil)
		f.used = 0
	case len(list) > 8 && int(f.live)*4 < len(list):
		f.rebuild()
	}
}

// replace puts s in the place of old.
func (f *fanout) replace(old, s *Subscription) {
	s.place = old.place
	f.places()[s.place].Store(s)
}

// rebuild closes the gaps in an array that has room for a quarter more.
func (f *fanout) rebuild() {
	size := 1
	for size < int(f.live+f.live/4+1) {
		size *= 2
	}
	list := newPlaces(size)
	for i, s := range f.all() {
		s.place = int32(i)
		(*list)[i].Store(s)
	}
	f.used = f.live
	f.list.Store(list)
}

// newPlaces makes an array. Most filters have one subscription: for those the slice and its only place are one allocation.
func newPlaces(size int) *[]place {
	if size == 1 {
		x := new(struct {
			list []place
			only [1]place
		})
		x.list = x.only[:]
		return &x.list
	}
	list := make([]place, size)
	return &list
}

// leaf is where the subscriptions of one filter hang.
type leaf struct {
	filter string // without share prefix; set before a publisher can see the leaf
	plain  fanout
	groups atomic.Pointer[[]*group]
}

func (l *leaf) empty() bool { return l.plain.empty() && l.groups.Load() == nil }

func (l *leaf) shared() []*group {
	if p := l.groups.Load(); p != nil {
		return *p
	}
	return nil
}

// group finds or makes the shared group of a name.
func (l *leaf) group(f Filter) *group {
	name, _ := f.Share()
	old := l.shared()
	for _, g := range old {
		if g.name == name {
			return g
		}
	}
	g := newGroup(f)
	list := append(append(make([]*group, 0, len(old)+1), old...), g)
	l.groups.Store(&list)
	return g
}

// prune removes g if it has no member.
func (l *leaf) prune(g *group) {
	if !g.members.empty() {
		return
	}
	var list []*group
	for _, x := range l.shared() {
		if x != g {
			list = append(list, x)
		}
	}
	if list == nil {
		l.groups.Store(nil)
		return
	}
	l.groups.Store(&list)
}
