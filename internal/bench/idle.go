package bench

import (
	"fmt"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// idle opens connections with one subscription each, holds them and reads the broker's memory.
func (r *run) idle() error {
	before, err := r.process()
	if err != nil {
		return err
	}
	began := time.Now()
	links, err := r.dialAll(r.cfg.Clients, "idle", func(i int, l *link) error {
		err := l.subscribe(r.cfg.QoS, r.topic(i))
		l.buf = nil
		return err
	})
	if err != nil {
		return err
	}
	r.others = append(r.others, links...)
	r.result.SetupSeconds = time.Since(began).Seconds()
	began = time.Now()
	select {
	case <-time.After(r.cfg.Duration):
	case <-r.ctx.Done():
		return r.ctx.Err()
	}
	after, err := r.process()
	if err != nil {
		return err
	}
	// A connection that the broker has dropped costs it nothing: count those that still answer.
	for i, l := range links {
		l.buf = make([]byte, 256)
		l.nc.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := l.ask(wire.Ping{}.Append(nil), wire.PINGRESP); err != nil {
			return fmt.Errorf("idle connection %d is gone: %w", i, err)
		}
	}
	r.result.Connections = len(links)
	r.result.Seconds = time.Since(began).Seconds()
	r.result.account(before, after, r.pid != 0)
	return nil
}
