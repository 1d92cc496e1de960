package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/isthmus-iot/isthmus/bridge"
)

func openQueue(t testing.TB, s *Store, name string, l QueueLimits) *Queue {
	t.Helper()
	q, err := s.OpenQueue(name, l)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// add appends and waits until that is committed.
func add(t testing.TB, q *Queue, topic, payload string) {
	t.Helper()
	r, err := q.Append(fresh(topic, payload), bridge.Fsync)
	if err != nil {
		t.Fatal(err)
	}
	wait(t, q.store, r)
}

// fresh is a message that has just entered.
func fresh(topic, payload string) *bridge.Message {
	m := message(topic, payload)
	m.Time = time.Now().UnixNano()
	return m
}

// all is what is in the queue, by the payloads.
func all(t testing.TB, q *Queue) string {
	t.Helper()
	list, err := q.Peek(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, k := range list {
		texts = append(texts, string(k.Message.Payload))
	}
	return strings.Join(texts, " ")
}

func TestANamedQueueKeepsItsOrderOverARestart(t *testing.T) {
	dir := t.TempDir()
	s := opened(t, Config{Dir: dir})
	s.SaveSession(s.NewSession(), nil)
	q := openQueue(t, s, "north", QueueLimits{})
	other := openQueue(t, s, "south", QueueLimits{})
	for i := range 5 {
		add(t, q, "t", fmt.Sprint(i))
	}
	add(t, other, "t", "x")
	list, err := q.Peek(3)
	if err != nil || len(list) != 3 {
		t.Fatalf("%d messages, error %v", len(list), err)
	}
	wait(t, s, q.Ack(list[0].Position))
	wait(t, s, q.Ack(list[2].Position))
	if r := q.Ack(list[0].Position); r != 0 {
		t.Errorf("acknowledged again: receipt %d", r)
	}
	if got := all(t, q); got != "1 3 4" {
		t.Errorf("queue %q", got)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err := Check(dir); err != nil || len(r.Problems) > 0 {
		t.Errorf("report %+v, error %v", r, err)
	}
	var out bytes.Buffer
	if err := Export(dir, &out); err != nil || !strings.Contains(out.String(), `{"kind":"queued","queue":"north","position":2`) {
		t.Errorf("export %s, error %v", out.String(), err)
	}
	s = opened(t, Config{Dir: dir})
	q = openQueue(t, s, "north", QueueLimits{})
	add(t, q, "t", "5")
	if got := all(t, q); got != "1 3 4 5" || q.Len() != 4 || q.Bytes() != 4*int64(message("t", "1").Size()) {
		t.Errorf("queue %q, %d messages, %d bytes", got, q.Len(), q.Bytes())
	}
	if got := all(t, openQueue(t, s, "south", QueueLimits{})); got != "x" {
		t.Errorf("other queue %q", got)
	}
}

func TestPoliciesOfNamedQueues(t *testing.T) {
	size := int64(message("t", "0").Size())
	for _, c := range []struct {
		name  string
		l     QueueLimits
		want  string
		drops QueueDrops
	}{
		{"drop the oldest", QueueLimits{Messages: 3, Overflow: DropOldest}, "3 4 5", QueueDrops{Overflow: 3}},
		{"drop the oldest by bytes", QueueLimits{Bytes: 2*size + 1, Overflow: DropOldest}, "4 5", QueueDrops{Overflow: 4}},
		{"drop the newest", QueueLimits{Messages: 3, Overflow: DropNewest}, "0 1 2", QueueDrops{Overflow: 3}},
		{"refuse", QueueLimits{Messages: 4, Overflow: Refuse}, "0 1 2 3", QueueDrops{}},
		{"last value", QueueLimits{Overflow: LastValue}, "4 5", QueueDrops{Replaced: 4}},
		{"last value, one too many", QueueLimits{Messages: 1, Overflow: LastValue}, "5", QueueDrops{Overflow: 5}},
		{"nothing fits", QueueLimits{Bytes: 10, Overflow: DropOldest}, "", QueueDrops{Overflow: 6}},
	} {
		for _, committed := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/%v", c.name, committed), func(t *testing.T) {
				dir := t.TempDir()
				s := opened(t, Config{Dir: dir})
				q := openQueue(t, s, "q", c.l)
				var last bridge.Receipt
				for i := range 6 {
					r, err := q.Append(fresh(fmt.Sprint(i%2), fmt.Sprint(i)), bridge.Fsync)
					var e *bridge.Error
					if refused := errors.As(err, &e) && e.Reason == bridge.QuotaExceeded; refused != (c.l.Overflow == Refuse && i >= 4) {
						t.Errorf("message %d: error %v", i, err)
					}
					if last = max(last, r); committed {
						wait(t, s, r)
					}
				}
				wait(t, s, s.SaveSession(1000, nil))
				if got := all(t, q); got != c.want {
					t.Errorf("queue %q, want %q", got, c.want)
				}
				if got := q.Drops(); got != c.drops {
					t.Errorf("drops %+v, want %+v", got, c.drops)
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = opened(t, Config{Dir: dir})
				q = openQueue(t, s, "q", c.l)
				if got := all(t, q); got != c.want || q.Len() != len(strings.Fields(c.want)) {
					t.Errorf("after a restart %q with %d messages, want %q", got, q.Len(), c.want)
				}
				openQueue(t, s, "q", QueueLimits{Messages: 1, Overflow: LastValue})
				wait(t, s, s.SaveSession(1001, nil))
				if got := all(t, q); len(strings.Fields(got)) > 1 {
					t.Errorf("with a limit of one %q", got)
				}
			})
		}
	}
}

func TestNamedQueuesDropWhatHasExpired(t *testing.T) {
	s := opened(t, Config{Dir: t.TempDir()})
	q := openQueue(t, s, "q", QueueLimits{Age: time.Hour})
	old := fresh("t", "old")
	old.Time -= int64(2 * time.Hour)
	expired := fresh("t", "expired")
	expired.Expires = expired.Time - 1
	for _, m := range []*bridge.Message{old, fresh("t", "1"), expired, fresh("t", "2")} {
		r, err := q.Append(m, bridge.Fsync)
		if err != nil {
			t.Fatal(err)
		}
		wait(t, s, r)
	}
	if got := all(t, q); got != "1 2" || q.Len() != 2 {
		t.Errorf("queue %q with %d messages", got, q.Len())
	}
	if got := q.Drops(); got != (QueueDrops{Expired: 1, Aged: 1}) {
		t.Errorf("drops %+v", got)
	}
}

func TestADeletedQueueLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := opened(t, Config{Dir: dir})
	q := openQueue(t, s, "q", QueueLimits{})
	for range 100 {
		add(t, q, "t", "x")
	}
	r, err := s.DeleteQueue("q")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := q.Append(message("t", "x"), bridge.Fsync); !errors.Is(err, ErrQueueGone) {
		t.Errorf("error %v", err)
	}
	q = openQueue(t, s, "q", QueueLimits{})
	add(t, q, "t", "y")
	if got := all(t, q); got != "y" {
		t.Errorf("queue %q", got)
	}
	wait(t, s, r)
	eventually(t, "the old queue is gone", func() bool { k := keys(t, s); return k[kindEntry] == 1 && k[kindEnded] == 0 })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = opened(t, Config{Dir: dir})
	if _, err := s.DeleteQueue("q"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing is left", func() bool { return len(keys(t, s)) == 1 && s.Stats().Used == 0 })
}

func TestAFullStoreTradesOldMessagesForNew(t *testing.T) {
	s := opened(t, Config{Dir: t.TempDir()})
	q := openQueue(t, s, "q", QueueLimits{})
	for i := range 4 {
		add(t, q, "t", fmt.Sprint(i))
	}
	refusing := openQueue(t, s, "r", QueueLimits{Overflow: Refuse})
	s.space.noSpace()
	add(t, q, "t", "4")
	if got := all(t, q); got != "1 2 3 4" {
		t.Errorf("queue %q", got)
	}
	if _, err := refusing.Append(message("t", "x"), bridge.Fsync); err == nil {
		t.Error("not refused")
	}
}

// TestRandomCallsOfANamedQueue compares queues of each policy with slices.
func TestRandomCallsOfANamedQueue(t *testing.T) {
	for policy := DropOldest; policy <= Refuse; policy++ {
		t.Run(policy.String(), func(t *testing.T) {
			fs := vfs.NewMem()
			rng := rand.New(rand.NewPCG(uint64(policy), 1))
			limits := QueueLimits{Messages: 20, Overflow: policy}
			type item struct{ topic, payload string }
			var want []item
			for round := range 5 {
				s := opened(t, Config{Dir: "store", FS: fs, memoryTable: smallTable})
				q := openQueue(t, s, "q", limits)
				for i := range 500 {
					switch rng.IntN(4) {
					case 0:
						wait(t, s, s.pendingReceipt())
						list, err := q.Peek(1 + rng.IntN(5))
						if err != nil {
							t.Fatal(err)
						}
						for j, k := range list {
							if string(k.Message.Payload) != want[j].payload {
								t.Fatalf("message %d is %s, want %s", j, k.Message.Payload, want[j].payload)
							}
						}
						if len(list) > 0 {
							j := rng.IntN(len(list))
							q.Ack(list[j].Position)
							want = append(want[:j:j], want[j+1:]...)
						}
					default:
						x := item{fmt.Sprint(rng.IntN(40)), fmt.Sprint(round, ".", i)}
						_, err := q.Append(fresh(x.topic, x.payload), bridge.Fsync)
						if policy == LastValue {
							for j := range want {
								if want[j].topic == x.topic {
									want = append(want[:j:j], want[j+1:]...)
									break
								}
							}
						}
						switch {
						case len(want) < limits.Messages:
							want = append(want, x)
						case policy == DropOldest || policy == LastValue:
							want = append(want[1:], x)
						}
						if err != nil && policy != Refuse {
							t.Fatal(err)
						}
					}
					if q.Len() != len(want) {
						t.Fatalf("%d messages, want %d", q.Len(), len(want))
					}
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestNamedQueuesAreSafeForUseByMany(t *testing.T) {
	s := opened(t, Config{Dir: t.TempDir()})
	q := openQueue(t, s, "q", QueueLimits{Messages: 50})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 300 {
				q.Append(fresh("t", "x"), bridge.Fsync)
			}
		})
	}
	wg.Go(func() {
		for range 100 {
			list, _ := q.Peek(10)
			for _, k := range list {
				q.Ack(k.Position)
			}
		}
	})
	wg.Wait()
	wait(t, s, s.SaveSession(1, nil))
	if n := strings.Fields(all(t, q)); len(n) != q.Len() || len(n) > 50 {
		t.Errorf("%d messages, Len %d", len(n), q.Len())
	}
}

func FuzzQueueRecord(f *testing.F) {
	f.Add(appendQueueRecord(nil, 1, QueueLimits{Bytes: 2, Messages: 3, Age: 4, Overflow: Refuse}))
	f.Fuzz(func(t *testing.T, b []byte) {
		number, l, err := readQueueRecord(b)
		if err == nil && !bytes.Equal(appendQueueRecord(nil, number, l), b) {
			t.Errorf("% x is read and written otherwise", b)
		}
	})
}
