package broker

import (
	"encoding/binary"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/isthmus-iot/isthmus/bridge"
)

// reader walks the body of a packet. The first error sticks; every read after it gives zero values. Nothing is copied: the
// strings are views into the packet.
type reader struct {
	p   []byte
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.p = nil
}

func (r *reader) take(n int) []byte {
	if n > len(r.p) {
		r.fail(malformed("packet ends within a field"))
		return nil
	}
	v := r.p[:n:n]
	r.p = r.p[n:]
	return v
}

func (r *reader) byte() byte {
	if v := r.take(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if v := r.take(2); v != nil {
		return binary.BigEndian.Uint16(v)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if v := r.take(4); v != nil {
		return binary.BigEndian.Uint32(v)
	}
	return 0
}

func (r *reader) varint() int {
	n, size, err := varint(r.p)
	switch {
	case r.err != nil:
	case err != nil:
		r.fail(err)
	case size == 0:
		r.fail(malformed("packet ends within a field"))
	default:
		r.p = r.p[size:]
		return n
	}
	return 0
}

// bytes reads binary data; it is not nil where there was no error.
func (r *reader) bytes() []byte { return r.take(int(r.uint16())) }

// string reads a UTF-8 string (MQTT-1.5.4-1, MQTT-1.5.4-2).
func (r *reader) string() string {
	s := view(r.bytes())
	if !wellFormed(s) {
		r.fail(malformed("string is not well-formed UTF-8"))
		return ""
	}
	return s
}

func wellFormed(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// end reports the first error, or that something follows the last field.
func (r *reader) end() error {
	if r.err == nil && len(r.p) > 0 {
		return malformed("packet goes on after its last field")
	}
	return r.err
}

// view is p as a string without copying; it is valid as long as p is unchanged.
func view(p []byte) string { return unsafe.String(unsafe.SliceData(p), len(p)) }

// propertyKind is how a property's value is encoded.
type propertyKind uint8

const (
	kindNone propertyKind = iota
	kindByte
	kindUint16
	kindUint32
	kindVarint
	kindString
	kindBytes
	kindPair
)

// propertyKinds is the table of MQTT 5 section 2.2.2.2.
var propertyKinds = [0x2B]propertyKind{
	0x01: kindByte, 0x02: kindUint32, 0x03: kindString, 0x08: kindString, 0x09: kindBytes, 0x0B: kindVarint,
	0x11: kindUint32, 0x12: kindString, 0x13: kindUint16, 0x15: kindString, 0x16: kindBytes, 0x17: kindByte,
	0x18: kindUint32, 0x19: kindByte, 0x1A: kindString, 0x1C: kindString, 0x1F: kindString, 0x21: kindUint16,
	0x22: kindUint16, 0x23: kindUint16, 0x24: kindByte, 0x25: kindByte, 0x26: kindPair, 0x27: kindUint32,
	0x28: kindByte, 0x29: kindByte, 0x2A: kindByte,
}

// propertySet is a set of property identifiers.
type propertySet uint64

func properties(ids ...byte) (s propertySet) {
	for _, id := range ids {
		s |= 1 << id
	}
	return s
}

func (s propertySet) has(id byte) bool { return id < 64 && s&(1<<id) != 0 }

// What each packet from a client may have.
var (
	propsOfConnect     = properties(0x11, 0x21, 0x27, 0x22, 0x19, 0x17, 0x26, 0x15, 0x16)
	propsOfWill        = properties(0x18, 0x01, 0x02, 0x03, 0x08, 0x09, 0x26)
	propsOfPublish     = properties(0x01, 0x02, 0x23, 0x08, 0x09, 0x26, 0x0B, 0x03)
	propsOfAck         = properties(0x1F, 0x26)
	propsOfSubscribe   = properties(0x0B, 0x26)
	propsOfUnsubscribe = properties(0x26)
	propsOfDisconnect  = properties(0x11, 0x1F, 0x26, 0x1C)
	propsOfAuth        = properties(0x15, 0x16, 0x1F, 0x26)
	propsFlags         = properties(0x01, 0x17, 0x19) // bytes that are 0 or 1
	propsNotZero       = properties(0x21, 0x27, 0x0B) // numbers that are not 0
)

// properties checks a property list: its length, that each is allowed here and, user properties excepted, there once, and
// its value. What it finds is well-formed; values are read again by whoever needs them. It returns how many user
// properties there are and the longest string.
func (r *reader) properties(allowed propertySet) (users, longest int) {
	n := r.varint()
	q := reader{p: r.take(n)}
	var seen propertySet
	for len(q.p) > 0 {
		id := q.byte()
		if int(id) >= len(propertyKinds) || propertyKinds[id] == kindNone {
			q.fail(malformed("unknown property"))
			break
		}
		switch {
		case !allowed.has(id):
			q.fail(malformed("property is not allowed in this packet")) // MQTT 5 section 2.2.2.2
		case id != pUserProperty && seen.has(id):
			q.fail(protocolError("property is there twice"))
		}
		seen |= 1 << id
		value := 1
		switch propertyKinds[id] {
		case kindByte:
			value = int(q.byte())
		case kindUint16:
			value = int(q.uint16())
		case kindUint32:
			value = int(q.uint32())
		case kindVarint:
			value = q.varint()
		case kindString:
			s := q.string()
			longest = max(longest, len(s))
			if id == pResponseTopic && (s == "" || strings.ContainsAny(s, "+#")) { // MQTT-3.3.2-14, also in a will
				q.fail(protocolError("response topic is not a topic name"))
			}
		case kindBytes:
			q.bytes()
		case kindPair:
			users++
			longest = max(longest, len(q.string()), len(q.string()))
		}
		switch {
		case q.err != nil:
		case value > 1 && propsFlags.has(id), value == 0 && propsNotZero.has(id):
			q.fail(protocolError("property has a value that it must not have"))
		}
	}
	if q.err != nil {
		r.fail(q.err)
	}
	return users, longest
}

// publishPacket is what a PUBLISH says besides the message.
type publishPacket struct {
	id    uint16
	alias uint16
	dup   bool
	// user property strings of the message live here between packets
	users []bridge.UserProperty
}

// parsePublish reads a PUBLISH in place: the message's strings and payload are views into body (MQTT 5 section 3.3).
func parsePublish(first byte, body []byte, v5 bool, m *bridge.Message, pk *publishPacket, l *Limits, now int64) error {
	*m = bridge.Message{QoS: bridge.QoS(first >> 1 & 3), Retain: first&1 != 0, Borrowed: true}
	pk.dup, pk.id, pk.alias = first&8 != 0, 0, 0
	if m.QoS == 3 {
		return malformed("QoS is 3")
	}
	if len(body) < 2 {
		return malformed("packet ends within a field")
	}
	n := 2 + int(binary.BigEndian.Uint16(body))
	if n > len(body) {
		return malformed("packet ends within a field")
	}
	m.Topic = bridge.Topic(view(body[2:n]))
	body = body[n:]
	if m.QoS > 0 {
		if len(body) < 2 {
			return malformed("packet ends within a field")
		}
		pk.id = binary.BigEndian.Uint16(body)
		body = body[2:]
		if pk.id == 0 {
			return protocolError("packet identifier is 0")
		}
	} else if pk.dup {
		return malformed("DUP is set at QoS 0")
	}
	if v5 {
		if len(body) == 0 {
			return malformed("packet ends within a field")
		}
		if body[0] == 0 {
			body = body[1:]
		} else {
			r := reader{p: body}
			if err := r.publishProperties(m, pk, l, now); err != nil {
				return err
			}
			body = r.p
		}
	}
	m.Payload = body
	return nil
}

// publishProperties reads the properties of a PUBLISH into m and pk.
func (r *reader) publishProperties(m *bridge.Message, pk *publishPacket, l *Limits, now int64) error {
	check := *r
	users, longest := check.properties(propsOfPublish)
	switch {
	case check.err != nil:
		return check.err
	case users > l.UserProperties:
		return &violation{codeQuotaExceeded, "too many user properties"}
	case longest > l.StringBytes:
		return &violation{codePacketTooLarge, "property is too long"}
	}
	pk.users = pk.users[:0]
	q := reader{p: r.take(r.varint())}
	for len(q.p) > 0 {
		switch q.byte() {
		case pPayloadFormat:
			m.PayloadFormat = bridge.FormatBytes + bridge.PayloadFormat(q.byte())
		case pMessageExpiry:
			m.Expires = now + int64(q.uint32())*1e9
		case pContentType:
			m.ContentType = view(q.bytes())
		case pResponseTopic:
			m.ResponseTopic = bridge.Topic(view(q.bytes()))
		case pCorrelationData:
			m.CorrelationData = q.bytes()
		case pSubscriptionIdentifier:
			return protocolError("subscription identifier in a client's PUBLISH")
		case pTopicAlias:
			if pk.alias = q.uint16(); pk.alias == 0 {
				return &violation{codeTopicAliasInvalid, "topic alias is 0"}
			}
		case pUserProperty:
			pk.users = append(pk.users, bridge.UserProperty{Name: view(q.bytes()), Value: view(q.bytes())})
		}
	}
	if len(pk.users) > 0 {
		m.UserProperties = pk.users
	}
	return nil
}
