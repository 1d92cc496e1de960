package bridge

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// shapes are the kinds of filters that a fleet has. Each gives the i-th filter; topic i matches at least that one.
var shapes = []struct {
	name   string
	filter func(i int) string
}{
	{"exact", func(i int) string { return fmt.Sprintf("site/%d/device/%d/temperature", i%100, i) }},
	{"plus", func(i int) string { return fmt.Sprintf("site/+/device/%d/temperature", i) }},
	{"hash", func(i int) string { return fmt.Sprintf("site/%d/device/%d/#", i%100, i) }},
	{"mixed", func(i int) string {
		switch i % 4 {
		case 0:
			return fmt.Sprintf("site/+/device/%d/temperature", i)
		case 1:
			return fmt.Sprintf("site/%d/device/%d/#", i%100, i)
		case 2:
			return fmt.Sprintf("$share/g/site/%d/device/%d/+", i%100, i)
		}
		return fmt.Sprintf("site/%d/device/%d/temperature", i%100, i)
	}},
}

func benchTopic(i int) string { return fmt.Sprintf("site/%d/device/%d/temperature", i%100, i) }

// fill puts n subscriptions of one shape into the table, a thousand to a client.
func fillTable(b testing.TB, h *Hub, n int, filter func(int) string) {
	b.Helper()
	var c *Client
	for i := range n {
		if i%1000 == 0 {
			c = attach(b, h, name("c", i))
		}
		subscribe(b, c, filter(i), SubscribeOptions{}, nowhere{})
	}
}

func sizes(b *testing.B) []int {
	if testing.Short() {
		return []int{1, 1000}
	}
	return []int{1, 1000, 100_000, 1_000_000}
}

func BenchmarkMatch(b *testing.B) {
	for _, shape := range shapes {
		for _, n := range sizes(b) {
			b.Run(fmt.Sprintf("%s/%d", shape.name, n), func(b *testing.B) {
				h := newHub(b, Config{Limits: Limits{Clients: 2_000_000}})
				fillTable(b, h, n, shape.filter)
				topics := make([]string, min(n, 1024))
				for i := range topics {
					topics[i] = benchTopic(rand.IntN(n))
				}
				var found []*leaf
				i := 0
				b.ReportAllocs()
				for b.Loop() {
					if found = h.table.match(topics[i%len(topics)], found[:0]); len(found) == 0 {
						b.Fatal("nothing matches")
					}
					i++
				}
			})
		}
	}
}

// BenchmarkMatchWhileChurning matches on all cores but one, on which subscriptions come and go.
func BenchmarkMatchWhileChurning(b *testing.B) {
	h := newHub(b, Config{})
	fillTable(b, h, 10_000, shapes[3].filter)
	c := attach(b, h, "churner")
	var stop atomic.Bool
	var wg sync.WaitGroup
	changes := 0
	wg.Go(func() {
		for i := 0; !stop.Load(); i++ {
			f := Filter(shapes[i%4].filter(i % 20_000))
			if _, _, err := c.Subscribe(f, SubscribeOptions{}, nowhere{}); err != nil {
				b.Error(err)
				return
			}
			c.Unsubscribe(f)
			changes += 2
		}
	})
	b.RunParallel(func(pb *testing.PB) {
		var found []*leaf
		for i := 0; pb.Next(); i++ {
			found = h.table.match(benchTopics[i%len(benchTopics)], found[:0])
		}
	})
	stop.Store(true)
	wg.Wait()
	b.ReportMetric(float64(changes)/b.Elapsed().Seconds(), "changes/s")
}

var benchTopics = func() (list [1024]string) {
	for i := range list {
		list[i] = benchTopic(i * 7)
	}
	return list
}()

// BenchmarkPublish is a whole publish, from the permission to the sinks, at QoS 0.
func BenchmarkPublish(b *testing.B) {
	part := &grants{write: []Filter{"#"}, read: []Filter{"site/+/device/+/temperature"}}
	for _, bm := range []struct {
		name   string
		n      int
		filter string
		access Access
		more   string // a second filter of every client
	}{
		{"fan-out 1", 1, benchTopic(1), everything(), ""},
		{"fan-out 200", 200, benchTopic(1), everything(), ""},
		{"fan-out 200, ACL asked for each", 200, "site/#", part, ""},
		{"fan-out 200, overlapping", 200, benchTopic(1), everything(), "site/#"},
	} {
		b.Run(bm.name, func(b *testing.B) {
			h := newHub(b, Config{Access: bm.access})
			for i := range bm.n {
				c := attach(b, h, name("s", i))
				subscribe(b, c, bm.filter, SubscribeOptions{}, nowhere{})
				if bm.more != "" {
					subscribe(b, c, bm.more, SubscribeOptions{QoS: 1}, nowhere{})
				}
			}
			p := attach(b, h, "p")
			m := Message{Topic: Topic(benchTopic(1)), Payload: make([]byte, 64), Borrowed: true}
			batch := h.Begin()
			defer batch.End()
			b.ReportAllocs()
			for b.Loop() {
				if r, err := p.PublishAsync(batch, &m); err != nil || r.Reached != bm.n {
					b.Fatal(r, err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(bm.n), "ns/delivery")
		})
	}
}

// BenchmarkSubscribe reports what a subscription costs in time and memory.
func BenchmarkSubscribe(b *testing.B) {
	n := 1_000_000
	if testing.Short() {
		n = 10_000
	}
	for _, shape := range append(shapes, struct {
		name   string
		filter func(int) string
	}{"one filter for all", func(int) string { return "broadcast/everyone" }}) {
		b.Run(shape.name, func(b *testing.B) {
			filters := make([]Filter, n)
			for i := range filters {
				filters[i] = Filter(shape.filter(i))
			}
			for b.Loop() {
				h := newHub(b, Config{Limits: Limits{Clients: 2 * n}})
				per := 1000
				if shape.name == "one filter for all" {
					per = 1
				}
				clients := make([]*Client, 0, n/per)
				for i := range n / per {
					clients = append(clients, attach(b, h, name("c", i)))
				}
				before := heapInUse()
				for i, f := range filters {
					if _, _, err := clients[i/per].Subscribe(f, SubscribeOptions{}, nowhere{}); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(heapInUse()-before)/float64(n), "B/subscription")
				for _, c := range clients {
					c.Close()
				}
				expectEmpty(b, h)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/come-and-go")
		})
	}
}

// heapInUse is what is in use after a collection.
func heapInUse() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}
