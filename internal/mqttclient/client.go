package mqttclient

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// Client is one connection to a server. It is safe for concurrent use. When [Client.Done] is closed it is of no further use;
// dial again, with the same [Session] if that is to go on.
type Client struct {
	cfg     Config
	conn    net.Conn
	version wire.Version
	server  Server
	id      string
	session *Session

	out   *outbox
	in    *inbox
	acks  ackQueue
	slots chan struct{} // one for each QoS 1 or 2 message that may be in flight

	mu      sync.Mutex
	waiting map[uint16]chan wire.Packet // SUBSCRIBE and UNSUBSCRIBE
	err     error
	leaving bool // DISCONNECT is sent, what the peer does now is no news

	resumed  chan struct{} // closed when everything unfinished has been sent again
	auths    chan wire.Packet
	reauth   sync.Mutex
	received atomic.Int64 // time of the last packet
	done     chan struct{}
	ended    sync.WaitGroup
}

// Server is what the server said about itself in the CONNACK.
type Server struct {
	SessionPresent bool
	Props          wire.Props
	ReceiveMaximum int           // default 65535
	MaximumQoS     byte          // default 2
	PacketBytes    int           // Maximum Packet Size; default [wire.MaxVarint]
	KeepAlive      time.Duration // what holds: the server's, or what the client asked for; 0: none
}

// Dial connects to cfg.URL over TCP or TLS and sends the CONNECT. ctx bounds all of it and has no effect afterwards.
func Dial(ctx context.Context, cfg Config) (*Client, error) {
	u, err := ParseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	if cfg.User == "" {
		cfg.User = u.User
	}
	if cfg.Password == nil && u.Password != "" {
		cfg.Password = []byte(u.Password)
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	dial := cfg.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	conn, err := dial(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	if u.TLS {
		tlsConfig := cfg.TLS.Clone()
		if tlsConfig == nil {
			tlsConfig = new(tls.Config)
		}
		if tlsConfig.ServerName == "" {
			tlsConfig.ServerName, _, _ = net.SplitHostPort(u.Host)
		}
		secure := tls.Client(conn, tlsConfig)
		if err := secure.HandshakeContext(ctx); err != nil {
			conn.Close()
			return nil, fmt.Errorf("TLS: %w", err)
		}
		conn = secure
	}
	return Connect(ctx, conn, cfg)
}

// Connect sends the CONNECT over conn, which belongs to the client from now on, and waits for the CONNACK. A refusal is a
// [*Refused].
func Connect(ctx context.Context, conn net.Conn, cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		conn.Close()
		return nil, err
	}
	cfg = cfg.withDefaults()
	c := &Client{
		cfg: cfg, conn: conn, version: cfg.Version, session: cfg.Session, waiting: make(map[uint16]chan wire.Packet),
		resumed: make(chan struct{}), auths: make(chan wire.Packet, 1), done: make(chan struct{}),
	}
	if c.session == nil {
		c.session = NewSession()
		c.session.ends = true
	}
	c.out, c.in = newOutbox(cfg.OutBytes), newInbox(cfg.QueueMessages, cfg.QueueBytes)

	// A conn knows deadlines but no contexts: the end of ctx becomes a deadline that has passed.
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	r := bufio.NewReaderSize(conn, 16<<10)
	ack, err := c.handshake(r)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		if cause := ctx.Err(); cause != nil {
			err = cause
		}
		return nil, fmt.Errorf("connecting: %w", err)
	}
	c.accept(ack)
	c.session.begin(c)
	c.ended.Go(func() { c.read(r) })
	c.ended.Go(func() { c.out.run(c) })
	c.ended.Go(func() { c.session.resume(c) })
	if c.server.KeepAlive > 0 {
		c.ended.Go(c.keepAlive)
	}
	if cfg.Handler != nil {
		c.ended.Go(c.handle)
	}
	return c, nil
}

