package interop

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// versions are those of MQTT as mosquitto_pub and mosquitto_sub name them.
var versions = []string{"mqttv31", "mqttv311", "mqttv5"}

// mosquitto is mosquitto_pub and mosquitto_sub with the options that all calls have in common.
type mosquitto struct {
	door
	version string
}

func (m mosquitto) v5() bool { return m.version == "mqttv5" }

func (m mosquitto) options() []string {
	args := []string{"-h", "127.0.0.1", "-p", m.port, "-V", m.version}
	if m.user != "" {
		args = append(args, "-u", m.user, "-P", m.password)
	}
	if m.ca != "" {
		args = append(args, "--cafile", m.ca)
	}
	if m.cert != "" {
		args = append(args, "--cert", m.cert, "--key", m.key)
	}
	return args
}

// try runs mosquitto_pub and gives what it said and its exit code.
func (m mosquitto) try(t *testing.T, args ...string) (string, int) {
	t.Helper()
	return run(t, "", find(t, "mosquitto_pub"), append(m.options(), args...)...)
}

// pub publishes.
func (m mosquitto) pub(t *testing.T, args ...string) {
	t.Helper()
	succeeds(t, "", find(t, "mosquitto_pub"), append(m.options(), args...)...)
}

// pubLines publishes lines, one message each.
func (m mosquitto) pubLines(t *testing.T, lines string, args ...string) {
	t.Helper()
	succeeds(t, lines, find(t, "mosquitto_pub"), append(append(m.options(), args...), "-l")...)
}

// message begins the lines in which mosquitto_sub prints a message: topic, QoS, retain flag and payload.
const message = "message "

// launch starts mosquitto_sub.
func (m mosquitto) launch(t *testing.T, args ...string) *program {
	t.Helper()
	// By itself it says into a pipe that it has subscribed only when the first message has come.
	args = append([]string{"-oL", find(t, "mosquitto_sub"), "-d", "-F", message + "%t %q %r %p"}, append(m.options(), args...)...)
	return launch(t, find(t, "stdbuf"), args...)
}

// sub starts mosquitto_sub and waits until its subscription is in place.
func (m mosquitto) sub(t *testing.T, args ...string) *program {
	t.Helper()
	p := m.launch(t, args...)
	p.after(t, "Subscribed (mid: ")
	return p
}

// get runs mosquitto_sub until it has printed n messages, and gives them.
func (m mosquitto) get(t *testing.T, n int, args ...string) (messages []string) {
	t.Helper()
	p := m.launch(t, append(args, "-C", fmt.Sprint(n))...)
	if code := p.wait(t); code != 0 {
		t.Fatalf("mosquitto_sub ended with exit code %d", code)
	}
	for range n {
		messages = append(messages, p.after(t, message))
	}
	return messages
}

// TestMosquittoClients runs every scenario with every version through every door.
func TestMosquittoClients(t *testing.T) {
	t.Parallel()
	type scenario struct {
		name  string
		run   func(*testing.T, mosquitto)
		only5 bool
	}
	scenarios := []scenario{
		{"a session that has expired is gone", sessionExpires, true}, // takes longest
		{"messages of every QoS arrive once", everyQoSOnce, false},
		{"a subscription gets no more QoS than it asks for", subscriptionCapsQoS, false},
		{"a retained message waits for who subscribes", retainedWaits, false},
		{"a will is sent when the client is killed", willOfKilled, false},
		{"a client that says goodbye leaves no will", noWillAfterGoodbye, false},
		{"a session gets what it missed", sessionResumes, false},
		{"a clean start forgets the session", cleanStartForgets, false},
		{"a large message arrives as it was published", largeMessage, false},
		{"properties arrive as they were published", mosquittoProperties, true},
		{"a second client of one id takes the place of the first", takeOver, true},
	}
	for _, d := range doors(t) {
		for _, version := range versions {
			m := mosquitto{d, version}
			for _, s := range scenarios {
				if s.only5 && !m.v5() {
					continue
				}
				t.Run(d.name+"/"+version+"/"+s.name, func(t *testing.T) {
					t.Parallel()
					s.run(t, m)
				})
			}
		}
	}
}

func everyQoSOnce(t *testing.T, m mosquitto) {
	topic := m.topic()
	sub := m.sub(t, "-t", topic+"/#", "-q", "2")
	for qos := range 3 {
		m.pubLines(t, "a\nb\nc\n", "-t", fmt.Sprintf("%s/%d", topic, qos), "-q", fmt.Sprint(qos))
		for _, text := range []string{"a", "b", "c"} {
			sub.wants(t, message, fmt.Sprintf("%s/%d %d 0 %s", topic, qos, qos, text))
		}
	}
	m.pub(t, "-t", topic, "-q", "2", "-m", "last")
	sub.wants(t, message, topic+" 2 0 last")
}

func subscriptionCapsQoS(t *testing.T, m mosquitto) {
	topic := m.topic()
	for qos := range 3 {
		sub := m.sub(t, "-t", topic, "-q", fmt.Sprint(qos))
		for published := range 3 {
			m.pub(t, "-t", topic, "-q", fmt.Sprint(published), "-m", "x")
			sub.wants(t, message, fmt.Sprintf("%s %d 0 x", topic, min(qos, published)))
		}
		sub.kill()
	}
}

