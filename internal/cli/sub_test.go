package cli

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// subscribed accepts a client and grants what it subscribes to.
func (s *fakeServer) subscribed(ack raw.Connack) (*raw.Conn, raw.Packet) {
	s.t.Helper()
	c, _ := s.accept(ack)
	p := c.Expect(raw.SUBSCRIBE)
	codes := make([]raw.Code, len(p.Filters))
	for i, f := range p.Filters {
		codes[i] = raw.Code(f.QoS)
	}
	c.Send(raw.Suback{ID: p.ID, Codes: codes})
	return c, p
}

// goodbye waits for the client's DISCONNECT and closes, as a server does.
func goodbye(c *raw.Conn) {
	c.Await(raw.DISCONNECT)
	c.Net.Close()
}

func TestSubPrintsWhatComes(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"payloads":       {nil, "one\ntwo\n"},
		"topics too":     {[]string{"-v"}, "a one\nb two\n"},
		"no newline":     {[]string{"-N"}, "onetwo"},
		"no retained":    {[]string{"-R", "-C", "1"}, "two\n"},
		"the first only": {[]string{"-C", "1"}, "one\n"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeServer(t)
			c := begin("", append([]string{"sub", s.url("/x/#"), "-t", "y", "-q", "2", "-C", "2"}, tc.args...)...)
			conn, p := s.subscribed(raw.Connack{})
			if len(p.Filters) != 2 || p.Filters[0].Filter != "x/#" || p.Filters[1].Filter != "y" || p.Filters[1].QoS != 2 {
				t.Errorf("SUBSCRIBE is %v", p)
			}
			conn.Send(raw.Publish{Topic: "a", Payload: "one", Retain: true}, raw.Publish{Topic: "b", Payload: "two", QoS: 1, ID: 3})
			goodbye(conn)
			c.end(t, 0)
			if got := c.out.String(); got != tc.want {
				t.Errorf("it prints %q, want %q", got, tc.want)
			}
		})
	}
}

