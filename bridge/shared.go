package bridge

import (
	"hash/maphash"
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
	name    string
	members fanout
	turn    atomic.Uint32
}

// first is where the search for a member begins.
func (g *group) first(b *Batch, m *Message, n uint32) uint32 {
	switch b.hub.shared {
	case ByPublisher:
		return uint32(maphash.String(b.hub.table.seed, m.Origin.Client)) % n
	case ByTopic:
		return uint32(b.hub.table.hashOf(string(m.Topic))) % n
	}
	return g.turn.Add(1) % n
}

// deliver gives m to one member: to the next that is connected and has room; if there is none, to the next that will queue
// it. except is passed over (it just gave the message back).
func (g *group) deliver(b *Batch, m *Message, except *Client) {
	chunks := g.members.chunks()
	if len(chunks) == 0 {
		return
	}
	last := len(chunks) - 1
	n := uint32(last*chunkSize + len(chunks[last]))
	start := g.first(b, m, n)
	for _, live := range []bool{true, false} {
		for i := range n {
			k := (start + i) % n
			s := chunks[k/chunkSize][k%chunkSize]
			if s.owner == except || !s.owner.mayRead(s, m.Topic) {
				continue
			}
			if b.give(s, min(m.QoS, s.Options.QoS), m, live) {
				return
			}
		}
	}
	b.drop(b.counters, DropNoMember)
}
