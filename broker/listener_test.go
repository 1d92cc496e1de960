package broker_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"testing"

	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

func TestClientsOfAClosedListenerAreSentAway(t *testing.T) {
	for name, config := range map[string]*tls.Config{"TCP": nil, "TLS": selfSigned(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, options{})
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			served := make(chan error, 1)
			go func() { served <- s.Serve(ctx, ln, broker.Listener{TLS: config}) }()
			dial := func() *raw.Conn {
				nc, err := net.Dial("tcp", ln.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				if config != nil {
					nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
				}
				return raw.On(t, nc)
			}
			connect := func(p raw.Connect) *raw.Conn {
				c := dial()
				c.Connected(p)
				return c
			}

			stays := s.open(raw.Connect{ClientID: "stays", Clean: true})
			stays.Subscribe(1, "will")
			gone := connect(raw.Connect{ClientID: "gone", Clean: true, Will: &raw.Will{Topic: "will", Payload: "closed"}})
			kept := connect(raw.Connect{ClientID: "kept", Props: raw.Props{raw.SessionExpiry.Int(100)}})
			kept.Subscribe(1, "queued")
			old := connect(raw.Connect{Version: raw.V311, ClientID: "old", Clean: true})
			early := dial()
			early.Send(raw.Bytes{0x10}) // the first byte of a CONNECT, and no more
			eventually(t, func() error {
				if n := s.stats().Connections; n != 5 {
					return fmt.Errorf("%d connections, want 5", n)
				}
				return nil
			})

			cancel()
			if err := <-served; err != nil {
				t.Error(err)
			}
			gone.Quiet() // nothing happens by itself
			if n := s.SendAway(ln); n != 4 {
				t.Errorf("%d were sent away, want 4", n)
			}
			for _, c := range []*raw.Conn{gone, kept} {
				p := c.ExpectDisconnect(0x98)
				if got := p.Props.Text(raw.ReasonString); got != "listener closed" {
					t.Errorf("the reason is %q", got)
				}
			}
			old.ExpectClosed()
			early.ExpectClosed()
			stays.ExpectPublish("will", "closed")
			stays.Publish(raw.Publish{Topic: "queued", Payload: "x", QoS: 1, ID: 1})
			stays.Quiet()
			back := s.open(raw.Connect{ClientID: "kept", Props: raw.Props{raw.SessionExpiry.Int(100)}})
			back.ExpectPublish("queued", "x")
		})
	}
}
