package store

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

// How often the disk is looked at, how long the store stays full after the disk had no space, and how often the database is
// compacted to get space back.
const (
	lookEvery    = time.Second
	noSpaceFor   = 5 * time.Second
	compactEvery = 30 * time.Second
)

// space watches what the store takes. Each number here is read without a lock.
type space struct {
	limit   int64
	reserve int64

	used  atomic.Int64 // bytes of entries, bodies and retained values
	disk  atomic.Int64 // bytes that the database takes on disk
	free  atomic.Int64 // bytes that the file system has left; -1: unknown
	full  atomic.Bool
	until atomic.Int64 // the disk had no space: full until then, in Unix nanoseconds

	compacting atomic.Bool
	compacted  time.Time // only watchSpace's
}

func (s *space) init(c Config) {
	s.limit, s.reserve = c.Limit, c.Reserve
	if s.limit == 0 {
		s.limit = DefaultLimit
	}
	if s.reserve == 0 {
		s.reserve = DefaultReserve
	}
	s.free.Store(-1)
}

// use adds to the bytes in use, or takes away from them.
func (s *space) use(n int64) { s.used.Add(n) }

// noSpace notes that the disk had none.
func (s *space) noSpace() {
	s.until.Store(time.Now().Add(noSpaceFor).UnixNano())
	s.full.Store(true)
}

// Full reports that the limit on disk use is reached: what would need more space must be refused. The store still takes all that
// is appended.
func (s *Store) Full() bool {
	if s.space.full.Load() {
		return true
	}
	if s.space.used.Load() > s.space.limit {
		s.space.full.Store(true)
		return true
	}
	return false
}

// judge decides whether the store is full. It stays full until there is some room, so that it does not flutter.
func (s *space) judge(now time.Time) (full bool) {
	used, disk, free := s.used.Load(), s.disk.Load(), s.free.Load()
	limit, reserve := s.limit, s.reserve
	if s.full.Load() {
		limit -= limit / 32
		reserve += reserve / 32
	}
	full = used > limit || disk > limit || free >= 0 && free < reserve || now.UnixNano() < s.until.Load()
	s.full.Store(full)
	return full
}

// watchSpace looks at the disk now and then.
func (s *Store) watchSpace() {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	was := false
	for {
		s.look()
		if is := s.space.judge(time.Now()); is != was {
			was = is
			s.reportFull(is)
		}
		select {
		case <-t.C:
		case <-s.context.Done():
			return
		case <-s.log.down:
			return
		}
	}
}

func (s *Store) reportFull(full bool) {
	attrs := []any{"used", s.space.used.Load(), "disk", s.space.disk.Load(), "limit", s.space.limit, "free", s.space.free.Load()}
	if full {
		s.logger.Warn("store is full", attrs...)
	} else {
		s.logger.Info("store has room again", attrs...)
	}
}

// look measures the disk, and starts compacting where that would give space back.
func (s *Store) look() {
	_ = s.read(func(db *pebble.DB) error {
		s.space.disk.Store(int64(db.Metrics().DiskSpaceUsage()))
		return nil
	})
	if u, err := s.disk.GetDiskUsage(s.dir); err == nil && u.TotalBytes > 0 {
		s.space.free.Store(int64(u.AvailBytes))
	}
	if s.space.disk.Load() > s.space.limit && s.space.used.Load() < s.space.limit/4*3 && time.Since(s.space.compacted) >= compactEvery {
		s.space.compacted = time.Now()
		if !s.space.compacting.Swap(true) {
			s.helpers.Go(s.compact)
		}
	}
}

// compact has the database give back the space of what was removed.
func (s *Store) compact() {
	defer s.space.compacting.Store(false)
	ctx, cancel := context.WithCancel(s.context)
	defer cancel()
	stopped := make(chan struct{})
	defer close(stopped)
	go func() {
		select {
		case <-s.log.down:
			cancel()
		case <-stopped:
		}
	}()
	for _, kind := range [...]byte{kindEntry, kindBody, kindFlight, kindRetained} {
		err := s.read(func(db *pebble.DB) error { return db.Compact(ctx, []byte{kind}, []byte{kind + 1}, false) })
		if err != nil {
			if ctx.Err() == nil {
				s.logger.Warn("compacting the store", "error", err)
			}
			return
		}
	}
}
