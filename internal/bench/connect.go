package bench

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// connect makes connections and ends them again, Clients at a time. A delivery is one connection, and its latency the time
// from dialling to the CONNACK.
func (r *run) connect() error {
	var mu sync.Mutex
	var count atomic.Int64
	for w := range r.cfg.Clients {
		r.wg.Go(func() {
			for i := 0; !r.stopping.Load(); i++ {
				began := time.Now()
				l, err := r.target.dial(r.ctx, fmt.Sprintf("%s-%d", r.name[len("bench/"):], w))
				if err != nil {
					r.fail(fmt.Errorf("connection %d: %w", i, err))
					return
				}
				took := time.Since(began)
				l.bye()
				count.Add(1)
				if r.measuring.Load() {
					mu.Lock()
					r.result.latency.Record(took)
					mu.Unlock()
				}
			}
		})
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
		return err
	}
	before, err1 := r.process()
	from, began := count.Load(), time.Now()
	r.measuring.Store(true)
	if err := pause(r.cfg.Duration); err != nil {
		return err
	}
	r.measuring.Store(false)
	after, err2 := r.process()
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	r.result.Seconds = time.Since(began).Seconds()
	r.result.Connections = r.cfg.Clients
	r.result.Delivered = count.Load() - from
	r.result.Published = r.result.Delivered
	r.result.account(before, after, r.pid != 0)
	r.close()
	r.result.percentiles()
	return nil
}
