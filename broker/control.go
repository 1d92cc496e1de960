package broker

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/mochi-mqtt/server/v2/packets"
)

// Control packets are decoded and encoded by mochi's codec. What it is lax about is checked before, on the bytes; a panic
// of the codec is caught here, at its edge.

// connectPacket is a CONNECT as it came in; nothing in it is a view into the read buffer.
type connectPacket struct {
	version    byte
	bridge     bool
	clean      bool
	keepAlive  uint16
	clientID   string
	user       string
	hasUser    bool
	password   []byte
	expiry     uint32
	receiveMax uint16
	maxPacket  uint32
	aliasMax   uint16
	quiet      bool // Request Problem Information is 0
	authMethod string
	authData   []byte
	will       *will
}

// decodeConnect reads a CONNECT (MQTT 5 section 3.1, MQTT 3.1.1 section 3.1, MQTT 3.1 section 3.1).
func decodeConnect(body []byte, l *Limits, now int64) (*connectPacket, error) {
	version, isBridge, err := connectVersion(body)
	if err != nil {
		return nil, err
	}
	if version == 3 {
		body = withoutMissing(body)
	}
	if err := checkConnect(body, version, l); err != nil {
		return nil, err
	}
	if isBridge { // the codec knows nothing of it
		body = bytes.Clone(body)
		body[2+int(body[1])] = version
	}
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect, Remaining: len(body)}, ProtocolVersion: version}
	if err := guard(func() error { return pk.ConnectDecode(body) }); err != nil {
		return nil, malformed(err.Error())
	}
	cp, p := &pk.Connect, &pk.Properties
	if p.AuthenticationMethod == "" && p.AuthenticationData != nil {
		return nil, protocolError("authentication data without a method") // MQTT 5 section 3.1.2.11.10
	}
	out := &connectPacket{
		version: version, bridge: isBridge, clean: cp.Clean, keepAlive: cp.Keepalive,
		clientID: strings.Clone(cp.ClientIdentifier), user: string(cp.Username), hasUser: cp.UsernameFlag,
		password: bytes.Clone(cp.Password), expiry: p.SessionExpiryInterval, receiveMax: p.ReceiveMaximum,
		maxPacket: p.MaximumPacketSize, aliasMax: p.TopicAliasMaximum,
		quiet:      p.RequestProblemInfoFlag && p.RequestProblemInfo == 0,
		authMethod: strings.Clone(p.AuthenticationMethod), authData: bytes.Clone(p.AuthenticationData),
	}
	if version != 5 && !cp.Clean {
		out.expiry = forever // a 3.x session lasts until the configured bound
	}
	if cp.WillFlag {
		out.will = decodeWill(cp)
	}
	return out, nil
}

// forever is the session expiry interval that never ends (MQTT 5 section 3.1.2.11.2).
const forever = 0xFFFFFFFF

func decodeWill(cp *packets.ConnectParams) *will {
	p := &cp.WillProperties
	m := &bridge.Message{
		Topic: bridge.Topic(strings.Clone(cp.WillTopic)), Payload: bytes.Clone(cp.WillPayload), QoS: bridge.QoS(cp.WillQos),
		Retain: cp.WillRetain, ContentType: strings.Clone(p.ContentType), ResponseTopic: bridge.Topic(strings.Clone(p.ResponseTopic)),
		CorrelationData: bytes.Clone(p.CorrelationData),
	}
	if p.PayloadFormatFlag {
		m.PayloadFormat = bridge.FormatBytes + bridge.PayloadFormat(p.PayloadFormat)
	}
	for _, u := range p.User {
		m.UserProperties = append(m.UserProperties, bridge.UserProperty{Name: strings.Clone(u.Key), Value: strings.Clone(u.Val)})
	}
	return &will{message: m, delay: p.WillDelayInterval, expiry: p.MessageExpiryInterval}
}

