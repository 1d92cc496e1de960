package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// link is one connection with its read buffer.
type link struct {
	nc             net.Conn
	version        wire.Version
	buf            []byte
	start, end     int // of what is read and not yet handled
	receiveMaximum int
}

// target is a broker as it is dialled.
type target struct {
	url  mqttclient.URL
	cfg  Config
	kept bool // sessions outlive their connections
}

// with is the target with a difference.
func (t target) with(differ func(*target)) target {
	differ(&t)
	return t
}

// readBuffer is the size of a connection's read buffer.
const readBuffer = 32 << 10

// dial connects and waits for the CONNACK.
func (t target) dial(ctx context.Context, id string) (*link, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", t.url.Host)
	if err != nil {
		return nil, err
	}
	if t.url.TLS {
		cfg := t.cfg.TLS.Clone()
		if cfg == nil {
			cfg = new(tls.Config)
		}
		if cfg.ServerName == "" {
			cfg.ServerName, _, _ = net.SplitHostPort(t.url.Host)
		}
		nc = tls.Client(nc, cfg)
	}
	l := &link{nc: nc, version: t.cfg.Version, buf: make([]byte, 256)}
	nc.SetDeadline(time.Now().Add(30 * time.Second))
	connect := wire.Connect{Version: t.cfg.Version, ClientID: id, Clean: !t.kept, User: t.url.User, Password: []byte(t.url.Password)}
	if t.kept && t.cfg.Version >= wire.V5 {
		connect.Props = wire.Props{wire.SessionExpiry.Int(3600)}
	}
	p, err := l.ask(connect.Append(nil), wire.CONNACK)
	if err == nil && p.Code != 0 {
		err = &mqttclient.Refused{Packet: wire.CONNACK, Version: t.cfg.Version, Code: p.Code, Props: p.Props}
	}
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("connecting: %w", err)
	}
	l.receiveMaximum = int(p.Props.IntOr(wire.ReceiveMaximum, 65535))
	nc.SetDeadline(time.Time{})
	return l, nil
}

// subscribe subscribes to filters and waits for the SUBACK.
func (l *link) subscribe(qos byte, filters ...string) error {
	s := wire.Subscribe{ID: 1}
	for _, f := range filters {
		s.Filters = append(s.Filters, wire.Filter{Filter: f, QoS: qos})
	}
	l.nc.SetDeadline(time.Now().Add(30 * time.Second))
	defer l.nc.SetDeadline(time.Time{})
	p, err := l.ask(s.Append(nil, l.version), wire.SUBACK)
	if err != nil {
		return fmt.Errorf("subscribing: %w", err)
	}
	for i, code := range p.Codes {
		if code != wire.Code(qos) {
			return &mqttclient.Refused{Packet: wire.SUBACK, Version: l.version, Code: code, Filter: filters[i]}
		}
	}
	return nil
}

// ask writes a packet and returns the next one, which must be of type want.
func (l *link) ask(b []byte, want wire.Type) (wire.Packet, error) {
	if _, err := l.nc.Write(b); err != nil {
		return wire.Packet{}, err
	}
	for {
		header, body, size, err := wire.Next(l.buf[l.start:l.end])
		if err != nil {
			return wire.Packet{}, err
		}
		if size > 0 {
			l.start += size
			p, err := wire.Decode(l.version, header, append([]byte(nil), body...))
			if err == nil && p.Type != want {
				err = fmt.Errorf("want %s, got %s", want, p)
			}
			return p, err
		}
		if err := l.fill(); err != nil {
			return wire.Packet{}, err
		}
	}
}

// fill reads once. What is not yet handled is moved to the front, and the buffer grows when one frame does not fit.
func (l *link) fill() error {
	if l.start > 0 {
		l.end = copy(l.buf, l.buf[l.start:l.end])
		l.start = 0
	}
	if l.end == len(l.buf) {
		l.buf = append(l.buf, make([]byte, len(l.buf))...)
	}
	n, err := l.nc.Read(l.buf[l.end:])
	l.end += n
	if n > 0 {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return errors.New("closed by the broker")
	}
	return err
}

// batch reads once and calls take for every whole frame.
func (l *link) batch(take func(header byte, body []byte) error) error {
	if err := l.fill(); err != nil {
		return err
	}
	for {
		header, body, size, err := wire.Next(l.buf[l.start:l.end])
		if err != nil {
			return err
		}
		if size == 0 {
			return nil
		}
		l.start += size
		if err := take(header, body); err != nil {
			return err
		}
	}
}

// enlarge prepares the link for traffic.
func (l *link) enlarge() {
	if len(l.buf) < readBuffer {
		l.buf = append(l.buf, make([]byte, readBuffer-len(l.buf))...)
	}
}

// bye sends a DISCONNECT and closes.
func (l *link) bye() {
	l.nc.SetWriteDeadline(time.Now().Add(time.Second))
	l.nc.Write(wire.Disconnect{}.Append(nil, l.version))
	l.nc.Close()
}

// unexpected describes a packet that has no business here.
func (l *link) unexpected(header byte, body []byte) error {
	p, err := wire.Decode(l.version, header, body)
	if err != nil {
		return err
	}
	return fmt.Errorf("unexpected %s", p)
}
