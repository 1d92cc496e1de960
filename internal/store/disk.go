package store

import (
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is the file system as Pebble sees it. It does three things.
//
// It hides errors of the log from Pebble. Where closing or creating a log file fails, Pebble panics with a lock released that a
// deferred call releases again, which ends the process whatever is recovered. So the first error kills the disk: the store has
// failed, what Pebble still writes to its log goes nowhere with success, and all else that would change the disk is refused.
// What is on the disk then is what was there at the moment of the error, which is what a crash leaves.
//
// While a commit is written that only has to survive the end of the process (lazy), syncing the log does nothing; Pebble hands
// records to the operating system only when told to sync. When Pebble closes a log file, to begin the next, whatever was not
// synced is: otherwise a loss of power could take the end of one log and leave the next, and Pebble takes a log that ends early
// for damaged unless it is the last. For the same reason logs are written in the format without sync offsets, see formatVersion of Pebble in open.go.
//
// It makes files that only their owner may read.
type disk struct {
	vfs.FS
	private bool        // files are the operating system's, and get mode 0600
	fail    func(error) // has the store fail
	full    func(error) // notes that there was no space
	lazy    atomic.Bool

	mu   sync.Mutex
	err  error
	dead atomic.Bool
	died chan struct{} // closed when dead
	lock io.Closer
}

// fullPause is how long an operation takes that finds no space. Pebble tries to flush again at once.
const fullPause = 100 * time.Millisecond

// die has everything that would change the disk do nothing from here on.
func (d *disk) die(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.err = err
		d.dead.Store(true)
		close(d.died)
	}
}

