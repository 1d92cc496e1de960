package broker

import "github.com/isthmus-iot/isthmus/bridge"

// identifiers sees to it that a stored session gives no packet identifier twice to messages that its client could mistake for
// each other. A QoS 1 message may be on its way before it is kept. If the process is killed then, the client knows the message
// by an identifier that the restarted server knows nothing of; were it given to another message, a late PUBACK would complete
// that one, which the client has never seen. So identifiers are reserved ahead in the store, a block at a time, and used only
// when the reservation is kept; after a restart the first one is the first that was not reserved. The session's lock guards it.
type identifiers struct {
	next     uint64         // how many were used or skipped so far; the identifier follows from it
	reserved uint64         // next stays below it
	kept     uint64         // what of that is kept already
	receipt  bridge.Receipt // of the record with reserved
}

// idBlock is how many identifiers are reserved at a time: more than a session uses while a commit is under way.
const idBlock = 1024

// id is the identifier that is used next; they run from 1 to 65535.
func (i *identifiers) id() uint16 { return uint16(i.next%65535) + 1 }

// mayFly reports whether one more QoS 1 or 2 message may be given an identifier and a place in the window; s.mu is held.
func (s *session) mayFly(c *conn) bool { return s.hasCredit(c) && (!s.stored() || s.identified()) }

// identified reports whether the next identifier may be used, reserving more in time; s.mu is held.
func (s *session) identified() bool {
	i := &s.ids
	if i.next+idBlock/2 >= i.reserved {
		i.reserved += idBlock
		i.receipt = s.save()
	}
	if i.next >= i.kept {
		// Where the store has failed nothing is given out any more that is to survive it.
		if !s.srv.synced(i.receipt) && !s.await(i.receipt) && s.srv.store.Err() == nil {
			return false
		}
		i.kept = i.reserved
	}
	s.window.skipTo(i.id())
	return true
}

// fly gives f the next identifier and the last place in the window; s.mu is held.
func (s *session) fly(f flight) (id uint16) {
	s.ids.next++
	return s.window.add(f)
}

// land takes the last flight back: it was not sent; s.mu is held.
func (s *session) land() {
	s.ids.next--
	s.window.undo()
}
