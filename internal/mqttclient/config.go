package mqttclient

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// Config says how to connect and as whom. Zero values mean the defaults named.
type Config struct {
	URL  string                                                            // see [ParseURL]; not used by [Connect]
	TLS  *tls.Config                                                       // for mqtts; nil: the system's roots
	Dial func(ctx context.Context, network, addr string) (net.Conn, error) // nil: net.Dialer

	Version     wire.Version  // default 5
	ClientID    string        // empty: the server assigns one (3.1 needs one)
	KeepSession bool          // Clean Start or Clean Session 0
	KeepAlive   time.Duration // default 60 s; negative: none. A server's keep alive overrides it
	User        string        // empty: that of the URL
	Password    []byte        // nil: that of the URL
	Will        *wire.Will
	Props       wire.Props // of the CONNECT, MQTT 5: session expiry, receive maximum, topic alias maximum, ...
	Auth        Authenticator
	Session     *Session // nil: a new one that ends with the connection

	// Handler is called with every message, one after the other; nil: use [Client.Receive]. It may use the client, but while
	// it waits nothing is taken from the queue, so a handler that waits for acknowledgements needs a queue with room.
	Handler func(*Message)
	// ManualAck leaves acknowledging to [Message.Ack]. Otherwise a message is acknowledged when Handler or Receive returns.
	ManualAck bool

	Window        int           // own limit on QoS 1 and 2 messages in flight; default 64
	QueueMessages int           // messages received and not yet taken; default 256
	QueueBytes    int           // their bytes; default 16 MiB
	OutBytes      int           // bytes on the way out above which Publish waits; default 1 MiB
	PacketBytes   int           // largest packet accepted, announced in MQTT 5; default 16 MiB
	Timeout       time.Duration // for a write and for the answer to a ping; default 30 s
}

func (c Config) withDefaults() Config {
	set := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	set(&c.Window, 64)
	set(&c.QueueMessages, 256)
	set(&c.QueueBytes, 16<<20)
	set(&c.OutBytes, 1<<20)
	set(&c.PacketBytes, 16<<20)
	if c.Version == 0 {
		c.Version = wire.V5
	}
	if c.KeepAlive == 0 {
		c.KeepAlive = time.Minute
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	return c
}

// Validate reports the first setting that makes no sense.
func (c Config) Validate() error {
	c = c.withDefaults()
	switch {
	case c.Version != wire.V31 && c.Version != wire.V311 && c.Version != wire.V5:
		return fmt.Errorf("version is %s, want 3.1, 3.1.1 or 5", c.Version)
	case c.Version < wire.V5 && len(c.Props) > 0:
		return fmt.Errorf("properties need MQTT 5, version is %s", c.Version)
	case c.Version < wire.V5 && c.Auth != nil:
		return fmt.Errorf("enhanced authentication needs MQTT 5, version is %s", c.Version)
	case c.Version < wire.V5 && c.Will != nil && len(c.Will.Props) > 0:
		return fmt.Errorf("properties of the will need MQTT 5, version is %s", c.Version)
	case c.Version == wire.V31 && c.ClientID == "":
		return errors.New("MQTT 3.1 needs a client id")
	case c.Version == wire.V311 && c.ClientID == "" && c.KeepSession:
		return errors.New("a session that is kept needs a client id")
	case c.Version < wire.V5 && len(c.Password) > 0 && c.User == "":
		return fmt.Errorf("a password without a user needs MQTT 5, version is %s", c.Version)
	case c.KeepAlive > 65535*time.Second:
		return fmt.Errorf("keep alive is %v, want at most 65535s", c.KeepAlive)
	case len(c.ClientID) > 65535 || len(c.User) > 65535 || len(c.Password) > 65535:
		return errors.New("client id, user or password is longer than 65535 bytes")
	case c.Window < 1 || c.QueueMessages < 1 || c.QueueBytes < 1 || c.OutBytes < 1 || c.PacketBytes < 1 || c.Timeout < 0:
		return errors.New("a limit is negative")
	case c.Will != nil && (c.Will.Topic == "" || c.Will.QoS > 2 || len(c.Will.Payload) > 65535):
		return errors.New("the will needs a topic, a QoS of 0 to 2 and at most 65535 bytes")
	}
	return nil
}

// connect is the CONNECT that c asks for.
func (c Config) connect() wire.Connect {
	p := wire.Connect{
		Version: c.Version, Clean: !c.KeepSession, ClientID: c.ClientID, Will: c.Will, User: c.User, Password: c.Password,
		Props: append(wire.Props{}, c.Props...),
	}
	if c.KeepAlive > 0 {
		p.KeepAlive = uint16(max(1, c.KeepAlive/time.Second))
	}
	if c.Version >= wire.V5 && !c.Props.Has(wire.MaximumPacketSize) {
		p.Props = append(p.Props, wire.MaximumPacketSize.Int(uint32(min(c.PacketBytes, wire.MaxVarint))))
	}
	return p
}
