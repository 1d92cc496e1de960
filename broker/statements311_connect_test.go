package broker_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// connect311 are the statements about CONNECT and CONNACK (sections 3.1 and 3.2).
func connect311() []statement {
	list := []statement{
		of311("3.1.0-1", "any first packet but CONNECT ends the connection without an answer and without an effect", func(t *testing.T) {
			s := start(t, options{})
			watcher := s.watch()
			for _, p := range []raw.Sendable{
				raw.Publish{Topic: "a", Payload: "x"}, raw.Publish{Topic: "a", QoS: 1, ID: 1}, raw.Publish{Topic: "a", QoS: 2, ID: 1, Retain: true},
				raw.Puback{ID: 1}, raw.Pubrec{ID: 1}, raw.Pubrel{ID: 1}, raw.Pubcomp{ID: 1},
				raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "#"}}}, raw.Unsubscribe{ID: 1, Filters: []string{"#"}},
				raw.Pingreq{}, raw.Disconnect{}, raw.Connack{}, raw.Frame(0xF0), raw.Frame(0x00),
			} {
				s.closesFirst(fmt.Sprintf("%#v and then CONNECT", p), p, as311("late"))
			}
			watcher.Quiet()
			fresh := s.open(as311("fresh"))
			fresh.Subscribe(0, "#")
			fresh.Quiet() // nothing was retained
		}),
		of311("3.1.0-2", "a second CONNECT ends the connection as a violation: the will goes out", func(t *testing.T) {
			s := start(t, options{})
			watcher := s.watch()
			first := as311("a")
			first.Will = &raw.Will{Topic: "will", Payload: "of the first"}
			c := s.open(first)
			second := as311("a")
			second.Will = &raw.Will{Topic: "will", Payload: "of the second"}
			c.Send(second)
			c.ExpectClosed()
			watcher.ExpectPublish("will", "of the first")
			s.gone("a")
			watcher.Quiet()
		}),
		of311("3.1.2-1", "a CONNECT with a protocol name that is not MQTT is not gone on with", func(t *testing.T) {
			s := start(t, options{})
			for _, name := range []string{"mqtt", "MQTTX", "MQT", "MQIsdp ", "http", "\x00MQTT"} {
				p := as311("a")
				p.ProtocolName = name
				s.closesFirst(name, p)
			}
			s.closesFirst("empty name", raw.Frame(0x10, "", 4, 2, uint16(0), "a"))
			p := as311("a") // the name of MQTT 3.1 with the level of 3.1.1
			p.ProtocolName = "MQIsdp"
			c := s.dial311()
			c.Send(p)
			c.ExpectCode(raw.CONNACK, 1)
			c.ExpectClosed()
			if n := len(s.Hub.Clients()); n != 0 {
				t.Errorf("%d clients were let in", n)
			}
		}),
		of311("3.1.2-2", "a protocol level that is not supported is refused with return code 1, then the connection ends", func(t *testing.T) {
			s := start(t, options{})
			for _, level := range []byte{0, 1, 2, 3} {
				c := s.dial311()
				c.Send(raw.Frame(0x10, "MQTT", level, 2, uint16(0), "a"))
				if p := c.ExpectCode(raw.CONNACK, 1); p.SessionPresent {
					t.Errorf("level %d: session present", level)
				}
				c.ExpectClosed()
			}
		}),
		of311("3.1.4-1", "a CONNECT that is not as section 3.1 says ends the connection without a CONNACK", func(t *testing.T) {
			s := start(t, options{})
			whole := as311("client")
			whole.Will = &raw.Will{Topic: "will", Payload: "x"}
			whole.User, whole.Password = "u", "p"
			size := len(raw.Encode(raw.V311, whole)) - 2
			for n := range size {
				s.closesFirst(fmt.Sprintf("the first %d of %d bytes", n, size), raw.Shortened(whole, n))
			}
			s.closesFirst("one byte more", raw.Padded(whole, 0))
		}),
		of311("3.1.4-2", "of two connections with one client id the older one is ended", func(t *testing.T) {
			s := start(t, options{})
			watcher := s.watch()
			for _, clean := range []bool{true, false} {
				p := raw.Connect{Version: raw.V311, ClientID: "a", Clean: clean, Will: &raw.Will{Topic: "will", Payload: "x"}}
				older := s.open(p)
				newer := s.open(p)
				older.ExpectClosed()
				watcher.ExpectPublish("will", "x") // it ended without a DISCONNECT
				newer.Quiet()
				leaves(newer)
			}
			s.gone("a")
			watcher.Quiet()
		}),
		of311("3.1.4-4", "a valid CONNECT is answered by a CONNACK of exactly 20 02 00 00", func(t *testing.T) {
			s := start(t, options{})
			c := s.dial311()
			c.Send(as311("a"))
			bytesAre(t, c, 0x20, 2, 0, 0)
			c.Quiet()
		}),
		of311("3.1.4-5", "of what is sent behind a CONNECT that is refused nothing is processed", func(t *testing.T) {
			s := start(t, options{access: fenced{}})
			watcher := s.open(as311("watcher"))
			watcher.Subscribe(0, "a")
			c := s.dial311()
			p := as311("a")
			p.User, p.Will = "bad", &raw.Will{Topic: "a", Payload: "will"}
			c.Send(p, raw.Publish{Topic: "a", Payload: "x", Retain: true}, raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "a"}}}, raw.Pingreq{})
			c.ExpectCode(raw.CONNACK, 4)
			c.ExpectClosed()
			s.gone("a")
			watcher.Quiet()
			fresh := s.open(as311("fresh"))
			fresh.Subscribe(0, "a")
			fresh.Quiet()
		}),
		of311("3.2.0-1", "CONNACK is the first packet of the server's, whatever waits and whatever the client has sent already", func(t *testing.T) {
			s := start(t, options{})
			c := s.resume("a", false)
			c.Subscribe(1, "a")
			leaves(c)
			pub := s.open(as311("pub"))
			pub.Publish(raw.Publish{Topic: "a", Payload: "waits", QoS: 1, ID: 1})
			c = s.dial311()
			c.Send(kept311("a"), raw.Pingreq{}, raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "b"}}})
			c.ExpectCode(raw.CONNACK, 0)
			got := c.ExpectAll(raw.PUBLISH, raw.PINGRESP, raw.SUBACK)
			wants(t, got[0], "a", "waits", 1, false, false)
		}),
		of311("3.2.2-4 3.2.2-5 3.1.3-9 3.1.3-8 3.1.3-7", "each refusal has its return code, no session present, and the connection ends; the session of that client id stays as it is", func(t *testing.T) {
			s := start(t, options{access: fenced{}, hub: bridge.Limits{Clients: 2}})
			c := s.resume("a", false)
			c.Subscribe(1, "t")
			leaves(c)
			s.open(as311("second"))
			for _, refused := range []struct {
				code    raw.Code
				what    string
				connect raw.Sendable
			}{
				{1, "protocol level 2", raw.Frame(0x10, "MQTT", 2, 0, uint16(0), "a")},
				{2, "empty client id with clean session 0", kept311("")},
				{2, "client id over the server's limit", kept311(strings.Repeat("x", broker.DefaultLimits().ClientIDBytes+1))},
				{3, "limit on clients", kept311("third")},
				{4, "bad user", raw.Connect{Version: raw.V311, ClientID: "a", User: "bad"}},
				{5, "will that it may not publish", raw.Connect{Version: raw.V311, ClientID: "a", Will: &raw.Will{Topic: "secret/x"}}},
			} {
				t.Log(refused.what)
				c := s.dial311()
				c.Send(refused.connect)
				if p := c.ExpectCode(raw.CONNACK, refused.code); p.SessionPresent {
					t.Error("session present in a refusal")
				}
				c.ExpectClosed()
			}
			c = s.resume("a", true)
			c.Publish(raw.Publish{Topic: "t", Payload: "x"})
			c.ExpectPublish("t", "x") // the subscription is still there
		}),
		of311("3.2.2-6", "where no return code fits the connection ends without a CONNACK", func(t *testing.T) {
			s := start(t, options{})
			p := as311("a")
			p.Will = &raw.Will{Topic: "will/#"}
			s.closesFirst("will topic with a wildcard", p)
			p.Will = &raw.Will{Topic: ""}
			s.closesFirst("empty will topic", p)
		}),
		of311("3.1.2-24", "a client that is silent for one and a half keep alives is dropped as after a network failure, whatever it is sent; one that pings is not", func(t *testing.T) {
			s := start(t, options{})
			watcher := s.watch()
			p := as311("silent")
			p.KeepAlive, p.Will = 1, &raw.Will{Topic: "will", Payload: "silent"}
			began := time.Now()
			silent := s.open(p)
			silent.Send(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "noise"}}})
			last := time.Now() // at the latest
			p.ClientID, p.Will = "lively", &raw.Will{Topic: "will", Payload: "lively"}
			lively := s.open(p)
			for deadline := time.Now().Add(10 * time.Second); ; {
				got, err := watcher.Next(time.Now().Add(300 * time.Millisecond))
				if err == nil && got.Topic == "will" {
					wants(t, got, "will", "silent", 0, false, false)
					break
				}
				if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) || time.Now().After(deadline) {
					t.Fatalf("the silent client was not dropped: %v", err)
				}
				if err != nil {
					lively.Publish(raw.Publish{Topic: "noise", Payload: "x"})
					lively.Quiet()
				}
			}
			if d := time.Since(began); d < 1500*time.Millisecond {
				t.Errorf("dropped after %v, want 1.5 s", d)
			}
			if d := time.Since(last); d > 4*time.Second {
				t.Errorf("dropped after %v, want 1.5 s", d)
			}
			for {
				if _, err := silent.Next(time.Now().Add(5 * time.Second)); err != nil {
					if errors.Is(err, os.ErrDeadlineExceeded) {
						t.Error("the silent client is still connected")
					}
					break
				}
			}
			lively.Quiet()
		}),
		of311("3.1.3-1", "client id, will topic, will message, user name and password are read in that order", func(t *testing.T) {
			door := doorbook{shown: make(chan bridge.Credentials, 10)}
			s := start(t, options{access: door})
			watcher := s.watch()
			<-door.shown
			c := s.dial311()
			c.Send(raw.Frame(0x10, "MQTT", 4, 0b1100_0110, uint16(0), "one", "two", "three", "four", "five"))
			c.ExpectCode(raw.CONNACK, 0)
			if got := <-door.shown; got.ClientID != "one" || got.User != "four" || string(got.Password) != "five" {
				t.Errorf("client id %q, user %q, password %q", got.ClientID, got.User, got.Password)
			}
			breaks(t, c)
			watcher.ExpectPublish("two", "three")
		}),
		of311("3.1.3-3", "a CONNECT without a client id ends the connection without a CONNACK", func(t *testing.T) {
			s := start(t, options{})
			s.closesFirst("no payload", raw.Frame(0x10, "MQTT", 4, 2, uint16(0)))
			s.closesFirst("half a length", raw.Frame(0x10, "MQTT", 4, 2, uint16(0), 0))
		}),
		of311("3.1.3-5", "client ids of 1 to 23 letters and digits are let in", func(t *testing.T) {
			door := doorbook{shown: make(chan bridge.Credentials, 10)}
			s := start(t, options{access: door})
			for _, id := range []string{"x", "0123456789abcdefghijklm", "nopqrstuvwxyzABCDEFGHIJ", "KLMNOPQRSTUVWXYZ"} {
				s.open(as311(id)).Quiet()
				if got := (<-door.shown).ClientID; got != id {
					t.Errorf("client id is %q, want %q", got, id)
				}
			}
		}),
		of311("3.1.3-6", "a client with an empty id is given one of its own", func(t *testing.T) {
			s := start(t, options{})
			a, b := s.open(as311("")), s.open(as311(""))
			a.Quiet()
			b.Quiet()
			clients := s.Hub.Clients()
			if len(clients) != 2 || clients[0].ID() == clients[1].ID() || clients[0].ID() == "" || clients[1].ID() == "" {
				t.Errorf("%d clients", len(clients))
			}
		}),
	}
	// CONNECTs whose flags and payload do not go together.
	flags := func(p raw.Connect, f byte) raw.Connect {
		p.Flags = new(f)
		return p
	}
	with := as311("a")
	with.Will = &raw.Will{Topic: "t", Payload: "m"}
	user, password, both := as311("a"), as311("a"), as311("a")
	user.User = "u"
	password.Password = "p"
	both.User, both.Password = "u", "p"
	for _, bad := range []struct {
		number, says string
		connects     []raw.Connect
	}{
		{"3.1.2-3", "the reserved flag of CONNECT is set", []raw.Connect{flags(as311("a"), 0b0000_0011)}},
		{"3.1.2-9", "the will flag is set and will topic and message are missing", []raw.Connect{flags(as311("a"), 0b0000_0110)}},
		{"3.1.2-11", "the will flag is not set and will topic and message are there, or will QoS or retain are set", []raw.Connect{
			flags(with, 0b0000_0010), flags(as311("a"), 0b0000_1010), flags(as311("a"), 0b0010_0010)}},
		{"3.1.2-13", "will QoS is set without the will flag", []raw.Connect{
			flags(as311("a"), 0b0000_1010), flags(as311("a"), 0b0001_0010), flags(as311("a"), 0b0001_1010)}},
		{"3.1.2-14", "will QoS is 3", []raw.Connect{flags(with, 0b0001_1110), flags(with, 0b0011_1110)}},
		{"3.1.2-15", "will retain is set without the will flag", []raw.Connect{flags(as311("a"), 0b0010_0010)}},
		{"3.1.2-18", "the user name flag is not set and there is a user name", []raw.Connect{flags(user, 0b0000_0010)}},
		{"3.1.2-19", "the user name flag is set and there is no user name", []raw.Connect{flags(as311("a"), 0b1000_0010)}},
		{"3.1.2-20", "the password flag is not set and there is a password", []raw.Connect{flags(both, 0b1000_0010)}},
		{"3.1.2-21", "the password flag is set and there is no password", []raw.Connect{flags(user, 0b1100_0010)}},
		{"3.1.2-22", "the password flag is set without the user name flag", []raw.Connect{password, flags(password, 0b0100_0010)}},
	} {
		list = append(list, of311(bad.number, "the connection ends without a CONNACK where "+bad.says, func(t *testing.T) {
			s := start(t, options{})
			for _, p := range bad.connects {
				s.closesFirst(fmt.Sprintf("byte 10 of % X", raw.Encode(raw.V311, p)), p)
			}
			s.open(with).Quiet()
			s.open(both).Quiet() // right ones are let in
		}))
	}
	return list
}
