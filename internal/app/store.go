package app

import (
	"fmt"
	"path/filepath"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/internal/store"
)

// Store is what outlives the process and how.
type Store struct {
	Limit      int64        `yaml:"limit_bytes"`
	Reserve    int64        `yaml:"reserve_bytes"`
	Durability Durability   `yaml:"durability"`
	Topics     []StoreTopic `yaml:"topics"`
}

// StoreTopic says how the messages of some topics are kept.
type StoreTopic struct {
	Filter     string     `yaml:"filter"`
	Durability Durability `yaml:"durability"`
}

// Durability is the name of a bridge.Durability.
type Durability string

// Choices lists the values.
func (Durability) Choices() []string { return []string{"fsync", "os", "memory"} }

// durability is what the name means; it was checked.
func (d Durability) durability() bridge.Durability {
	switch d {
	case "os":
		return bridge.OS
	case "memory":
		return bridge.Memory
	}
	return bridge.Fsync
}

// rules are what the hub decides by.
func (s Store) rules() (rules []bridge.DurabilityRule) {
	for _, t := range s.Topics {
		rules = append(rules, bridge.DurabilityRule{Filter: bridge.Filter(t.Filter), Durability: t.Durability.durability()})
	}
	return rules
}

// storeDir is where the store is.
func (c *Config) storeDir() string { return filepath.Join(string(c.Gateway.Data), "store") }

// restore opens the store and brings back what it has kept: retained values first, so that sessions find them.
func (a *App) restore(c *Config) (*store.Store, error) {
	s, err := store.Open(store.Config{
		Dir: c.storeDir(), Limit: c.Store.Limit, Reserve: c.Store.Reserve, Log: a.log.Logger, Notify: a.hub.Stored,
		Durability: min(c.Store.Durability.durability(), bridge.OS),
		Failed: func(err error) {
			a.log.Error("the store has failed: nothing that would have to be kept is acknowledged any more; mend the disk and start again", "error", err)
		},
	})
	if err != nil {
		return nil, err
	}
	if err = a.hub.UseStore(s); err == nil {
		err = a.mqtt.Restore(s)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("%s: %w", c.storeDir(), err)
	}
	return s, nil
}

// kept is ready while the store keeps what it is given.
type kept struct{ *App }

// Name is the part's name.
func (kept) Name() string { return "store" }

// Ready reports whether everything can be kept.
func (k kept) Ready() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.store == nil:
		return nil // listening is not ready either
	case k.store.Err() != nil:
		return k.store.Err()
	case k.store.Full():
		return bridge.Refuse(bridge.QuotaExceeded, "the limit on disk use is reached; see store.limit_bytes and store.reserve_bytes")
	}
	return nil
}
