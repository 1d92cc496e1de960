package mqttclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// serve connects a client to a fake server that has sent its CONNACK.
func serve(t *testing.T, cfg Config, ack raw.Connack) (*Client, *raw.Conn) {
	t.Helper()
	near, far := net.Pipe()
	s := raw.On(t, far)
	go func() {
		s.Next(time.Now().Add(10 * time.Second))
		s.Send(ack)
	}()
	c, err := Connect(t.Context(), near, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, s
}

func receive(t *testing.T, c *Client) *Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	m, err := c.Receive(ctx)
	if err != nil {
		t.Fatalf("receive: %v", err)
	}
	return m
}

func TestMessagesGoThroughMosquittoInEveryVersionAndQoS(t *testing.T) {
	addr := raw.Mosquitto(t)
	for _, v := range []wire.Version{wire.V31, wire.V311, wire.V5} {
		for qos := range byte(3) {
			t.Run(fmt.Sprintf("%s QoS %d", v, qos), func(t *testing.T) {
				topic := fmt.Sprintf("a/%s/%d", v, qos)
				c, err := Dial(t.Context(), Config{URL: "mqtt://" + addr, Version: v, ClientID: "c"})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				codes, err := c.Subscribe(t.Context(), nil, wire.Filter{Filter: "a/#", QoS: 2})
				if err != nil || len(codes) != 1 || codes[0] != 2 {
					t.Fatalf("subscribe: %v, %v", codes, err)
				}
				p := Publication{Topic: topic, QoS: qos, Payload: []byte("hello")}
				if v == wire.V5 {
					p.Props = wire.Props{wire.ContentType.Text("text/plain"), wire.User("a", "b")}
				}
				for range 100 {
					if _, err := c.Publish(t.Context(), p); err != nil {
						t.Fatal(err)
					}
				}
				for range 100 {
					m := receive(t, c)
					if m.Topic != topic || string(m.Payload) != "hello" || m.QoS != qos || m.Props.String() != p.Props.String() {
						t.Fatalf("got %+v", m)
					}
				}
				if _, err := c.Unsubscribe(t.Context(), "a/#"); err != nil {
					t.Error(err)
				}
				if err := c.Disconnect(t.Context(), 0, nil); err != nil {
					t.Error(err)
				}
				if err := c.Err(); !errors.Is(err, ErrClosed) {
					t.Errorf("error is %v", err)
				}
			})
		}
	}
}