// connectVersion finds the protocol version, so that a refusal is said in its words. A Mosquitto bridge sets the high bit
// of the level.
func connectVersion(body []byte) (version byte, isBridge bool, err error) {
	r := reader{p: body}
	name := view(r.bytes())
	level := r.byte()
	if r.err != nil {
		return 0, false, r.err
	}
	isBridge = level&0x80 != 0
	switch v := level & 0x7f; {
	case name == "MQIsdp" && v == 3, name == "MQTT" && v == 4:
		return v, isBridge, nil
	case name == "MQTT" && v == 5 && !isBridge:
		return 5, false, nil
	case name == "MQTT" && v < 5 || name == "MQIsdp":
		return 4, false, &violation{codeUnsupportedVersion, "protocol level is not supported"}
	case name == "MQTT":
		return 5, false, &violation{codeUnsupportedVersion, "protocol version is not supported"}
	}
	return 0, false, protocolError("protocol name is not MQTT")
}

// withoutMissing clears the flags of a user name and a password that are not there: in MQTT 3.1 that is no error (section
// 3.1), because clients of older versions did so.
func withoutMissing(body []byte) []byte {
	r := reader{p: body}
	name := r.bytes()
	r.byte()
	flags := r.byte()
	r.uint16()
	r.bytes()
	if flags&4 != 0 {
		r.bytes()
		r.bytes()
	}
	kept := flags
	switch {
	case r.err != nil || flags&0x80 == 0:
	case len(r.p) == 0:
		kept &^= 0xC0
	default:
		if r.bytes(); r.err == nil && len(r.p) == 0 {
			kept &^= 0x40
		}
	}
	if kept == flags {
		return body
	}
	body = bytes.Clone(body)
	body[2+len(name)+1] = kept
	return body
}

// checkConnect checks what the codec lets pass (MQTT 5 section 3.1).
func checkConnect(body []byte, version byte, l *Limits) error {
	r := reader{p: body}
	r.bytes()
	r.byte()
	flags := r.byte()
	r.uint16()
	hasWill, willQoS := flags&4 != 0, flags>>3&3
	switch {
	case r.err != nil:
		return r.err
	case flags&1 != 0:
		return malformed("reserved CONNECT flag is set") // MQTT-3.1.2-3
	case willQoS == 3:
		return malformed("will QoS is 3")
	case !hasWill && (willQoS != 0 || flags&0x20 != 0):
		return malformed("will QoS or retain without a will") // MQTT-3.1.2-11
	case version != 5 && flags&0x40 != 0 && flags&0x80 == 0:
		return malformed("password without user name") // MQTT-3.1.2-22 of 3.1.1
	}
	limits := func(users, longest int) {
		switch {
		case users > l.UserProperties:
			r.fail(&violation{codeQuotaExceeded, "too many user properties"})
		case longest > l.StringBytes:
			r.fail(&violation{codePacketTooLarge, "property is too long"})
		}
	}
	if version == 5 {
		limits(r.properties(propsOfConnect))
	}
	r.string()
	if hasWill {
		if version == 5 {
			limits(r.properties(propsOfWill))
		}
		if topic := r.string(); r.err == nil {
			if _, err := bridge.ParseTopic(topic); err != nil {
				r.fail(&violation{codeTopicInvalid, "will: " + err.Error()})
			}
		}
		r.bytes()
	}
	if flags&0x80 != 0 {
		r.string()
	}
	if flags&0x40 != 0 {
		r.bytes()
	}
	return r.end()
}

// guard runs a function of the codec and turns a panic into an error.
func guard(decode func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("codec: %v", p)
		}
	}()
	return decode()
}

// subscribePacket is a SUBSCRIBE or UNSUBSCRIBE; its filters are not validated.
type subscribePacket struct {
	id      uint16
	filters []filterRequest
}

type filterRequest struct {
	filter  string
	options bridge.SubscribeOptions
}

