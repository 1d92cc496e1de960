package broker_test

import (
	"testing"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

func TestMessagesPassBetweenClientsOfEveryVersion(t *testing.T) {
	s := start(t, options{})
	for _, from := range []raw.Version{raw.V31, raw.V311, raw.V5} {
		for _, to := range []raw.Version{raw.V31, raw.V311, raw.V5} {
			for qos := range byte(3) {
				sub := s.open(raw.Connect{Version: to, ClientID: "sub", Clean: true})
				sub.Subscribe(qos, "a/#")
				pub := s.open(raw.Connect{Version: from, ClientID: "pub", Clean: true})
				pub.Publish(raw.Publish{Topic: "a/b", Payload: "hello", QoS: qos, ID: uint16(qos)})
				if p := sub.Deliver(); p.Topic != "a/b" || string(p.Payload) != "hello" || p.QoS != qos {
					t.Errorf("version %v to %v at QoS %d: got %+v", from, to, qos, p)
				}
				sub.Close()
				pub.Close()
			}
		}
	}
}
