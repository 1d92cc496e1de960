package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/isthmus-iot/isthmus/bridge"
)

// The defaults of Config.
const (
	DefaultLimit   = 10 << 30
	DefaultReserve = 64 << 20
)

// Config says where a store is and how large it may become.
type Config struct {
	Dir        string
	Limit      int64             // of the bytes it takes; 0: DefaultLimit
	Reserve    int64             // of the file system's space that is left free; 0: DefaultReserve, negative: none
	Durability bridge.Durability // of what is not a message: sessions, subscriptions, acknowledgements
	Log        *slog.Logger
	FS         vfs.FS // nil: the operating system's

	// Notify is called with those of [bridge.Log.Await] whose commit is synced or has failed, by one goroutine. The list is
	// used again after it returns.
	Notify func([]bridge.Waiter)
	// Failed is called once, with the error, by the same goroutine, when the store has failed. Both may call the store, but
	// not Close.
	Failed func(error)

	memoryTable uint64 // bytes; 0: memoryTableBytes. Tests have small ones, to have many files soon.
}

// Store keeps what must outlive the process. Its methods may be called from any goroutine.
type Store struct {
	log
	space      space
	logger     *slog.Logger
	disk       *disk
	db         *pebble.DB
	durability bridge.Durability
	entries    atomic.Int64

	lastSession atomic.Uint64
	lastBody    uint64            // log.mu guards it
	bodies      map[uint64]uint32 // references to bodies that have more than one; log.mu guards it
	manyBodies  bool              // there were many in the map; log.mu guards it

	reading sync.RWMutex // held for reading by who reads the database, for writing by Close
	closed  bool         // reading guards it
	leaving atomic.Bool  // Close was called

	sweeper sweeper
	queues  queues
	dir     string
	context context.Context // ends with the helpers
	stop    context.CancelFunc
	helpers sync.WaitGroup
}

var _ bridge.RetainedStore = (*Store)(nil)

// Open opens the store in a directory, and makes one where there is none. It is usable once [Store.LoadSessions] has returned.
func Open(c Config) (*Store, error) {
	s, err := open(c)
	if err != nil {
		return nil, explain(c.Dir, err)
	}
	return s, nil
}

func open(c Config) (*Store, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	base := c.FS
	if base == nil {
		base = vfs.Default
	}
	if err := prepare(c.Dir, base); err != nil {
		return nil, err
	}
	s := &Store{dir: c.Dir, logger: c.Log, durability: c.Durability, bodies: map[uint64]uint32{}}
	s.disk = &disk{FS: base, private: c.FS == nil, fail: s.diskFailed, full: func(error) { s.space.noSpace() }, died: make(chan struct{})}
	s.log.disk, s.notify, s.failed = s.disk, c.Notify, c.Failed
	s.log.init()
	s.space.init(c)
	s.sweeper.init()
	s.queues.init()

	db, err := s.openPebble(c)
	if err != nil {
		s.disk.unlock()
		return nil, err
	}
	s.db = db
	empty, err := checkFormat(db)
	if err == nil {
		err = s.counters()
	}
	if err == nil && empty {
		err = s.guarded(func() error { return db.Set([]byte{kindFormat}, []byte{formatVersion}, pebble.Sync) })
	}
	if failure := s.Err(); failure != nil { // Pebble did not see it
		err = failure
	}
	if err != nil {
		s.closeDatabase()
		return nil, err
	}
	s.context, s.stop = context.WithCancel(context.Background())
	s.log.start(db)
	s.helpers.Go(s.watchSpace)
	return s, nil
}

// diskFailed is for errors of the disk that leave the log's end in doubt.
func (s *Store) diskFailed(err error) { s.fail(fmt.Errorf("writing the log: %w", err)) }

// Close syncs what is pending, tells all who wait, and closes the store. Where the store has failed it only gives the directory
// back, and returns the failure.
func (s *Store) Close() error {
	if s.leaving.Swap(true) {
		return nil
	}
	s.stop()
	idle := make(chan struct{})
	go func() {
		s.helpers.Wait()
		close(idle)
	}()
	select {
	case <-idle:
	case <-s.log.down:
	}
	s.log.shut()
	return s.closeDatabase()
}

// closeDatabase closes Pebble if it can be trusted to, and gives the directory back.
func (s *Store) closeDatabase() error {
	err := s.disk.gone()
	if err == nil {
		s.reading.Lock()
		s.closed = true
		s.reading.Unlock()
		err = s.guarded(s.db.Close)
	}
	s.disk.unlock()
	if err != nil {
		return fmt.Errorf("closing the store: %w", err)
	}
	return nil
}

// read calls f with the database, which is not closed meanwhile. After a failure nothing is read.
func (s *Store) read(f func(db *pebble.DB) error) error {
	s.reading.RLock()
	defer s.reading.RUnlock()
	if s.closed {
		return ErrClosed
	}
	if err := s.disk.gone(); err != nil {
		return err
	}
	return f(s.db)
}

// get finds the value of a key and has f decode it; found is false where there is none.
func get(db *pebble.DB, key []byte, f func(value []byte) error) (found bool, err error) {
	v, closer, err := db.Get(key)
	switch {
	case errors.Is(err, pebble.ErrNotFound):
		return false, nil
	case err != nil:
		return false, err
	}
	defer closer.Close()
	if err := f(v); err != nil {
		return true, damaged(key, err)
	}
	return true, nil
}

// scan calls f for all keys of a kind from one on, in order. The slices are valid during the call. f ends the scan with an error;
// errStop is none.
func scan(db *pebble.DB, lower, upper []byte, f func(key, value []byte) error) (err error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return err
	}
	defer func() {
		if e := it.Close(); err == nil {
			err = e
		}
	}()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if err := f(it.Key(), v); err == errStop {
			return nil
		} else if err != nil {
			return err
		}
	}
	return it.Error()
}

var errStop = errors.New("stop")
