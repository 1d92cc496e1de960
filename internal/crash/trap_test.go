package crash

import (
	"math/rand/v2"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// trap is a moment at which the broker is killed: as soon as a client has taken one of some packets, the after-th of them. That
// hits what is acknowledged a little too early much more often than any other moment.
type trap struct {
	name  string
	sees  func(event) bool
	after int
	kill  func()
}

// traps are the kinds there are.
var traps = []trap{
	{name: "PUBACK", sees: func(e event) bool { return e.kind == wire.PUBACK && !e.out }},
	{name: "PUBACK of a retained value", sees: func(e event) bool { return e.kind == wire.PUBACK && !e.out && e.msg != nil && e.msg.retain }},
	{name: "PUBACK of a clearing", sees: func(e event) bool { return e.kind == wire.PUBACK && !e.out && e.msg != nil && e.msg.clears }},
	{name: "PUBREC", sees: func(e event) bool { return e.kind == wire.PUBREC && !e.out }},
	{name: "PUBREC of a message sent again", sees: func(e event) bool { return e.kind == wire.PUBREC && !e.out && e.msg != nil && e.msg.sends > 1 }},
	{name: "PUBCOMP", sees: func(e event) bool { return e.kind == wire.PUBCOMP && !e.out }},
	{name: "PUBLISH", sees: func(e event) bool { return e.kind == wire.PUBLISH && !e.out }},
	{name: "PUBLISH of a message not acknowledged", sees: func(e event) bool {
		return e.kind == wire.PUBLISH && !e.out && e.msg != nil && e.msg.topic.qos == 2 && e.msg.acked == 0
	}},
	{name: "PUBREL", sees: func(e event) bool { return e.kind == wire.PUBREL && !e.out }},
	{name: "SUBACK", sees: func(e event) bool { return e.kind == wire.SUBACK }},
	{name: "UNSUBACK", sees: func(e event) bool { return e.kind == wire.UNSUBACK }},
	{name: "CONNACK", sees: func(e event) bool { return e.kind == wire.CONNACK }},
	{name: "CONNACK of a new session", sees: func(e event) bool { return e.kind == wire.CONNACK && !e.dup }},
}

// set sets one of the traps.
func (h *history) set(dice *rand.Rand, kill func()) {
	t := traps[dice.IntN(len(traps))]
	t.after, t.kill = dice.IntN(6), kill
	if dice.IntN(2) == 0 {
		t.after = dice.IntN(200)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.trap = &t
}

// clear takes the trap away and reports whether it is still set.
func (h *history) clear() (set bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	set, h.trap = h.trap != nil, nil
	return set
}

// walk is called with every event; h.mu is held.
func (h *history) walk(e event) {
	if t := h.trap; t != nil && t.sees(e) {
		if t.after--; t.after < 0 {
			h.trap = nil
			t.kill()
			h.add(event{who: -1, text: "is killed at a " + t.name})
		}
	}
}
