package bridge

import (
	"hash/maphash"
	"strings"
	"sync/atomic"
)

// SharedStrategy says how a shared group chooses the member that is asked first (MQTT 5 section 4.8.2 leaves it open).
type SharedStrategy uint8

// The strategies. A member that cannot take a message is passed over under each of them.
const (
	RoundRobin  SharedStrategy = iota // one after the other
	ByPublisher                       // one publisher's messages go to one member while the members stay the same
	ByTopic                           // one topic's messages go to one member while the members stay the same
)

// group is a shared subscription's group: each message goes to one of its members.
type group struct {
	filter  Filter // with the share prefix
	name    string
	members fanout
	turn    atomic.Uint32
}

func newGroup(f Filter) *group {
	g := &group{filter: Filter(strings.Clone(string(f)))}
	g.name, _ = g.filter.Share()
	return g
}

// want is which members are asked.
type want uint8

const (
	ready     want = iota // connected, with room
	connected             // connected, and will queue it
	anybody               // will queue it
)

// deliver gives m to one member: to the next that is connected and has room; if there is none, to the next that is connected
// and will queue it; only then to one that is offline. except is passed over (it just gave the message back).
func (g *group) deliver(b *Batch, m *Message, except *Client) {
	members := g.members.places()
	if len(members) == 0 && except == nil {
		return // the group is just being made or ending: nobody is subscribed
	}
	start := g.first(b.hub, m, members)
	for w := ready; w <= anybody; w++ {
		if g.offer(b, m, except, members, start, w) {
			return
		}
	}
	b.drop(b.counters, DropNoMember)
}

// offer asks the members one after the other, beginning with start, until one takes m.
func (g *group) offer(b *Batch, m *Message, except *Client, members []place, start uint32, w want) bool {
	mask := uint32(len(members) - 1)
	for i := range uint32(len(members)) {
		s := members[(start+i)&mask].Load()
		if s == nil || s.owner == except || !s.covered() && !s.mayRead(m.Topic) {
			continue
		}
		if b.give(s, m, w) {
			if i != 0 {
				// The turn of those passed over is over, or the one after them would have theirs and its own.
				g.turn.Add(i)
			}
			return true
		}
	}
	return false
}

// first is where the search for a member begins.
func (g *group) first(h *Hub, m *Message, members []place) uint32 {
	var key uint64
	switch h.shared {
	case ByPublisher:
		key = maphash.String(h.table.seed, m.Origin.Client)
	case ByTopic:
		key = maphash.String(h.table.seed, string(m.Topic))
	default:
		return g.turn.Add(1)
	}
	// From an empty place on to some other one, not to the next: who sits behind a gap must not get more than the others.
	// At least a quarter of the places is taken, an eighth where there are few, so a search in vain is next to impossible.
	mask := uint32(len(members) - 1)
	for range 64 {
		if members[uint32(key>>32)&mask].Load() != nil {
			break
		}
		key = key*0x9E3779B97F4A7C15 + 1
	}
	return uint32(key >> 32)
}
