package store

import (
	"encoding/binary"
	"errors"
	"strings"

	"github.com/isthmus-iot/isthmus/bridge"
)

// messageVersion begins a message.
const messageVersion = 1

// A message is its version, two bytes of flags, its fixed fields, the lengths of everything that has one, and then the bytes of
// all of these: texts first, so that they are decoded into one string, binary last, so that it is decoded into one slice. What a
// message does not have is not there.
const (
	messageQoS         = 0x0003 // of the flags: QoS
	messageRetain      = 0x0004
	messageFormat      = 0x0018 // payload format
	messageExpires     = 0x0020
	messageHops        = 0x0040
	messageContentType = 0x0080
	messageResponse    = 0x0100
	messageCorrelation = 0x0200 // there is correlation data, maybe empty
	messageProperties  = 0x0400
	messageEndpoint    = 0x0800
	messageClient      = 0x1000
	messageNode        = 0x2000
	messageFlags       = 0x3fff

	messageFormatShift = 3
)

var errRecord = errors.New("record is malformed")

func flagsOf(m *bridge.Message) uint16 {
	f := uint16(m.QoS)&messageQoS | uint16(m.PayloadFormat)<<messageFormatShift&messageFormat
	for _, c := range [...]struct {
		has  bool
		flag uint16
	}{
		{m.Retain, messageRetain},
		{m.Expires != 0, messageExpires},
		{m.Origin.Hops != 0, messageHops},
		{m.ContentType != "", messageContentType},
		{m.ResponseTopic != "", messageResponse},
		{m.CorrelationData != nil, messageCorrelation},
		{len(m.UserProperties) > 0, messageProperties},
		{m.Origin.Endpoint != "", messageEndpoint},
		{m.Origin.Client != "", messageClient},
		{m.Origin.Node != "", messageNode},
	} {
		if c.has {
			f |= c.flag
		}
	}
	return f
}

// appendMessage appends m. It keeps nothing of it, so m may be borrowed.
func appendMessage(b []byte, m *bridge.Message) []byte {
	flags := flagsOf(m)
	b = append(b, messageVersion, byte(flags>>8), byte(flags))
	b = binary.BigEndian.AppendUint64(b, uint64(m.Time))
	if flags&messageExpires != 0 {
		b = binary.BigEndian.AppendUint64(b, uint64(m.Expires))
	}
	if flags&messageHops != 0 {
		b = append(b, m.Origin.Hops)
	}
	texts := textsOf(m)
	b = binary.AppendUvarint(b, uint64(len(m.Topic)))
	for i, t := range texts {
		if flags&textFlags[i] != 0 {
			b = binary.AppendUvarint(b, uint64(len(t)))
		}
	}
	if flags&messageProperties != 0 {
		b = binary.AppendUvarint(b, uint64(len(m.UserProperties)))
		for i := range m.UserProperties {
			b = binary.AppendUvarint(b, uint64(len(m.UserProperties[i].Name)))
			b = binary.AppendUvarint(b, uint64(len(m.UserProperties[i].Value)))
		}
	}
	if flags&messageCorrelation != 0 {
		b = binary.AppendUvarint(b, uint64(len(m.CorrelationData)))
	}
	b = binary.AppendUvarint(b, uint64(len(m.Payload)))

	b = append(b, m.Topic...)
	for _, t := range texts {
		b = append(b, t...)
	}
	for i := range m.UserProperties {
		b = append(b, m.UserProperties[i].Name...)
		b = append(b, m.UserProperties[i].Value...)
	}
	b = append(b, m.CorrelationData...)
	return append(b, m.Payload...)
}

// messageSize is how many bytes appendMessage appends.
func messageSize(m *bridge.Message) int {
	n := 3 + 8
	if m.Expires != 0 {
		n += 8
	}
	if m.Origin.Hops != 0 {
		n++
	}
	n += sizedLen(len(m.Topic))
	for _, t := range textsOf(m) {
		if t != "" {
			n += sizedLen(len(t))
		}
	}
	if len(m.UserProperties) > 0 {
		n += uvarintLen(uint64(len(m.UserProperties)))
		for i := range m.UserProperties {
			n += sizedLen(len(m.UserProperties[i].Name)) + sizedLen(len(m.UserProperties[i].Value))
		}
	}
	if m.CorrelationData != nil {
		n += sizedLen(len(m.CorrelationData))
	}
	return n + sizedLen(len(m.Payload))
}