// gone is the error of what is refused; nil: go on.
func (d *disk) gone() error {
	if !d.dead.Load() {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

// noted passes an error on, after a pause if there was no space.
func (d *disk) noted(err error) error {
	if noSpace(err) && !d.dead.Load() {
		d.full(err)
		time.Sleep(fullPause)
	}
	return err
}

// hidden is for errors that Pebble must not see.
func (d *disk) hidden(err error) error {
	if err != nil {
		d.fail(err)
	}
	return nil
}

func isLog(name string) bool { return strings.HasSuffix(name, ".log") }

// own gives a file that was made to its owner alone.
func (d *disk) own(name string, err error) error {
	if err == nil && d.private {
		err = os.Chmod(name, 0o600)
	}
	return err
}

func (d *disk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if isLog(name) {
		return d.openLog(func() (vfs.File, error) {
			f, err := d.FS.Create(name, category)
			return f, d.own(name, err)
		})
	}
	if err := d.gone(); err != nil {
		return nil, err
	}
	f, err := d.FS.Create(name, category)
	if err := d.noted(d.own(name, err)); err != nil {
		return nil, err
	}
	return &file{File: f, disk: d}, nil
}

func (d *disk) ReuseForWrite(oldname, newname string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if isLog(newname) {
		return d.openLog(func() (vfs.File, error) { return d.FS.ReuseForWrite(oldname, newname, category) })
	}
	if err := d.gone(); err != nil {
		return nil, err
	}
	f, err := d.FS.ReuseForWrite(oldname, newname, category)
	if err := d.noted(err); err != nil {
		return nil, err
	}
	return &file{File: f, disk: d}, nil
}

// openLog opens a log file. It does not fail: on a dead disk the file is one that takes everything and keeps nothing.
func (d *disk) openLog(open func() (vfs.File, error)) (vfs.File, error) {
	if !d.dead.Load() {
		f, err := open()
		if err == nil {
			return &logFile{File: f, disk: d}, nil
		}
		d.fail(err)
	}
	return &logFile{File: vfs.NewMemFile(nil), disk: d}, nil
}

func (d *disk) OpenReadWrite(name string, category vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	if err := d.gone(); err != nil {
		return nil, err
	}
	f, err := d.FS.OpenReadWrite(name, category, o...)
	if err := d.noted(d.own(name, err)); err != nil {
		return nil, err
	}
	return &file{File: f, disk: d}, nil
}

func (d *disk) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	if err != nil {
		return nil, err
	}
	return &directory{File: f, disk: d}, nil
}

func (d *disk) Link(oldname, newname string) error {
	if err := d.gone(); err != nil {
		return err
	}
	return d.noted(d.FS.Link(oldname, newname))
}

func (d *disk) Remove(name string) error {
	if err := d.gone(); err != nil {
		return err
	}
	return d.FS.Remove(name)
}

func (d *disk) RemoveAll(name string) error {
	if err := d.gone(); err != nil {
		return err
	}
	return d.FS.RemoveAll(name)
}

func (d *disk) Rename(oldname, newname string) error {
	if err := d.gone(); err != nil {
		return err
	}
	return d.noted(d.FS.Rename(oldname, newname))
}

// MkdirAll makes the store's directory, for its owner alone.
func (d *disk) MkdirAll(name string, _ os.FileMode) error {
	if err := d.gone(); err != nil {
		return err
	}
	return d.noted(d.FS.MkdirAll(name, 0o700))
}

// Lock locks the store's directory. The lock can be given back by unlock, whatever became of Pebble.
func (d *disk) Lock(name string) (io.Closer, error) {
	l, err := d.FS.Lock(name)
	if err != nil {
		return nil, &lockError{err}
	}
	l = &onceCloser{closer: l}
	if err := d.own(name, nil); err != nil {
		l.Close()
		return nil, err
	}
	d.mu.Lock()
	d.lock = l
	d.mu.Unlock()
	return l, nil
}

func (d *disk) unlock() {
	d.mu.Lock()
	l := d.lock
	d.mu.Unlock()
	if l != nil {
		l.Close()
	}
}

func (d *disk) Unwrap() vfs.FS { return d.FS }

// onceCloser is a Closer that may be closed again.
type onceCloser struct {
	once   sync.Once
	closer io.Closer
	err    error
}

func (c *onceCloser) Close() error {
	c.once.Do(func() { c.err = c.closer.Close() })
	return c.err
}

// file is a file that is not a log.
type file struct {
	vfs.File
	disk *disk
}

func (f *file) Write(p []byte) (int, error) {
	if err := f.disk.gone(); err != nil {
		return 0, err
	}
	n, err := f.File.Write(p)
	return n, f.disk.noted(shortWrite(n, len(p), err))
}

func (f *file) WriteAt(p []byte, at int64) (int, error) {
	if err := f.disk.gone(); err != nil {
		return 0, err
	}
	n, err := f.File.WriteAt(p, at)
	return n, f.disk.noted(shortWrite(n, len(p), err))
}

func (f *file) Sync() error {
	if err := f.disk.gone(); err != nil {
		return err
	}
	return f.disk.noted(f.File.Sync())
}

func (f *file) SyncData() error {
	if err := f.disk.gone(); err != nil {
		return err
	}
	return f.disk.noted(f.File.SyncData())
}

func (f *file) SyncTo(n int64) (bool, error) {
	if err := f.disk.gone(); err != nil {
		return false, err
	}
	full, err := f.File.SyncTo(n)
	return full, f.disk.noted(err)
}

func (f *file) Preallocate(offset, n int64) error {
	if err := f.disk.gone(); err != nil {
		return err
	}
	return f.File.Preallocate(offset, n)
}

func shortWrite(n, want int, err error) error {
	if err == nil && n < want {
		return io.ErrShortWrite
	}
	return err
}

// directory is an open directory. Pebble panics when syncing one fails after a log file was made.
type directory struct {
	vfs.File
	disk *disk
}

func (f *directory) Sync() error {
	if f.disk.dead.Load() {
		return nil
	}
	return f.disk.hidden(f.File.Sync())
}

// logFile is a log file. Nothing of it fails.
type logFile struct {
	vfs.File
	disk *disk
	// dirty: something was written and not synced. Only the writer of the log uses it, one goroutine after the other.
	dirty bool
}

func (f *logFile) Write(p []byte) (int, error) {
	if f.disk.dead.Load() {
		return len(p), nil
	}
	f.dirty = true
	n, err := f.File.Write(p)
	return len(p), f.disk.hidden(shortWrite(n, len(p), err))
}

func (f *logFile) Sync() error     { return f.sync(f.File.Sync) }
func (f *logFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *logFile) sync(sync func() error) error {
	if f.disk.dead.Load() || f.disk.lazy.Load() {
		return nil
	}
	f.dirty = false
	return f.disk.hidden(sync())
}

func (f *logFile) SyncTo(n int64) (bool, error) {
	if f.disk.dead.Load() {
		return false, nil
	}
	_, err := f.File.SyncTo(n)
	return false, f.disk.hidden(err)
}

func (f *logFile) Preallocate(offset, n int64) error {
	if f.disk.dead.Load() {
		return nil
	}
	return f.File.Preallocate(offset, n) // only a help: Pebble goes on without
}

func (f *logFile) Stat() (vfs.FileInfo, error) {
	info, err := f.File.Stat()
	if err != nil {
		f.disk.fail(err)
		return vfs.NewMemFile(nil).Stat()
	}
	return info, nil
}

// Close syncs what lazy commits left, and closes the file.
func (f *logFile) Close() error {
	if f.dirty && !f.disk.dead.Load() {
		f.dirty = false
		f.disk.hidden(f.File.SyncData())
	}
	err := f.File.Close()
	if f.disk.dead.Load() {
		return nil
	}
	return f.disk.hidden(err)
}