func TestManyPublishersShareOneConnection(t *testing.T) {
	// Without a window there is no queue behind it, in which Mosquitto 2.0.11 now and then lets a new message overtake older ones.
	addr := raw.Mosquitto(t, "max_inflight_messages 0")
	const publishers, each = 20, 50
	var mu sync.Mutex
	got := make(map[string][]string)
	all := make(chan struct{})
	n := 0
	sub, err := Dial(t.Context(), Config{URL: "mqtt://" + addr, Handler: func(m *Message) {
		mu.Lock()
		defer mu.Unlock()
		got[m.Topic] = append(got[m.Topic], string(m.Payload))
		if n++; n == publishers*each {
			close(all)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if _, err := sub.Subscribe(t.Context(), nil, wire.Filter{Filter: "#", QoS: 2}); err != nil {
		t.Fatal(err)
	}
	pub, err := Dial(t.Context(), Config{URL: "mqtt://" + addr})
	if err != nil {
		t.Fatal(err)
	}
	defer pub.Close()
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := range each {
				if _, err := pub.Publish(t.Context(), Publication{Topic: fmt.Sprint(p), QoS: 1 + byte(p%2), Payload: fmt.Append(nil, i)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	select {
	case <-all:
	case <-time.After(20 * time.Second):
		t.Fatalf("got %d messages", n)
	}
	for topic, payloads := range got {
		for i, p := range payloads {
			if p != fmt.Sprint(i) {
				t.Fatalf("topic %s: message %d is %s", topic, i, p)
			}
		}
	}
}

func TestARefusedConnectNamesTheCode(t *testing.T) {
	for _, tc := range []struct {
		version wire.Version
		ack     raw.Connack
		want    string
	}{
		{wire.V311, raw.Connack{Code: 5}, "connecting: connect refused: 5 not authorized"},
		{wire.V5, raw.Connack{Code: 0x87, Props: raw.Props{raw.ReasonString.Text("go away")}}, `connecting: connect refused: 0x87 not authorized ("go away")`},
	} {
		near, far := net.Pipe()
		s := raw.On(t, far)
		s.Version = tc.version
		go func() { s.Next(time.Now().Add(10 * time.Second)); s.Send(tc.ack) }()
		_, err := Connect(t.Context(), near, Config{Version: tc.version})
		var refused *Refused
		if !errors.As(err, &refused) || err.Error() != tc.want {
			t.Errorf("error is %v, want %s", err, tc.want)
		}
	}
}

func TestConnectEndsWithItsContext(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	if _, err := Connect(ctx, near, Config{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
}

func TestTheServersLimitsHold(t *testing.T) {
	c, s := serve(t, Config{ClientID: "mine"}, raw.Connack{Props: raw.Props{
		raw.ReceiveMaximum.Int(2), raw.MaximumQoS.Int(1), raw.RetainAvailable.Int(0), raw.MaximumPacketSize.Int(100), raw.AssignedClientID.Text("other"),
	}})
	if c.ClientID() != "other" || c.Server().ReceiveMaximum != 2 {
		t.Errorf("client id %q, server %+v", c.ClientID(), c.Server())
	}
	for name, p := range map[string]Publication{
		"QoS over the maximum": {Topic: "a", QoS: 2},
		"retain":               {Topic: "a", Retain: true},
		"too large":            {Topic: "a", Payload: make([]byte, 100)},
		"a wildcard":           {Topic: "a/#"},
		"no topic":             {},
	} {
		if _, err := c.Publish(t.Context(), p); err == nil {
			t.Errorf("%s: published", name)
		}
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if code, err := c.Publish(t.Context(), Publication{Topic: "a", QoS: 1}); err != nil || code != 0x10 {
				t.Errorf("publish: %v, %v", code, err)
			}
		})
	}
	first, second := s.Expect(raw.PUBLISH), s.Expect(raw.PUBLISH)
	s.ExpectNothing(20 * time.Millisecond)
	s.Send(raw.Puback{ID: first.ID, Code: 0x10})
	third := s.Expect(raw.PUBLISH)
	s.Send(raw.Puback{ID: second.ID, Code: 0x10}, raw.Puback{ID: third.ID, Code: 0x10})
	wg.Wait()
}

func TestTheCodeOfAPUBRECIsTheOutcome(t *testing.T) {
	c, s := serve(t, Config{}, raw.Connack{})
	result := make(chan string, 1)
	go func() {
		code, err := c.Publish(t.Context(), Publication{Topic: "a", QoS: 2})
		result <- fmt.Sprint(code, " ", err)
	}()
	p := s.Expect(raw.PUBLISH)
	s.Send(raw.Pubrec{ID: p.ID, Code: 0x10})
	s.ExpectAck(raw.PUBREL, p.ID, 0)
	s.Send(raw.Pubcomp{ID: p.ID, Code: 0x92})
	if got, want := <-result, "0x10 no matching subscribers <nil>"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestARefusedPublishIsAnError(t *testing.T) {
	c, s := serve(t, Config{}, raw.Connack{})
	for qos, answer := range map[byte]raw.Type{1: raw.PUBACK, 2: raw.PUBREC} {
		result := make(chan error, 1)
		go func() {
			_, err := c.Publish(t.Context(), Publication{Topic: "a", QoS: qos})
			result <- err
		}()
		p := s.Expect(raw.PUBLISH)
		if answer == raw.PUBACK {
			s.Send(raw.Puback{ID: p.ID, Code: 0x87})
		} else {
			s.Send(raw.Pubrec{ID: p.ID, Code: 0x97})
		}
		var refused *Refused
		if err := <-result; !errors.As(err, &refused) || refused.Packet != answer {
			t.Errorf("QoS %d: error is %v", qos, err)
		}
	}
}

func TestARefusedFilterIsAnErrorAndTheOthersHold(t *testing.T) {
	c, s := serve(t, Config{}, raw.Connack{})
	go func() {
		p, _ := s.Next(time.Now().Add(10 * time.Second))
		s.Send(raw.Suback{ID: p.ID, Codes: []raw.Code{1, 0x87}})
	}()
	codes, err := c.Subscribe(t.Context(), nil, wire.Filter{Filter: "a", QoS: 1}, wire.Filter{Filter: "b"})
	var refused *Refused
	if len(codes) != 2 || !errors.As(err, &refused) || refused.Filter != "b" {
		t.Errorf("codes %v, error %v", codes, err)
	}
}

func TestAcknowledgementsLeaveInTheOrderOfArrival(t *testing.T) {
	c, s := serve(t, Config{ManualAck: true}, raw.Connack{})
	s.Send(raw.Publish{Topic: "a", QoS: 1, ID: 1}, raw.Publish{Topic: "a", QoS: 2, ID: 2}, raw.Publish{Topic: "a", QoS: 1, ID: 3})
	first, second, third := receive(t, c), receive(t, c), receive(t, c)
	third.Ack()
	second.Ack()
	s.ExpectNothing(20 * time.Millisecond)
	first.Ack()
	first.Ack()
	s.ExpectAck(raw.PUBACK, 1, 0)
	s.ExpectAck(raw.PUBREC, 2, 0)
	s.ExpectAck(raw.PUBACK, 3, 0)
	s.Send(raw.Publish{Topic: "a", QoS: 2, ID: 2, Dup: true})
	s.ExpectAck(raw.PUBREC, 2, 0)
	s.Send(raw.Pubrel{ID: 2}, raw.Pubrel{ID: 2})
	s.ExpectAck(raw.PUBCOMP, 2, 0)
	s.ExpectAck(raw.PUBCOMP, 2, 0x92)
	s.Send(raw.Publish{Topic: "b", QoS: 2, ID: 2})
	if m := receive(t, c); m.Topic != "b" {
		t.Errorf("got %+v", m)
	}
}

func TestAServerThatExceedsTheReceiveMaximumIsToldSo(t *testing.T) {
	c, s := serve(t, Config{ManualAck: true, Props: wire.Props{wire.ReceiveMaximum.Int(1)}}, raw.Connack{})
	s.Send(raw.Publish{Topic: "a", QoS: 1, ID: 1}, raw.Publish{Topic: "a", QoS: 1, ID: 2})
	s.ExpectDisconnect(0x93)
	<-c.Done()
}

func TestTopicAliasesAreResolved(t *testing.T) {
	c, s := serve(t, Config{Props: wire.Props{wire.TopicAliasMaximum.Int(2)}}, raw.Connack{})
	s.Send(
		raw.Publish{Topic: "a/b", Props: raw.Props{raw.TopicAlias.Int(2)}},
		raw.Publish{Props: raw.Props{raw.TopicAlias.Int(2)}},
	)
	for range 2 {
		if m := receive(t, c); m.Topic != "a/b" {
			t.Errorf("topic is %q", m.Topic)
		}
	}
	s.Send(raw.Publish{Topic: "a", Props: raw.Props{raw.TopicAlias.Int(3)}})
	s.ExpectDisconnect(0x94)
}

func TestAMalformedPacketEndsTheConnection(t *testing.T) {
	for name, tc := range map[string]struct {
		packet raw.Sendable
		code   raw.Code
	}{
		"a bad property length":  {raw.Frame(0x30, "a", 9), 0x81},
		"a SUBSCRIBE":            {raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "a"}}}, 0x82},
		"an AUTH nobody awaits":  {raw.Encoded(raw.Auth{Code: 0x18}, raw.Auth{Code: 0x18}), 0x82},
		"a packet over the size": {raw.FrameOf(0x30, 2000), 0x95},
	} {
		t.Run(name, func(t *testing.T) {
			c, s := serve(t, Config{PacketBytes: 1000}, raw.Connack{})
			s.Send(tc.packet)
			s.ExpectDisconnect(tc.code)
			<-c.Done()
			if _, err := c.Receive(t.Context()); err == nil || errors.Is(err, ErrClosed) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func TestADisconnectOfTheServerIsTheError(t *testing.T) {
	c, s := serve(t, Config{}, raw.Connack{})
	s.Send(raw.Publish{Topic: "a", Payload: "before"}, raw.Disconnect{Code: 0x8B, Props: raw.Props{raw.ReasonString.Text("bye")}})
	if m := receive(t, c); string(m.Payload) != "before" {
		t.Errorf("got %+v", m)
	}
	<-c.Done()
	if got, want := c.Err().Error(), `disconnected by the server: 0x8B server shutting down ("bye")`; got != want {
		t.Errorf("error is %s, want %s", got, want)
	}
}

func TestAQueueThatIsFullStopsTheReader(t *testing.T) {
	c, s := serve(t, Config{QueueMessages: 2}, raw.Connack{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 100 {
			s.Send(raw.Publish{Topic: "a", Payload: fmt.Sprint(i) + strings.Repeat("x", 16<<10)})
		}
	}()
	select {
	case <-done:
		t.Fatal("everything was read")
	case <-time.After(20 * time.Millisecond):
	}
	for i := range 100 {
		if m := receive(t, c); !strings.HasPrefix(string(m.Payload), fmt.Sprint(i)+"x") {
			t.Fatalf("message %d is %.10s", i, m.Payload)
		}
	}
	<-done
}

func TestWhatWasUnfinishedIsSentAgain(t *testing.T) {
	for _, present := range []bool{true, false} {
		t.Run(fmt.Sprintf("session present %t", present), func(t *testing.T) {
			session := NewSession()
			cfg := Config{Session: session, KeepSession: true, ClientID: "c"}
			c, s := serve(t, cfg, raw.Connack{})
			results := make(chan string, 3)
			publish := func(c *Client, name string, qos byte) {
				err := c.PublishAsync(t.Context(), Publication{Topic: name, QoS: qos}, func(_ wire.Code, err error) { results <- fmt.Sprint(name, " ", err) })
				if err != nil {
					t.Error(err)
				}
			}
			publish(c, "one", 2)
			publish(c, "two", 1)
			one, two := s.Expect(raw.PUBLISH), s.Expect(raw.PUBLISH)
			s.Send(raw.Pubrec{ID: one.ID})
			s.ExpectAck(raw.PUBREL, one.ID, 0)
			s.Drop()
			<-c.Done()
			c.Close()
			if n := session.Unfinished(); n != 2 {
				t.Fatalf("%d unfinished", n)
			}

			c, s = serve(t, cfg, raw.Connack{SessionPresent: present})
			publish(c, "three", 1)
			if present {
				s.ExpectAck(raw.PUBREL, one.ID, 0)
				s.Send(raw.Pubcomp{ID: one.ID})
			}
			again := s.ExpectPublish("two", "")
			if again.ID != two.ID || again.Dup != present {
				t.Errorf("sent again: %v", again)
			}
			third := s.ExpectPublish("three", "")
			s.Send(raw.Puback{ID: two.ID}, raw.Puback{ID: third.ID})
			for _, want := range []string{"one <nil>", "two <nil>", "three <nil>"} {
				if got := <-results; got != want {
					t.Errorf("result is %s, want %s", got, want)
				}
			}
			if n := session.Unfinished(); n != 0 {
				t.Errorf("%d unfinished at the end", n)
			}
		})
	}
}

func TestWithoutASessionALostConnectionEndsPublish(t *testing.T) {
	c, s := serve(t, Config{}, raw.Connack{})
	result := make(chan error, 1)
	go func() {
		_, err := c.Publish(t.Context(), Publication{Topic: "a", QoS: 1})
		result <- err
	}()
	s.Expect(raw.PUBLISH)
	s.Drop()
	if err := <-result; !errors.Is(err, ErrLost) {
		t.Errorf("error is %v", err)
	}
	if _, err := c.Publish(t.Context(), Publication{Topic: "a"}); err == nil {
		t.Error("published on a lost connection")
	}
}

func TestQoS2IsDeliveredOnceAcrossConnections(t *testing.T) {
	session := NewSession()
	cfg := Config{Session: session, KeepSession: true, ClientID: "c", ManualAck: true}
	c, s := serve(t, cfg, raw.Connack{})
	s.Send(raw.Publish{Topic: "kept", QoS: 2, ID: 1}, raw.Publish{Topic: "not kept", QoS: 2, ID: 2})
	receive(t, c).Ack()
	late := receive(t, c)
	s.ExpectAck(raw.PUBREC, 1, 0)
	s.Drop()
	<-c.Done()
	c.Close()

	c, s = serve(t, cfg, raw.Connack{SessionPresent: true})
	late.Ack() // of the old connection: must not count for the new one
	s.Send(raw.Publish{Topic: "kept", QoS: 2, ID: 1, Dup: true}, raw.Publish{Topic: "not kept", QoS: 2, ID: 2, Dup: true})
	s.ExpectAck(raw.PUBREC, 1, 0)
	if m := receive(t, c); m.Topic != "not kept" {
		t.Errorf("got %+v", m)
	}
}

func TestASilentServerIsPingedAndGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		c, s := serve(t, Config{KeepAlive: time.Hour, Timeout: 10 * time.Second}, raw.Connack{Props: raw.Props{raw.ServerKeepAlive.Int(60)}})
		for range 3 {
			p, err := s.Next(time.Now().Add(2 * time.Minute))
			if err != nil || p.Type != raw.PINGREQ {
				t.Fatalf("got %v, %v", p, err)
			}
			s.Send(raw.Pingresp{})
		}
		if d := time.Since(start); d < 3*time.Minute || d > 4*time.Minute {
			t.Errorf("three pings took %v", d)
		}
		s.Next(time.Now().Add(2 * time.Minute))
		<-c.Done()
		if !errors.Is(c.Err(), ErrKeepAlive) {
			t.Errorf("error is %v", c.Err())
		}
		c.Close()
	})
}

// reversing answers every challenge with its reverse.
type reversing struct{ finished string }

func (*reversing) Method() string         { return "REVERSE" }
func (*reversing) Start() ([]byte, error) { return []byte("hello"), nil }
func (*reversing) Continue(b []byte) ([]byte, error) {
	r := make([]byte, len(b))
	for i := range b {
		r[len(b)-1-i] = b[i]
	}
	return r, nil
}
func (a *reversing) Finish(b []byte) error { a.finished = string(b); return nil }

func TestEnhancedAuthenticationRunsItsSteps(t *testing.T) {
	near, far := net.Pipe()
	s := raw.On(t, far)
	auth := &reversing{}
	var c *Client
	connected := make(chan error, 1)
	go func() {
		var err error
		c, err = Connect(t.Context(), near, Config{Auth: auth})
		connected <- err
	}()
	step := func(code raw.Code, data string) raw.Props {
		return raw.Props{raw.AuthMethod.Text("REVERSE"), raw.AuthData.Bytes([]byte(data))}
	}
	if ps := s.Expect(raw.CONNECT).Connect.Props; ps.Text(raw.AuthMethod) != "REVERSE" || string(ps.Bytes(raw.AuthData)) != "hello" {
		t.Errorf("CONNECT has %v", ps)
	}
	s.Send(raw.Auth{Code: 0x18, Props: step(0x18, "abc")})
	if p := s.ExpectCode(raw.AUTH, 0x18); string(p.Props.Bytes(raw.AuthData)) != "cba" {
		t.Errorf("answer is %v", p)
	}
	s.Send(raw.Connack{Props: step(0, "end")})
	if err := <-connected; err != nil || auth.finished != "end" {
		t.Fatalf("%v, finished with %q", err, auth.finished)
	}
	defer c.Close()
	go func() { connected <- c.Reauthenticate(t.Context()) }()
	s.ExpectCode(raw.AUTH, 0x19)
	s.Send(raw.Auth{Code: 0x18, Props: step(0x18, "xy")})
	if p := s.ExpectCode(raw.AUTH, 0x18); string(p.Props.Bytes(raw.AuthData)) != "yx" {
		t.Errorf("answer is %v", p)
	}
	s.Send(raw.Auth{Props: step(0, "again")})
	if err := <-connected; err != nil || auth.finished != "again" {
		t.Errorf("%v, finished with %q", err, auth.finished)
	}
}

func TestURLsAreUnderstood(t *testing.T) {
	for in, want := range map[string]URL{
		"mqtt://host":                       {Host: "host:1883"},
		"mqtts://host":                      {Host: "host:8883", TLS: true},
		"host:99":                           {Host: "host:99"},
		"mqtt://u:p%40ss@[::1]:7/a/+/b":     {Host: "[::1]:7", User: "u", Password: "p@ss", Topic: "a/+/b"},
		"mqtt://host/a/#":                   {Host: "host:1883", Topic: "a/#"},
		"mqtt://host/what%20is?":            {Host: "host:1883", Topic: "what is?"},
		"mqtt://host//leading":              {Host: "host:1883", Topic: "/leading"},
		"mqtt://host/$share/group/filter/#": {Host: "host:1883", Topic: "$share/group/filter/#"},
	} {
		if got, err := ParseURL(in); err != nil || got != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "mqtt://", "http://host", "mqtt://:1883", "mqtt://host:port", "mqtt://host?x", "mqtt://u:secret@ho st", "mqtt://host/%zz"} {
		if got, err := ParseURL(in); err == nil {
			t.Errorf("%q: %+v", in, got)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: the error shows the password: %v", in, err)
		}
	}
}

func TestConfigsThatMakeNoSenseAreRefused(t *testing.T) {
	for name, c := range map[string]Config{
		"a version of its own":            {Version: 6},
		"properties before 5":             {Version: wire.V311, Props: wire.Props{wire.SessionExpiry.Int(1)}},
		"3.1 without a client id":         {Version: wire.V31},
		"a kept session without a name":   {Version: wire.V311, KeepSession: true},
		"a password without a user":       {Version: wire.V311, Password: []byte("p")},
		"a keep alive over 16 bits":       {KeepAlive: 20 * time.Hour},
		"a will without a topic":          {Will: &wire.Will{}},
		"a negative limit":                {Window: -1},
		"authentication before version 5": {Version: wire.V311, Auth: &reversing{}},
	} {
		if err := c.Validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if err := (Config{}).Validate(); err != nil {
		t.Error(err)
	}
}
