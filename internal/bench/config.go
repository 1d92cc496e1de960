package bench

import (
	"crypto/tls"
	"fmt"
	"slices"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// Mode is the shape of the load.
type Mode string

// The modes.
const (
	Pair    Mode = "pair"    // N publishers, each with a subscriber of its own
	FanOut  Mode = "fan-out" // one publisher, N subscribers
	FanIn   Mode = "fan-in"  // N publishers, one subscriber with a wildcard
	Idle    Mode = "idle"    // N connections with one subscription each that do nothing
	Connect Mode = "connect" // N connections at a time come, say hello and go
	Latency Mode = "latency" // pairs at a fixed rate
	Offline Mode = "offline" // N publishers at QoS 1, each to a kept session whose client is away; acknowledgements are measured
)

// Modes lists them.
func Modes() []Mode { return []Mode{Pair, FanOut, FanIn, Idle, Connect, Latency, Offline} }

// Config is one run. Zero values mean the defaults named.
type Config struct {
	Mode       Mode          // default pair
	Clients    int           // N; default 100
	QoS        byte          // of publishing and subscribing
	Size       int           // bytes of payload; default 64, at least 16
	Duration   time.Duration // measured; default 10 s. Idle: how long connections are held before memory is read
	Messages   int64         // deliveries to measure instead of Duration
	Warmup     time.Duration // before measuring; default 1 s, negative: none
	Window     int           // messages in flight per publisher; default 16, at least Batch
	Batch      int           // messages per write; default 1
	Rate       int           // messages per second of all publishers. Mode latency: default 1000; mode offline: 0 is as fast as acknowledgements come
	Version    wire.Version  // default 3.1.1
	Bystanders int           // extra subscriptions on topics nobody publishes to, 1000 per connection
	Stall      time.Duration // without any delivery for so long the run fails; default 10 s
	TLS        *tls.Config
}

// bystandersPerConnection stays within what brokers commonly allow one client.
const bystandersPerConnection = 1000

// WithDefaults fills every zero field.
func (c Config) WithDefaults() Config {
	set := func(field *int, value int) {
		if *field == 0 {
			*field = value
		}
	}
	set(&c.Clients, 100)
	set(&c.Size, 64)
	set(&c.Batch, 1)
	set(&c.Window, max(16, c.Batch))
	if c.Mode == "" {
		c.Mode = Pair
	}
	switch c.Mode {
	case Latency:
		set(&c.Rate, 1000)
	case Offline:
		c.QoS = 1
	}
	if c.Duration == 0 {
		c.Duration = 10 * time.Second
	}
	if c.Warmup == 0 {
		c.Warmup = time.Second
	}
	if c.Stall == 0 {
		c.Stall = 10 * time.Second
	}
	if c.Version == 0 {
		c.Version = wire.V311
	}
	return c
}

// Validate reports the first setting that makes no sense.
func (c Config) Validate() error {
	c = c.WithDefaults()
	switch {
	case !slices.Contains(Modes(), c.Mode):
		return fmt.Errorf("mode %q is unknown, want one of %v", c.Mode, Modes())
	case c.Clients < 1:
		return fmt.Errorf("clients is %d, want at least 1", c.Clients)
	case c.QoS > 2:
		return fmt.Errorf("qos is %d, want 0 to 2", c.QoS)
	case c.Size < payloadHeader || c.Size > 256<<20-100:
		return fmt.Errorf("size is %d, want at least %d: a message carries its number and its time", c.Size, payloadHeader)
	case c.Batch < 1 || c.Window < c.Batch:
		return fmt.Errorf("batch is %d and window %d, want at least 1 and a window not below the batch", c.Batch, c.Window)
	case c.Window > 30000:
		return fmt.Errorf("window is %d, want at most 30000", c.Window)
	case c.Rate < 0:
		return fmt.Errorf("rate is %d, want at least 1", c.Rate)
	case c.Duration < 0 || c.Messages < 0 || c.Bystanders < 0 || c.Stall < 0:
		return fmt.Errorf("duration, messages, bystanders or stall is negative")
	case c.Version != wire.V311 && c.Version != wire.V5:
		return fmt.Errorf("version is %s, want 3.1.1 or 5", c.Version)
	}
	return nil
}
