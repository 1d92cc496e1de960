package broker

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
)

// Config is what a [Server] is made of.
type Config struct {
	Name   string       // of the endpoint, in metrics and logs; default "mqtt"
	Hub    *bridge.Hub  // required
	Log    *slog.Logger // default: discard
	Limits Limits       // zero fields mean the defaults

	// Exchanges are the methods of enhanced authentication (MQTT 5 section 4.12) by name, for example "SCRAM-SHA-256". Each
	// call begins one exchange.
	Exchanges map[string]func() Exchange

	// SysInterval is how often the $SYS topics are published; 0 means never.
	SysInterval time.Duration
	// Version is what $SYS/broker/version says.
	Version string
}

// Exchange is one run of an enhanced authentication method.
type Exchange interface {
	// Step takes the client's authentication data and returns what to answer. When done, user is who was proven; data, if
	// any, goes out with the CONNACK or the last AUTH. An error ends the exchange; it carries a bridge.Reason.
	Step(data []byte) (answer []byte, done bool, user string, err error)
}

// Listener says how connections that come in at one address are served.
type Listener struct {
	TLS *tls.Config // nil: plain TCP
}

// Limits bound what MQTT clients may cost. The zero value of a field means its default. Each is announced in CONNACK where
// MQTT 5 has a property for it.
type Limits struct {
	PacketBytes        int           `yaml:"packet_bytes"`         // largest packet, both ways; default 1 MiB
	ConnectBytes       int           `yaml:"connect_bytes"`        // largest packet until CONNECT is accepted; default 64 KiB
	StringBytes        int           `yaml:"string_bytes"`         // content type, reason string, user property; default 4096
	UserProperties     int           `yaml:"user_properties"`      // per packet; default 32
	ClientIDBytes      int           `yaml:"client_id_bytes"`      // default 256
	ConnectTimeout     time.Duration `yaml:"connect_timeout"`      // accept to a complete CONNECT; default 10s
	HandshakeTimeout   time.Duration `yaml:"handshake_timeout"`    // TLS handshake; default 10s
	Handshakes         int           `yaml:"handshakes"`           // unfinished TLS handshakes at a time; default 256 per core
	Connections        int           `yaml:"connections"`          // default 100,000 or what the file limit allows
	ConnectRate        int           `yaml:"connect_rate"`         // new connections per second; default 500
	ConnectBurst       int           `yaml:"connect_burst"`        // default 1000
	ConnectsPerAddress int           `yaml:"connects_per_address"` // new connections of one address in 10 s, loopback excepted; default 200
	MaxKeepAlive       time.Duration `yaml:"max_keep_alive"`       // cap for MQTT 5 clients, 0 included; default 1200s
	InflightOut        int           `yaml:"inflight_out"`         // QoS 1 and 2 towards a client without acknowledgement; default 128
	InflightIn         int           `yaml:"inflight_in"`          // our Receive Maximum; default 256
	QueueMessages      int           `yaml:"queue_messages"`       // per session, offline or behind the window; default 1000
	QueueBytes         int           `yaml:"queue_bytes"`          // per session; default 4 MiB
	UnsentBytes        int           `yaml:"unsent_bytes"`         // per connection; default 1 MiB
	WriteStall         time.Duration `yaml:"write_stall"`          // a peer that takes no byte for so long is closed; default 10s
	SessionExpiry      time.Duration `yaml:"session_expiry"`       // of 3.x sessions, and upper bound for MQTT 5; default 14 days
	FiltersPerPacket   int           `yaml:"filters_per_packet"`   // default 128
	TopicAliasesIn     int           `yaml:"topic_aliases_in"`     // default 32
	TopicAliasesOut    int           `yaml:"topic_aliases_out"`    // default 32
	MaximumQoS         int           `yaml:"maximum_qos"`          // 0, 1 or 2; default 2, so 0 must be written as no_qos
	NoQoS              bool          `yaml:"no_qos"`               // only QoS 0
	NoRetain           bool          `yaml:"no_retain"`            // retained messages are refused
	NoWildcards        bool          `yaml:"no_wildcards"`         // wildcard subscriptions are refused
	NoShared           bool          `yaml:"no_shared"`            // shared subscriptions are refused
}