func TestSubPrintsJSON(t *testing.T) {
	s := newFakeServer(t)
	c := begin("", "sub", s.url("/#"), "-C", "2", "-o", "json")
	conn, _ := s.subscribed(raw.Connack{})
	conn.Send(
		raw.Publish{Topic: "a", Payload: "text", QoS: 1, ID: 1, Retain: true, Props: raw.Props{
			raw.ContentType.Text("text/plain"), raw.SubscriptionIdentifier.Int(7), raw.User("k", "v"),
		}},
		raw.Publish{Topic: "b", Payload: "\xff\x00"},
	)
	goodbye(conn)
	c.end(t, 0)
	lines := strings.Split(strings.TrimSpace(c.out.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("it prints %q", c.out.String())
	}
	for i, want := range []string{
		`{"payload":"text","properties":{"content-type":"text/plain","subscription-identifier":[7]},"qos":1,"retain":true,"topic":"a","user_properties":[{"name":"k","value":"v"}]}`,
		`{"payload_base64":"/wA=","qos":0,"retain":false,"topic":"b"}`,
	} {
		var m map[string]any
		if err := json.Unmarshal([]byte(lines[i]), &m); err != nil {
			t.Fatal(err)
		}
		if _, err := time.Parse(time.RFC3339Nano, m["time"].(string)); err != nil {
			t.Error(err)
		}
		delete(m, "time")
		if got, _ := json.Marshal(m); string(got) != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
}

func TestSubEndsByItsTimeoutWithACodeOfItsOwn(t *testing.T) {
	s := newFakeServer(t)
	c := begin("", "sub", s.url("/a"), "-W", "0.05")
	conn, _ := s.subscribed(raw.Connack{})
	goodbye(conn)
	c.end(t, timeoutError{}.ExitCode())
	if c.err.String() != "" {
		t.Errorf("it says %q", c.err.String())
	}
}

func TestSubComesBackAndKeepsItsSession(t *testing.T) {
	s := newFakeServer(t)
	c := begin("", "sub", s.url("/a"), "-c", "-i", "me", "-x", "100", "-q", "2", "-C", "2")
	conn, _ := s.subscribed(raw.Connack{})
	conn.Send(raw.Publish{Topic: "a", Payload: "one", QoS: 2, ID: 1})
	conn.ExpectAck(raw.PUBREC, 1, 0)
	conn.Drop()
	conn, p := s.accept(raw.Connack{SessionPresent: true})
	if p.Connect.Clean || p.Connect.ClientID != "me" {
		t.Errorf("CONNECT is %+v", p.Connect)
	}
	conn.Send(raw.Publish{Topic: "a", Payload: "one", QoS: 2, ID: 1, Dup: true}, raw.Publish{Topic: "a", Payload: "two", QoS: 2, ID: 2})
	goodbye(conn)
	c.end(t, 0)
	if got, want := c.out.String(), "one\ntwo\n"; got != want {
		t.Errorf("it prints %q, want %q", got, want)
	}
	if !strings.Contains(c.err.String(), "connecting again in") {
		t.Errorf("it says %q", c.err.String())
	}
}

func TestSubSubscribesInASessionThatAnotherCallLeft(t *testing.T) {
	s := newFakeServer(t)
	c := begin("", "sub", s.url("/new"), "-c", "-i", "me", "-C", "1")
	conn, p := s.subscribed(raw.Connack{SessionPresent: true})
	if p.Filters[0].Filter != "new" {
		t.Errorf("SUBSCRIBE is %v", p)
	}
	conn.Send(raw.Publish{Topic: "new"})
	goodbye(conn)
	c.end(t, 0)
}

func TestSubDoesNotComeBackWhereThereIsNoPointInIt(t *testing.T) {
	t.Run("it never connected", func(t *testing.T) {
		s := newFakeServer(t)
		c := begin("", "sub", s.url("/a"))
		s.accept(raw.Connack{Code: 0x88})
		c.end(t, 1)
	})
	t.Run("another took its session", func(t *testing.T) {
		s := newFakeServer(t)
		c := begin("", "sub", s.url("/a"))
		conn, _ := s.subscribed(raw.Connack{})
		conn.Send(raw.Disconnect{Code: 0x8E})
		c.end(t, 1)
		if !strings.Contains(c.err.String(), "session taken over") {
			t.Errorf("it says %q", c.err.String())
		}
	})
	t.Run("the filter is refused", func(t *testing.T) {
		s := newFakeServer(t)
		c := begin("", "sub", s.url("/a/+"))
		conn, _ := s.accept(raw.Connack{})
		conn.Send(raw.Suback{ID: conn.Expect(raw.SUBSCRIBE).ID, Codes: []raw.Code{0x87}})
		goodbye(conn)
		c.end(t, 1)
		if !strings.Contains(c.err.String(), `isthmus explain "a/+"`) {
			t.Errorf("it says %q", c.err.String())
		}
	})
	t.Run("standard output is closed", func(t *testing.T) {
		s := newFakeServer(t)
		done := make(chan int, 1)
		var stderr buffer
		go func() { done <- Main([]string{"sub", s.url("/a")}, strings.NewReader(""), closedOutput{}, &stderr) }()
		conn, _ := s.subscribed(raw.Connack{})
		conn.Send(raw.Publish{Topic: "a"})
		goodbye(conn)
		if code := <-done; code != 1 || !strings.Contains(stderr.String(), "printing: closed") {
			t.Errorf("exit code is %d, it says %q", code, stderr.String())
		}
	})
}

// closedOutput is standard output when its reader has gone.
type closedOutput struct{}

func (closedOutput) Write([]byte) (int, error) { return 0, errors.New("closed") }

func TestSubRefusesWhatMakesNoSense(t *testing.T) {
	for name, args := range map[string][]string{
		"no filter":         {"mqtt://h"},
		"a bad filter":      {"mqtt://h", "-t", "a/#/b"},
		"QoS 3":             {"mqtt://h/a", "-q", "3"},
		"a negative count":  {"mqtt://h/a", "-C", "-1"},
		"-v and JSON":       {"mqtt://h/a", "-v", "-o", "json"},
		"a form of its own": {"mqtt://h/a", "-o", "xml"},
	} {
		t.Run(name, func(t *testing.T) { begin("", append([]string{"sub"}, args...)...).end(t, 2) })
	}
}
