package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Packet is a decoded packet of any type; only the fields of its type are set.
type Packet struct {
	Type  Type
	Flags byte   // low four bits of the first byte
	ID    uint16 // packet identifier of PUBLISH (QoS > 0), the acknowledgements, SUBSCRIBE and UNSUBSCRIBE
	Code  Code   // of CONNACK, the acknowledgements, DISCONNECT and AUTH; 0 where the packet left it out
	Codes []Code // of SUBACK and UNSUBACK
	Props Props

	// PUBLISH
	Topic   string
	Payload []byte
	QoS     byte
	Dup     bool
	Retain  bool

	SessionPresent bool     // CONNACK
	Filters        []Filter // SUBSCRIBE; UNSUBSCRIBE sets the filter only
	Connect        *Connect // CONNECT
}

// Text is the payload as a string.
func (p Packet) Text() string { return string(p.Payload) }

// String shows the packet for people, payloads shortened.
func (p Packet) String() string {
	var b strings.Builder
	b.WriteString(p.Type.String())
	add := func(format string, args ...any) { fmt.Fprintf(&b, " "+format, args...) }
	if p.Connect != nil {
		add("v%s client=%q clean=%t", p.Connect.Version, p.Connect.ClientID, p.Connect.Clean)
	}
	if p.ID != 0 {
		add("id=%d", p.ID)
	}
	switch p.Type {
	case PUBLISH:
		payload := p.Payload
		more := ""
		if len(payload) > 64 {
			payload, more = payload[:64], "..."
		}
		add("topic=%q qos=%d dup=%t retain=%t payload=%q%s", p.Topic, p.QoS, p.Dup, p.Retain, payload, more)
	case CONNACK:
		add("code=0x%02X session=%t", byte(p.Code), p.SessionPresent)
	case PUBACK, PUBREC, PUBREL, PUBCOMP, DISCONNECT, AUTH:
		add("code=0x%02X", byte(p.Code))
	}
	if p.Codes != nil {
		add("codes=% X", codeBytes(p.Codes))
	}
	for _, f := range p.Filters {
		add("%q", f.Filter)
	}
	if len(p.Props) > 0 {
		add("%s", p.Props)
	}
	return b.String()
}

func codeBytes(cs []Code) []byte {
	b := make([]byte, len(cs))
	for i, c := range cs {
		b[i] = byte(c)
	}
	return b
}

// ErrMalformed is the cause of every error of [Decode].
var ErrMalformed = errors.New("malformed packet")

// Decode decodes the packet with the given first byte and body. v is the version of the connection; a CONNECT brings its own.
func Decode(v Version, header byte, body []byte) (Packet, error) {
	p := Packet{Type: Type(header >> 4), Flags: header & 0x0F}
	r := &reader{b: body}
	want := byte(0)
	switch p.Type {
	case CONNECT:
		p.Connect = r.connect()
	case CONNACK:
		flags := r.byte()
		if flags > 1 {
			r.fail("reserved CONNACK flags are set")
		}
		p.SessionPresent, p.Code = flags == 1, Code(r.byte())
		if v >= V5 {
			p.Props = r.props()
		}
	case PUBLISH:
		want = p.Flags
		r.publish(&p, v)
	case PUBACK, PUBREC, PUBREL, PUBCOMP:
		if p.Type == PUBREL {
			want = 2
		}
		p.ID = r.uint16()
		if v >= V5 {
			r.coded(&p)
		}
	case SUBSCRIBE:
		want = 2
		p.ID = r.uint16()
		if v >= V5 {
			p.Props = r.props()
		}
		for r.more() {
			p.Filters = append(p.Filters, r.filter(v))
		}
	case UNSUBSCRIBE:
		want = 2
		p.ID = r.uint16()
		if v >= V5 {
			p.Props = r.props()
		}
		for r.more() {
			p.Filters = append(p.Filters, Filter{Filter: r.text()})
		}
	case SUBACK, UNSUBACK:
		p.ID = r.uint16()
		if v >= V5 {
			p.Props = r.props()
		}
		if p.Type == SUBACK || v >= V5 {
			for r.more() {
				p.Codes = append(p.Codes, Code(r.byte()))
			}
		}
	case PINGREQ, PINGRESP:
	case DISCONNECT:
		if v >= V5 {
			r.coded(&p)
		}
	case AUTH:
		if v < V5 {
			r.fail("AUTH before version 5")
		}
		r.coded(&p)
	default:
		r.fail("packet type 0")
	}
	if r.err == nil && len(r.b) > 0 {
		r.fail(fmt.Sprintf("%d bytes after the last field", len(r.b)))
	}
	if r.err == nil && p.Flags != want {
		r.fail(fmt.Sprintf("flags are %X, want %X", p.Flags, want))
	}
	if r.err != nil {
		return p, fmt.Errorf("%s: %w", p.Type, r.err)
	}
	return p, nil
}

