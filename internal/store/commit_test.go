package store

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
)

func TestEveryWaiterIsToldOnce(t *testing.T) {
	s := opened(t, Config{Dir: t.TempDir()})
	const workers, each = 16, 200
	var counts sink
	var wg sync.WaitGroup
	var mu sync.Mutex
	awaited := 0
	for w := range workers {
		wg.Go(func() {
			for i := range each {
				_, r := push(s, uint64(w+1), uint64(i), message("t", "p"))
				if s.Await(r, &counts) {
					mu.Lock()
					awaited++
					mu.Unlock()
				} else if s.Synced() < r {
					t.Errorf("receipt %d not awaited and not synced", r)
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "all waiters are told", func() bool { return counts.count() == awaited })
	if st := s.Stats(); st.Records < workers*each || st.Commits == 0 || st.SyncMax == 0 {
		t.Errorf("stats %+v", st)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := counts.count(); got != awaited {
		t.Errorf("told %d times, want %d", got, awaited)
	}
}

func TestWaitersAreToldInTheOrderOfTheirCommits(t *testing.T) {
	var told []int
	s := opened(t, Config{Notify: func(list []bridge.Waiter) {
		for _, w := range list {
			told = append(told, int(w.(number)))
		}
	}})
	for i := range 1000 {
		s.Await(s.SaveSession(uint64(i+1), nil), number(i))
	}
	s.Close()
	for i := 1; i < len(told); i++ {
		if told[i] <= told[i-1] {
			t.Fatalf("%d told after %d", told[i], told[i-1])
		}
	}
}

type number int

func (number) Stored(*bridge.Batch) {}

func TestHoldKeepsCallsInOneCommit(t *testing.T) {
	s := opened(t, Config{})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				release := s.Hold()
				a := s.SaveSession(1, []byte("a"))
				b := s.SaveSubscription(1, "f", nil)
				c := s.Receive(1, 1)
				release()
				if a != b || b != c {
					t.Errorf("receipts %d, %d and %d under one hold", a, b, c)
				}
			}
		})
	}
	wg.Wait()
}

func TestCloseKeepsWhatIsPending(t *testing.T) {
	dir := t.TempDir()
	s := opened(t, Config{Dir: dir})
	var counts sink
	awaited := 0
	for i := range 1000 {
		if s.Await(s.SaveSession(uint64(i+1), nil), &counts) {
			awaited++
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if counts.count() != awaited {
		t.Errorf("told %d of %d waiters before Close returned", counts.count(), awaited)
	}
	if r := s.SaveSession(5000, nil); s.Synced() >= r || s.Await(r, &counts) {
		t.Error("a closed store takes something")
	}
	if s.Err() != ErrClosed {
		t.Errorf("error %v, want %v", s.Err(), ErrClosed)
	}
	if _, err := s.Read(1, 0, 1, 1, 1); err == nil {
		t.Error("a closed store can be read")
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	_, list := loaded(t, Config{Dir: dir})
	if len(list) != 1000 {
		t.Errorf("%d sessions, want 1000", len(list))
	}
}

func TestWaitRoom(t *testing.T) {
	s := opened(t, Config{Dir: t.TempDir()})
	big := message("t", string(make([]byte, 3<<20)))
	release := s.Hold() // the committer cannot take what is pending
	for i := range 6 {
		push(s, 1, uint64(i), big)
	}
	if !s.Crowded() {
		t.Fatal("not crowded")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := s.WaitRoom(ctx); err != context.DeadlineExceeded {
		t.Fatalf("error %v while crowded", err)
	}
	done := make(chan error, 1)
	go func() { done <- s.WaitRoom(t.Context()) }()
	release()
	if err := <-done; err != nil || s.Crowded() {
		t.Fatalf("error %v, crowded %v", err, s.Crowded())
	}
}

func TestSubscribersOfTheSameMomentShareACommit(t *testing.T) {
	s := opened(t, Config{})
	release := s.Hold()
	var receipts []bridge.Receipt
	for i := range 100 {
		receipts = append(receipts, s.SaveSession(uint64(i+1), fmt.Append(nil, i)))
	}
	release()
	for _, r := range receipts {
		if r != receipts[0] {
			t.Fatalf("receipts %v", receipts)
		}
	}
	wait(t, s, receipts[0])
}
