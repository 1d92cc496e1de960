package broker

import (
	"encoding/binary"
	"errors"

	"github.com/isthmus-iot/isthmus/bridge"
)

// The packet types (MQTT 5 section 2.1.2).
const (
	tConnect     = 1
	tConnack     = 2
	tPublish     = 3
	tPuback      = 4
	tPubrec      = 5
	tPubrel      = 6
	tPubcomp     = 7
	tSubscribe   = 8
	tSuback      = 9
	tUnsubscribe = 10
	tUnsuback    = 11
	tPingreq     = 12
	tPingresp    = 13
	tDisconnect  = 14
	tAuth        = 15
)

// violation ends a connection: a reason code of MQTT 5 with a text. 3.x clients are just closed.
type violation struct {
	code byte
	text string
}

func (v *violation) Error() string { return v.text }

func malformed(text string) error     { return &violation{codeMalformed, text} }
func protocolError(text string) error { return &violation{codeProtocolError, text} }

// scanHeader reads a fixed header (MQTT 5 section 2.1): the first byte, the remaining length and how many bytes the header
// has. size is 0 where more bytes are needed. The length is encoded in at most 4 bytes and the fewest possible
// (MQTT-1.5.5-1).
func scanHeader(p []byte) (first byte, length, size int, err error) {
	if len(p) < 2 {
		return 0, 0, 0, nil
	}
	if p[1] < 0x80 {
		return p[0], int(p[1]), 2, nil
	}
	n, k, err := varint(p[1:])
	if err != nil || k == 0 {
		return 0, 0, 0, err
	}
	return p[0], n, 1 + k, nil
}

// varint reads a variable byte integer; size is 0 where it is not complete.
func varint(p []byte) (n, size int, err error) {
	for i := 0; i < len(p) && i < 4; i++ {
		n |= int(p[i]&0x7f) << (7 * i)
		if p[i] < 0x80 {
			if i > 0 && p[i] == 0 {
				return 0, 0, malformed("variable byte integer is longer than it needs to be")
			}
			return n, i + 1, nil
		}
	}
	if len(p) >= 4 {
		return 0, 0, malformed("variable byte integer has more than 4 bytes")
	}
	return 0, 0, nil
}

func appendVarint(p []byte, n int) []byte {
	for n >= 0x80 {
		p = append(p, byte(n)|0x80)
		n >>= 7
	}
	return append(p, byte(n))
}

func varintSize(n int) int {
	switch {
	case n < 1<<7:
		return 1
	case n < 1<<14:
		return 2
	case n < 1<<21:
		return 3
	}
	return 4
}

func appendString[T ~string | ~[]byte](p []byte, s T) []byte {
	p = binary.BigEndian.AppendUint16(p, uint16(len(s)))
	return append(p, s...)
}

// publishForm is a PUBLISH without what differs between subscribers: QoS, RETAIN and DUP are in the first byte, the packet
// identifier at a known place. Both are put in after copying.
func appendPublishForm(p []byte, m *bridge.Message, v5, withID bool, now int64) []byte {
	props := 0
	if v5 {
		props = publishPropertiesSize(m, nil, 0)
	}
	return appendPublish(p, m, string(m.Topic), v5, withID, props, nil, 0, now)
}

// appendPublish encodes a PUBLISH with topic in place of m's, which is empty where alias says it all; props is the size of
// its properties. The packet identifier is 0.
func appendPublish(p []byte, m *bridge.Message, topic string, v5, withID bool, props int, ids []uint32, alias uint16, now int64) []byte {
	n := 2 + len(topic) + len(m.Payload)
	if withID {
		n += 2
	}
	if v5 {
		n += varintSize(props) + props
	}
	p = append(p, tPublish<<4)
	p = appendVarint(p, n)
	p = appendString(p, topic)
	if withID {
		p = append(p, 0, 0)
	}
	if v5 {
		p = appendVarint(p, props)
		if props > 0 {
			p = appendPublishProperties(p, m, ids, alias, now)
		}
	}
	return append(p, m.Payload...)
}

// The properties a PUBLISH may have (MQTT 5 section 2.2.2.2).
const (
	pPayloadFormat          = 0x01
	pMessageExpiry          = 0x02
	pContentType            = 0x03
	pResponseTopic          = 0x08
	pCorrelationData        = 0x09
	pSubscriptionIdentifier = 0x0B
	pTopicAlias             = 0x23
	pUserProperty           = 0x26
	pReasonString           = 0x1F
)

