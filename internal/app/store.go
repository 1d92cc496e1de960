package app

import (
	"errors"
	"fmt"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/internal/ops"
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
func (c *Config) storeDir() string { return StoreDir(string(c.Gateway.Data)) }

// reserve is the reserve as the store knows it, where zero stands for its default.
func (s Store) reserve() int64 {
	if s.Reserve == 0 {
		return -1
	}
	return s.Reserve
}

// restore opens the store and brings back what it has kept: retained values first, so that sessions find them.
func (a *App) restore(c *Config) (*store.Store, error) {
	began := time.Now()
	s, err := store.Open(store.Config{
		Dir: c.storeDir(), Limit: c.Store.Limit, Reserve: c.Store.reserve(), Log: a.log.Logger, Notify: a.hub.Stored,
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
		return nil, c.unrestorable(err)
	}
	a.restored(s, c.storeDir(), time.Since(began))
	return s, nil
}

// unrestorable says what to do about an error of bringing back what the store has.
func (c *Config) unrestorable(err error) error {
	const hint = "run isthmus store check, then restore a copy or move the folder away"
	return Problems{{Text: fmt.Sprintf("store %s: %v", c.storeDir(), err), Hint: hint}}
}

// restored logs what the store had.
func (a *App) restored(s *store.Store, dir string, took time.Duration) {
	hub := a.hub.Stats()
	var sessions, queued int64
	for _, e := range hub.Endpoints {
		sessions += e.Sessions
		queued += e.Queued
	}
	a.log.Info("store opened", "dir", dir, "sessions", sessions, "queued_messages", queued, "retained_values", hub.Retained,
		"bytes", s.Stats().Used, "took", took.Round(time.Millisecond).String())
}

// figures are those of the store for people and programs.
func figures(s *store.Store) *ops.Store {
	st := s.Stats()
	f := &ops.Store{
		Used: ops.Bytes(st.Used), Disk: ops.Bytes(st.Disk), Limit: ops.Bytes(st.Limit), Free: ops.Bytes(st.Free), Queued: st.Entries,
		Full: st.Full, Failed: s.Err() != nil, Pending: ops.Bytes(st.Pending),
		Commits: st.Commits, Records: st.Records, Written: st.Bytes, Syncing: st.SyncSum,
	}
	for _, c := range st.Syncs {
		f.Syncs = append(f.Syncs, ops.SyncCount{Within: c.Bound, Count: c.Count})
	}
	return f
}

// kept is ready while the store keeps what it is given.
type kept struct{ *App }

// Name is the part's name.
func (kept) Name() string { return "store" }

// Ready reports whether everything can be kept.
func (k kept) Ready() error {
	k.mu.Lock()
	s, reserve := k.store, ops.Bytes(k.config.Store.Reserve)
	k.mu.Unlock()
	if s == nil {
		return nil // listening is not ready either
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("failed, and nothing is kept any more: %w", err)
	}
	f := figures(s)
	if !f.Full {
		return nil
	}
	text := fmt.Sprintf("full: it takes %s (store.limit_bytes is %s)", max(f.Used, f.Disk), f.Limit)
	if f.Free >= 0 {
		text += fmt.Sprintf(", the file system has %s left (store.reserve_bytes is %s)", f.Free, reserve)
	}
	return errors.New(text)
}
