package bridgetest

import (
	"fmt"

	"github.com/isthmus-iot/isthmus/bridge"
)

var sessionChecks = []check{
	{"a client that comes back is served again", nil, checkReconnect},
	{"a session keeps its subscriptions and its queue", func(e Endpoint) bool { return e.Sessions }, checkQueue},
	{"a second connection takes over, even from a stalled one", func(e Endpoint) bool { return e.Sessions }, checkTakeOver},
	{"nothing is left of clients that are gone", nil, checkNothingLeft},
}

func checkReconnect(b *bench) {
	r := b.record("up")
	for i := range 10 {
		p := b.dial("p")
		b.subscribe(p, "down", b.topQoS())
		payload := fmt.Sprint(i)
		b.publish("down", payload, b.topQoS(), false)
		b.expect(p, "down", payload)
		b.mustSend(p, "up", payload, b.topQoS())
		b.expectRecorded(r, "up", payload)
		if i%2 == 0 {
			_ = p.Close()
		} else {
			_ = p.Abort()
		}
		b.eventually("the client is detached", func() bool { return b.clients() == 0 })
	}
}

func checkQueue(b *bench) {
	const n = 20
	p := b.dialAs(DialOptions{ID: "p", Keep: true})
	b.subscribe(p, "q", b.topQoS())
	for round := range 3 {
		b.eventually("all is acknowledged", func() bool { s := b.stats(); return s.Queued+s.Inflight == 0 })
		if round%2 == 0 {
			_ = p.Close()
		} else {
			_ = p.Abort()
		}
		b.eventually("the connection is gone", func() bool { return b.stats().Connections == 0 })
		for i := range n {
			b.publish("q", fmt.Sprint(round, i), b.topQoS(), false)
		}
		if got := b.stats(); b.topQoS() > 0 && got.Queued+got.Inflight != n {
			b.Errorf("%d messages wait, counted as %d queued and %d in flight", n, got.Queued, got.Inflight)
		}
		p = b.dialAs(DialOptions{ID: "p", Keep: true})
		b.publish("q", fmt.Sprint(round, " live"), b.topQoS(), false)
		if b.topQoS() > 0 {
			for i := range n {
				b.expect(p, "q", fmt.Sprint(round, i))
			}
		}
		b.expect(p, "q", fmt.Sprint(round, " live"))
	}
	if b.topQoS() > 0 && b.drops() != 0 {
		b.Errorf("%d drops are counted, but nothing was lost", b.drops())
	}
}

func checkTakeOver(b *bench) {
	old := b.dial("p")
	b.subscribe(old, "t", b.topQoS())
	old.Stall()
	for range 2 * max(b.ep.Backlog, 1<<20) / (16 << 10) {
		b.publish("t", string(make([]byte, 16<<10)), 0, false)
	}
	p := b.dial("p")
	b.subscribe(p, "t", b.topQoS())
	b.publish("t", "after", b.topQoS(), false)
	b.expect(p, "t", "after")
	old.Resume()
	b.expectEnd(old, "another connection took over")
	b.eventually("one connection is left", func() bool { return b.stats().Connections == 1 && b.clients() == 1 })
	b.publish("t", "still there", b.topQoS(), false)
	b.expect(p, "t", "still there")
}

func checkNothingLeft(b *bench) {
	before := b.hub.Stats().Subscriptions
	var peers []Peer
	for i := range 10 {
		p := b.dial(fmt.Sprint("p", i))
		b.subscribe(p, "all/#", b.topQoS())
		b.subscribe(p, fmt.Sprint("own/", i), 0)
		if i%3 == 0 {
			p.Stall()
		}
		peers = append(peers, p)
	}
	if s := b.stats(); s.Connections != 10 || s.Accepted < 10 || b.clients() == 0 {
		b.Errorf("10 clients are connected, counted as %d connections, %d accepted; %d are attached", s.Connections, s.Accepted, b.clients())
	}
	for i := range 100 {
		b.publish(fmt.Sprint("all/", i), "to be left in queues", bridge.QoS(i%(int(b.topQoS())+1)), false)
	}
	for i, p := range peers {
		if i%2 == 0 {
			_ = p.Close()
		} else {
			_ = p.Abort()
		}
	}
	b.eventually("clients and subscriptions are gone", func() bool { return b.clients() == 0 && b.hub.Stats().Subscriptions == before })
	b.eventually("gauges are back at zero", func() bool {
		s := b.stats()
		return s.Connections == 0 && s.Sessions == 0 && s.Queued == 0 && s.QueuedBytes == 0 && s.Inflight == 0
	})
}
