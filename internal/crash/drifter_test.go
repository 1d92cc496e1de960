package crash

import (
	"fmt"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// drifter is a subscriber that ends its session now and then and begins another with the same client id: nothing of the old
// one may show again, not even after a crash.
type drifter struct {
	*subscriber
	filters []string
}

// act starts over, or does what subscribers do.
func (d *drifter) act() {
	if d.dice.IntN(50) > 0 || !d.session.exists {
		d.subscriber.act()
		return
	}
	d.flush()
	p := wire.Disconnect{}
	if d.version >= wire.V5 && d.dice.IntN(2) == 0 {
		p.Props = wire.Props{wire.SessionExpiry.Int(0)}
	}
	d.event("DISCONNECT, its session is to end " + p.Props.String())
	d.send(p.Append(nil, d.version))
	d.leave((*conn).close)
	d.begin()
}

// begin makes another session, which begins with the next connection.
func (d *drifter) begin() {
	old := d.reader
	d.session, d.clean = newSession(), true
	d.request, d.stable, d.active = nil, nil, nil
	if old != nil {
		for _, s := range old.subscriptions {
			if s.asked != 0 {
				d.h.stamp(event{who: d.who, conn: d.conns, text: fmt.Sprintf("wants no more %s", s.filter)}, &s.leaving)
			}
		}
		d.h.end(old)
	}
	d.reader = d.h.reader(d.who, d.version >= wire.V5, false)
	for _, f := range d.filters {
		d.stable = append(d.stable, d.subscription(f, byte(1+d.dice.IntN(2))))
	}
}
