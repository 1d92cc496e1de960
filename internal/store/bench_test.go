package store

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/isthmus-iot/isthmus/bridge"
)

const (
	benchWorkers = 64
	benchPayload = 100
)

// BenchmarkBarePebble has 64 goroutines set one record after the other and sync each: what is there without group commit of our
// own. Pebble groups the syncs of goroutines that wait at the same time.
func BenchmarkBarePebble(b *testing.B) {
	db, err := pebble.Open(b.TempDir(), options(&disk{FS: vfs.Default, died: make(chan struct{})}, &logger{fail: func(error) {}}, 0))
	if err != nil {
		b.Fatal(err)
	}
	defer db.Close()
	k := bridge.Kept{Message: message("plant/7/temperature", strings.Repeat("x", benchPayload))}
	value := appendMessage(appendEntry(nil, &k, true), k.Message)
	b.SetBytes(int64(entryKeySize + len(value)))
	var next atomic.Int64
	var wg sync.WaitGroup
	b.ResetTimer()
	for w := range benchWorkers {
		wg.Go(func() {
			for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
				key := positionKey(kindEntry, uint64(w), uint64(i))
				if err := db.Set(key[:], value, pebble.Sync); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}

// window lets a goroutine have so many messages under way.
type window chan struct{}

func (w window) Stored(*bridge.Batch) { <-w }

// BenchmarkPush is the same with Store: 64 goroutines of which each has up to 100 messages that are not synced.
func BenchmarkPush(b *testing.B) {
	for _, d := range []bridge.Durability{bridge.Fsync, bridge.OS} {
		for _, outstanding := range []int{1, 100} {
			b.Run(fmt.Sprintf("%v/outstanding=%d", d, outstanding), func(b *testing.B) {
				s := opened(b, Config{Dir: b.TempDir()})
				m := message("plant/7/temperature", strings.Repeat("x", benchPayload))
				k := bridge.Kept{Message: m}
				b.SetBytes(int64(entryKeySize + len(appendMessage(appendEntry(nil, &k, true), m))))
				b.ReportAllocs()
				var next atomic.Int64
				var wg sync.WaitGroup
				b.ResetTimer()
				for w := range benchWorkers {
					wg.Go(func() {
						under := make(window, outstanding)
						for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
							under <- struct{}{}
							k := bridge.Kept{Position: uint64(i), Message: m}
							if !s.Await(s.Push(uint64(w), &k, &bridge.Body{Sole: true}, d), under) {
								<-under
							}
						}
						for range outstanding {
							under <- struct{}{}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
				st := s.Stats()
				b.ReportMetric(float64(st.Records)/float64(st.Commits), "records/commit")
			})
		}
	}
}

func BenchmarkRead(b *testing.B) {
	s := opened(b, Config{Dir: b.TempDir()})
	var last bridge.Receipt
	for i := range 10000 {
		_, last = push(s, 1, uint64(i), message("t", strings.Repeat("x", benchPayload)))
	}
	wait(b, s, last)
	b.ReportAllocs()
	i := uint64(0)
	for b.Loop() {
		if _, err := s.Read(1, i%9900, 1<<63, 100, 1<<30); err != nil {
			b.Fatal(err)
		}
		i += 100
	}
}

// heap is what is in use after garbage was collected.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestAMillionMessagesAreNotInMemory measures the heap and the start with ISTHMUS_STORE_LARGE set, and with a tenth otherwise.
func TestAMillionMessagesAreNotInMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("needs some time")
	}
	scale := 10
	if os.Getenv("ISTHMUS_STORE_LARGE") != "" {
		scale = 1
	}
	sessionCount, entryCount, retainedCount := 100_000/scale, 1_000_000/scale, 1_000_000/scale
	dir := t.TempDir()
	before := heap()
	s := opened(t, Config{Dir: dir})
	room := func() {
		if err := s.WaitRoom(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	for n := range uint64(sessionCount) {
		s.SaveSession(n+1, []byte(`{"client":"sensor-0000001","expiry":3600}`))
		for f := range 5 {
			s.SaveSubscription(n+1, fmt.Sprintf("plant/%d/%d", n, f), []byte(`{"qos":1}`))
		}
		room()
	}
	payload := make([]byte, benchPayload)
	for i := range uint64(entryCount) {
		binary.BigEndian.PutUint64(payload, i)
		m := message("plant/7/temperature", string(payload))
		k := bridge.Kept{Position: i, Message: m, QoS: 1}
		body := bridge.Body{Sole: i%2 == 0} // the others have a body of their own, with one reference
		s.Push(i%uint64(sessionCount)+1, &k, &body, bridge.Fsync)
		s.EndBody(body.ID)
		room()
	}
	busy := heap() - before
	wait(t, s, s.SaveSession(1, []byte("{}")))
	push := heap() - before
	for i := range retainedCount {
		s.Retain(message(fmt.Sprintf("retained/plant/%d", i), string(payload)), nil, bridge.Fsync)
		room()
	}
	wait(t, s, s.SaveSession(1, []byte("{}")))
	t.Logf("written in %v; heap after the messages +%d MiB, while they were written +%d MiB", time.Since(began), push>>20, busy>>20)
	if os.Getenv("ISTHMUS_STORE_PROFILE") != "" {
		f, _ := os.Create(os.Getenv("ISTHMUS_STORE_PROFILE"))
		runtime.GC()
		pprof.WriteHeapProfile(f)
		f.Close()
	}
	if push > 64<<20 {
		t.Errorf("the heap has grown by %d MiB", push>>20)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	before = heap()
	began = time.Now()
	s, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	openedAt := time.Since(began)
	peak := int64(0)
	count, messages, subscriptions := 0, 0, 0
	began = time.Now()
	err = s.LoadSessions(func(x *bridge.StoredSession) error {
		if count%(sessionCount/10) == 0 {
			peak = max(peak, heap()-before)
		}
		count++
		messages += x.Messages
		subscriptions += len(x.Subscriptions)
		return nil
	})
	loadedAt := time.Since(began)
	if err != nil || count != sessionCount || messages != entryCount || subscriptions != 5*sessionCount {
		t.Fatalf("%d sessions, %d messages, %d subscriptions, error %v", count, messages, subscriptions, err)
	}
	began = time.Now()
	count = 0
	err = s.LoadRetained(func(*bridge.Message) error { count++; return nil })
	if err != nil || count != retainedCount {
		t.Fatalf("%d retained values, error %v", count, err)
	}
	retainedAt := time.Since(began)
	after := heap() - before
	t.Logf("open %v, sessions %v, retained values %v; heap +%d MiB, at most +%d MiB while loading sessions",
		openedAt, loadedAt, retainedAt, after>>20, peak>>20)
	if after > 64<<20 {
		t.Errorf("the heap has grown by %d MiB", after>>20)
	}
}