// reader consumes a body. After the first error it returns zero values.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail(why string) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrMalformed, why)
	}
	r.b = nil
}

func (r *reader) more() bool { return r.err == nil && len(r.b) > 0 }

// take returns the next n bytes, or nil.
func (r *reader) take(n int) []byte {
	if n > len(r.b) || r.err != nil {
		r.fail("too short")
		return nil
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
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

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) varint() uint32 {
	n, size := Varint(r.b)
	if size <= 0 || r.err != nil {
		r.fail("bad variable byte integer")
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *reader) binary() []byte { return r.take(int(r.uint16())) }

func (r *reader) text() string {
	b := r.binary()
	if !utf8.Valid(b) {
		r.fail("string is not UTF-8")
	}
	return string(b)
}

// coded reads the optional reason code and the optional properties that end acknowledgements, DISCONNECT and AUTH.
func (r *reader) coded(p *Packet) {
	if r.more() {
		p.Code = Code(r.byte())
	}
	if r.more() {
		p.Props = r.props()
	}
}

func (r *reader) publish(p *Packet, v Version) {
	p.Dup, p.QoS, p.Retain = p.Flags&8 != 0, p.Flags>>1&3, p.Flags&1 != 0
	if p.QoS == 3 {
		r.fail("QoS 3")
	}
	p.Topic = r.text()
	if p.QoS > 0 {
		p.ID = r.uint16()
		if p.ID == 0 {
			r.fail("packet identifier 0")
		}
	}
	if v >= V5 {
		p.Props = r.props()
	}
	p.Payload, r.b = r.b, nil
}

func (r *reader) filter(v Version) Filter {
	f := Filter{Filter: r.text()}
	o := r.byte()
	f.QoS, f.NoLocal, f.RetainAsPublished, f.RetainHandling = o&3, o&4 != 0, o&8 != 0, o>>4&3
	if o>>6 != 0 || v < V5 && o > 2 || f.QoS == 3 || f.RetainHandling == 3 {
		r.fail("reserved subscription options")
	}
	return f
}

func (r *reader) connect() *Connect {
	c := &Connect{ProtocolName: r.text(), Level: r.byte()}
	if c.ProtocolName == "" {
		r.fail("empty protocol name")
	}
	c.Version = Version(c.Level &^ 0x80)
	flags := r.byte()
	c.Flags = &flags
	c.KeepAlive = r.uint16()
	if c.Version >= V5 {
		c.Props = r.props()
	}
	c.Clean, c.ClientID = flags&2 != 0, r.text()
	if flags&4 != 0 {
		w := &Will{QoS: flags >> 3 & 3, Retain: flags&0x20 != 0}
		if c.Version >= V5 {
			w.Props = r.props()
		}
		w.Topic, w.Payload = r.text(), r.binary()
		c.Will = w
	}
	if flags&0x80 != 0 {
		c.HasUser, c.User = true, r.text()
	}
	if flags&0x40 != 0 {
		c.HasPassword, c.Password = true, r.binary()
	}
	if flags&1 != 0 {
		r.fail("reserved CONNECT flag is set")
	}
	return c
}
