package crash

import (
	"fmt"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// connect tries to get a connection; there is none afterwards if the broker is away.
func (c *client) connect() {
	next, ok := c.open()
	if !ok {
		c.pause(time.Duration(5+c.dice.IntN(25)) * time.Millisecond)
		return
	}
	c.enter(next)
}

// open connects up to CONNACK, which is still to be taken into account (see enter).
func (c *client) open() (next opened, ok bool) {
	nc, err := dial(c.addr, c.version, c.conns+1)
	if err != nil {
		return next, false
	}
	c.conns++
	p := wire.Connect{Version: c.version, ClientID: c.id, Clean: c.clean}
	if c.version >= wire.V5 {
		p.Props = append(wire.Props{wire.SessionExpiry.Int(sessionExpiry)}, c.role.properties()...)
	}
	c.h.note(event{who: c.who, conn: nc.number, out: true, text: fmt.Sprintf("CONNECT, clean %t", c.clean)})
	nc.write(p.Append(nil))
	select {
	case ack, ok := <-nc.packets:
		switch {
		case !ok && nc.broken != nil:
			c.h.wrong(c.who, nil, "malformed", "%v", nc.broken)
		case !ok:
		case ack.Type != wire.CONNACK:
			c.h.wrong(c.who, nil, "unexpected", "%s in place of CONNACK", ack)
		case ack.Code == 0:
			return opened{nc, ack}, true
		case c.version >= wire.V5 && ack.Code != 0x88 && ack.Code != 0x8B && ack.Code != 0x89, c.version < wire.V5 && ack.Code != 3:
			c.h.wrong(c.who, nil, "refused", "CONNECT was refused: %s", ack)
		}
	case <-time.After(patience):
		c.h.wrong(c.who, nil, "silence", "no CONNACK within %v", patience)
	}
	c.h.note(event{who: c.who, conn: nc.number, text: "no CONNACK"})
	c.ended = c.ended && c.clean // there may be a session of which the client was not told
	nc.close()
	return next, false
}

// opened is a connection with its CONNACK.
type opened struct {
	conn *conn
	ack  wire.Packet
}

// enter makes a connection the one of the session and goes on where the last one ended.
func (c *client) enter(next opened) {
	c.conn = next.conn
	present := next.ack.SessionPresent
	c.h.note(event{who: c.who, conn: c.conn.number, kind: wire.CONNACK, dup: present, text: fmt.Sprintf("session present %t", present)})
	if n := next.ack.Props.Int(wire.ReceiveMaximum); n > 0 {
		c.conn.window = int(n)
	}
	if n, ok := next.ack.Props.Find(wire.SessionExpiry); ok && n.Int != sessionExpiry {
		c.h.wrong(c.who, nil, "expiry", "session expiry is %d s, asked for was %d", n.Int, sessionExpiry)
	}
	if c.session.exists && !present {
		c.h.wrong(c.who, nil, "session lost", "CONNACK says that no session is present; it has %d messages unfinished and %d not released", len(c.session.outgoing), len(c.session.held))
	}
	if (c.clean || c.ended) && present {
		c.h.wrong(c.who, nil, "session kept", "CONNACK says that a session is present after the last one has ended")
	}
	c.clean, c.ended = false, c.clean && c.version < wire.V5
	if c.ended { // this one, too, is not kept
		c.goodbye()
		return
	}
	if !present {
		clear(c.session.held)
	}
	c.session.exists = true
	c.resume(present)
	c.role.resumed(present)
}

// leave ends the connection by one of its methods. What was to be answered stays unanswered.
func (c *client) leave(how func(*conn)) {
	how(c.conn)
	c.conn, c.pending = nil, nil
}

// goodbye leaves with DISCONNECT; the session is kept.
func (c *client) goodbye() {
	c.flush()
	c.event("DISCONNECT")
	c.send(wire.Disconnect{}.Append(nil, c.version))
	c.leave((*conn).close)
}

// drop leaves without a word, perhaps in the middle of a packet.
func (c *client) drop() {
	switch c.dice.IntN(3) {
	case 0:
		c.event("closes")
		c.leave((*conn).close)
	case 1:
		c.event("resets")
		c.leave((*conn).reset)
	default:
		c.event("closes in the middle of a packet")
		b := wire.Publish{Topic: "cut", Payload: make([]byte, 100), QoS: 1, ID: 65000}.Append(nil, c.version)
		c.send(b[:1+c.dice.IntN(len(b)-1)])
		c.leave((*conn).close)
	}
}

// takeOver connects a second time beside the connection that there is, which the broker must end.
func (c *client) takeOver() {
	old := c.conn
	c.event("is taken over")
	next, ok := c.open()
	c.leave(func(*conn) {})
	if !ok {
		old.close()
		return
	}
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for ended := false; !ended; {
		select {
		case _, more := <-old.packets:
			ended = !more
		case <-timeout.C:
			c.h.wrong(c.who, nil, "take-over", "connection %d is still open %v after connection %d has taken its session over", old.number, patience, next.conn.number)
			ended = true
		}
	}
	old.close()
	c.enter(next)
}

// disturb does at random one of the things that end connections, and may stay away for a while.
func (c *client) disturb(longest time.Duration) {
	switch c.dice.IntN(5) {
	case 0, 1:
		c.goodbye()
	case 2, 3:
		c.drop()
	default:
		c.takeOver()
		return
	}
	if c.dice.IntN(3) == 0 {
		c.away = time.Now().Add(time.Duration(c.dice.Int64N(int64(longest))))
	}
}