// handshake sends the CONNECT, answers AUTH packets and returns the CONNACK.
func (c *Client) handshake(r *bufio.Reader) (wire.Packet, error) {
	p, auth := c.cfg.connect(), c.cfg.Auth
	if auth != nil {
		data, err := auth.Start()
		if err != nil {
			return wire.Packet{}, err
		}
		p.Props = append(p.Props, authProps(auth, data)...)
	}
	frame := p.Append(nil)
	for {
		if _, err := c.conn.Write(frame); err != nil {
			return wire.Packet{}, err
		}
		header, body, err := wire.ReadFrame(r, c.cfg.PacketBytes)
		if err != nil {
			return wire.Packet{}, err
		}
		got, err := wire.Decode(c.version, header, body)
		switch {
		case err != nil:
			return got, err
		case got.Type == wire.CONNACK && got.Code != 0:
			return got, &Refused{Packet: wire.CONNACK, Version: c.version, Code: got.Code, Props: got.Props}
		case got.Type == wire.CONNACK && auth != nil:
			return got, auth.Finish(got.Props.Bytes(wire.AuthData))
		case got.Type == wire.CONNACK:
			return got, nil
		case got.Type == wire.AUTH && got.Code == 0x18 && auth != nil:
			data, err := auth.Continue(got.Props.Bytes(wire.AuthData))
			if err != nil {
				return got, err
			}
			frame = wire.Auth{Code: 0x18, Props: authProps(auth, data)}.Append(nil)
		default:
			return got, fmt.Errorf("want CONNACK, got %s", got.Type)
		}
	}
}

// accept takes over what the CONNACK says.
func (c *Client) accept(ack wire.Packet) {
	ps := ack.Props
	c.server = Server{
		SessionPresent: ack.SessionPresent, Props: ps,
		ReceiveMaximum: int(ps.IntOr(wire.ReceiveMaximum, 65535)),
		MaximumQoS:     byte(ps.IntOr(wire.MaximumQoS, 2)),
		PacketBytes:    int(ps.IntOr(wire.MaximumPacketSize, wire.MaxVarint)),
		KeepAlive:      max(0, c.cfg.KeepAlive),
	}
	if ps.Has(wire.ServerKeepAlive) {
		c.server.KeepAlive = time.Duration(ps.Int(wire.ServerKeepAlive)) * time.Second
	}
	c.id = c.cfg.ClientID
	if assigned := ps.Text(wire.AssignedClientID); assigned != "" {
		c.id = assigned
	}
	c.slots = make(chan struct{}, max(1, min(c.server.ReceiveMaximum, c.cfg.Window)))
	c.acks.limit = int(c.cfg.Props.IntOr(wire.ReceiveMaximum, 65535))
	c.received.Store(time.Now().UnixNano())
	c.out.sent.Store(time.Now().UnixNano())
}

// Server tells what the server said in its CONNACK.
func (c *Client) Server() Server { return c.server }

// ClientID is the client's name, also where the server assigned it.
func (c *Client) ClientID() string { return c.id }

// Done is closed when the connection has ended; [Client.Err] tells why.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err is why the connection has ended: [ErrClosed] if this side did it, nil as long as it lives.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// fail ends the connection. The first cause counts.
func (c *Client) fail(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	if c.leaving && errors.Is(err, errHungUp) {
		err = ErrClosed
	}
	c.err = err
	c.mu.Unlock()
	close(c.done)
	c.conn.Close()
	if c.session.ends {
		c.session.end(fmt.Errorf("%w: %w", ErrLost, err))
	}
}

// Close drops the connection without a word; a server will send the will. It returns when nothing of the client runs any
// more, a Handler included.
func (c *Client) Close() {
	c.fail(ErrClosed)
	c.ended.Wait()
}

// Disconnect sends what is still on its way out and a DISCONNECT, waits until the server closes, at most until ctx ends, and
// closes. In MQTT 5 code and props (session expiry, reason string) go with it. It must not be called from a Handler.
func (c *Client) Disconnect(ctx context.Context, code wire.Code, props wire.Props) error {
	p := wire.Disconnect{Code: code, Props: props}
	c.mu.Lock()
	c.leaving = true
	c.mu.Unlock()
	err := c.out.put(ctx, c, func(b []byte) []byte { return p.Append(b, c.version) })
	if err == nil {
		err = c.out.flush(ctx, c)
	}
	if err == nil {
		// A close with unread input is a reset, and a reset may overtake what was sent. So the sending half is closed, and the
		// rest when the server has done the same.
		if half, ok := c.conn.(interface{ CloseWrite() error }); ok {
			half.CloseWrite()
		}
		timer := time.NewTimer(goodbye)
		defer timer.Stop()
		select {
		case <-c.done:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	c.Close()
	return err
}

// goodbye is how long a server has to close after a DISCONNECT.
const goodbye = 2 * time.Second
