package interop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// neighbour is a Mosquitto whose bridge is connected to a gateway.
type neighbour struct {
	*program
	mosquitto // its clients
	file      string
}

// newNeighbour writes the configuration of a Mosquitto with a bridge to an address; start starts it.
func newNeighbour(t *testing.T, address string, lines ...string) *neighbour {
	t.Helper()
	find(t, "mosquitto")
	port := freePort(t)
	config := []string{
		"listener " + port + " 127.0.0.1", "allow_anonymous true", "persistence false",
		"connection isthmus", "address " + address, "topic # both 2", "remote_clientid " + bridgeID,
		"restart_timeout 1", "keepalive_interval 5",
	}
	if os.Geteuid() == 0 {
		config = append([]string{"user root"}, config...) // it would become another user, who may not read the test's files
	}
	n := &neighbour{mosquitto: mosquitto{door{port: port}, "mqttv311"}, file: filepath.Join(folder(t), "mosquitto.conf")}
	write(t, n.file, strings.Join(append(config, lines...), "\n")+"\n")
	return n
}

// bridgeID is the client id of the bridge at the gateway.
const bridgeID = "neighbour"

// start starts it, and waits until its own clients can connect.
func (n *neighbour) start(t *testing.T) {
	t.Helper()
	n.program = launch(t, find(t, "mosquitto"), "-v", "-c", n.file)
	n.program.contains(t, " running") // which it says when it listens
}

// state is the topic in which the bridge says that it is connected.
const state = "$SYS/broker/connection/" + bridgeID + "/state"

const mqtt5 = "MQTT 5"

// TestMosquittoBridge connects a Mosquitto as a bridge, and kills either side.
func TestMosquittoBridge(t *testing.T) {
	t.Parallel()
	for name, lines := range map[string][]string{
		"the protocol that bridges have by default": nil, // MQTT 3.1.1 with the bit that says bridge
		"MQTT 3.1": {"bridge_protocol_version mqttv31"},
		mqtt5:      {"bridge_protocol_version mqttv50"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			way := newRelay(t)
			n := newNeighbour(t, "127.0.0.1:"+way.port, lines...)
			g := serve(t, plain)
			s := &sides{here: g.as("", "", "mqttv5"), there: n.mosquitto}

			// The gateway has what the bridge says of itself, for who is there and who comes later.
			watch := s.here.sub(t, "-t", state, "-q", "1")
			n.start(t)
			way.open(g.ports["mqtt"])
			watch.wants(t, message, state+" 1 0 1")
			s.state(t, "1")
			s.listen(t, s.here, &s.atHere)
			s.listen(t, s.there, &s.atThere)
			s.connected(t)
			s.exchange(t)
			s.retains(t)

			// The bridge is killed. What is published meanwhile waits in its session; with MQTT 5 Mosquitto asks for none that
			// outlives the connection.
			way.close()
			n.kill()
			watch.wants(t, message, state+" 1 0 0")
			s.state(t, "0")
			missed := publishMissed(t, s.here, "missed/there")
			n.start(t)
			s.listen(t, s.there, &s.atThere)
			way.open(g.ports["mqtt"])
			watch.wants(t, message, state+" 1 0 1")
			if name != mqtt5 {
				s.atThere.wants(t, message+"missed/there ", missed...)
			}
			s.connected(t)
			s.exchange(t)

			// The gateway is killed. What is published meanwhile waits at the bridge; sessions here are gone.
			way.close()
			g.kill()
			missed = publishMissed(t, s.there, "missed/here")
			g = serveFile(t, g.file)
			s.here = g.as("", "", "mqttv5")
			s.listen(t, s.here, &s.atHere)
			way.open(g.ports["mqtt"])
			s.atHere.wants(t, message+"missed/here ", missed...)
			s.connected(t)
			s.exchange(t)
			s.state(t, "1")
		})
	}
}

// publishMissed publishes messages that wait, and says what is to be printed of them. Those of QoS 2 come last: clients hand
// them out when they are released, which may be after later ones of QoS 1.
func publishMissed(t *testing.T, m mosquitto, topic string) []string {
	t.Helper()
	m.pubLines(t, "a\nb\nc\n", "-t", topic, "-q", "1")
	m.pubLines(t, "d\ne\nf\n", "-t", topic, "-q", "2")
	return []string{"1 0 a", "1 0 b", "1 0 c", "2 0 d", "2 0 e", "2 0 f"}
}

func TestMosquittoBridgeOverTLS(t *testing.T) {
	t.Parallel()
	for _, d := range doors(t) {
		if d.ca == "" || d.user == "" {
			continue // a bridge of everything needs a user who may do everything
		}
		n := newNeighbour(t, "127.0.0.1:"+d.port, "bridge_cafile "+d.ca, "remote_username "+d.user, "remote_password "+d.password)
		s := &sides{here: mosquitto{d, "mqttv5"}, there: n.mosquitto}
		n.start(t)
		s.listen(t, s.here, &s.atHere)
		s.listen(t, s.there, &s.atThere)
		s.connected(t)
		s.state(t, "1")
		s.exchange(t)
	}
}
