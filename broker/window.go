package broker

// window holds the QoS 1 and 2 messages that were given a packet identifier and are not completed (MQTT 5 section 4.3), in
// the order of their first sending. Identifiers are handed out in sequence, so the message of an identifier is found by
// subtraction; only where a restart has skipped some is it searched for. Acknowledgements that come out of order leave gaps; a
// gap keeps its place until everything before it is done.
type window struct {
	ring    []flight // length is a power of 2
	head    int      // place of the first in ring
	n       int      // from the first to the last, gaps included
	open    int      // not completed
	last    uint16   // identifier handed out last; 0: none was yet
	skipped bool     // the identifiers in the ring are not all in sequence
}

// flight is one message under way.
type flight struct {
	queued // msg is nil where nobody will ask for it again; receipt is what to wait for before the next packet is sent
	id     uint16
	state  flightState
	fresh  bool // never sent: no DUP
}

type flightState uint8

const (
	flightDone     flightState = iota // a gap
	flightSent                        // PUBLISH sent; PUBACK or PUBREC is awaited
	flightReleased                    // PUBREL sent; PUBCOMP is awaited
)

// spanLimit bounds gaps: with so many identifiers behind one that is never acknowledged, the window counts as full.
func spanLimit(window int) int { return min(16*window, 32768) }

// add gives f the next identifier.
func (w *window) add(f flight) uint16 {
	if w.n == len(w.ring) {
		w.grow()
	}
	w.last = w.next()
	f.id = w.last
	w.ring[(w.head+w.n)&(len(w.ring)-1)] = f
	w.n++
	w.open++
	return f.id
}

// next is the identifier that add will give; identifiers run from 1 to 65535.
func (w *window) next() uint16 { return w.last%65535 + 1 }

// before is the identifier before id.
func before(id uint16) uint16 {
	if id == 1 {
		return 65535
	}
	return id - 1
}

// skipTo makes id the next identifier.
func (w *window) skipTo(id uint16) {
	if w.next() != id {
		w.last = before(id)
		w.skipped = w.n > 0
	}
}

// id is the identifier of the k-th.
func (w *window) id(k int) uint16 { return w.at(k).id }

func (w *window) at(k int) *flight { return &w.ring[(w.head+k)&(len(w.ring)-1)] }

// find returns the place and the flight of an identifier; nil if there is none.
func (w *window) find(id uint16) (int, *flight) {
	if w.n == 0 || id == 0 {
		return 0, nil
	}
	k := int(id) - int(w.id(0))
	if k < 0 {
		k += 65535
	}
	for i := 0; w.skipped && i < w.n; i++ {
		if w.id(i) == id {
			k = i
			break
		}
	}
	if k >= w.n || w.id(k) != id || w.at(k).state == flightDone {
		return 0, nil
	}
	return k, w.at(k)
}

// done completes the flight at place k and returns how many places the window moved on.
func (w *window) done(k int) (moved int) {
	*w.at(k) = flight{id: w.id(k)}
	w.open--
	for w.n > 0 && w.at(0).state == flightDone {
		*w.at(0) = flight{}
		w.head = (w.head + 1) & (len(w.ring) - 1)
		w.n--
		moved++
	}
	if w.n == 0 {
		w.skipped = false
		if len(w.ring) > smallRing {
			w.ring, w.head = nil, 0
		}
	}
	return moved
}

const smallRing = 8

func (w *window) grow() {
	ring := make([]flight, max(2, 2*len(w.ring)))
	for k := range w.n {
		ring[k] = *w.at(k)
	}
	w.ring, w.head = ring, 0
}

// undo takes the last flight back: it was not sent.
func (w *window) undo() {
	w.n--
	w.open--
	w.last = before(w.last)
	*w.at(w.n) = flight{}
}
