package bench

import (
	"context"
	"crypto/rand"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient"
)

// Run loads the broker at url and returns what was measured. pid is the broker's process on this machine, whose CPU time and
// memory are measured; 0: none. The error is of the set-up or of a broken run; lost, duplicated and reordered messages are
// part of the result.
func Run(ctx context.Context, url string, pid int, cfg Config) (*Result, error) {
	u, err := mqttclient.ParseURL(url)
	if err != nil {
		return nil, err
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.WithDefaults()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &run{
		cfg: cfg, target: target{url: u, cfg: cfg}, pid: pid, name: "bench/" + rand.Text()[:8], epoch: time.Now(),
		done: make(chan struct{}), ctx: ctx,
	}
	r.result = &Result{
		URL: url, Mode: cfg.Mode, Clients: cfg.Clients, QoS: cfg.QoS, Size: cfg.Size, Window: cfg.Window, Batch: cfg.Batch,
		Version: cfg.Version.String(), Bystanders: cfg.Bystanders,
	}
	if pid != 0 {
		if _, err := readProcess(pid); err != nil {
			return nil, err
		}
	}
	defer r.close()
	if err := r.bystanders(); err != nil {
		return nil, fmt.Errorf("bystanders: %w", err)
	}
	switch cfg.Mode {
	case Idle:
		err = r.idle()
	case Connect:
		err = r.connect()
	case Offline:
		err = r.offline()
	default:
		err = r.flow()
	}
	if err != nil {
		return nil, err
	}
	return r.result, nil
}

// run is one run.
type run struct {
	cfg    Config
	target target
	pid    int
	name   string // of this run, in topics and client ids
	epoch  time.Time
	ctx    context.Context
	result *Result

	publishers  []*publisher
	subscribers []*subscriber
	others      []*link // connections that only are there

	measuring atomic.Bool
	stopping  atomic.Bool // no new messages
	done      chan struct{}
	once      sync.Once
	err       error
	closing   atomic.Bool
	wg        sync.WaitGroup
}

// topic is what publisher i publishes to.
func (r *run) topic(i int) string { return fmt.Sprintf("%s/%d", r.name, i) }

// fail ends the run; the first cause counts.
func (r *run) fail(err error) {
	if r.closing.Load() {
		return
	}
	r.once.Do(func() { r.err = err; close(r.done) })
}

// close ends every connection and waits for every goroutine.
func (r *run) close() {
	r.closing.Store(true)
	r.stopping.Store(true)
	r.once.Do(func() { close(r.done) })
	for _, p := range r.publishers {
		p.bye()
	}
	for _, s := range r.subscribers {
		s.bye()
	}
	for _, l := range r.others {
		l.bye()
	}
	r.wg.Wait()
}

// dialAll dials n connections, some at a time.
func (r *run) dialAll(n int, kind string, prepare func(i int, l *link) error) ([]*link, error) {
	links := make([]*link, n)
	next := atomic.Int64{}
	ctx, cancel := context.WithCancelCause(r.ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for range min(n, 64) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				l, err := r.target.dial(ctx, fmt.Sprintf("%s-%s-%d", r.name[len("bench/"):], kind, i))
				if err == nil {
					links[i] = l
					err = prepare(i, l)
				}
				if err != nil {
					cancel(fmt.Errorf("%s %d: %w", kind, i, err))
				}
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		for _, l := range links {
			if l != nil {
				l.nc.Close()
			}
		}
		return nil, context.Cause(ctx)
	}
	return links, nil
}

// bystanders makes subscriptions that no message matches.
func (r *run) bystanders() error {
	n := r.cfg.Bystanders
	links, err := r.dialAll((n+bystandersPerConnection-1)/bystandersPerConnection, "by", func(i int, l *link) error {
		for from := i * bystandersPerConnection; from < min(n, (i+1)*bystandersPerConnection); from += 100 {
			var filters []string
			for k := from; k < min(n, from+100, (i+1)*bystandersPerConnection); k++ {
				filters = append(filters, fmt.Sprintf("%s/other/%d/%d", r.name, k%1000, k))
			}
			if err := l.subscribe(r.cfg.QoS, filters...); err != nil {
				return err
			}
		}
		return nil
	})
	r.others = append(r.others, links...)
	return err
}

// flow runs the modes in which messages flow.
func (r *run) flow() error {
	publishers, subscribers := r.cfg.Clients, r.cfg.Clients
	switch r.cfg.Mode {
	case FanOut:
		publishers = 1
	case FanIn:
		subscribers = 1
	}
	began := time.Now()
	subs, err := r.dialAll(subscribers, "sub", func(i int, l *link) error {
		filter := r.topic(i)
		switch r.cfg.Mode {
		case FanOut:
			filter = r.topic(0)
		case FanIn:
			filter = r.name + "/+"
		}
		return l.subscribe(r.cfg.QoS, filter)
	})
	if err != nil {
		return err
	}
	pubs, err := r.dialAll(publishers, "pub", func(int, *link) error { return nil })
	if err != nil {
		for _, l := range subs {
			l.nc.Close()
		}
		return err
	}
	r.result.Connections = publishers + subscribers + len(r.others)
	r.result.SetupSeconds = time.Since(began).Seconds()
	copies := 1
	if r.cfg.Mode == FanOut {
		copies = subscribers
	}
	for i, l := range pubs {
		r.publishers = append(r.publishers, newPublisher(l, r, i, copies))
	}
	for i, l := range subs {
		s := &subscriber{link: l, run: r, index: i}
		from := r.publishers
		if r.cfg.Mode == Pair || r.cfg.Mode == Latency {
			s.first, from = i, r.publishers[i:i+1]
		}
		for _, p := range from {
			s.streams = append(s.streams, stream{from: p})
		}
		r.subscribers = append(r.subscribers, s)
	}
	r.start()
	if err := r.measure(); err != nil {
		return err
	}
	return r.finish()
}

// start begins reading and sending.
func (r *run) start() {
	for _, s := range r.subscribers {
		s.enlarge()
		r.wg.Go(func() {
			err := s.read()
			r.fail(fmt.Errorf("subscriber %d: %w", s.index, err))
		})
	}
	for _, p := range r.publishers {
		p.enlarge()
		r.wg.Go(func() {
			err := p.read()
			r.fail(fmt.Errorf("publisher %d: %w", p.index, err))
		})
		if p.wake != nil {
			r.wg.Go(p.write)
		}
	}
	if r.cfg.Mode == Latency {
		r.wg.Go(r.pace)
	}
	for _, p := range r.publishers {
		p.kick()
	}
}

// received counts the deliveries.
func (r *run) received() (n int64) {
	for _, s := range r.subscribers {
		n += s.received.Load()
	}
	return n
}

// published counts the messages that were sent.
func (r *run) published() (n int64) {
	for _, p := range r.publishers {
		p.mu.Lock()
		n += int64(p.seq)
		p.mu.Unlock()
	}
	return n
}

// measure warms up and measures.
func (r *run) measure() error {
	if err := r.wait(max(0, r.cfg.Warmup), 0); err != nil {
		return fmt.Errorf("warm-up: %w", err)
	}
	before, err := r.process()
	if err != nil {
		return err
	}
	from, published, began := r.received(), r.published(), time.Now()
	r.measuring.Store(true)
	if r.cfg.Messages > 0 {
		err = r.wait(0, from+r.cfg.Messages)
	} else {
		err = r.wait(r.cfg.Duration, 0)
	}
	r.measuring.Store(false)
	if err != nil {
		return err
	}
	after, err := r.process()
	if err != nil {
		return err
	}
	r.result.Seconds = time.Since(began).Seconds()
	r.result.Delivered, r.result.Published = r.received()-from, r.published()-published
	r.result.account(before, after, r.pid != 0)
	return nil
}

// process reads the broker's process, if it is known, and the generator's own CPU time.
func (r *run) process() (p process, err error) {
	if r.pid != 0 {
		p, err = readProcess(r.pid)
	}
	p.own = ownCPU()
	return p, err
}

// wait waits for the duration or until so many deliveries were made in all. It fails when nothing moves.
func (r *run) wait(d time.Duration, until int64) error {
	const step = 5 * time.Millisecond
	end := time.Now().Add(d)
	moved, last := time.Now(), r.received()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-r.done:
			return r.err
		case <-r.ctx.Done():
			return r.ctx.Err()
		case now := <-timer.C:
			n := r.received()
			if n != last {
				moved, last = now, n
			}
			switch {
			case until > 0 && n >= until, until == 0 && !now.Before(end):
				return nil
			case now.Sub(moved) > r.cfg.Stall:
				return fmt.Errorf("stalled: no message for %v, %d sent and %d deliveries so far", r.cfg.Stall, r.published(), n)
			}
			timer.Reset(step)
		}
	}
}

