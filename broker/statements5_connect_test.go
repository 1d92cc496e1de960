package broker_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// statements5Connect are the tests of chapters 1, 2, 3.1 and 3.2.
func statements5Connect() []statement {
	return slices.Concat(statements5Data(), statements5ConnectPacket(), statements5Session(), statements5Will(), statements5Connack())
}

// statements5ConnectPacket are those about the form of CONNECT.
func statements5ConnectPacket() []statement {
	return []statement{
		v5("any other packet before CONNECT closes the connection without a word", connectIsFirst, "MQTT-3.1.0-1"),
		v5("a second CONNECT is a protocol error", func(t *testing.T) {
			s := start(t, options{})
			s.ended(t, "second CONNECT", 0x82, raw.Connect{ClientID: "violates", Clean: true})
			s.ended(t, "CONNECT of another client", 0x82, raw.Connect{ClientID: "other", Clean: true})
			if s.Hub.Client(s.Name(), "other") != nil {
				t.Error("the second CONNECT was processed")
			}
		}, "MQTT-3.1.0-2"),
		v5("another protocol name closes the connection, whatever the rest says", func(t *testing.T) {
			s := start(t, options{})
			for _, name := range []string{"MQTt", "mqtt", "MQT", "MQTTT", "HTTP", ""} {
				c := raw.Dial(t, s.Addr)
				c.Send(raw.Frame(0x10, name, 5, 2, uint16(0), 0, "id"))
				c.ExpectClosed()
			}
		}, "MQTT-3.1.2-1"),
		v5("a version above 5 is refused with CONNACK 0x84", func(t *testing.T) {
			s := start(t, options{})
			for _, level := range []int{6, 7, 127, 0x85, 0x86} {
				s.refusedConnect(t, fmt.Sprint("level ", level), 0x84, raw.Frame(0x10, "MQTT", level, 2, uint16(0), 0, "id"))
			}
		}, "MQTT-3.1.2-2"),
		v5("the reserved CONNECT flag is malformed whatever the other flags are", func(t *testing.T) {
			s := start(t, options{})
			for _, flags := range []byte{0x01, 0x03} {
				s.refusedConnect(t, fmt.Sprintf("flags %02X", flags), 0x81, raw.Connect{ClientID: "c", Flags: &flags})
			}
			flags := byte(0xC7)
			s.refusedConnect(t, "flags C7", 0x81, raw.Connect{ClientID: "c", Flags: &flags, User: "u", Password: "p", Will: &raw.Will{Topic: "w"}})
		}, "MQTT-3.1.2-3"),
		v5("with the will flag a CONNECT without will properties, topic or payload is malformed; an empty payload is there",
			willFieldsPresent, "MQTT-3.1.2-9"),
		v5("will QoS without will flag is malformed", flagsWithoutWill(0x08, 0x10, 0x18, 0x0A), "MQTT-3.1.2-11"),
		v5("will QoS 0, 1 and 2 are taken, 3 is malformed", willQoS, "MQTT-3.1.2-12"),
		v5("will retain without will flag is malformed", flagsWithoutWill(0x20, 0x22), "MQTT-3.1.2-13"),
		v5("a user name without its flag is malformed", connectFields(0x02, 0x81, "id", "user"), "MQTT-3.1.2-16"),
		v5("the user name flag without a user name is malformed; an empty user name is one", func(t *testing.T) {
			connectFields(0x82, 0x81, "id")(t)
			connectFields(0x82, 0x81, "id", []byte{0})(t)
			connectFields(0x82, 0, "id", "")(t)
			connectFields(0x82, 0, "id", "user")(t)
		}, "MQTT-3.1.2-17"),
		v5("a password without its flag is malformed", func(t *testing.T) {
			connectFields(0x02, 0x81, "id", "password")(t)
			connectFields(0x82, 0x81, "id", "user", "password")(t)
		}, "MQTT-3.1.2-18"),
		v5("the password flag without a password is malformed; a password needs no user name and may be empty", func(t *testing.T) {
			connectFields(0x42, 0x81, "id")(t)
			connectFields(0xC2, 0x81, "id", "user")(t)
			connectFields(0xC2, 0x81, "id", "user", []byte{0, 9, 'p'})(t)
			connectFields(0x42, 0, "id", "\xff\x00 binary")(t)
			connectFields(0xC2, 0, "id", "user", "")(t)
		}, "MQTT-3.1.2-19"),
		v5("the payload is client identifier, will properties, will topic, will payload, user name, password: as given so taken",
			payloadOrder, "MQTT-3.1.3-1"),
		v5("a CONNECT without a client identifier is malformed, and what comes first is the client identifier", func(t *testing.T) {
			connectFields(0x02, 0x81)(t)
			connectFields(0x02, 0x81, []byte{0, 5, 'i', 'd'})(t)
			connectFields(0x82, 0x81, "user")(t)
			s := start(t, options{})
			s.open(raw.Connect{ClientID: "id", User: "user", Clean: true})
			if s.Hub.Client(s.Name(), "id") == nil {
				t.Error("the first field is not the client identifier")
			}
		}, "MQTT-3.1.3-3"),
		v5("a client identifier that is not UTF-8 is malformed", connectFields(0x02, 0x81, "i\xed\xa0\x80"), "MQTT-3.1.3-4"),
		v5("client identifiers of 1 to 23 bytes of 0-9 a-z A-Z are taken", func(t *testing.T) {
			s := start(t, options{limits: broker.Limits{ClientIDBytes: 23}}) // the least that may be configured
			for _, id := range []string{"0", "Z", "0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ"} {
				c, ack := raw.Open(t, s.Addr, raw.Connect{ClientID: id, Clean: true})
				if ack.Props.Has(raw.AssignedClientID) || s.Hub.Client(s.Name(), id) == nil {
					t.Errorf("client identifier %q was not used: %s", id, ack)
				}
				c.Close()
			}
		}, "MQTT-3.1.3-5"),
		v5("a client identifier that is longer than the configured limit is refused with CONNACK 0x85", func(t *testing.T) {
			s := start(t, options{limits: broker.Limits{ClientIDBytes: 30}})
			s.refusedConnect(t, "31 bytes", 0x85, raw.Connect{ClientID: strings.Repeat("x", 31), Clean: true})
			s.open(raw.Connect{ClientID: strings.Repeat("x", 30), Clean: true})
		}, "MQTT-3.1.3-8"),
		v5("a will topic that is not UTF-8 is malformed", connectFields(0x06, 0x81, "id", 0, "w\xff", "payload"), "MQTT-3.1.3-11"),
		v5("a user name that is not UTF-8 is malformed", connectFields(0x82, 0x81, "id", "\xc3\x28"), "MQTT-3.1.3-12"),
		v5("what a CONNECT must not have closes the connection with CONNACK 0x81 or 0x82", connectViolations, "MQTT-3.1.4-1"),
		v5("a client that is not let in is told so and cut off", func(t *testing.T) {
			s := start(t, options{access: fenced{}})
			s.refusedConnect(t, "wrong password", 0x86, raw.Connect{ClientID: "c", User: "bad", Clean: true})
			s.refusedConnect(t, "will where it may not publish", 0x87, raw.Connect{ClientID: "c", Clean: true, Will: &raw.Will{Topic: "secret/w"}})
			s.refusedConnect(t, "will below $SYS", 0x87, raw.Connect{ClientID: "c", Clean: true, Will: &raw.Will{Topic: "$SYS/broker/version"}})
			s.refusedConnect(t, "unknown authentication method", 0x8C, raw.Connect{ClientID: "c", Clean: true, Props: raw.Props{raw.AuthMethod.Text("none")}})
			if n := len(s.Hub.Clients()); n != 0 {
				t.Errorf("%d clients are attached", n)
			}
		}, "MQTT-3.1.4-2"),
		v5("an accepted CONNECT is answered with CONNACK 0x00, also one that comes byte by byte", func(t *testing.T) {
			s := start(t, options{})
			c := raw.Dial(t, s.Addr)
			c.SendSplit(1, raw.Connect{ClientID: "c", Clean: true, KeepAlive: 65535, Will: &raw.Will{Topic: "w"}})
			if p := c.ExpectCode(raw.CONNACK, 0); p.SessionPresent {
				t.Errorf("got %s", p)
			}
			c.Quiet()
		}, "MQTT-3.1.4-5"),
		v5("after a refused CONNECT nothing of what came with it is processed", func(t *testing.T) {
			s := start(t, options{access: fenced{}})
			watch := s.open(raw.Connect{ClientID: "watch", Clean: true})
			watch.Subscribe(0, "#")
			after := raw.Publish{Topic: "a", Payload: "from nobody", QoS: 1, ID: 1, Retain: true}
			s.refusedConnect(t, "wrong password", 0x86, raw.Connect{ClientID: "c", User: "bad", Clean: true}, after)
			s.refusedConnect(t, "malformed", 0x81, raw.Padded(raw.Connect{ClientID: "c", Clean: true}, 0), after)
			s.refusedConnect(t, "unknown version", 0x84, raw.Connect{ClientID: "c", Level: 6, Clean: true}, after)
			watch.Quiet()
			if n := s.Hub.Stats().Retained; n != 0 {
				t.Errorf("%d messages are retained", n)
			}
		}, "MQTT-3.1.4-6"),
	}
}

