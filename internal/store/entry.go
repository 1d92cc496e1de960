package store

import (
	"encoding/binary"

	"github.com/isthmus-iot/isthmus/bridge"
)

// entryVersion begins an entry of a queue.
const entryVersion = 1

// The flags of an entry.
const (
	entryQoS         = 0x03
	entryRetain      = 0x04
	entryInline      = 0x08 // the message is in the entry; else the number of a body
	entryPacketID    = 0x10
	entryIdentifiers = 0x20
	entryShared      = 0x40
	entryFlags       = 0x7f
)

// appendEntry appends k without its message or the number of its body, one of which the caller appends.
func appendEntry(b []byte, k *bridge.Kept, inline bool) []byte {
	flags := byte(k.QoS) & entryQoS
	if k.Retain {
		flags |= entryRetain
	}
	if inline {
		flags |= entryInline
	}
	if k.PacketID != 0 {
		flags |= entryPacketID
	}
	if len(k.Identifiers) > 0 {
		flags |= entryIdentifiers
	}
	if k.Shared != "" {
		flags |= entryShared
	}
	b = append(b, entryVersion, flags)
	if k.PacketID != 0 {
		b = binary.BigEndian.AppendUint16(b, k.PacketID)
	}
	if len(k.Identifiers) > 0 {
		b = binary.AppendUvarint(b, uint64(len(k.Identifiers)))
		for _, id := range k.Identifiers {
			b = binary.AppendUvarint(b, uint64(id))
		}
	}
	if k.Shared != "" {
		b = binary.AppendUvarint(b, uint64(len(k.Shared)))
		b = append(b, k.Shared...)
	}
	// Size is here so that the start can count a queue without looking at its messages.
	return binary.AppendUvarint(b, uint64(k.Message.Size()))
}

// entry is an entry of a queue, not decoded further than it is asked for. It holds views into the bytes it was read from.
type entry struct {
	flags       byte
	packetID    uint16
	count       int // of identifiers
	identifiers reader
	shared      []byte
	size        int    // of the message, as queue limits count
	message     []byte // encoded; nil: body has it
	body        uint64
	stored      uint32 // what the entry takes
}

// readEntry reads the value of an entry, all but its message.
func readEntry(b []byte) (e entry, err error) {
	r := reader{rest: b}
	e.stored = entrySize(len(b))
	if r.byte() != entryVersion {
		return e, errRecord
	}
	e.flags = r.byte()
	if e.flags&^entryFlags != 0 || e.flags&entryQoS > 2 {
		return e, errRecord
	}
	if e.flags&entryPacketID != 0 {
		if e.packetID = r.uint16(); e.packetID == 0 {
			return e, errRecord
		}
	}
	if e.flags&entryIdentifiers != 0 {
		if e.count = r.length(); e.count == 0 {
			return e, errRecord
		}
		e.identifiers = r
		for range e.count {
			if r.uvarint() > 1<<32-1 {
				return e, errRecord
			}
		}
	}
	if e.flags&entryShared != 0 {
		if e.shared = r.take(r.length()); len(e.shared) == 0 {
			return e, errRecord
		}
	}
	size := r.uvarint()
	if size > 1<<40 {
		return e, errRecord
	}
	e.size = int(size)
	if e.flags&entryInline != 0 {
		e.message = r.rest
	} else {
		e.body = r.uint64()
		r.bad = r.bad || len(r.rest) != 0 || e.body == 0
	}
	if r.bad {
		return e, errRecord
	}
	return e, nil
}

// kept copies e into what others use, without its message.
func (e *entry) kept(position uint64) bridge.Kept {
	k := bridge.Kept{
		Position: position,
		QoS:      bridge.QoS(e.flags & entryQoS),
		Retain:   e.flags&entryRetain != 0,
		Shared:   bridge.Filter(e.shared),
		PacketID: e.packetID,
		Body:     e.body,
		Size:     e.stored,
	}
	if e.count > 0 {
		k.Identifiers = make([]uint32, e.count)
		r := e.identifiers
		for i := range k.Identifiers {
			k.Identifiers[i] = uint32(r.uvarint())
		}
	}
	return k
}

// The states of a flight.
const (
	flightSent     = 1
	flightReleased = 2
)

const flightSize = 3

// flightRecord is what is kept of an entry that was sent or released after it was pushed.
func flightRecord(state byte, packetID uint16) (b [flightSize]byte) {
	b[0] = state
	binary.BigEndian.PutUint16(b[1:], packetID)
	return b
}

func readFlight(b []byte) (packetID uint16, released bool, err error) {
	if len(b) != flightSize || b[0] != flightSent && b[0] != flightReleased {
		return 0, false, errRecord
	}
	packetID = binary.BigEndian.Uint16(b[1:])
	if packetID == 0 {
		return 0, false, errRecord
	}
	return packetID, b[0] == flightReleased, nil
}
