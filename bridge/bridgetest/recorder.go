package bridgetest

import (
	"sync"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
)

// patience is how long the suite waits for what must happen. Nothing is expected to take anywhere near as long. Only the
// suite's own tests change it.
var patience = 10 * time.Second

// Delivery is what a [Recorder] saw of one delivery.
type Delivery struct {
	Message     *bridge.Message // kept
	Filter      bridge.Filter
	QoS         bridge.QoS
	Retain      bool
	Identifiers []uint32
}

// Recorder is a [bridge.Sink] that keeps what it is given. The zero Recorder takes everything.
type Recorder struct {
	// Answer, if set, decides what becomes of a delivery; only what was taken is recorded.
	Answer func(*bridge.Delivery) bridge.Outcome

	mu   sync.Mutex
	got  []Delivery
	wake chan struct{} // closed at the next delivery; nil if nobody waits
}

var _ bridge.Sink = (*Recorder)(nil)

// Deliver records d.
func (r *Recorder) Deliver(d *bridge.Delivery) bridge.Outcome {
	o := bridge.Delivered
	if r.Answer != nil {
		o = r.Answer(d)
	}
	if o != bridge.Delivered && o != bridge.Queued {
		return o
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = append(r.got, Delivery{
		Message: d.Message.Keep(), Filter: d.Subscription.Filter, QoS: d.QoS, Retain: d.Retain, Identifiers: append([]uint32(nil), d.Identifiers...),
	})
	if r.wake != nil {
		close(r.wake)
		r.wake = nil
	}
	return o
}

// Next removes the oldest delivery. It waits for one if there is none and fails the test if none comes.
func (r *Recorder) Next(t testing.TB) Delivery {
	t.Helper()
	deadline := time.After(patience)
	for {
		r.mu.Lock()
		if len(r.got) > 0 {
			d := r.got[0]
			r.got = r.got[1:]
			r.mu.Unlock()
			return d
		}
		if r.wake == nil {
			r.wake = make(chan struct{})
		}
		wake := r.wake
		r.mu.Unlock()
		select {
		case <-wake:
		case <-deadline:
			t.Fatalf("no message arrived at the recorder within %v", patience)
		}
	}
}

// Take removes all deliveries.
func (r *Recorder) Take() []Delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	got := r.got
	r.got = nil
	return got
}
