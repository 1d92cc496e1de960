package bridge

import "sync/atomic"

// fanout is the set of subscriptions of one filter. Readers see an immutable list of chunks; the writer copies one chunk
// and the list of chunks for a change, so that the 100,000th subscriber of a topic costs a few KiB and not the copy of all
// the others. Changes need the table's lock.
type fanout struct {
	list atomic.Pointer[[][]*Subscription]
}

// chunkSize is a compromise: 1 KiB to copy for a change, 1 in 128 pointers of overhead in the list.
const chunkSize = 128

// chunks is what a publisher walks.
func (f *fanout) chunks() [][]*Subscription {
	if p := f.list.Load(); p != nil {
		return *p
	}
	return nil
}

func (f *fanout) empty() bool { return f.list.Load() == nil }

func (f *fanout) add(s *Subscription) {
	old := f.chunks()
	n := len(old)
	if n > 0 && len(old[n-1]) < chunkSize {
		list := append([][]*Subscription(nil), old...)
		list[n-1] = append(append(make([]*Subscription, 0, len(old[n-1])+1), old[n-1]...), s)
		s.chunk, s.slot = int32(n-1), int32(len(old[n-1]))
		f.list.Store(&list)
		return
	}
	list := append(append(make([][]*Subscription, 0, n+1), old...), []*Subscription{s})
	s.chunk, s.slot = int32(n), 0
	f.list.Store(&list)
}

// remove fills the gap of s with the last subscription.
func (f *fanout) remove(s *Subscription) {
	old := f.chunks()
	n := len(old) - 1
	last := old[n][len(old[n])-1]
	if n == 0 && len(old[0]) == 1 {
		f.list.Store(nil)
		return
	}
	list := append([][]*Subscription(nil), old...)
	if last != s {
		chunk := append([]*Subscription(nil), list[s.chunk]...)
		chunk[s.slot] = last
		list[s.chunk] = chunk
		last.chunk, last.slot = s.chunk, s.slot
	}
	if len(list[n]) == 1 {
		list = list[:n]
	} else {
		list[n] = append([]*Subscription(nil), list[n][:len(list[n])-1]...)
	}
	f.list.Store(&list)
}

// replace puts s in the place of old.
func (f *fanout) replace(old, s *Subscription) {
	list := append([][]*Subscription(nil), f.chunks()...)
	chunk := append([]*Subscription(nil), list[old.chunk]...)
	chunk[old.slot] = s
	list[old.chunk] = chunk
	s.chunk, s.slot = old.chunk, old.slot
	f.list.Store(&list)
}

// leaf is where the subscriptions of one filter hang.
type leaf struct {
	filter string
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
func (l *leaf) group(name string) *group {
	old := l.shared()
	for _, g := range old {
		if g.name == name {
			return g
		}
	}
	g := &group{name: name}
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