func retainedWaits(t *testing.T, m mosquitto) {
	topic := m.topic()
	for qos := range 3 {
		m.pubLines(t, "old\nkept\n", "-t", fmt.Sprintf("%s/%d", topic, qos), "-q", fmt.Sprint(qos), "-r")
		if got, want := m.get(t, 1, "-t", fmt.Sprintf("%s/%d", topic, qos), "-q", "2")[0], fmt.Sprintf("%s/%d %d 1 kept", topic, qos, qos); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	// An empty message clears it; who is subscribed gets messages without the flag.
	sub := m.sub(t, "-t", topic+"/1", "-q", "1")
	sub.wants(t, message, topic+"/1 1 1 kept")
	m.pub(t, "-t", topic+"/1", "-q", "1", "-r", "-n")
	m.pub(t, "-t", topic+"/1", "-q", "1", "-r", "-m", "new")
	sub.wants(t, message, topic+"/1 1 0 ", topic+"/1 1 0 new")
	m.pub(t, "-t", topic+"/1", "-q", "1", "-r", "-n")
	m.pub(t, "-t", topic+"/9", "-q", "1", "-r", "-m", "last")
	got := m.get(t, 3, "-t", topic+"/#", "-q", "2")
	for _, line := range got {
		if strings.HasPrefix(line, topic+"/1 ") {
			t.Errorf("got %q, which was cleared", line)
		}
	}
}

func willOfKilled(t *testing.T, m mosquitto) {
	topic := m.topic()
	watch := m.sub(t, "-t", topic+"/will/#", "-q", "2")
	for qos := range 3 {
		will := fmt.Sprintf("%s/will/%d", topic, qos)
		client := m.sub(t, "-t", topic+"/other", "--will-topic", will, "--will-payload", "gone", "--will-qos", fmt.Sprint(qos), "--will-retain")
		client.kill()
		watch.wants(t, message, fmt.Sprintf("%s %d 0 gone", will, qos))
		if got, want := m.get(t, 1, "-t", will, "-q", "2")[0], fmt.Sprintf("%s %d 1 gone", will, qos); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func noWillAfterGoodbye(t *testing.T, m mosquitto) {
	topic := m.topic()
	watch := m.sub(t, "-t", topic+"/#", "-q", "1")
	will := []string{"--will-topic", topic + "/will", "--will-payload", "gone"}
	client := m.sub(t, append(will, "-t", topic+"/end", "-C", "1")...)
	m.pub(t, "-t", topic+"/end", "-m", "x", "-q", "1")
	client.wait(t)
	m.pub(t, "-t", topic+"/last", "-m", "x", "-q", "1")
	watch.wants(t, message, topic+"/end 1 0 x", topic+"/last 1 0 x")

	// At SIGTERM, too; but MQTT 5 has a goodbye that asks for the will, and there mosquitto_sub says that.
	client = m.sub(t, append(will, "-t", topic+"-other")...)
	client.end(t, syscall.SIGTERM)
	if m.v5() {
		watch.wants(t, message, topic+"/will 0 0 gone")
	}
	m.pub(t, "-t", topic+"/last", "-m", "x", "-q", "1")
	watch.wants(t, message, topic+"/last 1 0 x")
}

func largeMessage(t *testing.T, m mosquitto) {
	topic := m.topic()
	text := strings.Repeat("0123456789", 20_000) // more than a socket takes at once
	sub := m.sub(t, "-t", topic, "-q", "2")
	for qos := range 3 {
		succeeds(t, text, find(t, "mosquitto_pub"), append(m.options(), "-t", topic, "-q", fmt.Sprint(qos), "-s")...)
		if got := sub.after(t, message); got != fmt.Sprintf("%s %d 0 %s", topic, qos, text) {
			t.Errorf("QoS %d: %d bytes arrived, or other ones", qos, len(got))
		}
	}
}

// takeOver is for MQTT 5, which has a word for it: clients of older versions take their place back again and again.
func takeOver(t *testing.T, m mosquitto) {
	topic, id := m.topic(), clientID()
	first := m.sub(t, "-t", topic, "-i", id)
	second := m.sub(t, "-t", topic, "-i", id)
	first.contains(t, "Received DISCONNECT (142)") // session taken over
	m.pub(t, "-t", topic, "-q", "1", "-m", "x")
	second.wants(t, message, topic+" 0 0 x")
}

func mosquittoProperties(t *testing.T, m mosquitto) {
	topic := m.topic()
	p := launch(t, find(t, "stdbuf"), append([]string{"-oL", find(t, "mosquitto_sub"), "-d", "-t", topic, "-q", "1",
		"-D", "subscribe", "subscription-identifier", "7",
		"-F", message + "%p|%C|%D|%E|%F|%R|%S|%P"}, m.options()...)...)
	p.after(t, "Subscribed (mid: ")
	m.pub(t, "-t", topic, "-q", "1", "-m", "hi",
		"-D", "publish", "content-type", "text/plain",
		"-D", "publish", "correlation-data", "abc",
		"-D", "publish", "message-expiry-interval", "100",
		"-D", "publish", "payload-format-indicator", "1",
		"-D", "publish", "response-topic", topic+"/reply",
		"-D", "publish", "user-property", "a", "1", "-D", "publish", "user-property", "a", "2")
	// It prints names and values of user properties with a colon, and the interval as it is when it arrives.
	got := p.after(t, message)
	if want := []string{"hi|text/plain|abc|100|1|" + topic + "/reply|7|a:1 a:2", "hi|text/plain|abc|99|1|" + topic + "/reply|7|a:1 a:2"}; got != want[0] && got != want[1] {
		t.Errorf("got %q, want %q", got, want[0])
	}
}
