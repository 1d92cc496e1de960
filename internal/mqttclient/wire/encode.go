package wire

import "encoding/binary"

// MaxVarint is the largest number a variable byte integer holds, and so the largest remaining length.
const MaxVarint = 268_435_455

// AppendVarint appends n as a variable byte integer (MQTT 5 section 1.5.5).
func AppendVarint(dst []byte, n uint32) []byte {
	for n >= 0x80 {
		dst = append(dst, byte(n)|0x80)
		n >>= 7
	}
	return append(dst, byte(n))
}

// AppendString appends a length of two bytes and the bytes: a UTF-8 string or binary data.
func AppendString[T ~string | ~[]byte](dst []byte, s T) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}

// AppendFrame appends a packet: its first byte, the remaining length and the body.
func AppendFrame(dst []byte, header byte, body []byte) []byte {
	return append(AppendVarint(append(dst, header), uint32(len(body))), body...)
}

// Will is the will of a CONNECT.
type Will struct {
	Topic   string
	Payload []byte
	QoS     byte
	Retain  bool
	Props   Props // MQTT 5
}

// Connect is a CONNECT. Zero values are left out or mean what the protocol's default is.
type Connect struct {
	Version      Version
	ProtocolName string // empty: that of the version
	Level        byte   // 0: that of the version; 0x83 and 0x84 are those of Mosquitto's bridges
	Flags        *byte  // nil: those that follow from the fields
	Clean        bool   // Clean Session, Clean Start
	KeepAlive    uint16 // seconds
	Props        Props  // MQTT 5
	ClientID     string
	Will         *Will
	User         string
	HasUser      bool // send the user name even if it is empty
	Password     []byte
	HasPassword  bool // send the password even if it is empty
}

// Append appends the packet.
func (p Connect) Append(dst []byte) []byte {
	name, level := p.ProtocolName, p.Level
	if name == "" {
		name = "MQTT"
		if p.Version == V31 {
			name = "MQIsdp"
		}
	}
	if level == 0 {
		level = byte(p.Version)
	}
	hasUser, hasPassword := p.HasUser || p.User != "", p.HasPassword || len(p.Password) > 0
	flags := bit(p.Clean, 1) | bit(hasUser, 7) | bit(hasPassword, 6)
	if p.Will != nil {
		flags |= 1<<2 | p.Will.QoS<<3 | bit(p.Will.Retain, 5)
	}
	if p.Flags != nil {
		flags = *p.Flags
	}
	b := AppendString(make([]byte, 0, 128), name)
	b = append(b, level, flags)
	b = binary.BigEndian.AppendUint16(b, p.KeepAlive)
	if p.Version >= V5 {
		b = AppendProps(b, p.Props)
	}
	b = AppendString(b, p.ClientID)
	if p.Will != nil {
		if p.Version >= V5 {
			b = AppendProps(b, p.Will.Props)
		}
		b = AppendString(AppendString(b, p.Will.Topic), p.Will.Payload)
	}
	if hasUser {
		b = AppendString(b, p.User)
	}
	if hasPassword {
		b = AppendString(b, p.Password)
	}
	return AppendFrame(dst, byte(CONNECT)<<4, b)
}

// Connack is a CONNACK.
type Connack struct {
	SessionPresent bool
	Code           Code
	Props          Props
}

// Append appends the packet.
func (p Connack) Append(dst []byte, v Version) []byte {
	b := []byte{bit(p.SessionPresent, 0), byte(p.Code)}
	if v >= V5 {
		b = AppendProps(b, p.Props)
	}
	return AppendFrame(dst, byte(CONNACK)<<4, b)
}

// Publish is a PUBLISH. The packet identifier is written where QoS is not 0.
type Publish struct {
	Topic   string
	Payload []byte
	QoS     byte
	Dup     bool
	Retain  bool
	ID      uint16
	Props   Props
}

// Append appends the packet. The payload is copied once.
func (p Publish) Append(dst []byte, v Version) []byte {
	var scratch [256]byte
	b := AppendString(scratch[:0], p.Topic)
	if p.QoS != 0 {
		b = binary.BigEndian.AppendUint16(b, p.ID)
	}
	if v >= V5 {
		b = AppendProps(b, p.Props)
	}
	dst = append(dst, byte(PUBLISH)<<4|bit(p.Dup, 3)|p.QoS<<1|bit(p.Retain, 0))
	dst = AppendVarint(dst, uint32(len(b)+len(p.Payload)))
	return append(append(dst, b...), p.Payload...)
}

