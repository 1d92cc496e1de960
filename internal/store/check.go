package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// maxProblems is how many problems a report lists.
const maxProblems = 1000

// Report is what [Check] found.
type Report struct {
	Tables   int // files of the database whose checksums were verified
	Records  int // that were decoded
	Problems []Problem
	More     int // problems that are not listed
}

// Problem is something that is not as it should be.
type Problem struct {
	File string // that is damaged; empty: Key says where
	Key  string // the record
	Text string
}

// String is the problem in one line.
func (p Problem) String() string {
	where := p.File
	if where == "" {
		where = p.Key
	}
	return where + ": " + p.Text
}

// Check reads all of a store that no process uses, and changes nothing. It verifies the checksums of all tables, decodes all
// records, and looks for records that refer to what is not there. The error is for a store that cannot be looked at at all, for
// example because it is in use.
func Check(dir string) (Report, error) { return check(dir, vfs.Default) }

func check(dir string, f vfs.FS) (Report, error) {
	c := &checker{fs: f, dir: dir, queues: map[uint64]bool{}}
	if info, err := f.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return Report{}, explain(dir, pebble.ErrDBDoesNotExist)
	} else if err != nil {
		return Report{}, explain(dir, err)
	} else if !info.IsDir() {
		return Report{}, explain(dir, errNotDirectory)
	}
	db, err := openReadOnly(dir, f, c.damaged)
	var locked *lockError
	var format *formatError
	switch {
	case errors.As(err, &locked), errors.As(err, &format), errors.Is(err, errUnknown), errors.Is(err, pebble.ErrDBDoesNotExist):
		return Report{}, explain(dir, err)
	case err != nil:
		c.problem(Problem{File: dir, Text: err.Error()})
	}
	if err := c.tables(); err != nil {
		return Report{}, explain(dir, err)
	}
	if db == nil {
		return c.report, nil
	}
	c.db = db
	c.records()
	if err := db.Close(); err != nil {
		return c.report, explain(dir, err)
	}
	return c.report, nil
}

// openReadOnly opens the database of a store that is not running. Nothing is written; the log is read into memory.
func openReadOnly(dir string, f vfs.FS, corrupt func(pebble.DataCorruptionInfo)) (*pebble.DB, error) {
	d := &disk{FS: f, died: make(chan struct{})}
	var failure error
	l := &logger{to: slog.New(slog.DiscardHandler), fail: func(err error) {
		failure = err
		d.die(err)
	}}
	d.fail, d.full = l.fail, func(error) {}
	o := options(d, l, 0)
	o.ReadOnly = true
	o.ErrorIfNotExists = true
	o.EventListener = &pebble.EventListener{DataCorruption: corrupt}
	db, err := openDatabase(dir, o, d.died, func() error {
		if d.dead.Load() {
			return failure
		}
		return nil
	})
	if err != nil {
		d.unlock()
		return nil, err
	}
	empty, err := checkFormat(db)
	if err == nil && empty {
		err = errUnknown
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

type checker struct {
	fs  vfs.FS
	dir string
	db  *pebble.DB

	mu     sync.Mutex
	report Report

	sessions   []uint64 // in order
	queues     map[uint64]bool
	ended      []uint64
	bodies     []uint64 // in order
	referenced []uint64
}

func (c *checker) problem(p Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case slices.Contains(c.report.Problems, p):
	case len(c.report.Problems) == maxProblems:
		c.report.More++
	default:
		c.report.Problems = append(c.report.Problems, p)
	}
}

func (c *checker) badKey(key []byte, format string, args ...any) {
	c.problem(Problem{Key: printKey(key), Text: fmt.Sprintf(format, args...)})
}

// damaged is told of damage that reading met.
func (c *checker) damaged(i pebble.DataCorruptionInfo) {
	c.problem(Problem{File: i.Path, Text: fmt.Sprint(i.Details)})
}

// tables verifies the checksums of all tables.
func (c *checker) tables() error {
	names, err := c.fs.List(c.dir)
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if filepath.Ext(name) != ".sst" {
			continue
		}
		c.report.Tables++
		path := c.fs.PathJoin(c.dir, name)
		if err := c.table(path); err != nil {
			c.problem(Problem{File: path, Text: err.Error()})
		}
	}
	return nil
}

func (c *checker) table(path string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	f, err := c.fs.Open(path)
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	o := options(nil, &logger{to: slog.New(slog.DiscardHandler), fail: func(error) {}}, 0)
	o.EnsureDefaults()
	r, err := sstable.NewReader(context.Background(), readable, o.MakeReaderOptions())
	if err != nil {
		return errors.Join(err, readable.Close())
	}
	return errors.Join(r.ValidateBlockChecksums(), r.Close())
}