// connectFields sends a CONNECT with the flags and the payload; code 0 means that it is taken.
func connectFields(flags byte, code raw.Code, payload ...any) func(t *testing.T) {
	return func(t *testing.T) {
		s := start(t, options{})
		p := raw.Frame(0x10, append([]any{"MQTT", 5, flags, uint16(0), 0}, payload...)...)
		if code != 0 {
			s.refusedConnect(t, fmt.Sprintf("flags %02X with %q", flags, payload), code, p)
			return
		}
		c := raw.Dial(t, s.Addr)
		c.Send(p)
		c.ExpectCode(raw.CONNACK, 0)
	}
}

func flagsWithoutWill(all ...byte) func(t *testing.T) {
	return func(t *testing.T) {
		for _, flags := range all {
			connectFields(flags, 0x81, "id")(t)
		}
	}
}

func connectIsFirst(t *testing.T) {
	s := start(t, options{})
	for _, p := range []raw.Sendable{
		raw.Connack{}, raw.Publish{Topic: "a"}, raw.Puback{ID: 1}, raw.Pubrec{ID: 1}, raw.Pubrel{ID: 1}, raw.Pubcomp{ID: 1},
		raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "a"}}}, raw.Suback{ID: 1, Codes: []raw.Code{0}},
		raw.Unsubscribe{ID: 1, Filters: []string{"a"}}, raw.Unsuback{ID: 1, Codes: []raw.Code{0}}, raw.Pingreq{}, raw.Pingresp{},
		raw.Disconnect{}, raw.Auth{Code: 0x18}, raw.Frame(0x00),
	} {
		c := raw.Dial(t, s.Addr)
		c.Send(p, raw.Connect{ClientID: "c", Clean: true})
		c.ExpectClosed()
	}
}