// finish stops sending, waits for what is on its way and compares numbers.
func (r *run) finish() error {
	r.stopping.Store(true)
	sent := r.published() // takes every publisher's lock, so no write is going on any more
	copies := int64(1)
	if r.cfg.Mode == FanOut {
		copies = int64(len(r.subscribers))
	}
	deadline := time.Now().Add(r.cfg.Stall)
	for r.received() < sent*copies && time.Now().Before(deadline) {
		select {
		case <-r.done:
			return r.err
		case <-r.ctx.Done():
			return r.ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	r.close()
	r.result.add(r)
	return nil
}

// pace sends at the configured rate whatever the broker does. A message's time is when it was due, so that a late one shows
// its whole delay.
func (r *run) pace() {
	interval := time.Second / time.Duration(r.cfg.Rate)
	start, timer := time.Now(), time.NewTimer(0)
	defer timer.Stop()
	for n := 0; !r.stopping.Load(); {
		select {
		case <-r.done:
			return
		case <-timer.C:
		}
		for due := start.Add(time.Duration(n) * interval); !due.After(time.Now()) && !r.stopping.Load(); due = due.Add(interval) {
			p := r.publishers[n%len(r.publishers)]
			n++
			p.mu.Lock()
			err := p.send(1, due)
			p.mu.Unlock()
			if err != nil {
				r.fail(fmt.Errorf("publisher %d: %w", p.index, err))
				return
			}
		}
		timer.Reset(time.Until(start.Add(time.Duration(n) * interval)))
	}
}
