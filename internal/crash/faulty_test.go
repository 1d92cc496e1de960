package crash

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/isthmus-iot/isthmus/bridge"
	mqtt "github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/store"
)

// TestFaultyDisk is the load on a broker whose disk fails at some random moment of most of its lives. The broker is then
// alive and may refuse, but must not acknowledge what it cannot keep; after it was killed and started on a disk that works
// again, nothing acknowledged may be missing.
func TestFaultyDisk(t *testing.T) {
	kills := *killsFlag
	if kills < 0 {
		kills = 8
		if testing.Short() {
			kills = 3
		}
	}
	run(t, kills, func(b *broker, l *load) {
		b.faults, l.faulty = rand.New(rand.NewPCG(l.seed, 4000)), true
	})
}

// faultKinds are the ways in which a disk fails.
var faultKinds = []string{
	"none",
	"sync",  // the log cannot be synced from some moment on
	"short", // one write takes half, with an error, and all later ones of the log take nothing
	"full",  // no space from some moment on
	"tight", // no space for a while, for all but the log
}

// envFaults has the test's program be a broker with a faulty disk: kind, how many operations go well, address, directory.
const envFaults = "ISTHMUS_CRASH_FAULTS"

// plan draws the fault of one life.
func (b *broker) plan() string {
	kind := faultKinds[b.faults.IntN(len(faultKinds))]
	if b.mended {
		kind = faultKinds[0]
	}
	return fmt.Sprintf("%s %d %s %s", kind, 20+b.faults.IntN(1500), b.addr, b.file("store"))
}

// beFaultyBroker runs a broker as the plan says until SIGTERM comes.
func beFaultyBroker(plan string) int {
	var kind, addr, dir string
	var after int64
	if _, err := fmt.Sscan(plan, &kind, &after, &addr, &dir); err != nil {
		fmt.Fprintln(os.Stderr, plan, err)
		return 2
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	err := serveFaulty(&faultyDisk{FS: vfs.Default, kind: kind, after: after}, addr, dir, log)
	if err != nil {
		log.Warn("the broker ends", "error", err)
		return 1
	}
	return 0
}

func serveFaulty(disk vfs.FS, addr, dir string, log *slog.Logger) error {
	hub, err := bridge.New(bridge.Config{Access: everybody{}, Log: log})
	if err != nil {
		return err
	}
	srv, err := endpoint(hub, log)
	if err != nil {
		return err
	}
	kept, err := store.Open(store.Config{Dir: dir, FS: disk, Log: log, Notify: hub.Stored, Failed: func(err error) { log.Warn("the store has failed", "error", err) }})
	if err != nil {
		return err
	}
	if err := errors.Join(hub.UseStore(kept), srv.Restore(kept)); err != nil {
		return err
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go hub.Run(ctx)
	go srv.Serve(ctx, ln, mqtt.Listener{})
	<-ctx.Done()
	grace, done := context.WithTimeout(context.Background(), 5*time.Second)
	defer done()
	srv.Shutdown(grace)
	kept.Close()
	return nil
}

// endpoint makes the endpoint with limits under which nothing may be dropped or refused.
func endpoint(hub *bridge.Hub, log *slog.Logger) (*mqtt.Server, error) {
	return mqtt.New(mqtt.Config{Hub: hub, Log: log, Limits: mqtt.Limits{
		ConnectRate: 100_000, ConnectBurst: 100_000, QueueMessages: 1_000_000, QueueBytes: 1 << 30, UnsentBytes: 64 << 20, InflightOut: 40,
	}})
}

// everybody may do everything.
type everybody struct{}

func (everybody) Authenticate(_ context.Context, c bridge.Credentials) (*bridge.Identity, error) {
	return &bridge.Identity{User: c.User, ClientID: c.ClientID, Permissions: everybody{}}, nil
}
func (everybody) Permissions(*bridge.Identity) (bridge.Permissions, bool) { return everybody{}, true }
func (everybody) Allowed(bridge.Action, bridge.Topic) bool                { return true }
func (everybody) Covers(bridge.Filter) bridge.Coverage                    { return bridge.CoversAll }
func (everybody) Explain(bridge.Action, string) (bool, string)            { return true, "" }

// faultyDisk is a file system that fails after some writes and syncs.
type faultyDisk struct {
	vfs.FS
	kind  string
	after int64
	count atomic.Int64
}

// fault is what happens to one operation on a file: to sync it, to write to it, or to make it.
func (d *faultyDisk) fault(operation, name string) error {
	n := d.count.Add(1) - d.after
	if n <= 0 {
		return nil
	}
	log := strings.HasSuffix(name, ".log")
	switch {
	case d.kind == "sync" && operation == "sync" && log, d.kind == "short" && log:
		return syscall.EIO
	case d.kind == "short" && n == 1 && operation == "write":
		return io.ErrShortWrite
	case d.kind == "full" && operation != "sync", d.kind == "tight" && operation != "sync" && !log && n < 300:
		return syscall.ENOSPC
	}
	return nil
}

func (d *faultyDisk) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	if err := d.fault("create", name); err != nil {
		return nil, err
	}
	f, err := d.FS.Create(name, category)
	return d.wrap(name, f), err
}

func (d *faultyDisk) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := d.FS.ReuseForWrite(old, name, category)
	return d.wrap(name, f), err
}

func (d *faultyDisk) wrap(name string, f vfs.File) vfs.File {
	if f == nil {
		return nil
	}
	return &faultyFile{f, d, name}
}

type faultyFile struct {
	vfs.File
	disk *faultyDisk
	name string
}

func (f *faultyFile) Write(p []byte) (int, error) {
	if err := f.disk.fault("write", f.name); err != nil {
		n, _ := f.File.Write(p[:len(p)/2])
		return n, err
	}
	return f.File.Write(p)
}

func (f *faultyFile) Sync() error {
	if err := f.disk.fault("sync", f.name); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *faultyFile) SyncData() error {
	if err := f.disk.fault("sync", f.name); err != nil {
		return err
	}
	return f.File.SyncData()
}