// Ack is a PUBACK, PUBREC, PUBREL or PUBCOMP.
type Ack struct {
	Type  Type
	ID    uint16
	Code  Code
	Props Props
}

// Append appends the packet in its shortest form.
func (p Ack) Append(dst []byte, v Version) []byte {
	header := byte(p.Type) << 4
	if p.Type == PUBREL {
		header |= 2
	}
	if v < V5 || p.Code == 0 && len(p.Props) == 0 {
		return append(dst, header, 2, byte(p.ID>>8), byte(p.ID))
	}
	b := []byte{byte(p.ID >> 8), byte(p.ID), byte(p.Code)}
	if len(p.Props) > 0 {
		b = AppendProps(b, p.Props)
	}
	return AppendFrame(dst, header, b)
}

// Filter is one topic filter of a SUBSCRIBE with its options.
type Filter struct {
	Filter            string
	QoS               byte
	NoLocal           bool  // MQTT 5
	RetainAsPublished bool  // MQTT 5
	RetainHandling    byte  // MQTT 5: 0 send retained messages, 1 only if the subscription is new, 2 never
	Options           *byte // nil: those that follow from the fields
}

func (f Filter) options(v Version) byte {
	switch {
	case f.Options != nil:
		return *f.Options
	case v < V5:
		return f.QoS
	}
	return f.QoS | bit(f.NoLocal, 2) | bit(f.RetainAsPublished, 3) | f.RetainHandling<<4
}

// Subscribe is a SUBSCRIBE.
type Subscribe struct {
	ID      uint16
	Props   Props
	Filters []Filter
}

// Append appends the packet.
func (p Subscribe) Append(dst []byte, v Version) []byte {
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 64), p.ID)
	if v >= V5 {
		b = AppendProps(b, p.Props)
	}
	for _, f := range p.Filters {
		b = append(AppendString(b, f.Filter), f.options(v))
	}
	return AppendFrame(dst, byte(SUBSCRIBE)<<4|2, b)
}

// Unsubscribe is an UNSUBSCRIBE.
type Unsubscribe struct {
	ID      uint16
	Props   Props
	Filters []string
}

// Append appends the packet.
func (p Unsubscribe) Append(dst []byte, v Version) []byte {
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 64), p.ID)
	if v >= V5 {
		b = AppendProps(b, p.Props)
	}
	for _, f := range p.Filters {
		b = AppendString(b, f)
	}
	return AppendFrame(dst, byte(UNSUBSCRIBE)<<4|2, b)
}

// Suback is a SUBACK or, with Unsub, an UNSUBACK (which has codes in MQTT 5 only).
type Suback struct {
	Unsub bool
	ID    uint16
	Props Props
	Codes []Code
}

// Append appends the packet.
func (p Suback) Append(dst []byte, v Version) []byte {
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 64), p.ID)
	if v >= V5 {
		b = AppendProps(b, p.Props)
	}
	header := byte(SUBACK) << 4
	if p.Unsub {
		header = byte(UNSUBACK) << 4
	}
	if v >= V5 || !p.Unsub {
		for _, c := range p.Codes {
			b = append(b, byte(c))
		}
	}
	return AppendFrame(dst, header, b)
}

// Ping is a PINGREQ or, with Response, a PINGRESP.
type Ping struct{ Response bool }

// Append appends the packet.
func (p Ping) Append(dst []byte) []byte {
	if p.Response {
		return append(dst, byte(PINGRESP)<<4, 0)
	}
	return append(dst, byte(PINGREQ)<<4, 0)
}

// Disconnect is a DISCONNECT.
type Disconnect struct {
	Code  Code
	Props Props
}

// Append appends the packet in its shortest form.
func (p Disconnect) Append(dst []byte, v Version) []byte {
	return appendCoded(dst, DISCONNECT, v, p.Code, p.Props)
}

// Auth is an AUTH (MQTT 5).
type Auth struct {
	Code  Code
	Props Props
}

// Append appends the packet in its shortest form.
func (p Auth) Append(dst []byte) []byte { return appendCoded(dst, AUTH, V5, p.Code, p.Props) }

func appendCoded(dst []byte, t Type, v Version, c Code, ps Props) []byte {
	if v < V5 || c == 0 && len(ps) == 0 {
		return append(dst, byte(t)<<4, 0)
	}
	b := []byte{byte(c)}
	if len(ps) > 0 {
		b = AppendProps(b, ps)
	}
	return AppendFrame(dst, byte(t)<<4, b)
}

func bit(set bool, n uint) byte {
	if set {
		return 1 << n
	}
	return 0
}
