package crash

import (
	"math/rand/v2"
	"syscall"
	"testing"
	"time"
)

// TestKilledBroker kills the broker again and again under load. Nothing acknowledged may be missing.
func TestKilledBroker(t *testing.T) {
	kills := *killsFlag
	switch {
	case kills >= 0:
	case testing.Short():
		kills = 3
	default:
		kills = 10
	}
	run(t, kills, nil)
}

// TestDisturbedClients is the same load on a broker that is left alone: what is found here is wrong without any crash.
func TestDisturbedClients(t *testing.T) { run(t, 0, nil) }

// run is one run of the load with so many kills. prepare may change what is run.
func run(t *testing.T, kills int, prepare func(*broker, *load)) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	defer func() {
		if t.Failed() {
			t.Logf("the seed of this run: -crash.seed=%d -crash.kills=%d", seed, kills)
		}
	}()
	b, h := newBroker(t), newHistory()
	l := newLoad(h, b.addr, seed)
	if prepare != nil {
		prepare(b, l)
	}
	h.lives()
	b.start()
	b.ready()
	l.start()
	if kills == 0 {
		calm := 8 * time.Second
		if testing.Short() {
			calm /= 4
		}
		time.Sleep(calm)
	} else {
		b.killAgainAndAgain(h, kills, rand.New(rand.NewPCG(seed, 3000)))
	}
	l.finish(t)
	if l.missing() != "" { // what it is waiting for
		b.cmd.Process.Signal(syscall.SIGQUIT)
		<-b.done
	}
	l.visit(false)
	if kills > 0 && h.found() == 0 {
		b.kill()
		restart(b, h)
		l.visit(false)
		b.stop()
		restart(b, h)
		l.visit(true)
	}
	if !l.inspector.all() {
		h.wrong(-1, nil, "silence", "nobody answers who asks for the retained values")
	}
	b.stop()
	t.Log(h.summary())
	h.report(t, h.check())
	for _, line := range b.complains() {
		t.Errorf("the broker said: %s", line)
	}
}

// restart starts the broker for another life.
func restart(b *broker, h *history) {
	h.note(event{who: -1, text: "has ended"})
	h.lives()
	b.start()
	b.ready()
}

// killAgainAndAgain kills the broker at random moments: after a time, when so many packets have gone to and fro, or as a packet
// of a certain kind has come. Some moments come while it is still starting. It stops early when a client has found something,
// so that the trace is short.
func (b *broker) killAgainAndAgain(h *history, kills int, dice *rand.Rand) {
	b.t.Helper()
	var longest time.Duration
	n := 0
	for found := 0; n < kills && found == 0; n++ {
		limit, events, trapped := 4*time.Second, 0, false
		switch dice.IntN(5) {
		case 0:
			limit = time.Duration(dice.Int64N(int64(2500 * time.Millisecond)))
		case 1, 2:
			events = 1 + dice.IntN(20_000)
		default:
			process := b.cmd.Process
			trapped = true
			h.set(dice, func() { process.Kill() })
		}
		b.await(h, limit, events)
		if walked := trapped && !h.clear(); !walked {
			if b.ended() && b.faults == nil {
				b.t.Fatalf("the broker ended by itself (%v):\n%s", b.cmd.ProcessState, b.tail())
			}
			h.note(event{who: -1, text: "is killed"})
		}
		b.kill()
		h.note(event{who: -1, text: "has ended"})
		found = h.found()
		h.lives()
		b.start()
		if dice.IntN(4) > 0 && b.faults == nil {
			longest = max(longest, b.ready())
		}
	}
	if b.faults != nil {
		b.kill()
		b.mended = true
		restart(b, h)
	}
	b.ready()
	b.t.Logf("the broker was killed %d times; it took %v at most until it listened again", n, longest.Round(time.Millisecond))
}

// await waits until the time is over, so many events have happened where events is not 0, or the broker has ended.
func (b *broker) await(h *history, limit time.Duration, events int) {
	begin := h.now()
	for end := time.Now().Add(limit); time.Now().Before(end) && !b.ended(); time.Sleep(time.Millisecond) {
		if events > 0 && h.now() >= begin+moment(events) {
			return
		}
	}
}
