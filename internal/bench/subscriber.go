package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// subscriber receives the messages of one or more publishers and checks their numbers.
type subscriber struct {
	*link
	run     *run
	index   int
	first   int // index of the publisher that streams[0] is of
	streams []stream
	touched []*stream // those with credit, within a batch

	received   atomic.Int64
	latency    Histogram
	duplicates int64
	reordered  int64
}

// stream is what a subscriber knows of one publisher's messages.
type stream struct {
	from    *publisher
	next    uint32              // number expected
	missing map[uint32]struct{} // numbers skipped
	credit  int64               // messages that the batch has completed
}

// lost counts the messages that never came.
func (s *stream) lost() int64 { return int64(s.from.seq-s.next) + int64(len(s.missing)) }

// missingKept bounds what is remembered of a broker that loses everything.
const missingKept = 1 << 20

// read handles messages until the connection ends.
func (s *subscriber) read() error {
	var out []byte
	for {
		out, s.touched = out[:0], s.touched[:0]
		var now time.Duration
		n := int64(0)
		err := s.batch(func(header byte, body []byte) error {
			switch wire.Type(header >> 4) {
			case wire.PUBLISH:
				if now == 0 {
					now = time.Since(s.run.epoch)
				}
				id, payload, err := split(s.version, header, body)
				if err != nil {
					return err
				}
				switch header >> 1 & 3 {
				case 1:
					out = append(out, byte(wire.PUBACK)<<4, 2, byte(id>>8), byte(id))
				case 2:
					out = append(out, byte(wire.PUBREC)<<4, 2, byte(id>>8), byte(id))
				}
				n++
				return s.take(payload, now)
			case wire.PUBREL:
				if len(body) < 2 {
					return s.unexpected(header, body)
				}
				out = append(out, byte(wire.PUBCOMP)<<4, 2, body[0], body[1])
				return nil
			}
			return s.unexpected(header, body)
		})
		if err != nil {
			return err
		}
		if len(out) > 0 {
			if _, err := s.nc.Write(out); err != nil {
				return err
			}
		}
		s.received.Add(n)
		for _, st := range s.touched {
			credit := st.credit
			st.credit = 0
			st.from.credit(credit)
		}
	}
}

// take checks one message.
func (s *subscriber) take(payload []byte, now time.Duration) error {
	if len(payload) < payloadHeader {
		return errors.New("a message that is not of this run")
	}
	i := int(binary.BigEndian.Uint32(payload)) - s.first
	if i < 0 || i >= len(s.streams) {
		return errors.New("a message of another publisher")
	}
	st, seq := &s.streams[i], binary.BigEndian.Uint32(payload[4:])
	if s.run.measuring.Load() {
		s.latency.Record(now - time.Duration(binary.BigEndian.Uint64(payload[8:])))
	}
	switch {
	case seq == st.next:
		st.next++
	case seq > st.next:
		if st.missing == nil {
			st.missing = make(map[uint32]struct{})
		}
		// What is missing gives its credit back too, so that a broker that loses messages is counted and not waited for.
		for ; st.next < seq && len(st.missing) < missingKept; st.next++ {
			st.missing[st.next] = struct{}{}
			s.count(st, st.next)
		}
		st.next = seq + 1
	default:
		if _, ok := st.missing[seq]; !ok {
			s.duplicates++
			return nil
		}
		delete(st.missing, seq)
		s.reordered++
		return nil
	}
	s.count(st, seq)
	return nil
}

// count gives credit for a message if it was the last copy.
func (s *subscriber) count(st *stream, seq uint32) {
	if !st.from.arrived(seq) {
		return
	}
	if st.credit == 0 {
		s.touched = append(s.touched, st)
	}
	st.credit++
}

// split finds the packet identifier and the payload of a PUBLISH.
func split(v wire.Version, header byte, body []byte) (id uint16, payload []byte, err error) {
	at := 2
	if len(body) >= 2 {
		at += int(binary.BigEndian.Uint16(body))
	}
	if header&6 != 0 {
		if len(body) < at+2 {
			return 0, nil, errShort
		}
		id = binary.BigEndian.Uint16(body[at:])
		at += 2
	}
	if v >= wire.V5 {
		n, size := wire.Varint(body[min(at, len(body)):])
		if size <= 0 {
			return 0, nil, errShort
		}
		at += size + int(n)
	}
	if len(body) < at {
		return 0, nil, errShort
	}
	return id, body[at:], nil
}

var errShort = fmt.Errorf("%w: PUBLISH is too short", wire.ErrMalformed)