func willFieldsPresent(t *testing.T) {
	connectFields(0x06, 0x81, "id")(t)
	connectFields(0x06, 0x81, "id", 0)(t)
	connectFields(0x06, 0x81, "id", 0, "topic")(t)
	connectFields(0x06, 0x81, "id", 0, "topic", []byte{0, 2, 'x'})(t)
	connectFields(0x06, 0x81, "id", "topic", "payload")(t)
	connectFields(0x06, 0x90, "id", 0, "", "payload")(t)
	connectFields(0x06, 0x90, "id", 0, "topic/+", "payload")(t)
	connectFields(0x06, 0x81, "id", 0, "topic", "payload", "more")(t)
	connectFields(0x06, 0, "id", 0, "topic", "")(t)
	connectFields(0x06, 0, "id", 0, "topic", "payload")(t)
	connectFields(0x02, 0x81, "id", 0, "topic", "payload")(t)
}

func willQoS(t *testing.T) {
	s := start(t, options{})
	watch := s.open(raw.Connect{ClientID: "watch", Clean: true})
	watch.Subscribe(2, "w")
	for qos := range byte(3) {
		c := s.open(raw.Connect{ClientID: "c", Clean: true, Will: &raw.Will{Topic: "w", QoS: qos}})
		c.Drop()
		if p := watch.Deliver(); p.QoS != qos {
			t.Errorf("a will of QoS %d came as %s", qos, p)
		}
	}
	s.refusedConnect(t, "QoS 3", 0x81, raw.Connect{ClientID: "c", Clean: true, Will: &raw.Will{Topic: "w", QoS: 3}})
}

// recorded is an Access that remembers the credentials it was shown.
type recorded struct {
	open
	mu  sync.Mutex
	got bridge.Credentials
}

func (r *recorded) Authenticate(ctx context.Context, c bridge.Credentials) (*bridge.Identity, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.got = c
	r.got.Password = slices.Clone(c.Password)
	return r.open.Authenticate(ctx, c)
}

func payloadOrder(t *testing.T) {
	access := &recorded{}
	s := start(t, options{access: access})
	watch := s.open(raw.Connect{ClientID: "watch", Clean: true})
	watch.Subscribe(0, "#")
	c := raw.Dial(t, s.Addr)
	c.Send(raw.Frame(0x10, "MQTT", 5, 0xC6, uint16(0), 0, "one", raw.Props{raw.ContentType.Text("two")}, "three", "four", "five", "six"))
	c.ExpectCode(raw.CONNACK, 0)
	access.mu.Lock()
	if got := access.got; got.ClientID != "one" || got.User != "five" || !got.HasUser || string(got.Password) != "six" {
		t.Errorf("got client %q, user %q, password %q", got.ClientID, got.User, got.Password)
	}
	access.mu.Unlock()
	c.Drop()
	wantPublish(t, watch.Expect(raw.PUBLISH), raw.Publish{Topic: "three", Payload: "four", Props: raw.Props{raw.ContentType.Text("two")}})
}

