package store

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/isthmus-iot/isthmus/bridge"
)

// smallTable makes files change often.
const smallTable = 64 << 10

func config(fs vfs.FS, m *model) Config {
	return Config{Dir: "store", FS: fs, Durability: m.base(), Notify: notify, memoryTable: smallTable}
}

func TestRandomCallsAndRestarts(t *testing.T) {
	m := newModel(1, false)
	fs := vfs.NewMem()
	for range 6 {
		s, list := loaded(t, config(fs, m))
		m.check(t, s, list, 1<<63) // closing kept everything
		for range 400 {
			m.act(s)
		}
		wait(t, s, m.steps[len(m.steps)-1].receipt)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		m.steps = m.steps[len(m.steps)-1:]
		m.steps[0].receipt = 0
	}
	s, list := loaded(t, config(fs, m))
	m.check(t, s, list, 1<<63)
	tidy(t, s)
}

// TestCrashes crashes at some operation of the file system, loses some of what was not synced, and compares.
func TestCrashes(t *testing.T) {
	rounds := uint64(48)
	if testing.Short() {
		rounds = 24
	}
	crashes := 0
	for seed := range rounds {
		rng := rand.New(rand.NewPCG(seed, 3))
		lazy := seed%2 == 1
		lost := []int{100, 0, 50}[seed%3] // how much survives of what was not synced
		m := newModel(seed, lazy)

		memory := vfs.NewCrashableMem()
		var store atomic.Pointer[Store]
		var left, logs atomic.Int64 // operations until the crash; logs to be made before they are counted
		left.Store(1 << 40)
		var crashed *vfs.MemFS
		var synced bridge.Receipt
		done := make(chan struct{})
		fs := errorfs.Wrap(memory, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if (op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpReuseForWrite) && isLog(op.Path) {
				logs.Add(-1)
			}
			if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && logs.Load() <= 0 && left.Add(-1) == 0 {
				synced = store.Load().Synced() // before: what is synced after it need not be there
				crashed = memory.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: lost, RNG: rand.New(rand.NewPCG(seed, 4))})
				close(done)
			}
			return nil
		}))
		s, _ := loaded(t, config(fs, m))
		store.Store(s)
		if seed%4 < 2 {
			left.Store(int64(1 + rng.IntN(700)))
		} else { // when the log has just been changed for another
			logs.Store(int64(1 + rng.IntN(4)))
			left.Store(int64(1 + rng.IntN(12)))
		}
		over := false
		for !over {
			m.act(s)
			if rng.IntN(3) == 0 {
				s.waitSynced(t.Context(), m.steps[len(m.steps)-1].receipt)
			}
			select {
			case <-done:
				over = true
			default:
				over = len(m.steps) > 2000
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if crashed == nil {
			continue
		}
		crashes++
		if lazy && lost != 100 { // only what was synced in earnest must be there
			sure := bridge.Receipt(0)
			for _, st := range m.steps {
				if st.fsync && st.receipt <= synced {
					sure = st.receipt
				}
			}
			synced = sure
		}
		again, list := loaded(t, config(crashed, m))
		m.check(t, again, list, synced)
		tidy(t, again)
		again.Close()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
	t.Logf("%d crashes", crashes)
	if crashes < int(rounds)/2 {
		t.Error("too few crashes")
	}
}

// TestFailures has each kind of operation of the file system fail at some moment, once or from then on.
func TestFailures(t *testing.T) {
	rounds := uint64(48)
	if testing.Short() {
		rounds = 16
	}
	failed, kinds := 0, map[string]int{}
	for seed := range rounds {
		rng := rand.New(rand.NewPCG(seed, 5))
		m := newModel(seed, seed%4 == 3)
		f := newFaults(vfs.NewMem(), faultKinds[seed%uint64(len(faultKinds))], seed%5 == 0)
		failures := make(chan error, 10)
		c := config(f, m)
		c.Failed = func(err error) { failures <- err }
		var counts sink
		s, _ := loaded(t, c)
		f.left.Store(int64(1 + rng.IntN(400)))
		awaited := 0
		for range 600 {
			m.act(s)
			if s.Await(m.steps[len(m.steps)-1].receipt, &counts) {
				awaited++
			}
			if rng.IntN(3) == 0 && !s.Full() { // a disk that stays full has everything wait
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				s.waitSynced(ctx, m.steps[len(m.steps)-1].receipt)
				cancel()
			}
			if s.Err() != nil {
				break
			}
		}
		synced := s.Synced()
		failure := s.Err()
		closed := make(chan error, 1)
		go func() { closed <- s.Close() }()
		select {
		case err := <-closed:
			if (failure != nil) && err == nil {
				t.Errorf("seed %d: Close returned nil after %v", seed, failure)
			}
		case <-time.After(patience):
			t.Fatalf("seed %d: Close does not return", seed)
		}
		if counts.count() != 0 && counts.count() != awaited && s.Err() != nil {
			t.Errorf("seed %d: %d of %d waiters told", seed, counts.count(), awaited)
		}
		if failure != nil {
			failed++
			kinds[f.kind]++
			if len(failures) != 1 {
				t.Errorf("seed %d: Failed called %d times", seed, len(failures))
			}
			if s.Synced() != synced {
				t.Errorf("seed %d: synced %d after the failure, before %d", seed, s.Synced(), synced)
			}
			if r := s.SaveSession(1, nil); s.Await(r, &counts) || s.Synced() >= r {
				t.Errorf("seed %d: a failed store takes something", seed)
			}
		}
		f.off.Store(true)
		again, list := loaded(t, config(f, m))
		m.check(t, again, list, synced)
		tidy(t, again)
		again.Close()
		if t.Failed() {
			t.Fatalf("seed %d: %s; failure %v", seed, f.kind, failure)
		}
	}
	t.Logf("%d of %d stores failed: %v", failed, rounds, kinds)
	if failed == 0 {
		t.Error("no store failed")
	}
}

// TestPowerIsLostAfterLazyCommits loses pieces in the middle of what was not synced.
func TestPowerIsLostAfterLazyCommits(t *testing.T) {
	for seed := range uint64(20) {
		memory := vfs.NewCrashableMem()
		s := opened(t, Config{Dir: "store", FS: memory, Durability: bridge.OS})
		s.SaveSession(1, nil)
		body := message("t", string(make([]byte, 3000)))
		for i := range uint64(100) {
			k := bridge.Kept{Position: i, Message: body}
			d := bridge.OS
			if i == 20 {
				d = bridge.Fsync
			}
			wait(t, s, s.Push(1, &k, &bridge.Body{Sole: true}, d))
		}
		crashed := memory.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(seed, 1))})
		s.Close()
		s, list := loaded(t, Config{Dir: "store", FS: crashed, Durability: bridge.OS})
		if len(list) != 1 || list[0].Messages < 21 || list[0].Next != uint64(list[0].Messages) {
			t.Fatalf("seed %d: %+v", seed, list)
		}
		s.Close()
	}
}

func TestANewDirectorySurvivesALossOfPower(t *testing.T) {
	memory := vfs.NewCrashableMem()
	dir := "some/where/deep"
	s := opened(t, Config{Dir: dir, FS: memory})
	wait(t, s, s.SaveSession(1, []byte("x")))
	crashed := memory.CrashClone(vfs.CrashCloneCfg{})
	if _, list := loaded(t, Config{Dir: dir, FS: crashed}); len(list) != 1 {
		t.Errorf("%d sessions, want 1", len(list))
	}
}
