package store

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// formatVersion is the version of what this package writes into the database.
const formatVersion = 1

// pebbleFormat is what the database may use of Pebble's own format. It is below FormatWALSyncChunks on purpose: with that, each
// piece of the log says how much of it was synced before, which is not so after lazy commits, and a loss of power would leave a
// log that Pebble refuses as damaged instead of cutting it.
const pebbleFormat = pebble.FormatColumnarBlocks

// What the database may use. Its memory tables are taken from the cache's share.
const (
	cacheBytes       = 32 << 20
	memoryTableBytes = 8 << 20
	openTables       = 256
	bloomBits        = 10
)

// ErrClosed is the error of a store that was closed.
var ErrClosed = errors.New("store is closed")

// lockError is that the directory could not be locked.
type lockError struct{ err error }

func (e *lockError) Error() string { return "locking: " + e.err.Error() }
func (e *lockError) Unwrap() error { return e.err }

func noSpace(err error) bool {
	return err != nil && (vfs.IsNoSpaceError(err) || errors.Is(err, syscall.EDQUOT))
}

// options are Pebble's.
func options(d *disk, l pebble.Logger, memoryTable uint64) *pebble.Options {
	if memoryTable == 0 {
		memoryTable = memoryTableBytes
	}
	o := &pebble.Options{
		FS:                          d,
		Logger:                      l,
		FormatMajorVersion:          pebbleFormat,
		CacheSize:                   cacheBytes,
		MemTableSize:                memoryTable,
		MemTableStopWritesThreshold: 3,
		MaxOpenFiles:                openTables,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       24,
		CompactionConcurrencyRange:  func() (lower, upper int) { return 1, 2 },
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(bloomBits)
	}
	return o
}

// listener watches what Pebble does in the background.
func (s *Store) listener() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: s.backgroundError,
		DataCorruption: func(i pebble.DataCorruptionInfo) {
			// Whoever reads gets the error. The default would end the reader's goroutine.
			s.logger.Error("store is damaged; run isthmus store check", "file", i.Path, "error", i.Details)
		},
	}
}

// backgroundError is told of a flush or a compaction that failed. Pebble tries again at once, for ever, so either there is hope
// or the store has failed; then the goroutine ends here, which stops Pebble from trying. It holds Pebble's lock, which a
// deferred call releases.
func (s *Store) backgroundError(err error) {
	if noSpace(err) && !s.leaving.Load() {
		s.space.noSpace()
		return
	}
	s.fail(fmt.Errorf("writing in the background: %w", err))
	runtime.Goexit()
}

// logger passes on what Pebble has to say.
type logger struct {
	to   *slog.Logger
	fail func(error)
}

func (l *logger) Infof(string, ...any) {}

func (l *logger) Errorf(format string, args ...any) {
	l.to.Warn("database", "error", fmt.Sprintf(format, args...))
}

// Fatalf has the store fail and ends the goroutine: Pebble expects that this does not return, and the process is not its own.
func (l *logger) Fatalf(format string, args ...any) {
	l.fail(fmt.Errorf(format, args...))
	runtime.Goexit()
}

// openPebble opens the database, first to have it read its log and then to use it. If something fails while a database is being
// opened that has tables to look at or to compact, Pebble takes away what these goroutines use, and they panic. So at first there
// are no such goroutines, and then there is no reason left for what could fail before they start.
func (s *Store) openPebble(c Config) (*pebble.DB, error) {
	var db *pebble.DB
	for _, quiet := range [...]bool{true, false} {
		o := options(s.disk, &logger{to: s.logger, fail: s.fail}, c.memoryTable)
		o.EventListener = s.listener()
		o.DisableTableStats, o.DisableAutomaticCompactions = quiet, quiet
		var err error
		if db, err = openDatabase(c.Dir, o, s.log.down, s.Err); err != nil {
			return nil, err
		}
		if quiet {
			if err := s.guarded(db.Close); err != nil {
				return nil, err
			}
		}
	}
	return db, nil
}

// openWait is how long a database that has failed to open gets to say so.
const openWait = 100 * time.Millisecond

// openDatabase opens Pebble in a goroutine of its own, because Pebble may end it.
func openDatabase(dir string, o *pebble.Options, down <-chan struct{}, failure func() error) (*pebble.DB, error) {
	type result struct {
		db  *pebble.DB
		err error
	}
	done := make(chan result, 1)
	go func() {
		r := result{err: errors.New("opening was given up")}
		defer func() {
			if p := recover(); p != nil {
				r.err = fmt.Errorf("%v", p)
			}
			done <- r
		}()
		r.db, r.err = pebble.Open(dir, o)
	}()
	var r result
	select {
	case r = <-done:
	case <-down:
		t := time.NewTimer(openWait)
		defer t.Stop()
		select {
		case r = <-done:
		case <-t.C:
		}
	}
	if err := failure(); err != nil {
		return nil, err
	}
	return r.db, r.err
}

