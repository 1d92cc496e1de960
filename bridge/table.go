package bridge

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"
)

// table is the routing table: the only index of subscriptions there is. Filters without wildcards hang in one hash map, so
// that most publishes cost one look-up however many subscriptions there are. The others form a trie by level. Publishers
// read both without a lock (see index); subscribing and unsubscribing take the table's lock.
type table struct {
	seed  maphash.Seed
	exact index[leaf]
	wild  node
	wilds atomic.Int64 // subscriptions in the trie
	total atomic.Int64 // subscriptions in all

	mu sync.Mutex // held to change anything
}

// node is one level of the trie. Its own filter is the path to it; "#" below it hangs in hash.
type node struct {
	children index[node]
	plus     atomic.Pointer[node]
	self     atomic.Pointer[leaf]
	hash     atomic.Pointer[leaf]
}

func newTable() *table { return &table{seed: maphash.MakeSeed()} }

func (t *table) hashOf(s string) uint32 { return uint32(maphash.String(t.seed, s)) }

// match appends the leaves whose filters match topic (MQTT 5 section 4.7) and returns the longer slice. It allocates only
// to grow found.
func (t *table) match(topic string, found []*leaf) []*leaf {
	if !t.exact.empty() {
		if l := t.exact.get(t.hashOf(topic), topic); l != nil {
			found = append(found, l)
		}
	}
	if t.wilds.Load() == 0 {
		return found
	}
	return t.walk(&t.wild, topic, strings.HasPrefix(topic, "$"), found)
}

// walk matches the levels in rest below n. system says that a wildcard must not match here (MQTT-4.7.2-1).
func (t *table) walk(n *node, rest string, system bool, found []*leaf) []*leaf {
	level, tail, more := rest, "", false
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		level, tail, more = rest[:i], rest[i+1:], true
	}
	if !system {
		if l := n.hash.Load(); l != nil {
			found = append(found, l)
		}
		if plus := n.plus.Load(); plus != nil {
			found = t.step(plus, tail, more, found)
		}
	}
	if !n.children.empty() {
		if child := n.children.get(t.hashOf(level), level); child != nil {
			found = t.step(child, tail, more, found)
		}
	}
	return found
}

func (t *table) step(n *node, tail string, more bool, found []*leaf) []*leaf {
	if more {
		return t.walk(n, tail, false, found)
	}
	if l := n.self.Load(); l != nil {
		found = append(found, l)
	}
	if l := n.hash.Load(); l != nil { // "a/#" matches "a"
		found = append(found, l)
	}
	return found
}

// group finds the shared group of a filter that matches topic; nil if it has no members.
func (t *table) group(topic Topic, f Filter) *group {
	name, inner := f.Share()
	for _, l := range t.match(string(topic), nil) {
		if l.filter != string(inner) {
			continue
		}
		for _, g := range l.shared() {
			if g.name == name {
				return g
			}
		}
	}
	return nil
}

// add puts s into the table. old, if not nil, is the subscription of the same owner and filter that s replaces; at every
// moment one of the two is found (MQTT-3.8.4-4).
func (t *table) add(s, old *Subscription) {
	name, filter := s.Filter.Share()
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.leafFor(string(filter))
	set := &l.plain
	// Subscriptions of one filter share its string.
	if name == "" {
		s.Filter = Filter(l.filter)
	} else {
		s.group = l.group(s.Filter)
		s.Filter = s.group.filter
		set = &s.group.members
	}
	if old != nil {
		set.replace(old, s)
		return
	}
	set.add(s)
	t.total.Add(1)
	if filter.Wild() {
		t.wilds.Add(1)
	}
}

// leafFor finds or makes the leaf of a filter without share prefix.
func (t *table) leafFor(filter string) *leaf {
	if !Filter(filter).Wild() {
		h := t.hashOf(filter)
		l := t.exact.get(h, filter)
		if l == nil {
			filter = strings.Clone(filter)
			l = t.exact.put(h, filter, func(l *leaf) { l.filter = filter })
		}
		return l
	}
	n := &t.wild
	for level, tail, more := "", filter, true; more; {
		level, tail, more = strings.Cut(tail, "/")
		switch level {
		case "#":
			return makeLeaf(&n.hash, filter)
		case "+":
			if n.plus.Load() == nil {
				n.plus.Store(&node{})
			}
			n = n.plus.Load()
		default:
			h := t.hashOf(level)
			child := n.children.get(h, level)
			if child == nil {
				child = n.children.put(h, strings.Clone(level), nil)
			}
			n = child
		}
	}
	return makeLeaf(&n.self, filter)
}

func makeLeaf(at *atomic.Pointer[leaf], filter string) *leaf {
	l := at.Load()
	if l == nil {
		l = &leaf{filter: strings.Clone(filter)}
		at.Store(l)
	}
	return l
}

// remove takes s out and frees what only its path needed.
func (t *table) remove(s *Subscription) {
	_, filter := s.Filter.Share()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total.Add(-1)
	if !filter.Wild() {
		h := t.hashOf(string(filter))
		if l := t.exact.get(h, string(filter)); l != nil && l.take(s) {
			t.exact.del(h, string(filter))
		}
		return
	}
	t.wilds.Add(-1)
	t.removeBelow(&t.wild, string(filter), s)
}

// take removes s from l and reports whether nothing is left.
func (l *leaf) take(s *Subscription) bool {
	if s.group != nil {
		s.group.members.remove(s)
		l.prune(s.group)
	} else {
		l.plain.remove(s)
	}
	return l.empty()
}

// removeBelow removes s, whose filter below n is rest, and reports whether n is of no more use.
func (t *table) removeBelow(n *node, rest string, s *Subscription) (useless bool) {
	level, tail, more := strings.Cut(rest, "/")
	switch {
	case level == "#":
		removeAt(&n.hash, s)
	case level == "+":
		plus := n.plus.Load()
		if t.removeStep(plus, tail, more, s) {
			n.plus.Store(nil)
		}
	default:
		h := t.hashOf(level)
		if t.removeStep(n.children.get(h, level), tail, more, s) {
			n.children.del(h, level)
		}
	}
	return n.useless()
}

func (t *table) removeStep(n *node, tail string, more bool, s *Subscription) bool {
	if more {
		return t.removeBelow(n, tail, s)
	}
	removeAt(&n.self, s)
	return n.useless()
}

func removeAt(at *atomic.Pointer[leaf], s *Subscription) {
	if l := at.Load(); l.take(s) {
		at.Store(nil)
	}
}

func (n *node) useless() bool {
	return n.children.live == 0 && n.plus.Load() == nil && n.self.Load() == nil && n.hash.Load() == nil
}