func publishPropertiesSize(m *bridge.Message, ids []uint32, alias uint16) (n int) {
	if m.PayloadFormat != bridge.FormatUnspecified {
		n += 2
	}
	if m.Expires != 0 {
		n += 5
	}
	if m.ContentType != "" {
		n += 3 + len(m.ContentType)
	}
	if m.ResponseTopic != "" {
		n += 3 + len(m.ResponseTopic)
	}
	if m.CorrelationData != nil {
		n += 3 + len(m.CorrelationData)
	}
	for _, id := range ids {
		n += 1 + varintSize(int(id))
	}
	if alias != 0 {
		n += 3
	}
	for _, u := range m.UserProperties {
		n += 5 + len(u.Name) + len(u.Value)
	}
	return n
}

func appendPublishProperties(p []byte, m *bridge.Message, ids []uint32, alias uint16, now int64) []byte {
	if m.PayloadFormat != bridge.FormatUnspecified {
		p = append(p, pPayloadFormat, byte(m.PayloadFormat-bridge.FormatBytes))
	}
	if left, ok := m.ExpirySeconds(now); ok {
		p = binary.BigEndian.AppendUint32(append(p, pMessageExpiry), left)
	}
	if m.ContentType != "" {
		p = appendString(append(p, pContentType), m.ContentType)
	}
	if m.ResponseTopic != "" {
		p = appendString(append(p, pResponseTopic), m.ResponseTopic)
	}
	if m.CorrelationData != nil {
		p = appendString(append(p, pCorrelationData), m.CorrelationData)
	}
	for _, id := range ids {
		p = appendVarint(append(p, pSubscriptionIdentifier), int(id))
	}
	if alias != 0 {
		p = binary.BigEndian.AppendUint16(append(p, pTopicAlias), alias)
	}
	for _, u := range m.UserProperties {
		p = appendString(appendString(append(p, pUserProperty), u.Name), u.Value)
	}
	return p
}

// appendAck encodes PUBACK, PUBREC, PUBREL or PUBCOMP. first has the packet type and flags. Code and reason are for MQTT 5
// and left out where the code is 0.
func appendAck(p []byte, first byte, id uint16, v5 bool, code byte, reason string) []byte {
	switch {
	case !v5 || code == 0:
		return append(p, first, 2, byte(id>>8), byte(id))
	case reason == "":
		return append(p, first, 3, byte(id>>8), byte(id), code)
	}
	props := 3 + len(reason)
	p = append(p, first)
	p = appendVarint(p, 3+varintSize(props)+props)
	p = append(p, byte(id>>8), byte(id), code)
	p = appendVarint(p, props)
	return appendString(append(p, pReasonString), reason)
}

// ackPacket is a PUBACK, PUBREC, PUBREL or PUBCOMP as it came in.
type ackPacket struct {
	id   uint16
	code byte
}

// parseAck reads the body of an acknowledgement (MQTT 5 section 3.4 to 3.7).
func parseAck(body []byte, v5 bool) (a ackPacket, err error) {
	if len(body) < 2 {
		return a, malformed("acknowledgement without packet identifier")
	}
	a.id = binary.BigEndian.Uint16(body)
	if a.id == 0 {
		return a, protocolError("packet identifier is 0")
	}
	if len(body) == 2 {
		return a, nil
	}
	if !v5 {
		return a, malformed("acknowledgement is too long")
	}
	a.code = body[2]
	if len(body) > 3 {
		r := reader{p: body[3:]}
		r.properties(propsOfAck)
		if err := r.end(); err != nil {
			return a, err
		}
	}
	return a, nil
}

// ackMayHave reports whether a code is listed for a type of acknowledgement (MQTT 5 section 3.4.2.1 and its like).
func ackMayHave(kind, code byte) bool {
	switch code {
	case codeSuccess:
		return true
	case codeIdentifierNotFound:
		return kind == tPubrel || kind == tPubcomp
	case codeNoMatchingSubscribers, codeUnspecified, codeImplementation, codeNotAuthorized, codeTopicInvalid,
		codeIdentifierInUse, codeQuotaExceeded, codePayloadFormatInvalid:
		return kind == tPuback || kind == tPubrec
	}
	return false
}

var errStopped = errors.New("connection ended")
