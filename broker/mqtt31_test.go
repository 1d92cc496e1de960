package broker_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// TestMQTT31 tests where MQTT 3.1, whose statements have no numbers, is not as 3.1.1. What 3.1 leaves open is as with
// Mosquitto.
func TestMQTT31(t *testing.T) {
	as31 := func(id string) raw.Connect { return raw.Connect{Version: raw.V31, ClientID: id, Clean: true} }
	for name, run := range map[string]func(t *testing.T){
		"CONNACK has no session present, also where there is one": func(t *testing.T) {
			s := start(t, options{})
			c := s.open(raw.Connect{Version: raw.V31, ClientID: "a"})
			c.Subscribe(1, "t")
			leaves(c)
			c = raw.Dial(t, s.Addr)
			c.Send(raw.Connect{Version: raw.V31, ClientID: "a"})
			bytesAre(t, c, 0x20, 2, 0, 0)
			c.Publish(raw.Publish{Topic: "t", Payload: "x"})
			wants(t, c.Read(), "t", "x", 0, false, false)
			leaves(c)
			s.resume("a", true).Quiet() // a later version of the client is told
		},
		"an empty client id is refused with code 2, with clean session too": func(t *testing.T) {
			s := start(t, options{})
			for _, clean := range []bool{true, false} {
				c := raw.Dial(t, s.Addr)
				c.Send(raw.Connect{Version: raw.V31, Clean: clean})
				c.ExpectCode(raw.CONNACK, 2)
				c.ExpectClosed()
			}
		},
		"client ids of more than 23 bytes are let in up to the server's own limit": func(t *testing.T) {
			s := start(t, options{})
			limit := broker.DefaultLimits().ClientIDBytes
			for _, n := range []int{1, 23, 24, limit} {
				s.open(as31(strings.Repeat("x", n))).Quiet()
			}
			c := raw.Dial(t, s.Addr)
			c.Send(as31(strings.Repeat("x", limit+1)))
			c.ExpectCode(raw.CONNACK, 2)
			c.ExpectClosed()
		},
		"a level that is not 3 is refused with code 1": func(t *testing.T) {
			s := start(t, options{})
			for _, level := range []byte{0, 1, 2, 4, 5} {
				c := raw.Dial(t, s.Addr)
				c.Send(raw.Frame(0x10, "MQIsdp", level, 2, uint16(0), "a"))
				bytesAre(t, c, 0x20, 2, 0, 1)
				c.ExpectClosed()
			}
		},
		"refusals have the codes 3 to 5 as in 3.1.1": func(t *testing.T) {
			s := start(t, options{access: fenced{}, hub: bridge.Limits{Clients: 1}})
			s.open(as31("only"))
			bad, fencedWill := as31("a"), as31("a")
			bad.User = "bad"
			fencedWill.Will = &raw.Will{Topic: "secret/x"}
			for code, p := range map[raw.Code]raw.Connect{3: as31("a"), 4: bad, 5: fencedWill} {
				c := raw.Dial(t, s.Addr)
				c.Send(p)
				c.ExpectCode(raw.CONNACK, code)
				c.ExpectClosed()
			}
		},
		"the flags of a user name or password that is not there count for nothing": func(t *testing.T) {
			door := doorbook{shown: make(chan bridge.Credentials, 10)}
			s := start(t, options{access: door})
			will := as31("a")
			will.Will = &raw.Will{Topic: "will", Payload: "x"}
			user := as31("a")
			user.User = "u"
			for _, with := range []struct {
				connect raw.Connect
				flags   byte
				user    string
			}{
				{as31("a"), 0b1000_0010, ""}, {as31("a"), 0b1100_0010, ""}, {will, 0b1100_0110, ""}, {user, 0b1100_0010, "u"},
			} {
				with.connect.Flags = &with.flags
				s.open(with.connect).Quiet()
				if got := <-door.shown; got.User != with.user || got.HasUser != (with.user != "") || len(got.Password) != 0 {
					t.Errorf("flags %08b: user %q (%t), password %q", with.flags, got.User, got.HasUser, got.Password)
				}
			}
			user.Flags = new(byte(0b0100_0010)) // a password without a user name is none of 3.1 either
			s.closesFirst("password without user name", user)
			s.closesFirst("more than flags and lengths say", raw.Frame(0x10, "MQIsdp", 3, 0b1000_0010, uint16(0), "a", "u", "p"))
			s.closesFirst("half a user name", raw.Frame(0x10, "MQIsdp", 3, 0b1000_0010, uint16(0), "a", uint16(5), byte('u')))
		},
		"a SUBSCRIBE that is not allowed is acknowledged as if it were, and nothing comes of it": func(t *testing.T) {
			s := start(t, options{access: fenced{}})
			c := s.open(as31("a"))
			c.Send(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "secret/#", QoS: 2}, {Filter: "public", QoS: 1}, {Filter: "bad/#/filter"}}})
			if p := c.Expect(raw.SUBACK); !slices.Equal(p.Codes, []raw.Code{2, 1, 0x80}) {
				t.Errorf("got %s", p)
			}
			if n := s.Hub.Stats().Subscriptions; n != 1 {
				t.Errorf("%d subscriptions", n)
			}
		},
		"DUP is taken on the packets of 3.1 that may be sent again, and on no other": func(t *testing.T) {
			s := start(t, options{})
			c := s.open(as31("a"))
			c.Send(raw.WithFlags(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "t", QoS: 2}}}, 0b1010))
			c.ExpectAck(raw.SUBACK, 1, 2)
			c.Send(raw.Publish{Topic: "u", QoS: 2, ID: 2})
			c.ExpectAck(raw.PUBREC, 2, 0)
			c.Send(raw.WithFlags(raw.Pubrel{ID: 2}, 0b1010))
			c.ExpectAck(raw.PUBCOMP, 2, 0)
			c.Send(raw.WithFlags(raw.Unsubscribe{ID: 3, Filters: []string{"t"}}, 0b1010))
			c.ExpectAck(raw.UNSUBACK, 3, 0)
			for _, p := range []raw.Sendable{
				raw.WithFlags(raw.Pubrel{ID: 2}, 0b0011), raw.WithFlags(raw.Pubrel{ID: 2}, 0b1000), raw.WithFlags(raw.Pingreq{}, 0b1000),
			} {
				c := s.open(as31("violator"))
				c.Send(p)
				c.ExpectClosed()
			}
		},
		"violations end the connection without a word": func(t *testing.T) {
			s := start(t, options{})
			watcher := s.watch()
			for _, p := range []raw.Sendable{
				raw.Publish{Topic: "a/#", Payload: "x"}, raw.Publish{Topic: "a", QoS: 3, ID: 1}, raw.Subscribe{ID: 1}, raw.Frame(0xF0), as31("again"),
			} {
				c := s.open(as31("violator"))
				c.Send(p)
				c.ExpectClosed()
			}
			watcher.Quiet()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			run(t)
		})
	}
}