// decodeSubscribe reads a SUBSCRIBE (MQTT 5 section 3.8).
func decodeSubscribe(body []byte, version byte, l *Limits) (*subscribePacket, error) {
	r := reader{p: body}
	if r.uint16() == 0 && r.err == nil {
		return nil, protocolError("packet identifier is 0")
	}
	if version == 5 {
		if users, longest := r.properties(propsOfSubscribe); users > l.UserProperties || longest > l.StringBytes {
			return nil, &violation{codeQuotaExceeded, "too many or too long user properties"}
		}
	}
	n := 0
	for ; len(r.p) > 0; n++ {
		r.string()
		options := r.byte()
		switch {
		case r.err != nil:
		case version == 5 && options&0xC0 != 0, version != 5 && options&0xFC != 0:
			r.fail(malformed("reserved bits of subscription options are set")) // MQTT-3.8.3-5
		case options&3 == 3, options>>4&3 == 3:
			r.fail(protocolError("QoS or retain handling is 3")) // MQTT 5 section 3.8.3.1
		}
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	if err := checkFilterCount(n, l); err != nil {
		return nil, err
	}
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Remaining: len(body)}, ProtocolVersion: version}
	if err := guard(func() error { return pk.SubscribeDecode(body) }); err != nil {
		return nil, malformed(err.Error())
	}
	out := &subscribePacket{id: pk.PacketID, filters: make([]filterRequest, len(pk.Filters))}
	for i, f := range pk.Filters {
		o := bridge.SubscribeOptions{
			QoS: bridge.QoS(f.Qos), NoLocal: f.NoLocal, RetainAsPublished: f.RetainAsPublished,
			RetainHandling: bridge.RetainHandling(f.RetainHandling),
		}
		if len(pk.Properties.SubscriptionIdentifier) > 0 {
			o.Identifier = uint32(pk.Properties.SubscriptionIdentifier[0])
		}
		out.filters[i] = filterRequest{f.Filter, o}
	}
	return out, nil
}

func checkFilterCount(n int, l *Limits) error {
	switch {
	case n == 0:
		return protocolError("packet has no topic filter")
	case n > l.FiltersPerPacket:
		return &violation{codeQuotaExceeded, "packet has too many topic filters"}
	}
	return nil
}

// decodeUnsubscribe reads an UNSUBSCRIBE (MQTT 5 section 3.10).
func decodeUnsubscribe(body []byte, version byte, l *Limits) (*subscribePacket, error) {
	r := reader{p: body}
	if r.uint16() == 0 && r.err == nil {
		return nil, protocolError("packet identifier is 0")
	}
	if version == 5 {
		if users, longest := r.properties(propsOfUnsubscribe); users > l.UserProperties || longest > l.StringBytes {
			return nil, &violation{codeQuotaExceeded, "too many or too long user properties"}
		}
	}
	n := 0
	for ; len(r.p) > 0; n++ {
		r.string()
	}
	if err := r.end(); err != nil {
		return nil, err
	}
	if err := checkFilterCount(n, l); err != nil {
		return nil, err
	}
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Remaining: len(body)}, ProtocolVersion: version}
	if err := guard(func() error { return pk.UnsubscribeDecode(body) }); err != nil {
		return nil, malformed(err.Error())
	}
	out := &subscribePacket{id: pk.PacketID, filters: make([]filterRequest, len(pk.Filters))}
	for i, f := range pk.Filters {
		out.filters[i].filter = f.Filter
	}
	return out, nil
}

// disconnectPacket is a client's DISCONNECT.
type disconnectPacket struct {
	code      byte
	expiry    uint32
	hasExpiry bool
}

