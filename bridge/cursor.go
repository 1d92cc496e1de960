package bridge

import (
	"iter"
	"math"
	"strings"
	"sync/atomic"
)

// RetainedCursor walks the retained values that match a filter, one at a time and without a lock, while others are set and
// removed: a subscriber takes the next one when it has room, and nothing is copied. A value that is set after the cursor
// was made may or may not be met; its subscriber is given it as a live message in any case. What the client may not read is
// passed over, by the rules in force when it is met.
type RetainedCursor struct {
	tree   *retained
	filter Filter
	client *Client       // nil: may read everything
	access atomic.Uint64 // see Client.coverage
	stack  []walk
	looks  int // nodes and places that may still be looked at
}

// walk is one node on the way down: which filter levels are still to match below it, and how far its children are done.
type walk struct {
	at    *value
	rest  string // filter levels below at
	done  bool   // no filter level is left: at itself matches
	top   bool   // at is the root, where wildcards skip '$'
	begun bool
	tail  string // what the children are to match
	last  bool   // nothing is left for the children
	all   bool   // below '#'
	cells []atomic.Pointer[entry[value]]
	next  int
}

func (r *retained) cursor(f Filter) *RetainedCursor {
	f = Filter(strings.Clone(string(f)))
	_, inner := f.Share()
	return &RetainedCursor{tree: r, filter: f, stack: []walk{{at: &r.root, rest: string(inner), top: true}}}
}

// Next is the next value, or nil at the end. Values that have expired are passed over by the caller's own clock.
func (c *RetainedCursor) Next() *Message {
	looks := math.MaxInt
	return c.NextWithin(&looks)
}

// NextWithin is Next for those who hold a lock meanwhile: a filter may lead past a million values that it does not match. It
// gives up when it has looked at so many places of the tree, and lowers looks by what it has used. At nil there may be more
// where nothing of it is left.
func (c *RetainedCursor) NextWithin(looks *int) *Message {
	c.looks = *looks
	defer func() { *looks = c.looks }()
	for {
		m := c.next()
		if m == nil || c.client == nil || c.client.reads(c.client.coverage(&c.access, c.filter), m.Topic) {
			return m
		}
	}
}

func (c *RetainedCursor) next() *Message {
	for len(c.stack) > 0 && c.looks > 0 {
		c.looks--
		w := &c.stack[len(c.stack)-1]
		if !w.begun {
			w.begun = true
			if m := c.begin(w); m != nil {
				return m
			}
			continue
		}
		c.descend(w)
	}
	return nil
}

// begin looks at the node's first filter level. It may replace or pop the top of the stack; w is not to be used after it.
func (c *RetainedCursor) begin(w *walk) *Message {
	if w.done {
		c.pop()
		return w.at.message.Load()
	}
	level, tail, more := strings.Cut(w.rest, "/")
	switch level {
	case "#":
		w.all, w.tail = true, "#"
		w.cells = w.at.below.cells()
		return w.at.message.Load() // "a/#" matches "a"; the root has none
	case "+":
		w.tail, w.last = tail, !more
		w.cells = w.at.below.cells()
	default:
		at := w.at
		c.pop()
		if child := at.below.get(c.tree.hashOf(level), level); child != nil {
			c.stack = append(c.stack, walk{at: child, rest: tail, done: !more})
		}
	}
	return nil
}

// descend goes on to the next child of w, or pops w.
func (c *RetainedCursor) descend(w *walk) {
	for w.next < len(w.cells) {
		if c.looks <= 0 {
			return
		}
		e := w.cells[w.next].Load()
		w.next++
		c.looks--
		if e == nil || e.gone || w.top && strings.HasPrefix(e.key, "$") {
			continue
		}
		c.stack = append(c.stack, walk{at: &e.val, rest: w.tail, done: w.last && !w.all})
		return
	}
	c.pop()
}

func (c *RetainedCursor) pop() {
	c.stack[len(c.stack)-1].cells = nil
	c.stack = c.stack[:len(c.stack)-1]
}

// All is Next as a sequence.
func (c *RetainedCursor) All() iter.Seq[*Message] {
	return func(yield func(*Message) bool) {
		for m := c.Next(); m != nil; m = c.Next() {
			if !yield(m) {
				return
			}
		}
	}
}
