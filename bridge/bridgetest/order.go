package bridgetest

import (
	"fmt"
	"strings"
	"sync"
)

var orderChecks = []check{
	{"messages of one publisher stay in order", nil, checkOrder},
}

func checkOrder(b *bench) {
	const publishers, n = 3, 200
	r := b.record("order/#")
	sub := b.dial("sub")
	b.subscribe(sub, "order/#", b.topQoS())
	for _, q := range b.ep.QoS {
		topic := fmt.Sprintf("order/%d", q)
		var wg sync.WaitGroup
		for k := range publishers {
			p := b.dial(fmt.Sprintf("p%d-%d", q, k))
			wg.Go(func() {
				for i := range n {
					if err := b.send(p, topic, fmt.Sprintf("%d %d", k, i), q, false); err != nil {
						b.Errorf("publishing: %v", err)
						return
					}
				}
			})
		}
		atHub := newSequence(b, "the hub", publishers)
		for range publishers * n {
			atHub.next(r.Next(b).Message.Payload)
		}
		wg.Wait()
		// Now the other way, by the in-process client too. The peer reads the others' first: they were sent before.
		atPeer := newSequence(b, "the subscriber", publishers+1)
		for range publishers * n {
			m := b.receive(sub)
			if m.QoS != q {
				b.Fatalf("received at QoS %d, want %d", m.QoS, q)
			}
			atPeer.next(m.Payload)
		}
		for i := range n {
			b.publish(topic, fmt.Sprintf("%d %d", publishers, i), q, false)
			atPeer.next(b.receive(sub).Payload)
			r.Next(b)
		}
	}
}

// sequence checks that numbered messages arrive without gap, each publisher's for itself.
type sequence struct {
	b     *bench
	where string
	want  []int
}

func newSequence(b *bench, where string, publishers int) *sequence {
	return &sequence{b, where, make([]int, publishers)}
}

func (s *sequence) next(payload []byte) {
	s.b.Helper()
	var k, i int
	if _, err := fmt.Sscan(strings.TrimSpace(string(payload)), &k, &i); err != nil || k >= len(s.want) {
		s.b.Fatalf("%s received %q", s.where, payload)
	}
	if i != s.want[k] {
		s.b.Fatalf("%s received message %d of publisher %d, want %d", s.where, i, k, s.want[k])
	}
	s.want[k]++
}
