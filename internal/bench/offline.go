package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// offline publishes to sessions whose clients are away: every acknowledgement says that a message is kept. A delivery is an
// acknowledgement, and its latency the time from sending, or from when a message was due where there is a rate. In the end
// the clients come back and count what they are given.
func (r *run) offline() error {
	topics := func(i int, l *link) error { return l.subscribe(r.cfg.QoS, r.topic(i)) }
	began := time.Now()
	away, err := r.dialKept(r.cfg.Clients, topics)
	if err != nil {
		return err
	}
	for _, l := range away {
		l.bye()
	}
	pubs, err := r.dialAll(r.cfg.Clients, "pub", func(int, *link) error { return nil })
	if err != nil {
		return err
	}
	r.others = pubs
	r.result.Connections, r.result.SetupSeconds = len(pubs), time.Since(began).Seconds()
	senders := make([]*sender, len(pubs))
	for i, l := range pubs {
		senders[i] = newSender(l, r, i)
		r.wg.Go(func() { r.fail(senders[i].read()) })
		r.wg.Go(func() { senders[i].write() })
	}
	if err := r.measureAcks(senders); err != nil {
		return err
	}
	r.stopping.Store(true)
	for _, s := range senders {
		s.settle()
		r.result.latency.Add(&s.latency)
		r.result.Refused += s.refused
	}
	r.close()
	if err := r.collect(senders); err != nil {
		return err
	}
	r.result.percentiles()
	return nil
}

// measureAcks warms up and counts acknowledgements.
func (r *run) measureAcks(senders []*sender) error {
	acks := func() (n int64) {
		for _, s := range senders {
			n += s.acked.Load()
		}
		return n
	}
	pause := func(d time.Duration) error {
		select {
		case <-time.After(d):
			return nil
		case <-r.done:
			return r.err
		case <-r.ctx.Done():
			return r.ctx.Err()
		}
	}
	if err := pause(max(0, r.cfg.Warmup)); err != nil {
		return fmt.Errorf("warm-up: %w", err)
	}
	before, err := r.process()
	if err != nil {
		return err
	}
	from, began := acks(), time.Now()
	r.measuring.Store(true)
	if err := pause(r.cfg.Duration); err != nil {
		return err
	}
	r.measuring.Store(false)
	r.result.Seconds = time.Since(began).Seconds()
	r.result.Delivered = acks() - from
	r.result.Published = r.result.Delivered
	after, err := r.process()
	if err != nil {
		return err
	}
	r.result.account(before, after, r.pid != 0)
	return nil
}

// dialKept connects clients whose sessions outlive their connections.
func (r *run) dialKept(n int, prepare func(i int, l *link) error) ([]*link, error) {
	kept := r.target
	r.target.kept = true
	defer func() { r.target = kept }()
	return r.dialAll(n, "away", prepare)
}

// collect resumes the sessions and counts what was acknowledged and does not come.
func (r *run) collect(senders []*sender) error {
	var mu sync.Mutex
	_, err := r.dialKept(len(senders), func(i int, l *link) error {
		l.enlarge()
		lost, duplicates, reordered, err := senders[i].drain(l, r.cfg.Stall)
		mu.Lock()
		r.result.Lost += lost
		r.result.Duplicates += duplicates
		r.result.Reordered += reordered
		mu.Unlock()
		l.bye()
		if err != nil {
			return err
		}
		end, err := r.target.with(func(t *target) { t.kept = false }).dial(r.ctx, fmt.Sprintf("%s-away-%d", r.name[len("bench/"):], i))
		if err == nil { // a clean start has removed the session
			end.bye()
		}
		return err
	})
	return err
}

// sender publishes to one session that is away.
type sender struct {
	*link
	run      *run
	template []byte
	idAt     int
	due      []time.Duration // by packet identifier modulo its length: when the message was sent or due
	room     chan struct{}   // one for each message that may be under way
	sent     atomic.Int64
	acked    atomic.Int64
	latency  Histogram
	refused  int64
	ended    chan struct{} // closed when write has ended
}

