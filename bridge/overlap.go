package bridge

// overlap merges the subscriptions of one client that match one message, so that it is delivered once, at the highest QoS,
// with all identifiers (MQTT-3.3.4-2 to -4). It is needed only where more than one filter matches. A small hash table from
// client to merged delivery is kept across messages; a generation number clears it at no cost.
type overlap struct {
	generation uint32
	slots      []overlapSlot
	merged     []merged
	more       []moreID
	ids        []uint32
}

type overlapSlot struct {
	generation uint32
	merged     int32
	owner      *Client
}

// merged is the delivery of one client in the making.
type merged struct {
	sub    *Subscription // of the highest QoS
	qos    QoS
	retain bool
	reads  Coverage // the best of its subscriptions
	id     uint32
	more   int32 // first of the further identifiers in overlap.more, or -1
}

type moreID struct {
	id   uint32
	next int32
}

func (o *overlap) begin() {
	o.generation++
	o.merged, o.more = o.merged[:0], o.more[:0]
	if o.generation == 0 { // wrapped around: old marks would look new
		clear(o.slots)
		o.generation = 1
	}
}

// add merges s into the delivery of its owner. A subscription that the owner may no longer read counts for nothing, but for
// the drop if it has no other.
func (o *overlap) add(s *Subscription, m *Message) {
	qos, retain := min(m.QoS, s.Options.QoS), m.Retain && s.Options.RetainAsPublished
	reads := s.owner.coverage(&s.access, s.Filter)
	if len(o.merged)*2 >= len(o.slots) {
		o.grow()
	}
	slot := o.slot(s.owner)
	if slot.generation != o.generation {
		*slot = overlapSlot{o.generation, int32(len(o.merged)), s.owner}
		o.merged = append(o.merged, merged{sub: s, qos: qos, retain: retain, reads: reads, id: s.Options.Identifier, more: -1})
		return
	}
	x := &o.merged[slot.merged]
	switch {
	case reads == CoversNone:
		return
	case x.reads == CoversNone:
		*x = merged{sub: s, qos: qos, retain: retain, reads: reads, id: s.Options.Identifier, more: -1}
		return
	}
	if qos > x.qos {
		x.sub, x.qos = s, qos
	}
	x.retain = x.retain || retain
	x.reads = max(x.reads, reads)
	switch {
	case s.Options.Identifier == 0:
	case x.id == 0:
		x.id = s.Options.Identifier
	default:
		o.more = append(o.more, moreID{s.Options.Identifier, x.more})
		x.more = int32(len(o.more) - 1)
	}
}

func (o *overlap) slot(c *Client) *overlapSlot {
	mask := uint32(len(o.slots) - 1)
	for i := c.serial * 0x9E3779B1 & mask; ; i = (i + 1) & mask {
		s := &o.slots[i]
		if s.generation != o.generation || s.owner == c {
			return s
		}
	}
}

func (o *overlap) grow() {
	o.slots = make([]overlapSlot, max(16, 2*len(o.slots)))
	for i, m := range o.merged {
		*o.slot(m.sub.owner) = overlapSlot{o.generation, int32(i), m.sub.owner}
	}
}

// identifiers collects those of m, in scratch that the next call uses again.
func (o *overlap) identifiers(m *merged) []uint32 {
	if m.id == 0 {
		return nil
	}
	o.ids = append(o.ids[:0], m.id)
	for i := m.more; i >= 0; i = o.more[i].next {
		o.ids = append(o.ids, o.more[i].id)
	}
	return o.ids
}

// maxOverlap is what a pooled batch may keep of the table.
const maxOverlap = 4096

// end drops the references to clients and subscriptions, so that a pooled batch keeps nobody alive.
func (o *overlap) end() {
	if len(o.slots) > maxOverlap {
		*o = overlap{}
		return
	}
	for i := range o.merged {
		o.slot(o.merged[i].sub.owner).owner = nil
	}
	clear(o.merged)
}

// routeOverlapping delivers m where several filters match.
func (b *Batch) routeOverlapping(from *Client, m *Message) {
	o := &b.overlap
	o.begin()
	for _, set := range b.sets {
		for i := range set {
			s := set[i].Load()
			if s == nil || s.Options.NoLocal && s.owner.published(from, m) {
				continue
			}
			o.add(s, m)
		}
	}
	d := &b.delivery
	for i := range o.merged {
		x := &o.merged[i]
		if !x.sub.owner.reads(x.reads, m.Topic) {
			b.drop(x.sub.owner.counters, DropNotAuthorized)
			continue
		}
		d.Message, d.Subscription, d.QoS, d.Retain = m, x.sub, x.qos, x.retain
		d.LiveOnly, d.Connected, d.member = false, false, false
		d.Identifiers = o.identifiers(x)
		b.hand(d)
	}
	o.end()
}
