package interop

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// library is an MQTT library of another language. Its program in testdata does what lines of JSON on standard input say, with
// any number of clients, and says on standard output what happens to them.
type library struct {
	name    string
	command func(t *testing.T) []string
}

var libraries = []library{
	{"paho", func(t *testing.T) []string {
		python := find(t, "/usr/bin/python3") // the system's: it has the system's packages
		if !hasPaho() {
			t.Skip("needs paho-mqtt (python3-paho-mqtt)")
		}
		return []string{python, "testdata/paho_client.py"}
	}},
	{"MQTT.js", func(t *testing.T) []string {
		node := find(t, "node")
		if !hasMQTTjs() {
			t.Skip("needs MQTT.js (npm package mqtt, where NODE_PATH says)")
		}
		return []string{node, "testdata/mqttjs_client.js"}
	}},
}

var (
	hasPaho   = sync.OnceValue(func() bool { return exec.Command("/usr/bin/python3", "-c", "import paho.mqtt.client").Run() == nil })
	hasMQTTjs = sync.OnceValue(func() bool { return exec.Command("node", "-e", "require('mqtt')").Run() == nil })
)

// start starts a program of the library, or skips the test.
func (l library) start(t *testing.T) *program {
	t.Helper()
	command := l.command(t)
	return launch(t, command[0], command[1:]...)
}

// driver is a running program of a library, and how its clients connect.
type driver struct {
	*program
	door
	library string
	version int // 3: MQTT 3.1, 4: 3.1.1, 5
}

// client is one client of a driver.
type client struct {
	d        *driver
	name     string
	events   *reader // answers to commands
	messages *reader
}

// connect is a command, and the options of a client. Where ID is empty a new one is made.
type connect struct {
	Version  int    `json:"version"`
	ID       string `json:"id"`
	Port     int    `json:"port"`
	Clean    bool   `json:"clean"`
	Expiry   int    `json:"expiry,omitempty"`
	Aliases  int    `json:"aliases,omitempty"`
	User     string `json:"user,omitempty"`
	Password string `json:"password,omitempty"`
	CA       string `json:"ca,omitempty"`
	Cert     string `json:"cert,omitempty"`
	Key      string `json:"key,omitempty"`
	Will     *sent  `json:"will,omitempty"`
}

// sent is a message to publish, as a command or as a will.
type sent struct {
	Topic      string      `json:"topic"`
	Payload    string      `json:"payload"`
	QoS        int         `json:"qos"`
	Retain     bool        `json:"retain"`
	Properties *properties `json:"properties,omitempty"`
}

// properties are those of a message, of any direction.
type properties struct {
	ContentType   string      `json:"content_type,omitempty"`
	ResponseTopic string      `json:"response_topic,omitempty"`
	Correlation   string      `json:"correlation,omitempty"`
	Text          bool        `json:"text,omitempty"` // payload format indicator
	Expiry        int         `json:"expiry,omitempty"`
	User          [][2]string `json:"user,omitempty"`
	Alias         int         `json:"alias,omitempty"`
	Identifiers   []int       `json:"identifiers,omitempty"`
	Delay         int         `json:"delay,omitempty"` // of a will
}

// event is what a driver says of a client.
type event struct {
	Client  string `json:"client"`
	Event   string `json:"event"`
	Code    int    `json:"code"`
	Present bool   `json:"present"`
	Codes   []int  `json:"codes"`
	sent
}

// String is a message without its properties, as mosquitto_sub prints it in these tests.
func (e event) String() string {
	retain := 0
	if e.Retain {
		retain = 1
	}
	return fmt.Sprintf("%s %d %d %s", e.Topic, e.QoS, retain, e.Payload)
}

// open makes a client and has it connect; how it went is yet to come.
func (d *driver) open(t *testing.T, c connect) *client {
	t.Helper()
	if c.ID == "" {
		c.ID = clientID()
	}
	c.Version, c.User, c.Password, c.CA, c.Cert, c.Key = d.version, d.user, d.password, d.ca, d.cert, d.key
	c.Port, _ = strconv.Atoi(d.port)
	cl := &client{d: d, name: fmt.Sprintf("%s#%d", c.ID, serial.Add(1)), events: d.from(), messages: d.from()}
	cl.do(t, "connect", c)
	return cl
}

// connect makes a client and waits until it is connected.
func (d *driver) connect(t *testing.T, c connect) *client {
	t.Helper()
	cl := d.open(t, c)
	cl.event(t, cl.events, "connected")
	return cl
}

// resume connects with a session that must be there or not.
func (d *driver) resume(t *testing.T, c connect, present bool) *client {
	t.Helper()
	cl := d.open(t, c)
	// MQTT 3.1 has no such flag.
	if e := cl.event(t, cl.events, "connected"); e.Present != (present && d.version > 3) {
		t.Errorf("session present is %t", e.Present)
	}
	return cl
}

// do sends a command.
func (c *client) do(t *testing.T, name string, args any) {
	t.Helper()
	line := make(map[string]any)
	text, err := json.Marshal(args)
	if err == nil {
		err = json.Unmarshal(text, &line)
	}
	if err != nil {
		t.Fatal(err)
	}
	line["do"], line["client"] = name, c.name
	if text, err = json.Marshal(line); err != nil {
		t.Fatal(err)
	}
	if _, err := c.d.stdin.Write(append(text, '\n')); err != nil {
		t.Fatal(err)
	}
}

// event waits for the next event of a kind.
func (c *client) event(t *testing.T, from *reader, kind string) (e event) {
	t.Helper()
	from.next(t, c.name+" "+kind, func(line string) bool {
		e = event{}
		return strings.HasPrefix(line, "{") && json.Unmarshal([]byte(line), &e) == nil && e.Client == c.name && e.Event == kind
	})
	return e
}

// subscribe subscribes and waits for the answer.
func (c *client) subscribe(t *testing.T, topic string, qos int) {
	t.Helper()
	c.do(t, "subscribe", map[string]any{"topic": topic, "qos": qos})
	if e := c.event(t, c.events, "subscribed"); len(e.Codes) != 1 || e.Codes[0] != qos {
		t.Errorf("subscribing to %s with QoS %d: codes %v", topic, qos, e.Codes)
	}
}

// publish publishes and waits until the message has been acknowledged as its QoS asks.
func (c *client) publish(t *testing.T, m sent) {
	t.Helper()
	c.do(t, "publish", m)
	if e := c.event(t, c.events, "published"); e.Code != 0 {
		t.Errorf("publishing %v: code %d", m, e.Code)
	}
}

// disconnect says goodbye.
func (c *client) disconnect(t *testing.T) {
	t.Helper()
	c.do(t, "disconnect", struct{}{})
	c.event(t, c.events, "disconnected")
}

// message waits for the next message.
func (c *client) message(t *testing.T) event {
	t.Helper()
	return c.event(t, c.messages, "message")
}

// wants waits for messages and compares them.
func (c *client) wants(t *testing.T, want ...string) {
	t.Helper()
	for _, want := range want {
		if got := c.message(t).String(); got != want {
			t.Fatalf("%s got %q, want %q", c.name, got, want)
		}
	}
}
