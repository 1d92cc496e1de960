package broker_test

import (
	"context"
	"io"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// v5 makes a statement of MQTT 5.0.
func v5(says string, run func(t *testing.T), ids ...string) statement {
	return statement{version: "5.0", ids: ids, says: says, run: run}
}

// refusedConnect dials, sends packets and expects a CONNACK with the code, no session and the end of the connection.
func (s *server) refusedConnect(t *testing.T, what string, code raw.Code, packets ...raw.Sendable) raw.Packet {
	t.Helper()
	c := raw.Dial(t, s.Addr)
	c.Send(packets...)
	p := c.Expect(raw.CONNACK)
	if p.Code != code || p.SessionPresent {
		t.Errorf("%s: got %s, want code 0x%02X and no session", what, p, byte(code))
	}
	c.ExpectClosed()
	return p
}

// ended connects a client, sends packets and expects a DISCONNECT with the code and the end of the connection.
func (s *server) ended(t *testing.T, what string, code raw.Code, packets ...raw.Sendable) {
	t.Helper()
	c, _ := raw.Open(t, s.Addr, raw.Connect{ClientID: "violates", Clean: true})
	c.Send(packets...)
	if p := c.Expect(raw.DISCONNECT); p.Code != code {
		t.Errorf("%s: got %s, want code 0x%02X", what, p, byte(code))
	}
	c.ExpectClosed()
}

// wantProps compares all properties of a packet. The order counts only among properties of one kind, as in the
// specification.
func wantProps(t testing.TB, p raw.Packet, want ...raw.Property) {
	t.Helper()
	byID := func(a, b raw.Property) int { return int(a.ID) - int(b.ID) }
	got := slices.Clone(p.Props)
	slices.SortStableFunc(got, byID)
	slices.SortStableFunc(want, byID)
	if got.String() != raw.Props(want).String() {
		t.Errorf("%s has properties %s, want %s", p.Type, got, raw.Props(want))
	}
}

// wantPublish compares everything a PUBLISH has but its packet identifier.
func wantPublish(t testing.TB, got raw.Packet, want raw.Publish) {
	t.Helper()
	if got.Type != raw.PUBLISH || got.Topic != want.Topic || got.Text() != want.Payload || got.QoS != want.QoS ||
		got.Retain != want.Retain || got.Dup != want.Dup || (got.ID != 0) != (got.QoS != 0) {
		t.Errorf("got %s, want PUBLISH topic=%q qos=%d dup=%t retain=%t payload=%q", got, want.Topic, want.QoS, want.Dup, want.Retain, want.Payload)
	}
	wantProps(t, got, want.Props...)
}

// readBytes reads exactly n bytes as they came over the wire; nothing decoded may be waiting.
func readBytes(t testing.TB, c *raw.Conn, n int) []byte {
	t.Helper()
	c.Net.SetReadDeadline(time.Now().Add(c.Timeout))
	b := make([]byte, n)
	if _, err := io.ReadFull(c.Net, b); err != nil {
		t.Fatal(err)
	}
	return b
}

// fakeClock is a server in a bubble of package synctest: its clock runs only when everybody waits, so that hours pass at
// once and every interval is exact. Its connections are pipes.
type fakeClock struct {
	*broker.Server
	t   *testing.T
	hub *bridge.Hub
}

// onFakeClock runs test in a bubble.
func onFakeClock(t *testing.T, o options, test func(s *fakeClock)) {
	synctest.Test(t, func(t *testing.T) {
		if o.access == nil {
			o.access = open{}
		}
		hub, err := bridge.New(bridge.Config{Access: o.access, Limits: o.hub})
		if err != nil {
			t.Fatal(err)
		}
		srv, err := broker.New(broker.Config{Hub: hub, Limits: o.limits, Exchanges: o.exchanges})
		if err != nil {
			t.Fatal(err)
		}
		// The hub's housekeeping is left out: it would wake up in every second of the hours, and nothing may depend on it.
		defer func() {
			grace, done := context.WithTimeout(context.Background(), time.Second)
			defer done()
			srv.Shutdown(grace)
		}()
		test(&fakeClock{srv, t, hub})
	})
}

// dial makes a connection.
func (s *fakeClock) dial() *raw.Conn {
	ours, theirs := net.Pipe()
	go s.ServeConn(theirs)
	c := raw.On(s.t, ours)
	c.Timeout = 24 * time.Hour // costs nothing here
	return c
}

// open connects a client.
func (s *fakeClock) open(connect raw.Connect) *raw.Conn {
	c, _ := s.connect(connect)
	return c
}

func (s *fakeClock) connect(connect raw.Connect) (*raw.Conn, raw.Packet) {
	s.t.Helper()
	c := s.dial()
	return c, c.Connected(connect)
}

// pass lets time pass and what is due in it happen.
func (s *fakeClock) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// drop ends a connection as a lost network does, and lets the server notice.
func (s *fakeClock) drop(c *raw.Conn) {
	c.Drop()
	synctest.Wait()
}

// goodbye ends a connection with a DISCONNECT, and lets the server handle it.
func (s *fakeClock) goodbye(c *raw.Conn, d raw.Disconnect) {
	c.Send(d)
	c.Drop()
	synctest.Wait()
}

// present connects, reports whether there was a session, and leaves without ending it.
func (s *fakeClock) present(connect raw.Connect) bool {
	s.t.Helper()
	c, ack := s.connect(connect)
	s.drop(c)
	return ack.SessionPresent
}