// prepare checks the directory, if there is one; Pebble makes it otherwise, see [disk.MkdirAll].
func prepare(dir string, f vfs.FS) error {
	info, err := f.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.IsDir():
		return errNotDirectory
	}
	names, err := f.List(dir)
	if err != nil {
		return err
	}
	for _, n := range names {
		if strings.HasPrefix(n, "marker.") {
			return nil
		}
	}
	for _, n := range names {
		if !ours(n) {
			return fmt.Errorf("%w: it contains %s", errForeign, n)
		}
	}
	return nil
}

var (
	errNotDirectory = errors.New("not a directory")
	errForeign      = errors.New("not a store")
	errUnknown      = errors.New("not a store of isthmus")
)

// formatError is that a store has a format that this version does not know.
type formatError struct{ version byte }

func (e *formatError) Error() string {
	return fmt.Sprintf("written in format %d; this version of isthmus knows format %d", e.version, formatVersion)
}

// ours reports whether a file can be left of a store whose creation was interrupted.
func ours(name string) bool {
	for _, prefix := range [...]string{"LOCK", "MANIFEST-", "OPTIONS-", "marker.", "lost+found", "temporary."} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	switch filepath.Ext(name) {
	case ".log", ".sst", ".dbtmp":
		return true
	}
	return false
}

// explain says what an error of opening means and what can be done.
func explain(dir string, err error) error {
	var locked *lockError
	var path *fs.PathError
	var format *formatError
	hint := ""
	switch {
	case err == nil:
		return nil
	case errors.As(err, &locked) && !errors.As(err, &path):
		err = errors.New("in use by another process")
	case errors.As(err, &format):
		hint = "; start a newer version of isthmus, or restore a copy from before the newer one was started"
	case strings.Contains(err.Error(), "format major version"):
		err = fmt.Errorf("written by a newer version of isthmus: %w", err)
		hint = "; start that version, or restore a copy from before it was started"
	case errors.Is(err, errForeign) || errors.Is(err, errUnknown):
		hint = "; name an empty folder or one that does not exist"
	case errors.Is(err, errNotDirectory):
	case errors.Is(err, pebble.ErrDBDoesNotExist):
		err = errors.New("there is no store")
	case errors.Is(err, fs.ErrPermission):
		hint = "; the folder must belong to the user that isthmus runs as"
	case isDamage(err):
		err = fmt.Errorf("damaged: %w", err)
		hint = "; run isthmus store check, then restore a copy or move the folder away"
	}
	return fmt.Errorf("store %s: %w%s", dir, err, hint)
}

// isDamage reports whether err says that what is stored is not what was. Pebble marks only some of these errors.
func isDamage(err error) bool {
	if errors.Is(err, errRecord) || pebble.IsCorruptionError(err) || errors.Is(err, fs.ErrNotExist) {
		return true
	}
	text := err.Error()
	return strings.Contains(text, "size mismatch") || strings.Contains(text, "pebble: ") || strings.Contains(text, "pebble/record: ")
}

// checkFormat checks the version of what is in the database; a new one has none yet, and empty is true.
func checkFormat(db *pebble.DB) (empty bool, err error) {
	v, closer, err := db.Get([]byte{kindFormat})
	if err == nil {
		defer closer.Close()
		switch {
		case len(v) != 1:
			return false, fmt.Errorf("version of the format: %w", errRecord)
		case v[0] != formatVersion:
			return false, &formatError{v[0]}
		}
		return false, nil
	}
	if !errors.Is(err, pebble.ErrNotFound) {
		return false, err
	}
	it, err := db.NewIter(nil)
	if err != nil {
		return false, err
	}
	found := it.First()
	if err := it.Close(); err != nil {
		return false, err
	}
	if found {
		return false, errUnknown
	}
	return true, nil
}

// counters finds the numbers that were used.
func (s *Store) counters() error {
	it, err := s.db.NewIter(nil)
	if err != nil {
		return err
	}
	defer it.Close()
	for _, kind := range sessionKinds {
		if it.SeekLT([]byte{kind + 1}) && it.Key()[0] == kind {
			n, ok := numberOf(it.Key())
			if !ok {
				return damaged(it.Key(), errRecord)
			}
			s.lastSession.Store(max(s.lastSession.Load(), n))
		}
	}
	numbers, err := queueNumbers(s.db)
	if err != nil {
		return err
	}
	for n := range numbers {
		s.lastSession.Store(max(s.lastSession.Load(), n))
	}
	if it.SeekLT([]byte{kindBody + 1}) && it.Key()[0] == kindBody {
		id, ok := numberOf(it.Key())
		if !ok {
			return damaged(it.Key(), errRecord)
		}
		s.lastBody = id >> bodySizeBits
	}
	return it.Error()
}

// damaged is an error of a record.
func damaged(key []byte, err error) error { return fmt.Errorf("%s: %w", printKey(key), err) }

// guarded calls f, in which Pebble may end the goroutine, and waits for it or for the store's failure.
func (s *Store) guarded(f func() error) error {
	done := make(chan error, 1)
	go func() {
		err := ErrClosed
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("%v", p)
			}
			done <- err
		}()
		err = f()
	}()
	select {
	case err := <-done:
		return err
	case <-s.disk.died:
		return s.disk.gone()
	}
}