// records decodes all records and compares what refers to what.
func (c *checker) records() {
	for _, kind := range [...]struct {
		kind byte
		look func(key, value []byte)
	}{
		{kindQueue, c.queue},
		{kindSession, c.session},
		{kindEnded, c.end},
		{kindBody, c.body},
		{kindSubscription, c.ofSession},
		{kindEntry, c.entry},
		{kindFlight, c.flight},
		{kindReceived, c.received},
		{kindRetained, c.retained},
	} {
		c.scan([]byte{kind.kind}, []byte{kind.kind + 1}, kind.look)
	}
	c.unknown()
	slices.Sort(c.referenced)
	for _, id := range c.referenced {
		if _, ok := slices.BinarySearch(c.bodies, id); !ok {
			key := numberKey(kindBody, id)
			c.badKey(key[:], "missing, but an entry refers to it")
		}
	}
}

func (c *checker) scan(lower, upper []byte, look func(key, value []byte)) {
	last := []byte("the first key")
	err := scan(c.db, lower, upper, func(key, value []byte) error {
		c.report.Records++
		last = append(last[:0], key...)
		look(key, value)
		return nil
	})
	if err != nil {
		c.problem(Problem{Key: "after " + printKey(last), Text: err.Error()})
	}
}

func (c *checker) session(key, _ []byte) {
	number, ok := numberOf(key)
	if !ok || len(key) != numberKeySize {
		c.badKey(key, "the key is malformed")
	}
	c.sessions = append(c.sessions, number)
}

func (c *checker) queue(key, value []byte) {
	number, _, err := readQueueRecord(value)
	if err != nil {
		c.badKey(key, "%v", err)
	}
	c.queues[number] = true
}

func (c *checker) end(key, _ []byte) {
	number, ok := numberOf(key)
	if !ok || len(key) != numberKeySize {
		c.badKey(key, "the key is malformed")
	}
	c.ended = append(c.ended, number)
}

func (c *checker) body(key, value []byte) {
	id, ok := numberOf(key)
	if !ok || len(key) != numberKeySize {
		c.badKey(key, "the key is malformed")
		return
	}
	c.bodies = append(c.bodies, id)
	if _, err := decodeMessage(value); err != nil {
		c.badKey(key, "%v", err)
	} else if id&(1<<bodySizeBits-1) != newBodyID(0, len(key)+len(value)) {
		c.badKey(key, "the message has another size than the key says")
	}
}

// ofSession checks that the session of a record is there, or being removed.
func (c *checker) ofSession(key, _ []byte) {
	number, ok := numberOf(key)
	if !ok {
		c.badKey(key, "the key is malformed")
		return
	}
	_, is := slices.BinarySearch(c.sessions, number)
	_, was := slices.BinarySearch(c.ended, number)
	if !is && !was && !c.queues[number] {
		c.badKey(key, "there is no such session")
	}
}

func (c *checker) entry(key, value []byte) {
	c.ofSession(key, value)
	if _, ok := positionOf(key); !ok {
		c.badKey(key, "the key is malformed")
	}
	e, err := readEntry(value)
	switch {
	case err != nil:
		c.badKey(key, "%v", err)
	case e.body != 0:
		c.referenced = append(c.referenced, e.body)
	default:
		if m, err := decodeMessage(e.message); err != nil {
			c.badKey(key, "%v", err)
		} else if m.Size() != e.size {
			c.badKey(key, "the message has %d bytes, the entry says %d", m.Size(), e.size)
		}
	}
}

func (c *checker) flight(key, value []byte) {
	c.ofSession(key, value)
	if _, ok := positionOf(key); !ok {
		c.badKey(key, "the key is malformed")
		return
	}
	if _, _, err := readFlight(value); err != nil {
		c.badKey(key, "%v", err)
	}
	entry := slices.Clone(key)
	entry[0] = kindEntry
	found, err := get(c.db, entry, func([]byte) error { return nil })
	if err != nil {
		c.badKey(entry, "%v", err)
	} else if !found {
		c.badKey(key, "there is no such entry")
	}
}

func (c *checker) received(key, value []byte) {
	c.ofSession(key, value)
	if len(key) != receivedKeySize {
		c.badKey(key, "the key is malformed")
	}
}

func (c *checker) retained(key, value []byte) {
	if m, err := decodeMessage(value); err != nil {
		c.badKey(key, "%v", err)
	} else if string(m.Topic) != string(key[1:]) {
		c.badKey(key, "the message has topic %q", m.Topic)
	}
}

// kinds are all kinds of records.
const kinds = string(kindFormat) + string(kindBody) + string(kindSession) + string(kindSubscription) + string(kindEntry) +
	string(kindFlight) + string(kindReceived) + string(kindEnded) + string(kindRetained) + string(kindQueue)

// unknown looks for records that are of no kind.
func (c *checker) unknown() {
	known := []byte(kinds)
	slices.Sort(known)
	var lower []byte
	for _, kind := range known {
		c.scan(lower, []byte{kind}, func(key, _ []byte) { c.badKey(key, "records of this kind are unknown") })
		lower = []byte{kind + 1}
	}
	c.scan(lower, nil, func(key, _ []byte) { c.badKey(key, "records of this kind are unknown") })
}
