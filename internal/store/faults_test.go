package store

import (
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// faults is a file system whose operations of a kind fail after some of them.
type faults struct {
	vfs.FS
	kind   string
	always bool // from then on; else once
	left   atomic.Int64
	off    atomic.Bool
}

var faultKinds = []string{
	"log write", "log short write", "log sync", "log close", "log create", "log no space",
	"write", "short write", "sync", "create", "rename", "directory sync", "no space", "remove", "manifest write", "manifest sync",
}

var errDisk = errors.New("disk is on fire")

func newFaults(fs vfs.FS, kind string, always bool) *faults {
	f := &faults{FS: fs, kind: kind, always: always}
	f.left.Store(1 << 40)
	return f
}

// fault decides whether an operation fails.
func (f *faults) fault(operation, name string) error {
	if f.off.Load() {
		return nil
	}
	kind, ok := f.kind, false
	switch {
	case strings.HasPrefix(kind, "log "):
		kind, ok = strings.TrimPrefix(kind, "log "), isLog(name)
	case strings.HasPrefix(kind, "manifest "):
		kind, ok = strings.TrimPrefix(kind, "manifest "), strings.Contains(name, "MANIFEST")
	case kind == "directory sync":
		kind, ok = "sync", operation == "directory sync"
		operation = "sync"
	default:
		ok = !isLog(name)
	}
	err := errDisk
	switch {
	case kind == "no space" && (operation == "write" || operation == "create"):
		err = syscall.ENOSPC
	case kind == "short write" && operation == "write":
		err = io.ErrShortWrite
	case kind != operation:
		ok = false
	}
	if !ok {
		return nil
	}
	// Files are fewer than writes.
	scale := int64(1)
	if operation != "write" && operation != "sync" || strings.Contains(name, "MANIFEST") || !isLog(name) {
		scale = 20
	}
	n := f.left.Add(-scale)
	if n <= 0 && (f.always || n > -scale) {
		return err
	}
	return nil
}

func (f *faults) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.fault("create", name); err != nil {
		return nil, err
	}
	file, err := f.FS.Create(name, c)
	return &faultyFile{file, f, name}, err
}

func (f *faults) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := f.fault("create", name); err != nil {
		return nil, err
	}
	file, err := f.FS.ReuseForWrite(old, name, c)
	return &faultyFile{file, f, name}, err
}

func (f *faults) OpenDir(name string) (vfs.File, error) {
	file, err := f.FS.OpenDir(name)
	return &faultyDirectory{file, f, name}, err
}

func (f *faults) Rename(old, name string) error {
	if err := f.fault("rename", name); err != nil {
		return err
	}
	return f.FS.Rename(old, name)
}

func (f *faults) Remove(name string) error {
	if err := f.fault("remove", name); err != nil {
		return err
	}
	return f.FS.Remove(name)
}

type faultyFile struct {
	vfs.File
	faults *faults
	name   string
}

func (f *faultyFile) Write(p []byte) (int, error) {
	switch err := f.faults.fault("write", f.name); err {
	case nil:
		return f.File.Write(p)
	case io.ErrShortWrite:
		return f.File.Write(p[:len(p)/2])
	default:
		return 0, err
	}
}

func (f *faultyFile) Sync() error {
	if err := f.faults.fault("sync", f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *faultyFile) SyncData() error {
	if err := f.faults.fault("sync", f.name); err != nil {
		return err
	}
	return f.File.SyncData()
}

func (f *faultyFile) Close() error {
	if err := f.faults.fault("close", f.name); err != nil {
		f.File.Close()
		return err
	}
	return f.File.Close()
}

type faultyDirectory struct {
	vfs.File
	faults *faults
	name   string
}

func (f *faultyDirectory) Sync() error {
	if err := f.faults.fault("directory sync", f.name); err != nil {
		return err
	}
	return f.File.Sync()
}
