package wire

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// ID identifies a property of MQTT 5 (section 2.2.2.2).
type ID byte

// The properties.
const (
	PayloadFormat                   ID = 0x01
	MessageExpiry                   ID = 0x02
	ContentType                     ID = 0x03
	ResponseTopic                   ID = 0x08
	CorrelationData                 ID = 0x09
	SubscriptionIdentifier          ID = 0x0B
	SessionExpiry                   ID = 0x11
	AssignedClientID                ID = 0x12
	ServerKeepAlive                 ID = 0x13
	AuthMethod                      ID = 0x15
	AuthData                        ID = 0x16
	RequestProblemInformation       ID = 0x17
	WillDelay                       ID = 0x18
	RequestResponseInformation      ID = 0x19
	ResponseInformation             ID = 0x1A
	ServerReference                 ID = 0x1C
	ReasonString                    ID = 0x1F
	ReceiveMaximum                  ID = 0x21
	TopicAliasMaximum               ID = 0x22
	TopicAlias                      ID = 0x23
	MaximumQoS                      ID = 0x24
	RetainAvailable                 ID = 0x25
	UserProperty                    ID = 0x26
	MaximumPacketSize               ID = 0x27
	WildcardSubscriptionAvailable   ID = 0x28
	SubscriptionIdentifierAvailable ID = 0x29
	SharedSubscriptionAvailable     ID = 0x2A
)

// Kind is how a property's value is written.
type Kind byte

// The kinds. KindNone is that of an unknown property.
const (
	KindNone Kind = iota
	KindByte
	KindUint16
	KindUint32
	KindVarint
	KindString
	KindBinary
	KindPair
)

// Describe gives the name (as mosquitto's tools and MQTT 5 have it, lower case with hyphens) and the kind of a property.
func (id ID) Describe() (name string, kind Kind) {
	switch id {
	case PayloadFormat:
		return "payload-format-indicator", KindByte
	case MessageExpiry:
		return "message-expiry-interval", KindUint32
	case ContentType:
		return "content-type", KindString
	case ResponseTopic:
		return "response-topic", KindString
	case CorrelationData:
		return "correlation-data", KindBinary
	case SubscriptionIdentifier:
		return "subscription-identifier", KindVarint
	case SessionExpiry:
		return "session-expiry-interval", KindUint32
	case AssignedClientID:
		return "assigned-client-identifier", KindString
	case ServerKeepAlive:
		return "server-keep-alive", KindUint16
	case AuthMethod:
		return "authentication-method", KindString
	case AuthData:
		return "authentication-data", KindBinary
	case RequestProblemInformation:
		return "request-problem-information", KindByte
	case WillDelay:
		return "will-delay-interval", KindUint32
	case RequestResponseInformation:
		return "request-response-information", KindByte
	case ResponseInformation:
		return "response-information", KindString
	case ServerReference:
		return "server-reference", KindString
	case ReasonString:
		return "reason-string", KindString
	case ReceiveMaximum:
		return "receive-maximum", KindUint16
	case TopicAliasMaximum:
		return "topic-alias-maximum", KindUint16
	case TopicAlias:
		return "topic-alias", KindUint16
	case MaximumQoS:
		return "maximum-qos", KindByte
	case RetainAvailable:
		return "retain-available", KindByte
	case UserProperty:
		return "user-property", KindPair
	case MaximumPacketSize:
		return "maximum-packet-size", KindUint32
	case WildcardSubscriptionAvailable:
		return "wildcard-subscription-available", KindByte
	case SubscriptionIdentifierAvailable:
		return "subscription-identifier-available", KindByte
	case SharedSubscriptionAvailable:
		return "shared-subscription-available", KindByte
	}
	return fmt.Sprintf("property-0x%02x", byte(id)), KindNone
}

// String is the property's name.
func (id ID) String() string { name, _ := id.Describe(); return name }

// IDs lists every property in the order of their numbers.
func IDs() (all []ID) {
	for id := ID(0); id < 0x80; id++ {
		if _, kind := id.Describe(); kind != KindNone {
			all = append(all, id)
		}
	}
	return all
}

// Int makes a property with a number: byte, two or four bytes or variable, as id has it.
func (id ID) Int(n uint32) Property { return Property{ID: id, Int: n} }

// Text makes a property with a string.
func (id ID) Text(s string) Property { return Property{ID: id, Text: s} }

// Bytes makes a property with binary data.
func (id ID) Bytes(b []byte) Property { return Property{ID: id, Data: b} }

// User makes a user property.
func User(name, value string) Property { return Property{ID: UserProperty, Name: name, Text: value} }

// Property is one property; which of the values counts is given by its ID's kind.
type Property struct {
	ID   ID
	Int  uint32
	Name string // of a user property
	Text string // of a string, or the value of a user property
	Data []byte // of a binary
}

