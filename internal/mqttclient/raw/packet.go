package raw

import (
	"encoding/binary"
	"fmt"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// The vocabulary of package wire, so that a test needs one import.
type (
	Type     = wire.Type
	Version  = wire.Version
	Code     = wire.Code
	ID       = wire.ID
	Property = wire.Property
	Props    = wire.Props
	Packet   = wire.Packet
	Filter   = wire.Filter
)

// The versions.
const (
	V31  = wire.V31
	V311 = wire.V311
	V5   = wire.V5
)

// The packet types.
const (
	CONNECT     = wire.CONNECT
	CONNACK     = wire.CONNACK
	PUBLISH     = wire.PUBLISH
	PUBACK      = wire.PUBACK
	PUBREC      = wire.PUBREC
	PUBREL      = wire.PUBREL
	PUBCOMP     = wire.PUBCOMP
	SUBSCRIBE   = wire.SUBSCRIBE
	SUBACK      = wire.SUBACK
	UNSUBSCRIBE = wire.UNSUBSCRIBE
	UNSUBACK    = wire.UNSUBACK
	PINGREQ     = wire.PINGREQ
	PINGRESP    = wire.PINGRESP
	DISCONNECT  = wire.DISCONNECT
	AUTH        = wire.AUTH
)

// The properties; make one with Int, Text or Bytes: raw.TopicAlias.Int(3), raw.ContentType.Text("text/plain").
const (
	PayloadFormat                   = wire.PayloadFormat
	MessageExpiry                   = wire.MessageExpiry
	ContentType                     = wire.ContentType
	ResponseTopic                   = wire.ResponseTopic
	CorrelationData                 = wire.CorrelationData
	SubscriptionIdentifier          = wire.SubscriptionIdentifier
	SessionExpiry                   = wire.SessionExpiry
	AssignedClientID                = wire.AssignedClientID
	ServerKeepAlive                 = wire.ServerKeepAlive
	AuthMethod                      = wire.AuthMethod
	AuthData                        = wire.AuthData
	RequestProblemInformation       = wire.RequestProblemInformation
	WillDelay                       = wire.WillDelay
	RequestResponseInformation      = wire.RequestResponseInformation
	ResponseInformation             = wire.ResponseInformation
	ServerReference                 = wire.ServerReference
	ReasonString                    = wire.ReasonString
	ReceiveMaximum                  = wire.ReceiveMaximum
	TopicAliasMaximum               = wire.TopicAliasMaximum
	TopicAlias                      = wire.TopicAlias
	MaximumQoS                      = wire.MaximumQoS
	RetainAvailable                 = wire.RetainAvailable
	UserProperty                    = wire.UserProperty
	MaximumPacketSize               = wire.MaximumPacketSize
	WildcardSubscriptionAvailable   = wire.WildcardSubscriptionAvailable
	SubscriptionIdentifierAvailable = wire.SubscriptionIdentifierAvailable
	SharedSubscriptionAvailable     = wire.SharedSubscriptionAvailable
)

// User makes a user property.
func User(name, value string) Property { return wire.User(name, value) }

// Sendable is what [Conn.Send] takes. Encode appends the bytes for a connection of version v.
type Sendable interface {
	Encode(dst []byte, v Version) []byte
}

// Encode is the bytes of packets for version v.
func Encode(v Version, packets ...Sendable) (b []byte) {
	for _, p := range packets {
		b = p.Encode(b, v)
	}
	return b
}

// Will is the will of a [Connect].
type Will struct {
	Topic, Payload string
	QoS            byte
	Retain         bool
	Props          Props
}

// Connect is a CONNECT. A zero Version means the connection's, which is 5 at first; a Version that is set becomes the
// connection's.
type Connect struct {
	Version      Version
	ProtocolName string // empty: that of the version
	Level        byte   // 0: that of the version
	Flags        *byte  // nil: those that follow from the fields; new(byte(0x03)) sets what must not be set
	Clean        bool   // Clean Session, Clean Start
	KeepAlive    uint16
	Props        Props
	ClientID     string
	Will         *Will
	User         string
	HasUser      bool // send the user name even if it is empty
	Password     string
	HasPassword  bool // send the password even if it is empty
}

// Encode implements [Sendable].
func (p Connect) Encode(dst []byte, v Version) []byte {
	if p.Version == 0 {
		p.Version = v
	}
	c := wire.Connect{
		Version: p.Version, ProtocolName: p.ProtocolName, Level: p.Level, Flags: p.Flags, Clean: p.Clean, KeepAlive: p.KeepAlive,
		Props: p.Props, ClientID: p.ClientID, User: p.User, HasUser: p.HasUser, Password: []byte(p.Password), HasPassword: p.HasPassword,
	}
	if w := p.Will; w != nil {
		c.Will = &wire.Will{Topic: w.Topic, Payload: []byte(w.Payload), QoS: w.QoS, Retain: w.Retain, Props: w.Props}
	}
	return c.Append(dst)
}

// Publish is a PUBLISH. ID is written where QoS is not 0.
type Publish struct {
	Topic, Payload string
	QoS            byte
	Dup, Retain    bool
	ID             uint16
	Props          Props
}

// Encode implements [Sendable].
func (p Publish) Encode(dst []byte, v Version) []byte {
	return wire.Publish{
		Topic: p.Topic, Payload: []byte(p.Payload), QoS: p.QoS, Dup: p.Dup, Retain: p.Retain, ID: p.ID, Props: p.Props,
	}.Append(dst, v)
}

// Puback is a PUBACK in its shortest form.
type Puback struct {
	ID    uint16
	Code  Code
	Props Props
}

// Encode implements [Sendable].
func (p Puback) Encode(dst []byte, v Version) []byte {
	return wire.Ack{Type: PUBACK, ID: p.ID, Code: p.Code, Props: p.Props}.Append(dst, v)
}

// Pubrec is a PUBREC in its shortest form.
type Pubrec struct {
	ID    uint16
	Code  Code
	Props Props
}

// Encode implements [Sendable].
func (p Pubrec) Encode(dst []byte, v Version) []byte {
	return wire.Ack{Type: PUBREC, ID: p.ID, Code: p.Code, Props: p.Props}.Append(dst, v)
}

// Pubrel is a PUBREL in its shortest form.
type Pubrel struct {
	ID    uint16
	Code  Code
	Props Props
}

// Encode implements [Sendable].
func (p Pubrel) Encode(dst []byte, v Version) []byte {
	return wire.Ack{Type: PUBREL, ID: p.ID, Code: p.Code, Props: p.Props}.Append(dst, v)
}

// Pubcomp is a PUBCOMP in its shortest form.
type Pubcomp struct {
	ID    uint16
	Code  Code
	Props Props
}

// Encode implements [Sendable].
func (p Pubcomp) Encode(dst []byte, v Version) []byte {
	return wire.Ack{Type: PUBCOMP, ID: p.ID, Code: p.Code, Props: p.Props}.Append(dst, v)
}

// Subscribe is a SUBSCRIBE.
type Subscribe struct {
	ID      uint16
	Props   Props
	Filters []Filter
}

// Encode implements [Sendable].
func (p Subscribe) Encode(dst []byte, v Version) []byte { return wire.Subscribe(p).Append(dst, v) }

// Unsubscribe is an UNSUBSCRIBE.
type Unsubscribe struct {
	ID      uint16
	Props   Props
	Filters []string
}

// Encode implements [Sendable].
func (p Unsubscribe) Encode(dst []byte, v Version) []byte { return wire.Unsubscribe(p).Append(dst, v) }

// Pingreq is a PINGREQ.
type Pingreq struct{}

// Encode implements [Sendable].
func (Pingreq) Encode(dst []byte, _ Version) []byte { return wire.Ping{}.Append(dst) }

// Disconnect is a DISCONNECT in its shortest form.
type Disconnect struct {
	Code  Code
	Props Props
}

// Encode implements [Sendable].
func (p Disconnect) Encode(dst []byte, v Version) []byte { return wire.Disconnect(p).Append(dst, v) }

// Auth is an AUTH in its shortest form.
type Auth struct {
	Code  Code
	Props Props
}

// Encode implements [Sendable].
func (p Auth) Encode(dst []byte, _ Version) []byte { return wire.Auth(p).Append(dst) }

// Connack is a CONNACK, for a test that plays the server.
type Connack struct {
	SessionPresent bool
	Code           Code
	Props          Props
}

// Encode implements [Sendable].
func (p Connack) Encode(dst []byte, v Version) []byte { return wire.Connack(p).Append(dst, v) }

// Suback is a SUBACK, for a test that plays the server.
type Suback struct {
	ID    uint16
	Props Props
	Codes []Code
}

// Encode implements [Sendable].
func (p Suback) Encode(dst []byte, v Version) []byte {
	return wire.Suback{ID: p.ID, Props: p.Props, Codes: p.Codes}.Append(dst, v)
}

// Unsuback is an UNSUBACK, for a test that plays the server.
type Unsuback struct {
	ID    uint16
	Props Props
	Codes []Code
}

// Encode implements [Sendable].
func (p Unsuback) Encode(dst []byte, v Version) []byte {
	return wire.Suback{Unsub: true, ID: p.ID, Props: p.Props, Codes: p.Codes}.Append(dst, v)
}

// Pingresp is a PINGRESP, for a test that plays the server.
type Pingresp struct{}

// Encode implements [Sendable].
func (Pingresp) Encode(dst []byte, _ Version) []byte { return wire.Ping{Response: true}.Append(dst) }

// Bytes are sent as they are.
type Bytes []byte

// Encode implements [Sendable].
func (b Bytes) Encode(dst []byte, _ Version) []byte { return append(dst, b...) }

// Body makes bytes from fields: a string becomes an MQTT string with its length, []byte and Bytes stay as they are, byte and
// int become one byte, uint16 and uint32 two and four bytes, Props a property length with the properties, a Property itself
// without a length, and a Varint a variable byte integer.
func Body(fields ...any) []byte {
	var b []byte
	for _, f := range fields {
		switch f := f.(type) {
		case string:
			b = wire.AppendString(b, f)
		case []byte:
			b = append(b, f...)
		case Bytes:
			b = append(b, f...)
		case byte:
			b = append(b, f)
		case int:
			b = append(b, byte(f))
		case Code:
			b = append(b, byte(f))
		case uint16:
			b = binary.BigEndian.AppendUint16(b, f)
		case uint32:
			b = binary.BigEndian.AppendUint32(b, f)
		case Varint:
			b = wire.AppendVarint(b, uint32(f))
		case Props:
			b = wire.AppendProps(b, f)
		case Property:
			one := wire.AppendProps(nil, Props{f})
			_, size := wire.Varint(one)
			b = append(b, one[size:]...)
		default:
			panic(fmt.Sprintf("raw.Body: cannot encode a %T", f))
		}
	}
	return b
}

// Varint is a variable byte integer in [Body].
type Varint uint32

// Frame makes a packet from its first byte and the fields of its body (see [Body]), with the right remaining length.
func Frame(header byte, fields ...any) Bytes { return wire.AppendFrame(nil, header, Body(fields...)) }

// FrameOf makes a packet whose remaining length says length, whatever the body is.
func FrameOf(header byte, length uint32, fields ...any) Bytes {
	return append(wire.AppendVarint([]byte{header}, length), Body(fields...)...)
}

// encoded is a Sendable made of a function.
type encoded func(v Version) []byte

func (e encoded) Encode(dst []byte, v Version) []byte { return append(dst, e(v)...) }

// WithFlags is packet p with other flags in its first byte.
func WithFlags(p Sendable, flags byte) Sendable {
	return encoded(func(v Version) []byte {
		b := p.Encode(nil, v)
		b[0] = b[0]&0xF0 | flags&0x0F
		return b
	})
}

// Shortened is packet p with only the first n bytes of its body, and the remaining length to match.
func Shortened(p Sendable, n int) Sendable {
	return encoded(func(v Version) []byte {
		header, body := split(p, v)
		return wire.AppendFrame(nil, header, body[:n])
	})
}

// Padded is packet p with more bytes after its body, and the remaining length to match.
func Padded(p Sendable, fields ...any) Sendable {
	return encoded(func(v Version) []byte {
		header, body := split(p, v)
		return wire.AppendFrame(nil, header, append(body[:len(body):len(body)], Body(fields...)...))
	})
}

// Cut is the first n bytes of packet p: a packet that does not end.
func Cut(p Sendable, n int) Sendable {
	return encoded(func(v Version) []byte { return p.Encode(nil, v)[:n] })
}

func split(p Sendable, v Version) (header byte, body []byte) {
	header, body, size, err := wire.Next(p.Encode(nil, v))
	if err != nil || size == 0 {
		panic("raw: not one whole packet")
	}
	return header, body
}

// Encoded is several packets as one Sendable.
func Encoded(packets ...Sendable) Sendable {
	return encoded(func(v Version) []byte { return Encode(v, packets...) })
}
