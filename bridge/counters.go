package bridge

import "sync/atomic"

// Counters are the running totals of one endpoint. They only grow, but for the gauges.
type Counters struct {
	Name string

	Connections atomic.Int64 // gauge
	Sessions    atomic.Int64 // gauge: connected or kept
	QueuedBytes atomic.Int64 // gauge, of all sessions
	Queued      atomic.Int64 // gauge: messages queued, of all sessions
	Inflight    atomic.Int64 // gauge: sent and not acknowledged, of all sessions

	Accepted    atomic.Uint64 // connections accepted
	Refused     atomic.Uint64 // connections refused before or at authentication
	MessagesIn  [3]atomic.Uint64
	MessagesOut [3]atomic.Uint64
	BytesIn     atomic.Uint64
	BytesOut    atomic.Uint64
	Dropped     [dropReasons]atomic.Uint64
	Panics      atomic.Uint64
	AcceptFails atomic.Uint64 // transient errors of accept

	index int
}

// tally is what one batch adds to one endpoint's counters: plain numbers, added once per batch, because an atomic add per
// delivery costs more than the delivery.
type tally struct {
	in, out [3]uint32
	dropped [dropReasons]uint32
	any     bool
}

func (t *tally) addTo(c *Counters) {
	for q := range t.in {
		if n := t.in[q]; n != 0 {
			c.MessagesIn[q].Add(uint64(n))
		}
		if n := t.out[q]; n != 0 {
			c.MessagesOut[q].Add(uint64(n))
		}
	}
	for r, n := range t.dropped {
		if n != 0 {
			c.Dropped[r].Add(uint64(n))
		}
	}
	*t = tally{}
}

// Stats is a reading of all counters.
type Stats struct {
	Clients       int // attached, connected or not
	Subscriptions int
	Retained      int
	RetainedBytes int64
	Endpoints     []EndpointStats
}

// EndpointStats is a reading of one endpoint's counters.
type EndpointStats struct {
	Name                                                 string
	Connections, Sessions, Queued, QueuedBytes, Inflight int64
	Accepted, Refused, Panics, AcceptFails               uint64
	MessagesIn, MessagesOut                              [3]uint64 // by QoS
	BytesIn, BytesOut                                    uint64
	Dropped                                              map[DropReason]uint64
}

func (c *Counters) read() EndpointStats {
	s := EndpointStats{
		Name: c.Name, Connections: c.Connections.Load(), Sessions: c.Sessions.Load(), Queued: c.Queued.Load(),
		QueuedBytes: c.QueuedBytes.Load(), Inflight: c.Inflight.Load(), Accepted: c.Accepted.Load(), Refused: c.Refused.Load(),
		Panics: c.Panics.Load(), AcceptFails: c.AcceptFails.Load(), BytesIn: c.BytesIn.Load(), BytesOut: c.BytesOut.Load(),
		Dropped: make(map[DropReason]uint64, dropReasons),
	}
	for q := range s.MessagesIn {
		s.MessagesIn[q], s.MessagesOut[q] = c.MessagesIn[q].Load(), c.MessagesOut[q].Load()
	}
	for r := range c.Dropped {
		s.Dropped[DropReason(r)] = c.Dropped[r].Load()
	}
	return s
}
