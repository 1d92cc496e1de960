package store

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/isthmus-iot/isthmus/bridge"
)

// crowdedBytes is how much may be pending before who appends should wait.
const crowdedBytes = 8 << 20

// Memory that a batch begins with, and that it may keep from one commit to the next.
const (
	batchBytes     = 64 << 10
	batchKeptBytes = 1 << 20
)

// log is the group commit. Three commits can be told apart: those that are synced, the one in flight, which the committer is
// writing, and the pending one, which everything that is appended goes into. Its number is the receipt of all of that.
type log struct {
	db     *pebble.DB
	disk   *disk
	notify func([]bridge.Waiter)
	failed func(error)

	// gate is held for reading by who wants several calls in one commit, and for writing by the committer for the moment in
	// which it takes the pending commit.
	gate    sync.RWMutex
	release func() // gate.RUnlock, made once

	synced atomic.Uint64
	size   atomic.Int64 // bytes pending

	mu       sync.Mutex
	number   uint64 // of the pending commit
	pending  *pebble.Batch
	fsync    bool // the pending commit has something that must survive a loss of power
	spare    *pebble.Batch
	waiting  []bridge.Waiter // for the pending commit
	flying   []bridge.Waiter // for the commit in flight
	late     []bridge.Waiter // for what was appended while the store was being closed, and is not kept
	told     []bridge.Waiter // for the notifier
	unused   []bridge.Waiter // memory for waiting
	progress chan struct{}   // closed when a commit was taken or synced, if somebody asked for it
	err      error           // set once
	down     chan struct{}   // closed when err is set
	closing  bool
	stats    commitStats

	wake      chan struct{} // something is pending
	tell      chan struct{} // something is in told, or err is set
	quit      chan struct{} // closed when nothing is appended any more
	committed chan struct{} // closed when the committer has ended
	hush      chan struct{} // closed when nobody is to be told any more
	hushed    chan struct{} // closed when the notifier has ended
}

func (l *log) init() {
	l.release = l.gate.RUnlock
	l.number = 1
	l.down = make(chan struct{})
	l.wake = make(chan struct{}, 1)
	l.tell = make(chan struct{}, 1)
	l.quit = make(chan struct{})
	l.committed = make(chan struct{})
	l.hush = make(chan struct{})
	l.hushed = make(chan struct{})
}

// start starts the committer and the notifier.
func (l *log) start(db *pebble.DB) {
	l.db = db
	l.pending, l.spare = l.newBatch(), l.newBatch()
	go l.commitAll()
	go l.notifyAll()
}

func (l *log) newBatch() *pebble.Batch {
	return l.db.NewBatch(pebble.WithInitialSizeBytes(batchBytes), pebble.WithMaxRetainedSizeBytes(batchKeptBytes))
}

// append has write append to the pending commit, all of it or, where the store has failed or is closed, nothing: then the
// receipt is one that is never synced. write is called with l.mu held.
func (l *log) append(d bridge.Durability, write func(b *pebble.Batch)) bridge.Receipt {
	l.mu.Lock()
	if l.err != nil || l.closing {
		l.mu.Unlock()
		return math.MaxUint64
	}
	first := l.pending.Empty()
	write(l.pending)
	if d == bridge.Fsync {
		l.fsync = true
	}
	r := bridge.Receipt(l.number)
	l.size.Store(int64(l.pending.Len()))
	if first {
		if l.pending.Empty() { // there was nothing to write
			r = 0
		} else {
			signal(l.wake)
		}
	}
	l.mu.Unlock()
	return r
}

// Synced is the last commit that is kept.
func (l *log) Synced() bridge.Receipt { return bridge.Receipt(l.synced.Load()) }

// Await has w told when r is synced. It returns false, and w is not told, if it is synced already or the store has failed or is
// closed.
func (l *log) Await(r bridge.Receipt, w bridge.Waiter) bool {
	if uint64(r) <= l.synced.Load() {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.err != nil || uint64(r) <= l.synced.Load():
		return false
	case uint64(r) < l.number:
		l.flying = append(l.flying, w)
	case uint64(r) == l.number && !l.pending.Empty():
		l.waiting = append(l.waiting, w)
	default:
		l.late = append(l.late, w)
	}
	return true
}

// Err is why nothing is kept any more; nil while all is well.
func (l *log) Err() error {
	select {
	case <-l.down:
		return l.err // not written again
	default:
		return nil
	}
}

// Hold keeps what is appended until release is called in one commit. It must not be called with a lock held that another caller
// of Hold may wait for, nor again before release.
func (l *log) Hold() (release func()) {
	l.gate.RLock()
	return l.release
}

// Crowded reports that more is pending than the disk takes in a moment: who can wait should; see [Store.WaitRoom].
func (l *log) Crowded() bool { return l.size.Load() > crowdedBytes }

// WaitRoom waits until the store is not crowded or has failed. The error is that of ctx.
func (l *log) WaitRoom(ctx context.Context) error {
	return l.waitFor(ctx, func() bool { return !l.Crowded() })
}

