package store

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/isthmus-iot/isthmus/bridge"
)

func TestFullByWhatIsInUse(t *testing.T) {
	s := opened(t, Config{Limit: 64 << 20})
	big := message("t", strings.Repeat("x", 1<<20))
	var kept []bridge.Kept
	for !s.Full() {
		k, r := push(s, 1, uint64(len(kept)), big)
		wait(t, s, r)
		kept = append(kept, k)
	}
	if n := len(kept); n < 60 || n > 64 {
		t.Errorf("full after %d MiB of 64", n)
	}
	wait(t, s, s.SaveSession(1, []byte("still taken")))
	wait(t, s, s.Remove(1, &kept[0]))
	if s.space.judge(time.Now()); !s.Full() {
		t.Error("no hysteresis")
	}
	for i := range kept[1:] {
		wait(t, s, s.Remove(1, &kept[1+i]))
	}
	s.space.disk.Store(0)
	if s.space.judge(time.Now()); s.Full() {
		t.Error("full when all is removed")
	}
}

func TestFullByTheDiskUntilItIsCompacted(t *testing.T) {
	fs := vfs.NewMem()
	s := opened(t, Config{Dir: "store", FS: fs, Limit: 4 << 20, memoryTable: smallTable})
	s.SaveSession(1, nil)
	var kept []bridge.Kept
	var last bridge.Receipt
	for i := range 4000 {
		m := message("t", "")
		m.Payload = noise(i, 1000)
		k, r := push(s, 1, uint64(i), m)
		kept, last = append(kept, k), r
		if i%100 == 0 {
			wait(t, s, r)
		}
	}
	for i := range kept {
		last = s.Remove(1, &kept[i])
	}
	wait(t, s, last)
	s.space.disk.Store(s.space.limit + 1) // as if the tables had not been compacted meanwhile
	if !s.space.judge(time.Now()) {
		t.Fatal("not full")
	}
	eventually(t, "the store has room", func() bool { return !s.Full() })
}

// noise is bytes that cannot be compressed.
func noise(seed, n int) []byte {
	b := make([]byte, n)
	x := uint64(seed)*2654435761 + 1
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x)
	}
	return b
}

func TestFullByTheReserveOfTheFileSystem(t *testing.T) {
	fs := vfs.NewMem()
	fs.TestingSetDiskUsage(vfs.DiskUsage{TotalBytes: 1 << 40, AvailBytes: 1 << 30})
	s := opened(t, Config{Dir: "store", FS: fs, Reserve: 100 << 20})
	eventually(t, "the disk was looked at", func() bool { return s.Stats().Free == 1<<30 })
	if s.Full() {
		t.Fatal("full")
	}
	fs.TestingSetDiskUsage(vfs.DiskUsage{TotalBytes: 1 << 40, AvailBytes: 99 << 20})
	eventually(t, "the store is full", s.Full)
	fs.TestingSetDiskUsage(vfs.DiskUsage{TotalBytes: 1 << 40, AvailBytes: 101 << 20})
	s.look()
	if s.space.judge(time.Now()); !s.Full() {
		t.Error("no hysteresis")
	}
	fs.TestingSetDiskUsage(vfs.DiskUsage{TotalBytes: 1 << 40, AvailBytes: 1 << 30})
	eventually(t, "the store has room", func() bool { return !s.Full() })
}

// TestADiskThatFillsUp has flushes find no space: the store is full, goes on, and is not failed when there is space again.
func TestADiskThatFillsUp(t *testing.T) {
	f := newFaults(vfs.NewMem(), "no space", true)
	s := opened(t, Config{Dir: "store", FS: f, memoryTable: smallTable})
	f.left.Store(1)
	i := uint64(0)
	for !s.Full() {
		push(s, 1, i, message("t", strings.Repeat("x", 500)))
		i++
		time.Sleep(100 * time.Microsecond)
	}
	if err := s.Err(); err != nil {
		t.Fatal(err)
	}
	f.off.Store(true)
	_, r := push(s, 1, i, message("t", "x"))
	wait(t, s, r)
	s.space.until.Store(0)
	if s.space.judge(time.Now()); s.Full() {
		t.Error("full when there is space again")
	}
}

// TestCloseOnAFullDisk has Pebble wait for space for ever. Close gives up.
func TestCloseOnAFullDisk(t *testing.T) {
	f := newFaults(vfs.NewMem(), "no space", true)
	s := opened(t, Config{Dir: "store", FS: f, memoryTable: smallTable})
	f.left.Store(1)
	var counts sink
	awaited := 0
	for i := range uint64(2000) {
		_, r := push(s, 1, i, message("t", strings.Repeat("x", 500)))
		if s.Await(r, &counts) {
			awaited++
		}
	}
	eventually(t, "the store is full", s.Full)
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		if err == nil || !strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
			t.Errorf("error %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Close does not return")
	}
	if counts.count() != awaited {
		t.Errorf("%d of %d waiters told", counts.count(), awaited)
	}
}
