package broker_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// disk is a file system in memory whose log can be held up, made to fail, and cut off as by a loss of power.
type disk struct {
	*vfs.MemFS
	mu   sync.Mutex
	open *sync.Cond
	shut bool
	err  error
}

func newDisk() *disk {
	d := &disk{MemFS: vfs.NewCrashableMem()}
	d.open = sync.NewCond(&d.mu)
	return d
}

// hold has whoever syncs the log wait until release.
func (d *disk) hold() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shut = true
}

func (d *disk) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shut = false
	d.open.Broadcast()
}

// fail has the log fail from now on.
func (d *disk) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

// lost is the disk as a loss of power at this moment would leave it.
func (d *disk) lost() *disk {
	n := newDisk()
	n.MemFS = d.MemFS.CrashClone(vfs.CrashCloneCfg{})
	return n
}

func (d *disk) pass() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.shut && d.err == nil {
		d.open.Wait()
	}
	return d.err
}

func (d *disk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.MemFS.Create(name, category)
	return d.wrap(name, f), err
}

func (d *disk) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.MemFS.ReuseForWrite(old, name, category)
	return d.wrap(name, f), err
}

func (d *disk) wrap(name string, f vfs.File) vfs.File {
	if f == nil || !strings.HasSuffix(name, ".log") {
		return f
	}
	return &heldFile{f, d}
}

type heldFile struct {
	vfs.File
	disk *disk
}

func (f *heldFile) Sync() error {
	if err := f.disk.pass(); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *heldFile) SyncData() error {
	if err := f.disk.pass(); err != nil {
		return err
	}
	return f.File.SyncData()
}

// reopen starts another server with what is on a disk.
func reopen(t *testing.T, o options, d *disk) *server {
	t.Helper()
	o.store = d
	s := start(t, o)
	t.Cleanup(d.release) // else the store could not be closed
	return s
}

// kept is a connection of a session that is kept, and whether it was there.
func (s *server) kept(id string, props ...raw.Property) (c *raw.Conn, present bool) {
	s.t.Helper()
	c, p := raw.Open(s.t, s.Addr, raw.Connect{ClientID: id, Props: append(raw.Props{raw.SessionExpiry.Int(1000)}, props...)})
	return c, p.SessionPresent
}

// ping waits until the server has handled everything that c has sent, and fails where more than the answer comes.
func ping(c *raw.Conn) {
	c.Send(raw.Pingreq{})
	c.Expect(raw.PINGRESP)
}