// String shows the property for people.
func (p Property) String() string {
	name, kind := p.ID.Describe()
	switch kind {
	case KindString:
		return fmt.Sprintf("%s=%q", name, p.Text)
	case KindBinary:
		return fmt.Sprintf("%s=%q", name, p.Data)
	case KindPair:
		return fmt.Sprintf("%s=%q:%q", name, p.Name, p.Text)
	}
	return fmt.Sprintf("%s=%d", name, p.Int)
}

// Props are properties in the order in which they stand in the packet. A property may be there more than once.
type Props []Property

// Find returns the first property with the id.
func (ps Props) Find(id ID) (p Property, ok bool) {
	for _, p := range ps {
		if p.ID == id {
			return p, true
		}
	}
	return Property{}, false
}

// Has reports whether a property with the id is there.
func (ps Props) Has(id ID) bool { _, ok := ps.Find(id); return ok }

// Int is the number of the first property with the id, or 0; see [Props.Has].
func (ps Props) Int(id ID) uint32 { p, _ := ps.Find(id); return p.Int }

// IntOr is the number of the first property with the id, or otherwise.
func (ps Props) IntOr(id ID, otherwise uint32) uint32 {
	if p, ok := ps.Find(id); ok {
		return p.Int
	}
	return otherwise
}

// Text is the string of the first property with the id, or "".
func (ps Props) Text(id ID) string { p, _ := ps.Find(id); return p.Text }

// Bytes are the binary data of the first property with the id, or nil.
func (ps Props) Bytes(id ID) []byte { p, _ := ps.Find(id); return p.Data }

// All are the properties with the id, in order.
func (ps Props) All(id ID) (all Props) {
	for _, p := range ps {
		if p.ID == id {
			all = append(all, p)
		}
	}
	return all
}

// Ints are the numbers of the properties with the id, in order.
func (ps Props) Ints(id ID) (all []uint32) {
	for _, p := range ps.All(id) {
		all = append(all, p.Int)
	}
	return all
}

// Users are the user properties as name, value pairs, in order.
func (ps Props) Users() (all [][2]string) {
	for _, p := range ps.All(UserProperty) {
		all = append(all, [2]string{p.Name, p.Text})
	}
	return all
}

// Without returns the properties that do not have the id.
func (ps Props) Without(id ID) (rest Props) {
	for _, p := range ps {
		if p.ID != id {
			rest = append(rest, p)
		}
	}
	return rest
}

// String shows the properties for people.
func (ps Props) String() string {
	all := make([]string, len(ps))
	for i, p := range ps {
		all[i] = p.String()
	}
	return "[" + strings.Join(all, " ") + "]"
}

// AppendProps appends the property length and the properties. A property of unknown kind is written as its id and its Data.
func AppendProps(dst []byte, ps Props) []byte {
	if len(ps) == 0 {
		return append(dst, 0)
	}
	// The length goes in front and its size depends on it, so the properties are written twice as far as needed.
	body := appendProperties(make([]byte, 0, 64), ps)
	return append(AppendVarint(dst, uint32(len(body))), body...)
}

func appendProperties(dst []byte, ps Props) []byte {
	for _, p := range ps {
		dst = append(dst, byte(p.ID))
		switch _, kind := p.ID.Describe(); kind {
		case KindByte:
			dst = append(dst, byte(p.Int))
		case KindUint16:
			dst = binary.BigEndian.AppendUint16(dst, uint16(p.Int))
		case KindUint32:
			dst = binary.BigEndian.AppendUint32(dst, p.Int)
		case KindVarint:
			dst = AppendVarint(dst, p.Int)
		case KindString:
			dst = AppendString(dst, p.Text)
		case KindBinary:
			dst = AppendString(dst, p.Data)
		case KindPair:
			dst = AppendString(AppendString(dst, p.Name), p.Text)
		default:
			dst = append(dst, p.Data...)
		}
	}
	return dst
}

// maxProperties bounds what a packet of tiny properties costs.
const maxProperties = 1 << 15

// props reads a property length and the properties.
func (r *reader) props() (ps Props) {
	n := r.varint()
	if r.err != nil || n == 0 {
		return nil
	}
	in := reader{b: r.take(int(n))}
	if r.err != nil {
		return nil
	}
	for in.more() {
		if len(ps) == maxProperties {
			in.fail("too many properties")
			break
		}
		p := Property{ID: ID(in.byte())}
		switch name, kind := p.ID.Describe(); kind {
		case KindByte:
			p.Int = uint32(in.byte())
		case KindUint16:
			p.Int = uint32(in.uint16())
		case KindUint32:
			p.Int = in.uint32()
		case KindVarint:
			p.Int = in.varint()
		case KindString:
			p.Text = in.text()
		case KindBinary:
			p.Data = in.binary()
		case KindPair:
			p.Name, p.Text = in.text(), in.text()
		default:
			in.fail("unknown property " + name)
		}
		ps = append(ps, p)
	}
	if in.err != nil {
		r.err, r.b = in.err, nil
	}
	return ps
}
