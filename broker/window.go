package broker

// window holds the QoS 1 and 2 messages that were given a packet identifier and are not completed (MQTT 5 section 4.3), in
// the order of their first sending. Identifiers are handed out in sequence, so the message of an identifier is found by
// subtraction. Acknowledgements that come out of order leave gaps; a gap keeps its place until everything before it is done.
type window struct {
	ring  []flight // length is a power of 2
	head  int      // place of the first in ring
	n     int      // from the first to the last, gaps included
	first uint16   // identifier of the first; 0: none was handed out yet
	open  int      // not completed
}

// flight is one message under way.
type flight struct {
	queued // msg is nil where nobody will ask for it again; receipt is what to wait for before the next packet is sent
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
	if w.first == 0 {
		w.first = 1
	}
	w.ring[(w.head+w.n)&(len(w.ring)-1)] = f
	id := w.id(w.n)
	w.n++
	w.open++
	return id
}

// restore puts f back behind those restored before, at the place of its identifier.
func (w *window) restore(f flight, id uint16) {
	if w.n == 0 {
		w.first = id
	}
	w.skip(id)
	w.add(f)
}

// skip leaves gaps until id is the next identifier.
func (w *window) skip(id uint16) {
	for w.id(w.n) != id {
		w.add(flight{})
		w.open--
	}
}

// id is the identifier of the k-th; identifiers run from 1 to 65535.
func (w *window) id(k int) uint16 { return uint16((int(w.first)-1+k)%65535 + 1) }

func (w *window) at(k int) *flight { return &w.ring[(w.head+k)&(len(w.ring)-1)] }

// find returns the place and the flight of an identifier; nil if there is none.
func (w *window) find(id uint16) (int, *flight) {
	if w.n == 0 || id == 0 {
		return 0, nil
	}
	k := int(id) - int(w.first)
	if k < 0 {
		k += 65535
	}
	if k >= w.n || w.at(k).state == flightDone {
		return 0, nil
	}
	return k, w.at(k)
}

// done completes the flight at place k and returns how many places the window moved on.
func (w *window) done(k int) (moved int) {
	*w.at(k) = flight{}
	w.open--
	for w.n > 0 && w.at(0).state == flightDone {
		w.first = w.id(1)
		w.head = (w.head + 1) & (len(w.ring) - 1)
		w.n--
		moved++
	}
	if w.n == 0 && len(w.ring) > smallRing {
		w.ring, w.head = nil, 0
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
	*w.at(w.n) = flight{}
}
