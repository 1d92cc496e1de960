package crash

import (
	"fmt"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// publisher is a client that publishes numbered messages on topics of its own.
type publisher struct {
	*client
	topics []*topic
	keep   *topic // retained values only, which nobody subscribes to, cleared now and then
	window int    // messages under way at a time
	last   bool   // the last message of every topic is on its way
}

func (p *publisher) properties() wire.Props { return nil }

func (p *publisher) resumed(bool) {}

func (p *publisher) take(wire.Packet) bool { return false }

// act publishes a few messages, or disturbs the connection.
func (p *publisher) act() {
	if p.dice.IntN(60) == 0 {
		p.disturb(500 * time.Millisecond)
		return
	}
	var b []byte
	for n := 1 + p.dice.IntN(3); n > 0 && p.room(); n-- {
		if p.dice.IntN(12) == 0 {
			b = p.next(b, p.keep, true, p.dice.IntN(3) == 0)
			continue
		}
		b = p.next(b, p.topics[p.dice.IntN(len(p.topics))], p.dice.IntN(5) == 0, false)
	}
	p.send(b)
}

func (p *publisher) room() bool { return len(p.session.outgoing) < min(p.window, p.conn.window) }

// next appends the next message of a topic.
func (p *publisher) next(b []byte, t *topic, retain, clears bool) []byte {
	m := p.h.message(t, retain, clears)
	if p.version >= wire.V5 && m.n%3 == 0 && !clears {
		m.props = wire.Props{
			wire.ContentType.Text("text/plain"), wire.CorrelationData.Bytes(fmt.Appendf(nil, "%s#%d", t.name, m.n)),
			wire.User("number", fmt.Sprint(m.n)), wire.User("number", "again"), wire.MessageExpiry.Int(messageExpiry),
		}
	}
	o := &outgoing{id: p.session.claim(p.dice), msg: m}
	p.session.outgoing = append(p.session.outgoing, o)
	return p.publish(b, o, false)
}

// messageExpiry is the lifetime of the messages that have one, in seconds.
const messageExpiry = 7 * 24 * 60 * 60

// finish publishes a last message on every topic when all others are complete.
func (p *publisher) finish() {
	if p.last || len(p.session.outgoing) > 0 {
		return
	}
	p.last = true
	var b []byte
	for _, t := range p.topics {
		b = p.next(b, t, false, false)
	}
	p.send(b)
}

func (p *publisher) idle() bool { return p.last && len(p.session.outgoing) == 0 }
