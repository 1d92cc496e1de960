package crash

import (
	"sync"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// visit has every client connect, take what its session has for it until nothing more comes, and say goodbye. Where nothing
// may be left in any session, what comes is wrong.
func (l *load) visit(nothingLeft bool) {
	var visits sync.WaitGroup
	for _, c := range l.clients() {
		visits.Go(func() { c.visit(nothingLeft) })
	}
	visits.Wait()
}

func (c *client) visit(nothingLeft bool) {
	deadline := time.Now().Add(patience)
	for time.Now().Before(deadline) && c.h.found() < hopeless {
		if c.conn == nil {
			c.connect()
			continue
		}
		n, ok := c.ask(deadline)
		if nothingLeft && n > 0 {
			c.h.wrong(c.who, nil, "left over", "%d packets came, and nothing may be left for this session", n)
		}
		if ok && n == 0 && c.role.idle() {
			c.goodbye()
			return
		}
	}
	c.h.wrong(c.who, nil, "not finished", "handshakes do not end: it has %d messages unfinished and %d not released", len(c.session.outgoing), len(c.session.held))
	if c.conn != nil {
		c.goodbye()
	}
}

// ask sends a PINGREQ and counts what comes before the PINGRESP.
func (c *client) ask(deadline time.Time) (n int, ok bool) {
	c.flush()
	c.conn.pinging = true
	c.send(wire.Ping{}.Append(nil))
	timeout := time.NewTimer(time.Until(deadline))
	defer timeout.Stop()
	for c.conn != nil && c.conn.pinging {
		select {
		case p, more := <-c.conn.packets:
			c.handle(p, more)
			if c.conn != nil && c.conn.pinging {
				n++
			}
		case <-timeout.C:
			c.h.wrong(c.who, nil, "silence", "no PINGRESP")
			return n, false
		}
	}
	if c.conn == nil {
		return n, false
	}
	c.flush()
	return n, true
}