// waitSynced waits until r is synced or the store has failed.
func (l *log) waitSynced(ctx context.Context, r bridge.Receipt) error {
	return l.waitFor(ctx, func() bool { return uint64(r) <= l.synced.Load() })
}

func (l *log) waitFor(ctx context.Context, done func() bool) error {
	for {
		l.mu.Lock()
		if done() || l.err != nil {
			l.mu.Unlock()
			return nil
		}
		if l.progress == nil {
			l.progress = make(chan struct{})
		}
		progress := l.progress
		l.mu.Unlock()
		select {
		case <-progress:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// advance wakes those in waitFor. l.mu is held.
func (l *log) advance() {
	if l.progress != nil {
		close(l.progress)
		l.progress = nil
	}
}

// commitAll is the committer.
func (l *log) commitAll() {
	// Pebble panics where it sees no way on, and its fatal errors end this goroutine, see logger.Fatalf.
	defer close(l.committed)
	defer func() {
		if p := recover(); p != nil {
			l.fail(fmt.Errorf("writing the log: %v", p))
		}
	}()
	for {
		select {
		case <-l.wake:
			if !l.commitOne() {
				return
			}
		case <-l.quit:
			l.commitOne()
			return
		}
	}
}

// commitOne commits what is pending and reports whether to go on.
func (l *log) commitOne() bool {
	l.gate.Lock()
	l.mu.Lock()
	b, fsync := l.pending, l.fsync
	if l.err != nil || b.Empty() {
		ok := l.err == nil
		l.mu.Unlock()
		l.gate.Unlock()
		return ok
	}
	number := l.number
	l.number++
	l.pending, l.spare, l.fsync = l.spare, nil, false
	l.flying, l.waiting, l.unused = l.waiting, l.unused, nil
	l.size.Store(0)
	l.advance()
	l.mu.Unlock()
	l.gate.Unlock()

	bytes, records := b.Len(), b.Count()
	began := time.Now()
	// Pebble always gets to hear that it shall sync: only then are records handed to the operating system.
	l.disk.lazy.Store(!fsync)
	err := b.Commit(pebble.Sync)
	took := time.Since(began)
	if err != nil {
		l.fail(fmt.Errorf("writing the log: %w", err))
		return false
	}
	b.Reset()

	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil { // maybe of this very commit: see disk
		return false
	}
	l.spare = b
	l.stats.add(bytes, int(records), took)
	l.synced.Store(number)
	l.hand(&l.flying)
	l.advance()
	return true
}

// hand gives waiters to the notifier and leaves an empty list. l.mu is held.
func (l *log) hand(waiters *[]bridge.Waiter) {
	if len(*waiters) > 0 {
		l.told = append(l.told, *waiters...)
		clear(*waiters)
		signal(l.tell)
	}
	if l.unused == nil && cap(*waiters) <= waitersKept {
		l.unused = (*waiters)[:0]
	}
	*waiters = nil
}

// waitersKept is how long a list of waiters may be to be used again.
const waitersKept = 4096

// notifyAll is the notifier: it tells waiters, so that the next commit need not wait for that.
func (l *log) notifyAll() {
	defer close(l.hushed)
	var list []bridge.Waiter
	reported := false
	for more := true; more; {
		select {
		case <-l.tell:
		case <-l.hush:
			more = false // once more: something may have been handed over meanwhile
		}
		l.mu.Lock()
		list, l.told = l.told, list[:0]
		err := l.err
		l.mu.Unlock()
		if err != nil && err != ErrClosed && !reported {
			reported = true
			if l.failed != nil {
				l.failed(err)
			}
		}
		if len(list) > 0 && l.notify != nil {
			l.notify(list)
		}
		clear(list)
		if cap(list) > waitersKept {
			list = nil
		}
	}
}

// fail ends the log: from here on nothing is synced or written. The first error counts. It may be called from any goroutine,
// Pebble's with its locks held included, and does not wait for the committer, who may never come back.
func (l *log) fail(err error) {
	l.disk.die(err)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.end(err)
	signal(l.tell)
}

// shut has nothing more appended, waits until what is pending is synced, and ends the log. It does not wait for a committer that
// the failure of the store has stopped.
func (l *log) shut() {
	l.mu.Lock()
	l.closing = true
	l.mu.Unlock()
	close(l.quit)
	select {
	case <-l.committed:
	case <-l.down:
	}
	l.mu.Lock()
	if l.err == nil {
		l.end(ErrClosed)
	}
	l.mu.Unlock()
	close(l.hush)
	<-l.hushed
}

// end sets err and tells all who wait. l.mu is held.
func (l *log) end(err error) {
	l.err = err
	close(l.down)
	l.hand(&l.flying)
	l.hand(&l.waiting)
	l.hand(&l.late)
	l.size.Store(0)
	l.advance()
}

// signal leaves a token in a channel that has room for one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// pendingReceipt is that of the pending commit; zero: nothing is pending.
func (l *log) pendingReceipt() bridge.Receipt {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil || l.pending.Empty() {
		return 0
	}
	return bridge.Receipt(l.number)
}
