package broker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
	packet "github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// TestATopicOf65535LevelsCostsNoMoreThanARefusal takes the time of the packets that a topic may come in, another one each time.
// Whatever else the machine does makes single ones slow, so the fastest of each kind counts.
func TestATopicOf65535LevelsCostsNoMoreThanARefusal(t *testing.T) {
	const most = 10 * time.Millisecond                                // a tenth of it is usual, more where races are looked for; making as many levels takes ten times as long
	for _, limits := range []bridge.Limits{{}, {TopicBytes: 65535}} { // refused for its length, and for its levels
		hub, err := bridge.New(bridge.Config{Access: everybody{}, Limits: limits})
		if err != nil {
			t.Fatal(err)
		}
		srv, err := New(Config{Hub: hub})
		if err != nil {
			t.Fatal(err)
		}
		c := srv.open(memoryConn{}, nil, false)
		var answer []byte
		c.out.try = func(p []byte) (int, error) {
			answer = append(answer[:0], p...)
			return len(p), nil
		}
		w := new(workspace)
		handle := func(p []byte) time.Duration {
			began := time.Now()
			b := hub.Begin()
			defer b.End()
			if _, _, err := c.handle(b, w, p); err != nil {
				t.Fatal(err)
			}
			return time.Since(began)
		}
		handle(packet.Connect{Version: packet.V5, ClientID: "c", Clean: true}.Append(nil))
		publish := func(retain bool, props ...packet.Property) func(string) []byte {
			return func(topic string) []byte {
				return packet.Publish{Topic: topic, Payload: []byte("x"), QoS: 1, ID: 1, Retain: retain, Props: props}.Append(nil, packet.V5)
			}
		}
		for _, test := range []struct {
			what string
			with func(topic string) []byte
			code packet.Code
		}{
			{"PUBLISH", publish(false), 0x90},
			{"PUBLISH with RETAIN", publish(true), 0x90},
			{"PUBLISH with an alias", publish(false, packet.TopicAlias.Int(1)), 0x90},
			{"SUBSCRIBE", func(topic string) []byte {
				return packet.Subscribe{ID: 1, Filters: []packet.Filter{{Filter: topic}}}.Append(nil, packet.V5)
			}, 0x8F},
			{"SUBSCRIBE with a wildcard", func(topic string) []byte {
				return packet.Subscribe{ID: 1, Filters: []packet.Filter{{Filter: topic[:65530] + "/#"}}}.Append(nil, packet.V5)
			}, 0x8F},
			{"UNSUBSCRIBE", func(topic string) []byte {
				return packet.Unsubscribe{ID: 1, Filters: []string{topic}}.Append(nil, packet.V5)
			}, 0x11},
		} {
			best := time.Hour
			for i := range 20 {
				topic := fmt.Sprintf("%02d", i)
				best = min(best, handle(test.with(topic+strings.Repeat("/", 65535-len(topic)))))
				header, body, _, err := packet.Next(answer)
				if err != nil {
					t.Fatal(err)
				}
				p, err := packet.Decode(packet.V5, header, body)
				if code := append(p.Codes, p.Code)[0]; err != nil || code != test.code {
					t.Errorf("%s is answered by %s, %v", test.what, p, err)
					break
				}
			}
			t.Logf("%s takes %v", test.what, best)
			if best > most {
				t.Errorf("%s takes %v", test.what, best)
			}
		}
		c.end(errStopped)
		srv.ended(c)
	}
}