// DefaultLimits are the limits that hold where nothing is configured.
func DefaultLimits() Limits {
	return Limits{
		PacketBytes: 1 << 20, ConnectBytes: 64 << 10, StringBytes: 4096, UserProperties: 32, ClientIDBytes: 256,
		ConnectTimeout: 10 * time.Second, HandshakeTimeout: 10 * time.Second, Handshakes: 256 * cores(),
		Connections: 100_000, ConnectRate: 500, ConnectBurst: 1000, ConnectsPerAddress: 200,
		MaxKeepAlive: 1200 * time.Second, InflightOut: 128, InflightIn: 256,
		QueueMessages: 1000, QueueBytes: 4 << 20, UnsentBytes: 1 << 20, WriteStall: 10 * time.Second,
		SessionExpiry: 14 * 24 * time.Hour, FiltersPerPacket: 128, TopicAliasesIn: 32, TopicAliasesOut: 32, MaximumQoS: 2,
	}
}

// WithDefaults fills every zero field.
func (l Limits) WithDefaults() Limits {
	d := DefaultLimits()
	for _, f := range []struct {
		field *int
		value int
	}{
		{&l.PacketBytes, d.PacketBytes}, {&l.ConnectBytes, d.ConnectBytes}, {&l.StringBytes, d.StringBytes},
		{&l.UserProperties, d.UserProperties}, {&l.ClientIDBytes, d.ClientIDBytes}, {&l.Handshakes, d.Handshakes},
		{&l.Connections, d.Connections}, {&l.ConnectRate, d.ConnectRate}, {&l.ConnectBurst, d.ConnectBurst},
		{&l.ConnectsPerAddress, d.ConnectsPerAddress}, {&l.InflightOut, d.InflightOut}, {&l.InflightIn, d.InflightIn},
		{&l.QueueMessages, d.QueueMessages}, {&l.QueueBytes, d.QueueBytes}, {&l.UnsentBytes, d.UnsentBytes},
		{&l.FiltersPerPacket, d.FiltersPerPacket}, {&l.TopicAliasesIn, d.TopicAliasesIn},
		{&l.TopicAliasesOut, d.TopicAliasesOut}, {&l.MaximumQoS, d.MaximumQoS},
	} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&l.ConnectTimeout, d.ConnectTimeout}, {&l.HandshakeTimeout, d.HandshakeTimeout}, {&l.MaxKeepAlive, d.MaxKeepAlive},
		{&l.WriteStall, d.WriteStall}, {&l.SessionExpiry, d.SessionExpiry},
	} {
		if *f.field == 0 {
			*f.field = f.value
		}
	}
	if l.NoQoS {
		l.MaximumQoS = 0
	}
	return l
}

// Validate reports the first limit that makes no sense.
func (l Limits) Validate() error {
	l = l.WithDefaults()
	switch {
	case l.MaximumQoS < 0 || l.MaximumQoS > 2:
		return fmt.Errorf("maximum_qos is %d, want 0, 1 or 2", l.MaximumQoS)
	case l.InflightIn < 1 || l.InflightIn > 65535:
		return fmt.Errorf("inflight_in is %d, want 1 to 65535", l.InflightIn)
	case l.InflightOut < 1 || l.InflightOut > 32767:
		return fmt.Errorf("inflight_out is %d, want 1 to 32767", l.InflightOut)
	case l.PacketBytes < 128 || l.PacketBytes > 268_435_455:
		return fmt.Errorf("packet_bytes is %d, want 128 to 268435455", l.PacketBytes)
	case l.ConnectBytes > l.PacketBytes:
		return errors.New("connect_bytes is above packet_bytes")
	case l.ClientIDBytes < 23:
		return fmt.Errorf("client_id_bytes is %d, want at least 23 (MQTT-3.1.3-5)", l.ClientIDBytes)
	case l.MaxKeepAlive < time.Second || l.MaxKeepAlive > 65535*time.Second:
		return fmt.Errorf("max_keep_alive is %s, want 1s to 65535s", l.MaxKeepAlive)
	case l.TopicAliasesIn > 65535 || l.TopicAliasesOut > 65535:
		return errors.New("topic aliases are at most 65535")
	case min(l.ConnectBytes, l.StringBytes, l.UserProperties, l.Handshakes, l.Connections, l.ConnectRate, l.ConnectBurst,
		l.ConnectsPerAddress, l.QueueMessages, l.QueueBytes, l.UnsentBytes, l.FiltersPerPacket, l.TopicAliasesIn, l.TopicAliasesOut) < 0,
		min(l.ConnectTimeout, l.HandshakeTimeout, l.WriteStall, l.SessionExpiry) < 0:
		return errors.New("a limit is below 0")
	}
	return nil
}