func newSender(l *link, r *run, index int) *sender {
	window := min(r.cfg.Window, l.receiveMaximum)
	s := &sender{link: l, run: r, due: make([]time.Duration, 65536), room: make(chan struct{}, window), ended: make(chan struct{})}
	l.enlarge()
	payload := make([]byte, r.cfg.Size)
	binary.BigEndian.PutUint32(payload, uint32(index))
	s.template = wire.Publish{Topic: r.topic(index), Payload: payload, QoS: r.cfg.QoS, ID: 1}.Append(nil, r.cfg.Version)
	s.idAt = len(s.template) - r.cfg.Size - 2
	if r.cfg.Version >= wire.V5 {
		s.idAt--
	}
	return s
}

// write sends as fast as acknowledgements come, or at its share of the rate. What may be sent at a time is one write.
func (s *sender) write() {
	defer close(s.ended)
	var interval time.Duration
	if s.run.cfg.Rate > 0 {
		interval = time.Second * time.Duration(s.run.cfg.Clients) / time.Duration(s.run.cfg.Rate)
	}
	start, buf := time.Since(s.run.epoch), []byte(nil)
	for n := int64(0); !s.run.stopping.Load(); {
		buf = buf[:0]
		for more := true; more; {
			at := time.Since(s.run.epoch)
			if interval > 0 {
				at = start + time.Duration(n)*interval
				if wait := at - time.Since(s.run.epoch); wait > 0 {
					if len(buf) > 0 {
						break
					}
					time.Sleep(wait)
				}
			}
			if more = s.take(len(buf) == 0); more {
				buf = s.append(buf, n, at)
				n++
			} else if len(buf) == 0 {
				return
			}
		}
		if _, err := s.nc.Write(buf); err != nil {
			s.run.fail(err)
			return
		}
		s.sent.Store(n)
	}
}

// take takes room for one message, waiting for it if it must.
func (s *sender) take(wait bool) bool {
	select {
	case s.room <- struct{}{}:
		return true
	default:
	}
	if !wait {
		return false
	}
	select {
	case s.room <- struct{}{}:
		return true
	case <-s.run.done:
		return false
	}
}

func (s *sender) append(buf []byte, n int64, at time.Duration) []byte {
	from := len(buf)
	buf = append(buf, s.template...)
	frame := buf[from:]
	id := uint16(n%65535) + 1
	s.due[id] = at
	binary.BigEndian.PutUint16(frame[s.idAt:], id)
	payload := frame[len(frame)-s.run.cfg.Size:]
	binary.BigEndian.PutUint32(payload[4:], uint32(n))
	return buf
}

// read counts acknowledgements until the connection ends.
func (s *sender) read() error {
	for {
		now := time.Duration(0)
		err := s.batch(func(header byte, body []byte) error {
			if wire.Type(header>>4) != wire.PUBACK || len(body) < 2 {
				return s.unexpected(header, body)
			}
			if now == 0 {
				now = time.Since(s.run.epoch)
			}
			if len(body) > 2 && body[2] >= 0x80 {
				s.refused++
			}
			if s.run.measuring.Load() {
				s.latency.Record(now - s.due[binary.BigEndian.Uint16(body)])
			}
			s.acked.Add(1)
			<-s.room
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// settle waits until everything that was sent is acknowledged, or nothing comes any more.
func (s *sender) settle() {
	deadline := time.Now().Add(s.run.cfg.Stall)
	for time.Now().Before(deadline) {
		select {
		case <-s.ended:
			if s.acked.Load() == s.sent.Load() {
				return
			}
		default:
		}
		time.Sleep(time.Millisecond)
	}
}

// drain reads what the session was kept, and compares.
func (s *sender) drain(l *link, stall time.Duration) (lost, duplicates, reordered int64, err error) {
	want, got, next := s.acked.Load(), int64(0), uint32(0)
	var out []byte
	for got < want && err == nil {
		out = out[:0]
		l.nc.SetReadDeadline(time.Now().Add(stall))
		err = l.batch(func(header byte, body []byte) error {
			if wire.Type(header>>4) != wire.PUBLISH {
				return l.unexpected(header, body)
			}
			id, payload, err := split(l.version, header, body)
			if err != nil {
				return err
			}
			out = append(out, byte(wire.PUBACK)<<4, 2, byte(id>>8), byte(id))
			seq := binary.BigEndian.Uint32(payload[4:])
			switch {
			case seq == next, seq > next:
				got++
				next = seq + 1
			default:
				duplicates++
			}
			return nil
		})
		if err == nil && len(out) > 0 {
			_, err = l.nc.Write(out)
		}
	}
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		err = nil // what has not come by now is lost
	}
	return want - got, duplicates, 0, err
}
