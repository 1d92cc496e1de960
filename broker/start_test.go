package broker_test

import (
	"context"
	"net"
	"os"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/broker"
)

// open lets everybody do everything.
type open struct{}

func (open) Authenticate(_ context.Context, c bridge.Credentials) (*bridge.Identity, error) {
	return &bridge.Identity{User: c.User, ClientID: c.ClientID, Permissions: open{}}, nil
}
func (open) Permissions(*bridge.Identity) (bridge.Permissions, bool) { return open{}, true }
func (open) Allowed(bridge.Action, bridge.Topic) bool                { return true }
func (open) Covers(bridge.Filter) bridge.Coverage                    { return bridge.CoversAll }
func (open) Explain(bridge.Action, string) (bool, string)            { return true, "everybody may do everything" }

func TestManual(t *testing.T) {
	addr := os.Getenv("MANUAL")
	if addr == "" {
		t.Skip("manual")
	}
	hub, err := bridge.New(bridge.Config{Access: open{}, Limits: bridge.Limits{Subscriptions: 1000000}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := broker.New(broker.Config{Hub: hub, SysInterval: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	go s.Run(context.Background())
	t.Fatal(s.Serve(context.Background(), ln, broker.Listener{}))
}