// textFlags are the flags of the texts of textsOf.
var textFlags = [...]uint16{messageContentType, messageResponse, messageEndpoint, messageClient, messageNode}

// textsOf are the texts that a message may lack, user properties apart.
func textsOf(m *bridge.Message) [len(textFlags)]string {
	return [...]string{m.ContentType, string(m.ResponseTopic), m.Origin.Endpoint, m.Origin.Client, m.Origin.Node}
}

// decodeMessage decodes what appendMessage made of a message, and nothing else. The message owns its bytes.
func decodeMessage(b []byte) (*bridge.Message, error) {
	r := reader{rest: b}
	if r.byte() != messageVersion {
		return nil, errRecord
	}
	flags := r.uint16()
	m := &bridge.Message{
		QoS:           bridge.QoS(flags & messageQoS),
		Retain:        flags&messageRetain != 0,
		PayloadFormat: bridge.PayloadFormat(flags & messageFormat >> messageFormatShift),
		Time:          int64(r.uint64()),
	}
	if flags&^uint16(messageFlags) != 0 || m.QoS > 2 || m.PayloadFormat > bridge.FormatUTF8 {
		return nil, errRecord
	}
	if flags&messageExpires != 0 {
		if m.Expires = int64(r.uint64()); m.Expires == 0 {
			return nil, errRecord
		}
	}
	if flags&messageHops != 0 {
		if m.Origin.Hops = r.byte(); m.Origin.Hops == 0 {
			return nil, errRecord
		}
	}
	// Lengths are summed as they are read. Each is at most what is left, which is far from overflowing.
	topic := r.length()
	text := topic
	var lengths [len(textFlags)]int
	for i, flag := range textFlags {
		if flags&flag != 0 {
			if lengths[i] = r.length(); lengths[i] == 0 {
				return nil, errRecord
			}
			text += lengths[i]
		}
	}
	var properties reader // at the lengths of the user properties, to read them again when the texts are there
	count := 0
	if flags&messageProperties != 0 {
		count = r.length()
		if count == 0 || 2*count > len(r.rest) { // two lengths each
			return nil, errRecord
		}
		properties = r
		for range 2 * count {
			text += r.length()
		}
	}
	correlation := 0
	if flags&messageCorrelation != 0 {
		correlation = r.length()
	}
	payload := r.length()
	if r.bad || text+correlation+payload != len(r.rest) {
		return nil, errRecord
	}

	var texts strings.Builder
	texts.Write(r.rest[:text])
	rest := texts.String()
	take := func(n int) (s string) {
		s, rest = rest[:n], rest[n:]
		return s
	}
	m.Topic = bridge.Topic(take(topic))
	m.ContentType = take(lengths[0])
	m.ResponseTopic = bridge.Topic(take(lengths[1]))
	m.Origin.Endpoint = take(lengths[2])
	m.Origin.Client = take(lengths[3])
	m.Origin.Node = take(lengths[4])
	if count > 0 {
		m.UserProperties = make([]bridge.UserProperty, count)
		for i := range m.UserProperties {
			name, value := properties.length(), properties.length()
			m.UserProperties[i] = bridge.UserProperty{Name: take(name), Value: take(value)}
		}
	}
	block := make([]byte, correlation+payload)
	copy(block, r.rest[text:])
	if flags&messageCorrelation != 0 {
		m.CorrelationData = block[:correlation:correlation]
	}
	m.Payload = block[correlation:]
	return m, nil
}

// reader takes a record apart. After something was not there, bad is set and everything is zero.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) take(n int) []byte {
	if r.bad || n > len(r.rest) {
		r.bad, r.rest = true, nil
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) byte() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) uint16() uint16 {
	if b := r.take(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	if b := r.take(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

// uvarint reads a number in its shortest form.
func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.rest)
	if r.bad || n <= 0 || n > 1 && r.rest[n-1] == 0 {
		r.bad, r.rest = true, nil
		return 0
	}
	r.rest = r.rest[n:]
	return v
}

// length reads the length of something that is still to come.
func (r *reader) length() int {
	v := r.uvarint()
	if v > uint64(len(r.rest)) {
		r.bad, r.rest = true, nil
		return 0
	}
	return int(v)
}

func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// sizedLen is what n bytes and their length take.
func sizedLen(n int) int { return uvarintLen(uint64(n)) + n }
