package crash

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// client is one client id with its session. All of it but the reading of a connection happens on one goroutine.
type client struct {
	*load
	h       *history
	who     int
	id      string
	version wire.Version
	dice    *rand.Rand
	role    role

	session    session
	clean      bool // the next connection ends the session that there is
	ended      bool // there is none, as far as the client was told
	receiveMax int  // 0: none
	conn       *conn
	conns      int
	pending    []answer    // to be sent some time soon
	away       time.Time   // until then it stays offline
	settled    atomic.Bool // nothing is left to do, as far as it knows
}

// role is what a client is there for.
type role interface {
	properties() wire.Props          // further ones of CONNECT
	resumed(present bool)            // a connection begins
	act()                            // something, at random
	finish()                         // a step towards the end
	take(p wire.Packet) (taken bool) // a packet that is not of the handshake of a message the client publishes
	idle() bool                      // finish has nothing left to do
}

// answer is a packet that answers one.
type answer struct {
	kind wire.Type
	id   uint16
	out  *outgoing    // PUBREL
	msg  *publication // others
}

// sessionExpiry is what MQTT 5 clients ask for, in seconds.
const sessionExpiry = 24 * 60 * 60

// newClient makes a client whose dice fall as the seed and its name have it.
func newClient(l *load, name string, v wire.Version, stream uint64) *client {
	return &client{
		load: l, h: l.history, who: l.history.client(name), id: name, version: v,
		dice: rand.New(rand.NewPCG(l.seed, stream)), session: newSession(),
	}
}

// run lives until the load is over.
func (c *client) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for c.phase() != over {
		if c.conn == nil {
			if c.phase() == storm && time.Now().Before(c.away) {
				c.pause(time.Until(c.away))
			} else {
				c.connect()
			}
			continue
		}
		select {
		case p, ok := <-c.conn.packets:
			c.handle(p, ok)
		case <-timer.C:
			timer.Reset(c.tick())
		}
	}
}

// tick does something and says when to do the next.
func (c *client) tick() time.Duration {
	c.flush()
	pace := c.pace
	if c.phase() == storm {
		c.role.act()
	} else {
		c.role.finish()
		c.settled.Store(c.role.idle())
	}
	return time.Duration(c.dice.ExpFloat64() * float64(pace))
}

// handle takes a packet; ok is false where the connection has ended instead.
func (c *client) handle(p wire.Packet, ok bool) {
	if !ok {
		if c.conn.broken != nil {
			c.h.wrong(c.who, nil, "malformed", "%v", c.conn.broken)
		}
		c.event("the connection ended")
		c.leave((*conn).close)
		return
	}
	switch p.Type {
	case wire.PUBACK, wire.PUBREC, wire.PUBCOMP:
		c.takeAck(p)
	case wire.PINGRESP:
		c.event("PINGRESP")
		c.conn.pinging = false
	case wire.DISCONNECT:
		c.event(p.String())
		if p.Code != 0x8B && !(c.faulty && p.Code == 0x83) { // shutting down; the store has failed
			c.h.wrong(c.who, nil, "sent away", "%s", p)
		}
	default:
		if !c.role.take(p) {
			c.h.wrong(c.who, nil, "unexpected", "%s", p)
		}
	}
	if c.conn != nil && (c.phase() != storm || c.full() || c.dice.IntN(3) > 0) {
		c.flush()
	}
}

// full reports whether answers must not be held back any more.
func (c *client) full() bool {
	return len(c.pending) >= 8 || c.receiveMax > 0 && len(c.conn.open) >= c.receiveMax
}

// answer puts an answer behind the others.
func (c *client) answer(a answer) { c.pending = append(c.pending, a) }

// flush sends the answers that are due, in the order of what they answer (section 4.6).
func (c *client) flush() {
	if c.conn == nil || len(c.pending) == 0 {
		return
	}
	var b []byte
	for _, a := range c.pending {
		if a.kind == wire.PUBREL {
			b = c.release(b, a.out)
			continue
		}
		if a.kind == wire.PUBREC {
			c.conn.rels = append(c.conn.rels, a.id)
			if h := c.session.held[a.id]; h != nil {
				h.answered = true
			}
		} else {
			delete(c.conn.open, a.id)
		}
		c.h.note(event{who: c.who, conn: c.conn.number, out: true, kind: a.kind, id: a.id, msg: a.msg})
		b = wire.Ack{Type: a.kind, ID: a.id}.Append(b, c.version)
	}
	c.pending = c.pending[:0]
	c.send(b)
}

// send writes; that a connection has ended shows when reading.
func (c *client) send(b []byte) {
	if len(b) > 0 && c.conn != nil {
		if c.dice.IntN(20) == 0 { // in two pieces
			n := c.dice.IntN(len(b))
			c.conn.write(b[:n])
			b = b[n:]
		}
		c.conn.write(b)
	}
}

// event notes what is no packet of a message.
func (c *client) event(text string) moment {
	number := c.conns
	if c.conn != nil {
		number = c.conn.number
	}
	return c.h.note(event{who: c.who, conn: number, text: text})
}
