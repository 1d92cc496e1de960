package bridge

import (
	"strings"
	"time"
)

// QoS is the quality of service of MQTT (MQTT 5 section 4.3): 0 at most once, 1 at least once, 2 exactly once.
type QoS uint8

// PayloadFormat is the Payload Format Indicator (MQTT 5 section 3.3.2.3.2).
type PayloadFormat uint8

// The payload formats. Unspecified means that the publisher did not say.
const (
	FormatUnspecified PayloadFormat = iota
	FormatBytes
	FormatUTF8
)

// UserProperty is one name and value of a publisher's own. Names may repeat; their order is kept.
type UserProperty struct{ Name, Value string }

// Origin tells where a message entered. It is what loop prevention and No Local compare.
type Origin struct {
	Endpoint string // name of the endpoint, for example "mqtt"
	Client   string // client id within the endpoint
	Node     string // node of a cluster; empty for this one
	Hops     uint8  // links (remotes, nodes) the message has crossed
}

// Message is one application message. It is immutable once published, and published once: the hub fills in Time and Origin
// and may lower Expires. Times are Unix nanoseconds.
type Message struct {
	Topic           Topic
	Payload         []byte
	QoS             QoS
	Retain          bool
	PayloadFormat   PayloadFormat
	ContentType     string // empty: none
	ResponseTopic   Topic  // empty: none
	CorrelationData []byte // nil: none
	UserProperties  []UserProperty
	Expires         int64 // when it must no longer be delivered; 0: never
	Time            int64 // when it entered
	Origin          Origin

	// Borrowed says that strings and slices are views into a buffer that is reused after the publish call.
	Borrowed bool

	kept *Message // the copy that Keep made
}

// Expired reports whether m must no longer be delivered at now (MQTT-3.3.2-5).
func (m *Message) Expired(now int64) bool { return m.Expires != 0 && now >= m.Expires }

// ExpirySeconds is the remaining lifetime in whole seconds, rounded up, as MQTT and CoAP send it; ok is false where m does
// not expire.
func (m *Message) ExpirySeconds(now int64) (seconds uint32, ok bool) {
	if m.Expires == 0 {
		return 0, false
	}
	left := m.Expires - now
	if left <= 0 {
		return 0, true
	}
	s := (left + int64(time.Second) - 1) / int64(time.Second)
	return uint32(min(s, 1<<32-1)), true
}

// Size is what m counts against queue limits: the bytes it brought plus a constant for keeping it.
func (m *Message) Size() int {
	n := messageOverhead + len(m.Topic) + len(m.Payload) + len(m.ContentType) + len(m.ResponseTopic) + len(m.CorrelationData)
	for _, p := range m.UserProperties {
		n += userPropertyOverhead + len(p.Name) + len(p.Value)
	}
	return n
}

// What a kept Message and one of its user properties take without their strings.
const (
	messageOverhead      = 224
	userPropertyOverhead = 32
)

// Keep returns a message that owns its bytes. Every caller for one publish gets the same copy, so a message for a thousand
// sessions is copied once. It must be called during [Sink.Deliver] (the publisher's goroutine) or on a message that
// is kept already, which it returns unchanged.
func (m *Message) Keep() *Message {
	if !m.Borrowed {
		return m
	}
	if m.kept == nil {
		m.kept = m.clone()
	}
	return m.kept
}

// clone copies m into one block of bytes, so that what is kept pins nothing but itself.
func (m *Message) clone() *Message {
	k := *m
	k.Borrowed, k.kept = false, nil

	var text strings.Builder
	text.Grow(len(m.Topic) + len(m.ContentType) + len(m.ResponseTopic) + len(m.Origin.Node) + userPropertyBytes(m.UserProperties))
	for _, s := range [...]string{string(m.Topic), m.ContentType, string(m.ResponseTopic), m.Origin.Node} {
		text.WriteString(s)
	}
	for _, p := range m.UserProperties {
		text.WriteString(p.Name)
		text.WriteString(p.Value)
	}
	rest := text.String()
	take := func(n int) (s string) {
		s, rest = rest[:n], rest[n:]
		return s
	}
	k.Topic = Topic(take(len(m.Topic)))
	k.ContentType = take(len(m.ContentType))
	k.ResponseTopic = Topic(take(len(m.ResponseTopic)))
	k.Origin.Node = take(len(m.Origin.Node))
	k.UserProperties = nil
	if len(m.UserProperties) > 0 {
		k.UserProperties = make([]UserProperty, len(m.UserProperties))
		for i, p := range m.UserProperties {
			k.UserProperties[i] = UserProperty{take(len(p.Name)), take(len(p.Value))}
		}
	}
	block := make([]byte, len(m.Payload)+len(m.CorrelationData))
	n := copy(block, m.Payload)
	k.Payload = block[:n:n]
	if m.CorrelationData != nil {
		copy(block[n:], m.CorrelationData)
		k.CorrelationData = block[n:]
	}
	return &k
}

func userPropertyBytes(ps []UserProperty) (n int) {
	for _, p := range ps {
		n += len(p.Name) + len(p.Value)
	}
	return n
}
