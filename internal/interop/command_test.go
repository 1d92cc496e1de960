package interop

import (
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// commands are isthmus pub and isthmus sub with the options that all calls have in common.
type commands struct {
	door
	version string
}

func (c commands) options(name string) []string {
	scheme := "mqtt"
	if c.ca != "" {
		scheme = "mqtts"
	}
	args := []string{name, scheme + "://127.0.0.1:" + c.port, "-V", c.version}
	if c.user != "" {
		args = append(args, "-u", c.user, "-P", c.password)
	}
	if c.ca != "" {
		args = append(args, "--cafile", c.ca)
	}
	if c.cert != "" {
		args = append(args, "--cert", c.cert, "--key", c.key)
	}
	return args
}

func (c commands) pub(t *testing.T, args ...string) {
	t.Helper()
	succeeds(t, "", binary, append(c.options("pub"), args...)...)
}

func (c commands) sub(t *testing.T, args ...string) *program {
	t.Helper()
	return launch(t, binary, append(c.options("sub"), args...)...)
}

// TestCommandsAndMosquittoClientsUnderstandEachOther has messages go from the commands to Mosquitto's and back.
func TestCommandsAndMosquittoClientsUnderstandEachOther(t *testing.T) {
	t.Parallel()
	all := doors(t)
	_, port, err := net.SplitHostPort(raw.Mosquitto(t))
	if err != nil {
		t.Fatal(err)
	}
	all = append(all, door{name: "a Mosquitto", port: port})
	for _, d := range all {
		for _, version := range versions {
			t.Run(d.name+"/"+version, func(t *testing.T) {
				t.Parallel()
				m, c, topic := mosquitto{d, version}, commands{d, version}, d.topic()
				// A retained message says when the subscription is in place.
				m.pub(t, "-t", topic+"/first", "-q", "1", "-r", "-m", "x")
				sub := c.sub(t, "-t", topic+"/#", "-q", "2", "-v")
				sub.wants(t, topic, "/first x")
				other := m.sub(t, "-t", topic+"/+/#", "-q", "2")
				other.wants(t, message+topic, "/first 1 1 x")
				for qos := range 3 {
					m.pub(t, "-t", fmt.Sprintf("%s/theirs/%d", topic, qos), "-q", fmt.Sprint(qos), "-m", "hello")
					c.pub(t, "-t", fmt.Sprintf("%s/ours/%d", topic, qos), "-q", fmt.Sprint(qos), "-m", "hello")
					sub.wants(t, topic, fmt.Sprintf("/theirs/%d hello", qos), fmt.Sprintf("/ours/%d hello", qos))
					other.wants(t, message+topic, fmt.Sprintf("/theirs/%d %d 0 hello", qos, qos), fmt.Sprintf("/ours/%d %d 0 hello", qos, qos))
				}
				if code := sub.end(t, syscall.SIGINT); code != 0 {
					t.Errorf("isthmus sub ended with exit code %d", code)
				}

				// Lines of standard input, retained, counted, without a newline.
				succeeds(t, "a\nb\nc\n", binary, append(c.options("pub"), "-t", topic+"/lines", "-q", "2", "-l")...)
				other.wants(t, message+topic, "/lines 2 0 a", "/lines 2 0 b", "/lines 2 0 c")
				c.pub(t, "-t", topic+"/kept", "-q", "1", "-r", "-m", "ours")
				if got := m.get(t, 1, "-t", topic+"/kept", "-q", "1")[0]; got != topic+"/kept 1 1 ours" {
					t.Errorf("got %q", got)
				}
				m.pub(t, "-t", topic+"/kept", "-q", "1", "-r", "-m", "theirs")
				if got := succeeds(t, "", binary, append(c.options("sub"), "-t", topic+"/kept", "-C", "1", "-N")...); got != "theirs" {
					t.Errorf("got %q", got)
				}
				out, code := run(t, "", binary, append(c.options("sub"), "-t", topic+"/nothing", "-W", "0.1")...)
				if code != 27 || out != "" {
					t.Errorf("-W: exit code %d, %q", code, out)
				}
			})
		}
	}
}

func TestSubPrintsWhatMosquittoPubAddsToAMessage(t *testing.T) {
	t.Parallel()
	g := serve(t, plain)
	d := door{port: g.ports["mqtt"]}
	m, c := mosquitto{d, "mqttv5"}, commands{d, "mqttv5"}
	m.pub(t, "-t", "x", "-q", "1", "-r", "-m", `{"a":1}`, "-D", "publish", "content-type", "application/json",
		"-D", "publish", "response-topic", "reply", "-D", "publish", "correlation-data", "abc", "-D", "publish", "user-property", "k", "v")
	var got struct {
		Topic, Payload string
		QoS            int
		Retain         bool
		Properties     map[string]any
		User           []map[string]string `json:"user_properties"`
	}
	out := succeeds(t, "", binary, append(c.options("sub"), "-t", "x", "-q", "1", "-C", "1", "-o", "json")...)
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	if got.Topic != "x" || got.Payload != `{"a":1}` || got.QoS != 1 || !got.Retain {
		t.Errorf("got %+v", got)
	}
	want := map[string]any{"content-type": "application/json", "response-topic": "reply", "correlation-data": "YWJj"}
	if diff := cmp.Diff(want, got.Properties); diff != "" {
		t.Errorf("properties (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]map[string]string{{"name": "k", "value": "v"}}, got.User); diff != "" {
		t.Errorf("user properties (-want +got):\n%s", diff)
	}
}

// TestClientsComeBackAfterTheGatewayWasKilled has isthmus sub and mosquitto_sub connect again by themselves.
func TestClientsComeBackAfterTheGatewayWasKilled(t *testing.T) {
	t.Parallel()
	file := filepath.Join(folder(t), "isthmus.yaml")
	port := freePort(t)
	write(t, file, strings.Replace(plain, "127.0.0.1:0", net.JoinHostPort("127.0.0.1", port), 1))
	g := serveFile(t, file)
	m := g.as("", "", "mqttv5")
	m.pub(t, "-t", "x", "-r", "-q", "1", "-m", "first")
	sub := commands{m.door, "mqttv5"}.sub(t, "-t", "x", "-q", "1")
	other := m.sub(t, "-t", "x", "-q", "1")
	sub.wants(t, "", "first")
	other.wants(t, message, "x 1 1 first")
	g.kill()
	serveFile(t, file)
	m.pub(t, "-t", "x", "-r", "-q", "1", "-m", "second")
	sub.after(t, "second")
	other.after(t, "Subscribed (mid: ")
}
