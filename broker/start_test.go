package broker_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
	"github.com/isthmus-iot/isthmus/internal/store"
)

// server is a running endpoint with its hub, on a port of its own.
type server struct {
	*broker.Server
	Hub   *bridge.Hub
	Store *store.Store // nil: there is none
	Addr  string
	t     testing.TB
	stop  func()
}

// options change what start starts; nil fields are as by default.
type options struct {
	limits    broker.Limits
	hub       bridge.Limits
	access    bridge.Access
	exchanges map[string]func() broker.Exchange
	sys       time.Duration
	log       *slog.Logger
	tls       *tls.Config
	store     vfs.FS // where sessions are stored; nil: in memory

	storeLimit int64 // bytes; 0: the default
}

// start runs a server until the test ends, and then checks that nothing of it is left.
func start(t testing.TB, o options) *server {
	t.Helper()
	if o.access == nil {
		o.access = open{}
	}
	hub, err := bridge.New(bridge.Config{Access: o.access, Limits: o.hub, Log: o.log})
	if err != nil {
		t.Fatal(err)
	}
	srv, err := broker.New(broker.Config{Hub: hub, Limits: o.limits, Exchanges: o.exchanges, SysInterval: o.sys, Version: "test", Log: o.log})
	if err != nil {
		t.Fatal(err)
	}
	kept := keepIn(t, o, hub, srv)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	pprof.Do(ctx, pprof.Labels("server", ln.Addr().String()), func(ctx context.Context) {
		wg.Go(func() { hub.Run(ctx) })
		wg.Go(func() { srv.Run(ctx) })
		wg.Go(func() { srv.Serve(ctx, ln, broker.Listener{TLS: o.tls}) })
	})
	s := &server{Server: srv, Hub: hub, Store: kept, Addr: ln.Addr().String(), t: t}
	s.stop = sync.OnceFunc(func() {
		cancel()
		grace, done := context.WithTimeout(context.Background(), 3*time.Second)
		defer done()
		srv.Shutdown(grace)
		wg.Wait()
		if kept != nil {
			kept.Close()
		}
	})
	t.Cleanup(func() {
		s.stop()
		noLeak(t, s.Addr)
	})
	return s
}

// everythingStored has every test run with a store: what clients see must not depend on it.
var everythingStored = os.Getenv("BROKER_TEST_STORE") != ""

// keepIn gives a server a store.
func keepIn(t testing.TB, o options, hub *bridge.Hub, srv *broker.Server) *store.Store {
	t.Helper()
	fs := o.store
	if fs == nil {
		if !everythingStored {
			return nil
		}
		fs = vfs.NewMem()
	}
	kept, err := store.Open(store.Config{Dir: "store", FS: fs, Limit: o.storeLimit, Notify: hub.Stored})
	if err != nil {
		t.Fatal(err)
	}
	if err := hub.UseStore(kept); err != nil {
		t.Fatal(err)
	}
	if err := srv.Restore(kept); err != nil {
		t.Fatal(err)
	}
	return kept
}

// noLeak waits until no goroutine is left of the server at addr. Goroutines inherit the label of whoever starts them, so
// those of tests that run at the same time do not count.
func noLeak(t testing.TB, addr string) {
	eventually(t, func() error {
		var all strings.Builder
		if err := pprof.Lookup("goroutine").WriteTo(&all, 1); err != nil {
			return err
		}
		for entry := range strings.SplitSeq(all.String(), "\n\n") {
			if strings.Contains(entry, fmt.Sprintf("%q", addr)) {
				return fmt.Errorf("goroutines are left:\n%s", entry)
			}
		}
		return nil
	})
}

// eventually polls until check is content.
func eventually(t testing.TB, check func() error) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// open connects a client of the given version; its client id is the test's unless connect has one.
func (s *server) open(connect raw.Connect) *raw.Conn {
	s.t.Helper()
	c, _ := raw.Open(s.t, s.Addr, connect)
	return c
}

// stats reads the endpoint's counters.
func (s *server) stats() bridge.EndpointStats {
	for _, e := range s.Hub.Stats().Endpoints {
		if e.Name == s.Name() {
			return e
		}
	}
	s.t.Fatal("no counters")
	panic("unreachable")
}

// open lets everybody do everything.
type open struct{}

func (open) Authenticate(_ context.Context, c bridge.Credentials) (*bridge.Identity, error) {
	user := c.User
	if c.Proven != "" {
		user = c.Proven
	}
	return &bridge.Identity{User: user, ClientID: c.ClientID, Permissions: open{}}, nil
}
func (open) Permissions(*bridge.Identity) (bridge.Permissions, bool) { return open{}, true }
func (open) Allowed(bridge.Action, bridge.Topic) bool                { return true }
func (open) Covers(bridge.Filter) bridge.Coverage                    { return bridge.CoversAll }
func (open) Explain(bridge.Action, string) (bool, string)            { return true, "everybody may do everything" }

// fenced lets clients without a password do everything but below "secret/"; a user "bad" is not let in.
type fenced struct{}

func (fenced) Authenticate(_ context.Context, c bridge.Credentials) (*bridge.Identity, error) {
	if c.User == "bad" {
		return nil, bridge.Refuse(bridge.Unauthenticated, "wrong password")
	}
	return &bridge.Identity{User: c.User, ClientID: c.ClientID, Permissions: fenced{}}, nil
}
func (fenced) Permissions(*bridge.Identity) (bridge.Permissions, bool) { return fenced{}, true }
func (fenced) Allowed(_ bridge.Action, t bridge.Topic) bool {
	return !strings.HasPrefix(string(t), "secret/")
}
func (fenced) Covers(f bridge.Filter) bridge.Coverage {
	switch {
	case bridge.Filter("secret/#").Covers(f):
		return bridge.CoversNone
	case bridge.Filter("secret/#").Overlaps(f):
		return bridge.CoversPart
	}
	return bridge.CoversAll
}
func (p fenced) Explain(_ bridge.Action, t string) (bool, string) {
	return p.Allowed(0, bridge.Topic(t)), "secret/ is fenced"
}
