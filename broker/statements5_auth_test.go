package broker_test

import (
	"errors"
	"testing"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/access"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// steps is an authentication method that takes "1", "2" and "done <user>" one after the other, answering "after" each, and
// refuses everything else.
type steps struct{ n int }

func newSteps() broker.Exchange { return new(steps) }

func (s *steps) Step(data []byte) (answer []byte, done bool, user string, err error) {
	s.n++
	switch {
	case len(data) == 0 && s.n == 1: // the client lets the server speak first
		s.n = 0
		return []byte("begin"), false, "", nil
	case s.n < 3 && string(data) == string('0'+byte(s.n)):
		return []byte("after " + string(data)), false, "", nil
	case s.n == 3 && len(data) > 5 && string(data[:5]) == "done ":
		return []byte("welcome"), true, string(data[5:]), nil
	}
	return nil, false, "", bridge.Refuse(bridge.NotAuthorized, "wrong step")
}

// auth5 is an AUTH of a method.
func auth5(code raw.Code, method, data string) raw.Auth {
	p := raw.Auth{Code: code, Props: raw.Props{raw.AuthMethod.Text(method)}}
	if data != "" {
		p.Props = append(p.Props, raw.AuthData.Bytes([]byte(data)))
	}
	return p
}

// stepping5 starts a server with the method steps.
func stepping5(t *testing.T) *server {
	return start(t, options{exchanges: map[string]func() broker.Exchange{"steps": newSteps}})
}

// answer5 expects an AUTH or CONNACK with a code, the method steps and this data.
func answer5(t *testing.T, c *raw.Conn, kind raw.Type, code raw.Code, data string) {
	t.Helper()
	p := c.ExpectCode(kind, code)
	if p.Props.Text(raw.AuthMethod) != "steps" || string(p.Props.Bytes(raw.AuthData)) != data || len(p.Props.All(raw.AuthMethod)) != 1 {
		t.Fatalf("got %v, want method steps with %q", p, data)
	}
}

// begin5 sends a CONNECT with the method steps and its first data.
func begin5(t *testing.T, s *server) *raw.Conn {
	c := raw.Dial(t, s.Addr)
	c.Send(raw.Connect{ClientID: "c", Clean: true, Props: raw.Props{raw.AuthMethod.Text("steps"), raw.AuthData.Bytes([]byte("1"))}})
	answer5(t, c, raw.AUTH, 0x18, "after 1")
	return c
}

// stepped5 is begin5 to the end.
func stepped5(t *testing.T, s *server) *raw.Conn {
	c := begin5(t, s)
	c.Send(auth5(0x18, "steps", "2"))
	answer5(t, c, raw.AUTH, 0x18, "after 2")
	c.Send(auth5(0x18, "steps", "done ada"))
	answer5(t, c, raw.CONNACK, 0, "welcome")
	return c
}

// refused5 expects a CONNACK that refuses, and the end.
func refused5(c *raw.Conn, code raw.Code) {
	c.ExpectCode(raw.CONNACK, code)
	c.ExpectClosed()
}

// statements5Auth are chapters 3.15 and 4.12.
func statements5Auth() []statement {
	return []statement{
		{"5.0", []string{"MQTT-3.15.1-1"}, "AUTH with reserved flags is malformed, during CONNECT and after it", func(t *testing.T) {
			s := stepping5(t)
			for _, flags := range []byte{1, 2, 4, 8} {
				c := begin5(t, s)
				c.Send(raw.WithFlags(auth5(0x18, "steps", "2"), flags))
				refused5(c, 0x81)
				c = stepped5(t, s)
				c.Send(raw.WithFlags(auth5(0x19, "steps", "1"), flags))
				c.ExpectDisconnect(0x81)
			}
		}},
		{"5.0", []string{"MQTT-3.15.2-1", "MQTT-4.12.0-3"}, "a client's AUTH with a code that is not listed, or not that of its moment, is a protocol error", func(t *testing.T) {
			s := stepping5(t)
			for _, code := range []raw.Code{0x00, 0x19, 0x01, 0x17, 0x1A, 0x80, 0x87} {
				c := begin5(t, s)
				c.Send(auth5(code, "steps", "2"))
				refused5(c, 0x82)
			}
			for _, code := range []raw.Code{0x00, 0x18, 0x01, 0x80, 0x87} {
				c := stepped5(t, s)
				c.Send(auth5(code, "steps", "1"))
				c.ExpectDisconnect(0x82)
			}
			for _, code := range []raw.Code{0x00, 0x19, 0x80} {
				c := stepped5(t, s)
				c.Send(auth5(0x19, "steps", "1"))
				answer5(t, c, raw.AUTH, 0x18, "after 1")
				c.Send(auth5(code, "steps", "2"))
				c.ExpectDisconnect(0x82)
			}
		}},
		{"5.0", []string{"MQTT-4.12.0-1"}, "a method that the server does not have is answered by CONNACK 0x8C and the end", func(t *testing.T) {
			s := stepping5(t)
			for _, method := range []string{"STEPS", "SCRAM-SHA-1", "steps2"} {
				c := raw.Dial(t, s.Addr)
				c.Send(raw.Connect{ClientID: "c", Props: raw.Props{raw.AuthMethod.Text(method), raw.AuthData.Bytes([]byte("1"))}})
				refused5(c, 0x8C)
			}
		}},
		{"5.0", []string{"MQTT-4.12.0-2", "MQTT-4.12.0-5", "MQTT-3.15.2-1"}, "the server goes on with AUTH 0x18, and every AUTH and the CONNACK repeat the method", func(t *testing.T) {
			s := stepping5(t)
			c := stepped5(t, s)
			if id := s.Hub.Client(s.Name(), "c").Identity(); id.User != "ada" {
				t.Errorf("the user is %q, want the one that was proven", id.User)
			}
			c.Send(auth5(0x19, "steps", "1"))
			answer5(t, c, raw.AUTH, 0x18, "after 1")
			c.Send(auth5(0x18, "steps", "2"))
			answer5(t, c, raw.AUTH, 0x18, "after 2")
			c.Send(auth5(0x18, "steps", "done ada"))
			answer5(t, c, raw.AUTH, 0, "welcome")
			c.Quiet()
			c = raw.Dial(t, s.Addr) // data is not needed in CONNECT
			c.Send(raw.Connect{ClientID: "d", Props: raw.Props{raw.AuthMethod.Text("steps")}})
			answer5(t, c, raw.AUTH, 0x18, "begin")
		}},
		{"5.0", []string{"MQTT-4.12.0-5"}, "a client's AUTH with another method, or without one, is a protocol error", func(t *testing.T) {
			s := stepping5(t)
			for _, p := range []raw.Sendable{auth5(0x18, "other", "2"), auth5(0x18, "", "2"), raw.Auth{Code: 0x18}, raw.Frame(0xF0), raw.Frame(0xF0, 0x18)} {
				c := begin5(t, s)
				c.Send(p)
				refused5(c, 0x82)
			}
		}},
		{"5.0", []string{"MQTT-4.12.0-4"}, "the server may refuse at any step: CONNACK 0x87 and the end, and no session is left", func(t *testing.T) {
			s := stepping5(t)
			c := raw.Dial(t, s.Addr)
			c.Send(raw.Connect{ClientID: "c", Props: raw.Props{raw.AuthMethod.Text("steps"), raw.AuthData.Bytes([]byte("wrong"))}})
			refused5(c, 0x87)
			c = begin5(t, s)
			c.Send(auth5(0x18, "steps", "wrong"))
			refused5(c, 0x87)
			c = begin5(t, s)
			c.Send(auth5(0x18, "steps", "2"))
			answer5(t, c, raw.AUTH, 0x18, "after 2")
			c.Send(auth5(0x18, "steps", "wrong"), raw.Publish{Topic: "a"})
			refused5(c, 0x87)
			c = begin5(t, s) // only AUTH and DISCONNECT go on
			c.Send(raw.Publish{Topic: "a"})
			refused5(c, 0x82)
			c = begin5(t, s)
			c.Send(raw.Disconnect{})
			c.ExpectClosed()
			if n := s.stats().Sessions; n != 0 {
				t.Errorf("%d sessions", n)
			}
			if n := s.stats().MessagesIn[0]; n != 0 {
				t.Errorf("%d messages of clients that were not let in", n)
			}
		}},
		{"5.0", []string{"MQTT-4.12.0-6"}, "a client that names no method gets no AUTH and no method", func(t *testing.T) {
			s := stepping5(t)
			c, ack := raw.Open(t, s.Addr, raw.Connect{ClientID: "c", User: "u", Password: "p"})
			if ack.Props.Has(raw.AuthMethod) || ack.Props.Has(raw.AuthData) {
				t.Errorf("got %v", ack)
			}
			c.Quiet()
		}},
		{"5.0", []string{"MQTT-4.12.0-7"}, "AUTH of a client that named no method is a protocol error", func(t *testing.T) {
			s := stepping5(t)
			for _, p := range []raw.Sendable{auth5(0x19, "steps", "1"), auth5(0x18, "steps", "1"), auth5(0x19, "", ""), raw.Frame(0xF0)} {
				c := s.join5("c")
				c.Send(p)
				c.ExpectDisconnect(0x82)
			}
			c := raw.Dial(t, s.Addr)
			c.Send(raw.Connect{ClientID: "c", Props: raw.Props{raw.AuthData.Bytes([]byte("1"))}})
			refused5(c, 0x82)
		}},
		{"5.0", []string{"MQTT-4.12.1-1"}, "re-authentication begins with AUTH 0x19 and CONNECT's method; other packets go on meanwhile; it may be repeated", func(t *testing.T) {
			s := stepping5(t)
			c := stepped5(t, s)
			c.Subscribe(0, "a")
			for range 2 {
				c.Send(auth5(0x19, "steps", "1"))
				answer5(t, c, raw.AUTH, 0x18, "after 1")
				c.Send(raw.Publish{Topic: "a", Payload: "x"})
				c.ExpectPublish("a", "x")
				c.Send(auth5(0x18, "steps", "2"))
				answer5(t, c, raw.AUTH, 0x18, "after 2")
				c.Quiet()
				c.Send(auth5(0x18, "steps", "done ada"))
				answer5(t, c, raw.AUTH, 0, "welcome")
			}
			c.Send(auth5(0x19, "other", "1"))
			c.ExpectDisconnect(0x82)
		}},
		{"5.0", []string{"MQTT-4.12.1-2"}, "a re-authentication that fails, or proves somebody else, is answered by DISCONNECT 0x87 and the end", func(t *testing.T) {
			s := stepping5(t)
			c := stepped5(t, s)
			c.Send(auth5(0x19, "steps", "wrong"))
			c.ExpectDisconnect(0x87)
			c = stepped5(t, s)
			c.Send(auth5(0x19, "steps", "1"))
			answer5(t, c, raw.AUTH, 0x18, "after 1")
			c.Send(auth5(0x18, "steps", "done ada"))
			c.ExpectDisconnect(0x87)
			c = stepped5(t, s)
			c.Send(auth5(0x19, "steps", "1"), auth5(0x18, "steps", "2"), auth5(0x18, "steps", "done eve"))
			c.Expect(raw.AUTH)
			c.Expect(raw.AUTH)
			c.ExpectDisconnect(0x87)
		}},
		{"5.0", []string{"MQTT-4.12.0-2", "MQTT-4.12.0-4", "MQTT-4.12.0-5", "MQTT-4.12.1-1", "MQTT-4.12.1-2"}, "SCRAM-SHA-256 of package access works from CONNECT to re-authentication, both sides proven; a wrong password is refused", func(t *testing.T) {
			users, err := access.New(access.Config{Users: []access.User{{Name: "ada", SCRAM: access.HashSCRAM([]byte("secret"))}}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			s := start(t, options{access: users, exchanges: map[string]func() broker.Exchange{
				"SCRAM-SHA-256": func() broker.Exchange { return users.SCRAM() },
			}})
			c := raw.Dial(t, s.Addr)
			if err := scram5(c, access.NewScramClient("ada", []byte("secret")), false); err != nil {
				t.Fatal(err)
			}
			c.Subscribe(1, "a")
			if err := scram5(c, access.NewScramClient("ada", []byte("secret")), true); err != nil {
				t.Fatal(err)
			}
			c.Send(raw.Publish{Topic: "a", Payload: "x"})
			c.ExpectPublish("a", "x")
			if err := scram5(c, access.NewScramClient("ada", []byte("wrong")), true); !errors.Is(err, errRefused5) {
				t.Errorf("re-authentication with a wrong password: %v", err)
			}
			for _, who := range [][2]string{{"ada", "wrong"}, {"eve", "secret"}} {
				c := raw.Dial(t, s.Addr)
				if err := scram5(c, access.NewScramClient(who[0], []byte(who[1])), false); !errors.Is(err, errRefused5) {
					t.Errorf("%s with password %s: %v", who[0], who[1], err)
				}
			}
		}},
	}
}

var errRefused5 = errors.New("refused with 0x87 after the last step")

// scram5 goes through SCRAM-SHA-256 with CONNECT or as re-authentication, to the server's proof or its refusal.
func scram5(c *raw.Conn, client *access.ScramClient, again bool) error {
	const method = "SCRAM-SHA-256"
	first, _, err := client.Step(nil)
	if err != nil {
		return err
	}
	end := raw.CONNACK
	if again {
		end = raw.AUTH
		c.Send(auth5(0x19, method, string(first)))
	} else {
		c.Send(raw.Connect{ClientID: "c", Clean: true, Props: raw.Props{raw.AuthMethod.Text(method), raw.AuthData.Bytes(first)}})
	}
	last, _, err := client.Step(c.ExpectCode(raw.AUTH, 0x18).Props.Bytes(raw.AuthData))
	if err != nil {
		return err
	}
	c.Send(auth5(0x18, method, string(last)))
	p := c.Read()
	if p.Code == 0x87 && (p.Type == raw.CONNACK && !again || p.Type == raw.DISCONNECT && again) {
		c.ExpectClosed()
		return errRefused5
	}
	if p.Type != end || p.Code != 0 || p.Props.Text(raw.AuthMethod) != method {
		return errors.New("want the end of the exchange, got " + p.String())
	}
	if _, done, err := client.Step(p.Props.Bytes(raw.AuthData)); err != nil || !done {
		return errors.Join(errors.New("the server has not proven itself"), err)
	}
	return nil
}
