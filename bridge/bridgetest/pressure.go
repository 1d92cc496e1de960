package bridgetest

import (
	"context"
	"fmt"
	"runtime"
	"strings"

	"github.com/isthmus-iot/isthmus/bridge"
)

var pressureChecks = []check{
	{"a subscriber that stops reading slows nobody and costs its backlog", func(e Endpoint) bool { return e.Backlog > 0 }, checkPressure},
}

// checkPressure has one of two subscribers stop reading. Publishers and the other subscriber must go on, memory must stay
// within the endpoint's word, and what the stalled one misses must have been counted.
func checkPressure(b *bench) {
	for _, q := range b.ep.QoS {
		pressure(b, q)
	}
}

func pressure(b *bench, q bridge.QoS) {
	const size, window = 16 << 10, 8
	// Kernel buffers take a share before the endpoint feels anything.
	n := (3*b.ep.Backlog + 16<<20) / size
	topic := fmt.Sprintf("load/%d", q)
	stalled, live := b.dial(fmt.Sprintf("stalled%d", q)), b.dial(fmt.Sprintf("live%d", q))
	b.subscribe(stalled, topic, q)
	b.subscribe(live, topic, q)
	publisher := b.dial(fmt.Sprintf("publisher%d", q))
	stalled.Stall()

	filler := strings.Repeat("x", size)
	droppedBefore, heapBefore := b.drops(), heapInUse()
	for i := 0; i < n; i += window {
		for k := range window {
			payload := fmt.Sprintf("%d %s", i+k, filler)
			if k%2 == 0 {
				b.publish(topic, payload, q, false)
			} else {
				b.mustSend(publisher, topic, payload, q)
			}
		}
		// The two publishers are not ordered against each other.
		for range window {
			b.receive(live)
		}
	}
	n = (n + window - 1) / window * window
	if grown, most := heapInUse()-heapBefore, int64(b.ep.Backlog+8<<20); grown > most {
		b.Errorf("QoS %d: %d MiB went past a stalled subscriber and the heap grew by %d KiB, want %d at most", q, n*size>>20, grown>>10, most>>10)
	}

	// It reads again. Markers are sent until one gets through; then everything before it has arrived or was dropped.
	received := make(chan int, 1) // how many, with markers; -1: the connection had been closed
	stalled.Resume()
	got := make(chan string, 1)
	go func() {
		k := 0
		for {
			ctx, cancel := context.WithTimeout(b.ctx, patience)
			m, err := stalled.Receive(ctx)
			cancel()
			if err != nil {
				received <- -1
				return
			}
			k++
			if s := string(m.Payload); strings.HasPrefix(s, "marker") {
				received <- k
				got <- s
				return
			}
		}
	}()
	markers := 0
	for {
		markers++
		b.publish(topic, fmt.Sprintf("marker %d", markers), q, false)
		b.receive(live)
		select {
		case k := <-received:
			if k < 0 {
				if b.drops() == droppedBefore {
					b.Errorf("QoS %d: a stalled subscriber was closed and no drop is counted", q)
				}
				return
			}
			var first int
			_, _ = fmt.Sscanf(<-got, "marker %d", &first)
			missing := uint64(n + first - k) // later markers are on their way or dropped
			b.eventually("drops are counted", func() bool { return b.drops()-droppedBefore >= missing })
			if d := b.drops() - droppedBefore; d > missing+uint64(markers-first) {
				b.Errorf("QoS %d: %d of %d messages are missing, but %d drops are counted", q, missing, n, d)
			}
			if missing == 0 {
				b.Errorf("QoS %d: %d MiB fitted into a backlog of %d KiB", q, n*size>>20, b.ep.Backlog>>10)
			}
			_ = stalled.Close()
			_ = live.Close()
			_ = publisher.Close()
			return
		default:
			runtime.Gosched()
		}
	}
}

// heapInUse is what is in use after a collection.
func heapInUse() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}
