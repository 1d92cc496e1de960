package store

import "time"

// syncBounds are the upper bounds of the sync times that Stats counts.
var syncBounds = [...]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond,
	10 * time.Millisecond, 25 * time.Millisecond, 50 * time.Millisecond,
	100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 5 * time.Second,
}

// Stats says what a store has done since it was opened, and what it takes.
type Stats struct {
	Used    int64 // bytes of entries, bodies and retained values
	Disk    int64 // bytes on disk, as last looked at
	Free    int64 // bytes that the file system has left; -1: unknown
	Limit   int64 // of Used and of Disk
	Entries int64 // in queues
	Full    bool
	Pending int64 // bytes that wait for their commit

	Commits uint64
	Records uint64 // in the commits
	Bytes   uint64 // of the commits

	SyncSum time.Duration // time that commits took, each being synced
	SyncMax time.Duration
	Syncs   []SyncCount // how many commits took no longer than that; the rest took longer
}

// SyncCount counts the commits that took no longer than a bound, those of lower bounds included.
type SyncCount struct {
	Bound time.Duration
	Count uint64
}

// commitStats counts commits. log.mu guards it.
type commitStats struct {
	commits, records, bytes uint64
	sum, max                time.Duration
	syncs                   [len(syncBounds)]uint64
}

func (c *commitStats) add(bytes, records int, took time.Duration) {
	c.commits++
	c.records += uint64(records)
	c.bytes += uint64(bytes)
	c.sum += took
	c.max = max(c.max, took)
	for i, b := range syncBounds {
		if took <= b {
			c.syncs[i]++
			break
		}
	}
}

// Stats returns the figures of now.
func (s *Store) Stats() Stats {
	s.log.mu.Lock()
	c := s.log.stats
	s.log.mu.Unlock()
	st := Stats{
		Used: s.space.used.Load(), Disk: s.space.disk.Load(), Free: s.space.free.Load(), Limit: s.space.limit,
		Entries: s.entries.Load(), Full: s.Full(), Pending: s.log.size.Load(),
		Commits: c.commits, Records: c.records, Bytes: c.bytes,
		SyncSum: c.sum, SyncMax: c.max,
	}
	n := uint64(0)
	for i, b := range syncBounds {
		n += c.syncs[i]
		st.Syncs = append(st.Syncs, SyncCount{b, n})
	}
	return st
}
