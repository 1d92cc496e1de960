package broker

import (
	"syscall"
	"time"
)

// moderation makes a busy poller wait a moment between its rounds, as network cards do with interrupts. A poller that is
// woken for every single message pays a wake-up, a read, a kernel's acknowledgement and a write for each. Where rounds follow
// each other faster than a few microseconds' work explains, waiting for 50 µs lets several messages come together: measured
// with 100 pairs at QoS 0, it saves a quarter of the CPU. A poller with little to do never waits, so that latency is what it
// was; a busy one adds at most the wait, where messages wait for longer than that anyway.
type moderation struct {
	rounds int       // since then
	since  time.Time // when the present stretch began
	hold   int       // rounds still to be moderated
}

const (
	stretchRounds = 32                    // looked at together
	stretchTime   = 2 * time.Millisecond  // a stretch in less is busy
	holdRounds    = 256                   // after a busy stretch so many rounds are moderated
	holdTime      = 50 * time.Microsecond // each by so much
)

// pause waits, if the rounds come too fast. Called before each round.
func (m *moderation) pause() {
	if m.hold > 0 {
		m.hold--
		syscall.Nanosleep(&syscall.Timespec{Nsec: int64(holdTime)}, nil)
		return
	}
	if m.rounds++; m.rounds < stretchRounds {
		return
	}
	now := time.Now()
	if now.Sub(m.since) < stretchTime {
		m.hold = holdRounds
	}
	m.rounds, m.since = 0, now
}
