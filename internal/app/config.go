package app

import (
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/access"
	"github.com/isthmus-iot/isthmus/internal/store"
)

// Config is the configuration file. What its keys mean stands in default.yaml, which is also what `isthmus config default`
// prints.
type Config struct {
	Gateway Gateway       `yaml:"gateway"`
	Users   access.Config `yaml:"users"` // who may connect and what they may do, for every protocol
	MQTT    MQTT          `yaml:"mqtt"`
	TLS     TLS           `yaml:"tls"`
	Store   Store         `yaml:"store"`
	Limits  bridge.Limits `yaml:"limits"`
	Ops     Ops           `yaml:"ops"`
	Log     Log           `yaml:"log"`

	// File is where the configuration was read; empty: nothing is configured.
	File string `yaml:"-"`

	text   string           // of the file
	places map[string]place // of values by path, for what is found wrong later
}

// Gateway is what concerns this gateway as a whole.
type Gateway struct {
	ID    string        `yaml:"id"`
	Data  Path          `yaml:"data"`
	Grace time.Duration `yaml:"grace"`
}

// MQTT is the MQTT endpoint.
type MQTT struct {
	Listen         []Address     `yaml:"listen"`
	SysInterval    time.Duration `yaml:"sys_interval"`
	SharedStrategy Strategy      `yaml:"shared_strategy"`
	Limits         broker.Limits `yaml:"limits"`
}

// TLS is the certificate of the gateway and whom it believes.
type TLS struct {
	Cert              Path `yaml:"cert"`
	Key               Path `yaml:"key"`
	ClientCA          Path `yaml:"client_ca"`
	RequireClientCert bool `yaml:"require_client_cert"`
}

// Ops is the operations listener: metrics and health.
type Ops struct {
	Listen []Address `yaml:"listen"`
}

// Log is how and how much is logged.
type Log struct {
	Level  Level  `yaml:"level"`
	Format Format `yaml:"format"`
}

// Default is the configuration that holds where nothing is configured: everything on the loopback interface only.
func Default() *Config {
	return &Config{
		Gateway: Gateway{ID: "isthmus", Data: "isthmus-data", Grace: 10 * time.Second},
		MQTT: MQTT{
			Listen:         []Address{{"mqtt", "localhost", "1883"}},
			SysInterval:    10 * time.Second,
			SharedStrategy: "round_robin",
			Limits:         broker.DefaultLimits(),
		},
		Store:  Store{Limit: store.DefaultLimit, Reserve: store.DefaultReserve, Durability: "fsync"},
		Limits: bridge.DefaultLimits(),
		Ops:    Ops{Listen: []Address{{"http", "localhost", "9600"}}},
		Log:    Log{Level: "info", Format: "auto"},
	}
}

// usersKnown reports whether users are configured, by name or by certificate.
func (c *Config) usersKnown() bool {
	return c.Users.File != "" || len(c.Users.Users) > 0 || c.Users.UseIdentity != ""
}

// listeners lists every address that is configured, with its path in the file.
func (c *Config) listeners() (all []listenerAt) {
	for i, a := range c.MQTT.Listen {
		all = append(all, listenerAt{a, index("mqtt.listen", i)})
	}
	for i, a := range c.Ops.Listen {
		all = append(all, listenerAt{a, index("ops.listen", i)})
	}
	return all
}

type listenerAt struct {
	Address
	path string
}
