package broker_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/bridge/bridgetest"
	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/mqttclient"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// The endpoint keeps the hub's promises: in the words of MQTT 3.1.1, where a PUBACK cannot refuse, in those of MQTT 5, and
// over TLS, where a goroutine reads each connection on every system.

func TestTheContractInMQTT311(t *testing.T) {
	bridgetest.TestEndpoint(t, contract{version: wire.V311}.start)
}

func TestTheContractInMQTT5(t *testing.T) {
	bridgetest.TestEndpoint(t, contract{version: wire.V5}.start)
}

func TestTheContractOverTLS(t *testing.T) {
	bridgetest.TestEndpoint(t, contract{version: wire.V5, tls: selfSigned(t)}.start)
}

// contract is the endpoint as clients of one kind see it.
type contract struct {
	version wire.Version
	tls     *tls.Config
}

func (k contract) start(t testing.TB, hub *bridge.Hub) bridgetest.Endpoint {
	limits := broker.Limits{
		PacketBytes: 64 << 10, ConnectBytes: 4 << 10, QueueBytes: 256 << 10, QueueMessages: 2000,
		// The suite sends 128 KiB at a time to one who reads, and what was written may count for a moment longer.
		UnsentBytes: 512 << 10,
	}
	srv, err := broker.New(broker.Config{Hub: hub, Limits: limits})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	served.Go(func() {
		if err := srv.Serve(ctx, ln, broker.Listener{TLS: k.tls}); err != nil {
			t.Error(err)
		}
	})
	return bridgetest.Endpoint{
		Name: srv.Name(),
		Dial: func(ctx context.Context, o bridgetest.DialOptions) (bridgetest.Peer, error) {
			return k.dial(ctx, ln.Addr().String(), o)
		},
		Stop: func(grace time.Duration) error {
			cancel()
			ctx, cancel := context.WithTimeout(context.Background(), grace)
			defer cancel()
			err := srv.Shutdown(ctx)
			served.Wait()
			if errors.Is(err, context.DeadlineExceeded) { // somebody had to be cut off
				return nil
			}
			return err
		},
		Code:    k.code,
		QoS:     []bridge.QoS{0, 1, 2},
		Backlog: limits.UnsentBytes + limits.QueueBytes,
		// The limit is one on packets: fixed header, topic and packet identifier are in it.
		MaxPayload: limits.PacketBytes - 150,
		Passwords:  true, Sessions: true, Retained: true, NoEcho: k.version == wire.V5,
	}
}

// code is the table of reasons. All that MQTT 3.1.1 has for a refusal that is no end of the connection is 0x80 in a SUBACK.
func (k contract) code(r bridge.Reason) uint32 {
	switch {
	case k.version < wire.V5 && broker.SubscribeCode(r) >= 0x80:
		return 0x80
	case r == bridge.BadFilter:
		return uint32(broker.SubscribeCode(r))
	}
	return uint32(broker.PublishCode(r))
}

func (k contract) dial(ctx context.Context, addr string, o bridgetest.DialOptions) (bridgetest.Peer, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	// A fixed size: the kernel would let the buffer grow to more than a stalled client is to miss.
	_ = nc.(*net.TCPConn).SetReadBuffer(256 << 10)
	if k.tls != nil {
		nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	}
	p := &mqttPeer{version: k.version, conn: &stallable{Conn: nc}, came: make(chan struct{}, 1)}
	cfg := mqttclient.Config{
		Version: k.version, ClientID: o.ID, User: o.User, Password: []byte(o.Password), KeepSession: o.Keep, Handler: p.take,
	}
	if o.Keep && k.version == wire.V5 {
		cfg.Props = wire.Props{wire.SessionExpiry.Int(3600)}
	}
	if p.Client, err = mqttclient.Connect(ctx, p.conn, cfg); err != nil {
		return nil, err
	}
	return p, nil
}

// mqttPeer is a client that takes every message at once, unless it is stalled.
type mqttPeer struct {
	*mqttclient.Client
	version wire.Version
	conn    *stallable

	mu   sync.Mutex
	got  []bridge.Message
	came chan struct{} // holds a token when something has come
}

func (p *mqttPeer) take(m *mqttclient.Message) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got = append(p.got, bridge.Message{Topic: bridge.Topic(m.Topic), Payload: m.Payload, QoS: bridge.QoS(m.QoS), Retain: m.Retain})
	select {
	case p.came <- struct{}{}:
	default:
	}
}

func (p *mqttPeer) next() (m bridge.Message, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.got) == 0 {
		return m, false
	}
	m, p.got = p.got[0], p.got[1:]
	return m, true
}

func (p *mqttPeer) Receive(ctx context.Context) (bridge.Message, error) {
	for {
		if m, ok := p.next(); ok {
			return m, nil
		}
		select {
		case <-p.came:
		case <-p.Done():
			p.Client.Close() // waits for the handler
			if m, ok := p.next(); ok {
				return m, nil
			}
			return bridge.Message{}, p.Err()
		case <-ctx.Done():
			return bridge.Message{}, ctx.Err()
		}
	}
}

func (p *mqttPeer) Publish(ctx context.Context, m bridge.Message) error {
	_, err := p.Client.Publish(ctx, mqttclient.Publication{Topic: string(m.Topic), Payload: m.Payload, QoS: byte(m.QoS), Retain: m.Retain})
	if err != nil && !errors.As(err, new(*mqttclient.Refused)) && p.Err() == nil && ctx.Err() == nil {
		return p.insist(ctx, m)
	}
	return refused(err)
}

// insist sends what the client refuses to send, which the server answers by closing.
func (p *mqttPeer) insist(ctx context.Context, m bridge.Message) error {
	packet := wire.Publish{Topic: string(m.Topic), Payload: m.Payload, QoS: byte(m.QoS), Retain: m.Retain, ID: 65535}
	if _, err := p.conn.Write(packet.Append(nil, p.version)); err != nil {
		return err
	}
	select {
	case <-p.Done():
		return p.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (p *mqttPeer) Subscribe(ctx context.Context, s bridgetest.Subscription) error {
	_, err := p.Client.Subscribe(ctx, nil, wire.Filter{Filter: s.Filter, QoS: byte(s.QoS), NoLocal: s.NoEcho})
	return refused(err)
}

func refused(err error) error {
	var r *mqttclient.Refused
	if errors.As(err, &r) {
		return &bridgetest.Refused{Code: uint32(r.Code)}
	}
	return err
}

func (p *mqttPeer) Stall() {
	gate := make(chan struct{})
	p.conn.gate.Store(&gate)
}

func (p *mqttPeer) Resume() { p.conn.resume() }

func (p *mqttPeer) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = p.Disconnect(ctx, 0, nil)
	return nil
}

func (p *mqttPeer) Abort() error {
	p.Client.Close()
	return nil
}

// stallable is a connection that can stop reading.
type stallable struct {
	net.Conn
	gate atomic.Pointer[chan struct{}]
}

func (c *stallable) Read(b []byte) (int, error) {
	if gate := c.gate.Load(); gate != nil {
		<-*gate
	}
	return c.Conn.Read(b)
}

func (c *stallable) CloseWrite() error {
	return c.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

func (c *stallable) Close() error {
	err := c.Conn.Close()
	c.resume()
	return err
}

func (c *stallable) resume() {
	if gate := c.gate.Swap(nil); gate != nil {
		close(*gate)
	}
}