func connectViolations(t *testing.T) {
	s := start(t, options{})
	twice := func(p raw.Property) raw.Props { return raw.Props{p, p} }
	for _, v := range []struct {
		what  string
		code  raw.Code
		props raw.Props
	}{
		{"session expiry twice", 0x82, twice(raw.SessionExpiry.Int(1))},
		{"receive maximum twice", 0x82, twice(raw.ReceiveMaximum.Int(1))},
		{"maximum packet size twice", 0x82, twice(raw.MaximumPacketSize.Int(1000))},
		{"topic alias maximum twice", 0x82, twice(raw.TopicAliasMaximum.Int(1))},
		{"request response information twice", 0x82, twice(raw.RequestResponseInformation.Int(1))},
		{"request problem information twice", 0x82, twice(raw.RequestProblemInformation.Int(1))},
		{"authentication method twice", 0x82, twice(raw.AuthMethod.Text("m"))},
		{"authentication data twice", 0x82, append(twice(raw.AuthData.Bytes([]byte("d"))), raw.AuthMethod.Text("m"))},
		{"authentication data without method", 0x82, raw.Props{raw.AuthData.Bytes([]byte("d"))}},
		{"receive maximum 0", 0x82, raw.Props{raw.ReceiveMaximum.Int(0)}},
		{"maximum packet size 0", 0x82, raw.Props{raw.MaximumPacketSize.Int(0)}},
		{"request response information 2", 0x82, raw.Props{raw.RequestResponseInformation.Int(2)}},
		{"request problem information 2", 0x82, raw.Props{raw.RequestProblemInformation.Int(2)}},
		{"a property of PUBLISH", 0x81, raw.Props{raw.TopicAlias.Int(1)}},
		{"a property of the will", 0x81, raw.Props{raw.WillDelay.Int(1)}},
		{"a property of CONNACK", 0x81, raw.Props{raw.ServerKeepAlive.Int(1)}},
		{"reason string", 0x81, raw.Props{raw.ReasonString.Text("r")}},
		{"property 0x7F", 0x81, raw.Props{{ID: 0x7F, Data: []byte{0}}}},
		{"property 0", 0x81, raw.Props{{ID: 0, Data: []byte{0}}}},
	} {
		s.refusedConnect(t, v.what, v.code, raw.Connect{ClientID: "c", Clean: true, Props: v.props})
	}
	for _, v := range []struct {
		what  string
		code  raw.Code
		props raw.Props
	}{
		{"will delay twice", 0x82, twice(raw.WillDelay.Int(1))},
		{"payload format twice", 0x82, twice(raw.PayloadFormat.Int(1))},
		{"message expiry twice", 0x82, twice(raw.MessageExpiry.Int(1))},
		{"content type twice", 0x82, twice(raw.ContentType.Text("c"))},
		{"response topic twice", 0x82, twice(raw.ResponseTopic.Text("r"))},
		{"correlation data twice", 0x82, twice(raw.CorrelationData.Bytes([]byte("c")))},
		{"a property of CONNECT", 0x81, raw.Props{raw.SessionExpiry.Int(1)}},
		{"topic alias", 0x81, raw.Props{raw.TopicAlias.Int(1)}},
		{"response topic with a wildcard", 0x82, raw.Props{raw.ResponseTopic.Text("a/#")}},
		{"empty response topic", 0x82, raw.Props{raw.ResponseTopic.Text("")}},
	} {
		s.refusedConnect(t, "will: "+v.what, v.code, raw.Connect{ClientID: "c", Clean: true, Will: &raw.Will{Topic: "w", Props: v.props}})
	}
	connect := raw.Connect{ClientID: "c", Clean: true, Props: raw.Props{raw.ReceiveMaximum.Int(1)}}
	s.refusedConnect(t, "bytes after the last field", 0x81, raw.Padded(connect, 0))
	whole := raw.Encode(raw.V5, connect)
	for n := 7; n < len(whole)-2; n++ { // from the protocol level on it is known whose words to use
		s.refusedConnect(t, fmt.Sprintf("only %d bytes of the body", n), 0x81, raw.Shortened(connect, n))
	}
	if n := len(s.Hub.Clients()); n != 0 {
		t.Errorf("%d clients are attached", n)
	}
}
