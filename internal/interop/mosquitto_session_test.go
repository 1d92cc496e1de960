package interop

import (
	"fmt"
	"testing"
)

// subscribes leaves a subscription behind in a session.
func (m mosquitto) subscribes(t *testing.T, args ...string) {
	t.Helper()
	succeeds(t, "", find(t, "mosquitto_sub"), append(m.options(), append(args, "-E")...)...)
}

func sessionResumes(t *testing.T, m mosquitto) {
	topic, id := m.topic(), clientID()
	m.subscribes(t, "-c", "-i", id, "-t", topic, "-q", "2")
	m.pub(t, "-t", topic, "-q", "0", "-m", "QoS 0 is not kept")
	for qos := 1; qos <= 2; qos++ {
		m.pub(t, "-t", topic, "-q", fmt.Sprint(qos), "-m", "missed")
	}
	for i, got := range m.get(t, 2, "-c", "-i", id, "-t", topic, "-q", "2") {
		if want := fmt.Sprintf("%s %d 0 missed", topic, i+1); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	m.pub(t, "-t", topic, "-q", "2", "-m", "last")
	// It may have gone before it acknowledged the one of QoS 1, and gets that again; never the one of QoS 2.
	if got := m.get(t, 1, "-c", "-i", id, "-t", topic, "-q", "2")[0]; got != topic+" 2 0 last" && got != topic+" 1 0 missed" {
		t.Errorf("got %q", got)
	}
}

func cleanStartForgets(t *testing.T, m mosquitto) {
	topic, id := m.topic(), clientID()
	m.subscribes(t, "-c", "-i", id, "-t", topic+"/a", "-q", "1")
	m.pub(t, "-t", topic+"/a", "-q", "1", "-m", "missed")
	sub := m.sub(t, "-i", id, "-t", topic+"/b", "-q", "1")
	m.pub(t, "-t", topic+"/a", "-q", "1", "-m", "the subscription is gone")
	m.pub(t, "-t", topic+"/b", "-q", "1", "-m", "last")
	sub.wants(t, message, topic+"/b 1 0 last")
}

// sessionExpires waits for the end of a session by its will: with a delay that is longer than the session lives it is sent
// when that ends.
func sessionExpires(t *testing.T, m mosquitto) {
	topic, id := m.topic(), clientID()
	watch := m.sub(t, "-t", topic+"/will", "-q", "1")
	client := m.sub(t, "-c", "-x", "1", "-i", id, "-t", topic+"/a", "-q", "1",
		"--will-topic", topic+"/will", "--will-payload", "gone", "--will-qos", "1", "-D", "will", "will-delay-interval", "100")
	client.kill()
	m.pub(t, "-t", topic+"/a", "-q", "1", "-m", "missed")
	watch.wants(t, message, topic+"/will 1 0 gone")

	client = m.sub(t, "-c", "-x", "100", "-i", id, "-t", topic+"/b", "-q", "1")
	m.pub(t, "-t", topic+"/a", "-q", "1", "-m", "the subscription is gone")
	m.pub(t, "-t", topic+"/b", "-q", "1", "-m", "last")
	client.wants(t, message, topic+"/b 1 0 last")

	// An expiry that has not come yet: the session is there.
	client.kill()
	m.pub(t, "-t", topic+"/b", "-q", "1", "-m", "missed")
	client = m.launch(t, "-c", "-x", "0", "-i", id, "-t", topic+"/b", "-q", "1")
	client.wants(t, message, topic+"/b 1 0 missed")
}