// decodeDisconnect reads a DISCONNECT (MQTT 5 section 3.14).
func decodeDisconnect(body []byte, version byte) (d disconnectPacket, err error) {
	if version != 5 {
		if len(body) != 0 {
			return d, malformed("DISCONNECT with a body")
		}
		return d, nil
	}
	if len(body) == 0 {
		return d, nil
	}
	r := reader{p: body[1:]}
	if len(r.p) > 0 {
		r.properties(propsOfDisconnect &^ properties(0x1C)) // a Server Reference is the server's
		if err := r.end(); err != nil {
			return d, err
		}
	}
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect, Remaining: len(body)}, ProtocolVersion: 5}
	if err := guard(func() error { return pk.DisconnectDecode(body) }); err != nil {
		return d, malformed(err.Error())
	}
	code := body[0] // the codec skips one that nothing follows
	switch code {
	case 0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99:
	default:
		return d, protocolError("reason code that a client's DISCONNECT does not have") // MQTT-3.14.2-1
	}
	return disconnectPacket{code, pk.Properties.SessionExpiryInterval, pk.Properties.SessionExpiryIntervalFlag}, nil
}

// authPacket is a client's AUTH.
type authPacket struct {
	code   byte
	method string
	data   []byte
}

// decodeAuth reads an AUTH (MQTT 5 section 3.15).
func decodeAuth(body []byte) (a authPacket, err error) {
	if len(body) == 0 {
		return a, nil
	}
	r := reader{p: body[1:]}
	if len(r.p) > 0 {
		r.properties(propsOfAuth)
		if err := r.end(); err != nil {
			return a, err
		}
	}
	if len(body) == 1 {
		return authPacket{code: body[0]}, nil
	}
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Auth, Remaining: len(body)}, ProtocolVersion: 5}
	if err := guard(func() error { return pk.AuthDecode(body) }); err != nil {
		return a, malformed(err.Error())
	}
	return authPacket{pk.ReasonCode, strings.Clone(pk.Properties.AuthenticationMethod), bytes.Clone(pk.Properties.AuthenticationData)}, nil
}

// encode runs an encoder of the codec, leaving out the reason string where the packet would be larger than the client takes
// (MQTT-3.2.2-19 and its like).
func encode(pk *packets.Packet, maxPacket int, encoder func(*packets.Packet, *bytes.Buffer) error) []byte {
	pk.Mods.AllowResponseInfo = true
	var buf bytes.Buffer
	if err := encoder(pk, &buf); err != nil {
		return nil
	}
	if maxPacket != 0 && buf.Len() > maxPacket && pk.Properties.ReasonString != "" {
		pk.Properties.ReasonString = ""
		buf.Reset()
		if err := encoder(pk, &buf); err != nil {
			return nil
		}
	}
	return buf.Bytes()
}

func encodeDisconnect(code byte, text, reference string, maxPacket int) []byte {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}, ProtocolVersion: 5, ReasonCode: code}
	pk.Properties.ReasonString, pk.Properties.ServerReference = text, reference
	return encode(&pk, maxPacket, (*packets.Packet).DisconnectEncode)
}

func encodeAuth(code byte, method string, data []byte, maxPacket int) []byte {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Auth}, ProtocolVersion: 5, ReasonCode: code}
	pk.Properties.AuthenticationMethod, pk.Properties.AuthenticationData = method, data
	return encode(&pk, maxPacket, (*packets.Packet).AuthEncode)
}

// encodeConnackRefusal says no: in MQTT 5 with any code, in 3.x with one of 1 to 5.
func encodeConnackRefusal(version, code byte, text string, maxPacket int) []byte {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}, ProtocolVersion: version, ReasonCode: code}
	if version == 5 {
		pk.Properties.ReasonString = text
	}
	return encode(&pk, maxPacket, (*packets.Packet).ConnackEncode)
}

func encodeSuback(kind byte, id uint16, codes []byte, version byte, text string, maxPacket int) []byte {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: kind}, ProtocolVersion: version, PacketID: id, ReasonCodes: codes}
	if version == 5 {
		pk.Properties.ReasonString = text
	}
	if kind == packets.Suback {
		return encode(&pk, maxPacket, (*packets.Packet).SubackEncode)
	}
	return encode(&pk, maxPacket, (*packets.Packet).UnsubackEncode)
}
