package bridge

import (
	"errors"
	"fmt"
)

// Limits bound what clients may cost the hub. The zero value of a field means its default; a limit is never off.
type Limits struct {
	TopicLevels            int   `yaml:"topic_levels"`             // levels of a topic or filter; default 64
	TopicBytes             int   `yaml:"topic_bytes"`              // length of a topic or filter; default 1024
	Subscriptions          int   `yaml:"subscriptions_per_client"` // default 1000
	RetainedValues         int   `yaml:"retained_values"`          // default 1,000,000
	RetainedBytes          int64 `yaml:"retained_bytes"`           // default 1 GiB
	Clients                int   `yaml:"clients"`                  // client ids, connected or not; default 100,000
	Hops                   int   `yaml:"hops"`                     // links a message may cross; default 8
	MessagesPerSecond      int   `yaml:"messages_per_second"`      // of one client, above it its reading pauses; default 100,000
	BytesPerSecond         int   `yaml:"bytes_per_second"`         // of one client, above it its reading pauses; default 64 MiB
	MaxMessageExpirySecond int   `yaml:"max_message_expiry"`       // cap on message expiry in seconds; default 0: as the publisher asks
}

// DefaultLimits are the limits that hold where nothing is configured.
func DefaultLimits() Limits {
	return Limits{
		TopicLevels: 64, TopicBytes: 1024, Subscriptions: 1000, RetainedValues: 1_000_000, RetainedBytes: 1 << 30,
		Clients: 100_000, Hops: 8, MessagesPerSecond: 100_000, BytesPerSecond: 64 << 20,
	}
}

// WithDefaults fills every zero field.
func (l Limits) WithDefaults() Limits {
	d := DefaultLimits()
	fill(&l.TopicLevels, d.TopicLevels)
	fill(&l.TopicBytes, d.TopicBytes)
	fill(&l.Subscriptions, d.Subscriptions)
	fill(&l.RetainedValues, d.RetainedValues)
	fill(&l.RetainedBytes, d.RetainedBytes)
	fill(&l.Clients, d.Clients)
	fill(&l.Hops, d.Hops)
	fill(&l.MessagesPerSecond, d.MessagesPerSecond)
	fill(&l.BytesPerSecond, d.BytesPerSecond)
	return l
}

func fill[T int | int64](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// Validate reports the first limit that makes no sense.
func (l Limits) Validate() error {
	l = l.WithDefaults()
	switch {
	case l.TopicBytes < 1 || l.TopicBytes > 65535:
		return fmt.Errorf("topic_bytes is %d, want 1 to 65535", l.TopicBytes)
	case l.TopicLevels < 1 || l.TopicLevels > 1024:
		return fmt.Errorf("topic_levels is %d, want 1 to 1024", l.TopicLevels)
	case l.Hops < 1 || l.Hops > 255:
		return fmt.Errorf("hops is %d, want 1 to 255", l.Hops)
	case l.Subscriptions < 0, l.RetainedValues < 0, l.RetainedBytes < 0, l.Clients < 0, l.MessagesPerSecond < 0, l.BytesPerSecond < 0, l.MaxMessageExpirySecond < 0:
		return errors.New("a limit is negative")
	}
	return nil
}
