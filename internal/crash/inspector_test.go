package crash

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// inspector asks for retained values, each time as another client without a past.
type inspector struct {
	*load
	h    *history
	who  int
	dice *rand.Rand
	asks int
}

func newInspector(l *load) *inspector {
	return &inspector{load: l, h: l.history, who: l.history.client("inspector"), dice: rand.New(rand.NewPCG(l.seed, 2000))}
}

// run asks for a part of the retained values again and again, and for those that change most as soon as the broker has come
// back: soon they will have changed again.
func (i *inspector) run() {
	for life := 1; i.phase() != over; {
		var topics []*topic
		if now := i.h.alive(); now != life {
			for _, p := range i.publishers {
				topics = append(topics, p.keep)
			}
			if i.ask(topics) {
				life = now
			}
			continue
		}
		for range 4 {
			p := i.publishers[i.dice.IntN(len(i.publishers))]
			topics = append(append(topics, p.topics...), p.keep)
		}
		i.ask(topics)
		for end := time.Now().Add(time.Duration(i.dice.IntN(200)) * time.Millisecond); time.Now().Before(end) && i.h.alive() == life; {
			i.pause(time.Millisecond)
		}
	}
}

// all asks for every retained value.
func (i *inspector) all() bool {
	var topics []*topic
	for _, p := range i.publishers {
		topics = append(append(topics, p.topics...), p.keep)
	}
	return i.ask(topics)
}

// ask subscribes to topics and records the retained values that come. It waits for every value that must be there, and
// learns of one that must not if it comes before the answer to a last question. It reports false where the connection ended
// before that.
func (i *inspector) ask(topics []*topic) bool {
	i.asks++
	v := []wire.Version{wire.V5, wire.V311}[i.dice.IntN(2)]
	c, err := dial(i.addr, v, i.asks)
	if err != nil {
		i.pause(time.Millisecond)
		return false
	}
	defer c.close()
	wanted := make(map[string]*topic)
	s := wire.Subscribe{ID: 1}
	for _, t := range topics {
		if wanted[t.name] == nil {
			s.Filters = append(s.Filters, wire.Filter{Filter: t.name, QoS: byte(1 + i.dice.IntN(2))})
		}
		wanted[t.name] = t
	}
	c.write(wire.Connect{Version: v, ClientID: fmt.Sprintf("inspector-%d", i.asks), Clean: true}.Append(nil))
	since := i.h.note(event{who: i.who, conn: c.number, out: true, text: fmt.Sprintf("asks for %d retained values", len(wanted))})
	c.write(s.Append(nil, v))
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for begun, asked := i.phase(), false; i.phase() == begun; {
		if !asked && !i.h.awaits(wanted, since) {
			asked = true
			c.write(wire.Ping{}.Append(nil))
		}
		select {
		case p, ok := <-c.packets:
			switch {
			case !ok:
				return false
			case p.Type == wire.PINGRESP:
				i.absent(wanted, since)
				c.write(wire.Disconnect{}.Append(nil, v))
				return true
			default:
				i.take(c, p, wanted, since)
			}
		case <-poll.C:
		case <-timeout.C:
			i.absent(wanted, since)
			return true
		}
	}
	return false
}

// absent records that values did not come.
func (i *inspector) absent(wanted map[string]*topic, since moment) {
	for _, t := range wanted {
		i.h.observe(i.who, t, 0, since)
	}
}

// take handles a packet and takes a topic whose value has come out of those that are wanted.
func (i *inspector) take(c *conn, p wire.Packet, wanted map[string]*topic, since moment) {
	switch p.Type {
	case wire.PUBREL:
		c.write(wire.Ack{Type: wire.PUBCOMP, ID: p.ID}.Append(nil, c.version))
	case wire.PUBLISH:
		if p.QoS > 0 {
			c.write(wire.Ack{Type: wire.PUBACK + wire.Type(p.QoS-1), ID: p.ID}.Append(nil, c.version))
		}
		if !p.Retain {
			return
		}
		m := i.h.find(p.Topic, p.Payload)
		if m == nil || !m.retain {
			i.h.wrong(i.who, m, "unknown message", "nobody has published %s as the retained value", p)
			return
		}
		i.h.observe(i.who, m.topic, m.n, since)
		delete(wanted, p.Topic)
	}
}
