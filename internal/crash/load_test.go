package crash

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// stage is how far a load has come.
type stage int32

const (
	storm     stage = iota // everything at random
	finishing              // what was begun is brought to its end
	over                   // clients stand still and keep their sessions
)

// load is all clients of a run.
type load struct {
	history *history
	addr    string
	seed    uint64
	pace    time.Duration // between two acts of a client, on average
	faulty  bool          // the broker's disk fails now and then: it may refuse what it would have to keep

	stage       atomic.Int32
	publishers  []*publisher
	subscribers []*subscriber
	drifters    []*drifter
	inspector   *inspector
	running     sync.WaitGroup
}

// How many clients there are, and topics of each publisher: half of QoS 1 and half of QoS 2.
const (
	publishers  = 20
	subscribers = 20
	drifters    = 4 // besides them
	topicsEach  = 4
)

// newLoad makes the clients that a seed asks for.
func newLoad(h *history, addr string, seed uint64) *load {
	l := &load{history: h, addr: addr, seed: seed, pace: 25 * time.Millisecond}
	dice := rand.New(rand.NewPCG(seed, 0))
	versions := []wire.Version{wire.V5, wire.V311}
	for i := range publishers {
		p := &publisher{window: 1 + dice.IntN(40)}
		p.client = newClient(l, fmt.Sprintf("p%02d", i), versions[i%2], uint64(1+i))
		p.role = p
		for k := range topicsEach {
			p.topics = append(p.topics, h.topic(fmt.Sprintf("c/%02d/%d", i, k), byte(1+k%2), true))
		}
		p.keep = h.topic(fmt.Sprintf("k/%02d", i), byte(1+dice.IntN(2)), true)
		l.publishers = append(l.publishers, p)
	}
	for i := range subscribers {
		s := &subscriber{}
		s.client = newClient(l, fmt.Sprintf("s%02d", i), versions[i%2], uint64(1000+i))
		s.role = s
		s.reader = h.reader(s.who, s.version >= wire.V5, s.version >= wire.V5 && dice.IntN(2) == 0)
		if s.version >= wire.V5 && dice.IntN(3) > 0 {
			s.receiveMax = 1 + dice.IntN(30)
		}
		exact := func() string { return fmt.Sprintf("c/%02d/%d", dice.IntN(publishers), dice.IntN(topicsEach)) }
		filters := []string{exact(), exact(), exact()}
		switch dice.IntN(4) {
		case 0:
			filters = append(filters, fmt.Sprintf("c/+/%d", dice.IntN(topicsEach)))
		case 1:
			filters = append(filters, fmt.Sprintf("+/%02d/+", dice.IntN(publishers)), fmt.Sprintf("c/%02d/#", dice.IntN(publishers)))
		case 2:
			n := dice.IntN(publishers) // two that overlap
			filters = append(filters, fmt.Sprintf("c/%02d/#", n), fmt.Sprintf("c/%02d/%d", n, dice.IntN(topicsEach)))
		}
		mine := make(map[string]bool)
		for _, f := range filters {
			if !mine[f] {
				s.stable = append(s.stable, s.subscription(f, byte(1+dice.IntN(2))))
			}
			mine[f] = true
		}
		for len(s.extra) < 4 {
			f := []string{exact(), fmt.Sprintf("c/%02d/#", dice.IntN(publishers)), fmt.Sprintf("c/+/%d", dice.IntN(topicsEach)), exact()}[len(s.extra)]
			if !mine[f] {
				s.extra = append(s.extra, f)
			}
			mine[f] = true
		}
		l.subscribers = append(l.subscribers, s)
	}
	for i := range drifters {
		d := &drifter{subscriber: &subscriber{}}
		d.client = newClient(l, fmt.Sprintf("d%02d", i), versions[i%2], uint64(3000+i))
		d.role = d
		for k := range 3 {
			d.filters = append(d.filters, fmt.Sprintf("c/%02d/#", (3*i+k)%publishers))
			d.extra = append(d.extra, fmt.Sprintf("c/%02d/%d", (3*i+k)%publishers, dice.IntN(topicsEach)))
		}
		d.begin()
		l.drifters = append(l.drifters, d)
	}
	l.inspector = newInspector(l)
	return l
}

// phase is how far the load has come.
func (l *load) phase() stage { return stage(l.stage.Load()) }

// pause waits, but not past the end of the stage.
func (l *load) pause(d time.Duration) {
	for now, until := l.phase(), time.Now().Add(d); l.phase() == now && time.Now().Before(until); {
		time.Sleep(min(5*time.Millisecond, time.Until(until)))
	}
}

// clients are all with persistent sessions.
func (l *load) clients() (all []*client) {
	for _, p := range l.publishers {
		all = append(all, p.client)
	}
	for _, s := range l.subscribers {
		all = append(all, s.client)
	}
	for _, d := range l.drifters {
		all = append(all, d.client)
	}
	return all
}

// start lets the clients loose.
func (l *load) start() {
	for _, c := range l.clients() {
		l.running.Go(c.run)
	}
	l.running.Go(l.inspector.run)
}

// finish has everything that was begun brought to its end, or to where nothing goes on any more. It says what is missing.
func (l *load) finish(t *testing.T) {
	l.stage.Store(int32(finishing))
	begun := time.Now()
	var missing string
	for since, progress := time.Now(), -1; time.Since(since) < stuck && time.Since(begun) < 10*patience; time.Sleep(50 * time.Millisecond) {
		if missing = l.missing(); missing == "" || l.history.found() > hopeless {
			break
		}
		l.history.mu.Lock()
		if l.history.progress != progress {
			since, progress = time.Now(), l.history.progress
		}
		l.history.mu.Unlock()
	}
	l.stage.Store(int32(over))
	l.running.Wait()
	if missing != "" {
		l.history.wrong(-1, nil, "not finished", "nothing goes on any more after %v: %s", time.Since(begun).Round(time.Second), missing)
	}
	t.Logf("all messages had arrived and all handshakes were complete after %v", time.Since(begun).Round(time.Millisecond))
}

// hopeless is how many findings of clients end a run early.
const hopeless = 500

// stuck is after how long without any acknowledgement or delivery a run counts as standing still.
const stuck = 20 * time.Second

// missing says what still has to come; empty: nothing.
func (l *load) missing() string {
	l.history.mu.Lock()
	defer l.history.mu.Unlock()
	for _, p := range l.publishers {
		for _, t := range append(p.topics, p.keep) {
			for i := len(t.all) - 1; i >= 0 && i >= len(t.all)-2*p.window-10; i-- {
				if !t.all[i].through {
					return fmt.Sprintf("%s has not completed %s", p.id, t.all[i])
				}
			}
		}
	}
	if !l.settled() {
		return "clients have something under way"
	}
	for _, r := range l.history.readers {
		for _, p := range l.publishers {
			for _, t := range p.topics {
				if m := t.all[len(t.all)-1]; r.count[m] == 0 && !r.ended && r.expects(m).certain > 0 {
					return fmt.Sprintf("%s did not get the last message %s", l.history.names[r.who], m)
				}
			}
		}
	}
	return ""
}

// settled reports whether every client has told that it is idle.
func (l *load) settled() bool {
	for _, c := range l.clients() {
		if !c.settled.Load() {
			return false
		}
	}
	return true
}
