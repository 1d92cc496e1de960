package broker_test

import (
	"fmt"
	"testing"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// matching5 subscribes to filters one after the other and expects exactly the topics with a '1' in row, live and retained.
func matching5(t *testing.T, topics []string, rows map[string]string) {
	t.Helper()
	s := start(t, options{})
	c, keeper := s.join5("c"), s.join5("keeper")
	for _, topic := range topics {
		keeper.Publish(raw.Publish{Topic: topic, Payload: "kept", QoS: 1, ID: 1, Retain: true})
	}
	for filter, row := range rows {
		c.Subscribe(0, filter)
		got := make(map[string]int)
		for c.Send(raw.Pingreq{}); ; {
			p := c.Read()
			if p.Type == raw.PINGRESP {
				break
			}
			got[p.Topic]++
		}
		for i, topic := range topics {
			if want := int(row[i] - '0'); got[topic] != want {
				t.Errorf("%q gives %d retained messages of %q, want %d", filter, got[topic], topic, want)
			}
			c.Send(raw.Publish{Topic: topic, Payload: "live"})
			if row[i] == '1' {
				c.ExpectPublish(topic, "live")
			}
			c.Quiet()
		}
		c.Send(raw.Unsubscribe{ID: 1, Filters: []string{filter}})
		c.ExpectAck(raw.UNSUBACK, 1, 0)
	}
}

// statements5Topics is chapter 4.7.
func statements5Topics() []statement {
	// filters5 subscribes to each filter and expects the code; what is refused can't be unsubscribed either.
	filters5 := func(t *testing.T, code raw.Code, filters ...string) {
		t.Helper()
		c := start(t, options{}).join5("c")
		for i, f := range filters {
			c.Send(sub5(uint16(i+1), 0, f))
			if p := c.Expect(raw.SUBACK); len(p.Codes) != 1 || p.Codes[0] != code {
				t.Errorf("filter %q: got %v, want code 0x%02X", f, p, byte(code))
			}
		}
	}
	return []statement{
		v5("a topic name with a wildcard is refused: PUBLISH by DISCONNECT 0x90, a will by CONNACK 0x90, a response topic by 0x82", func(t *testing.T) {
			violations5(t, 0x90, raw.Publish{Topic: "+"}, raw.Publish{Topic: "a/#", QoS: 1, ID: 1}, raw.Publish{Topic: "a/b+", QoS: 2, ID: 1},
				raw.Publish{Topic: "#", Props: raw.Props{raw.TopicAlias.Int(1)}})
			violations5(t, 0x82, raw.Publish{Topic: "a", Props: raw.Props{raw.ResponseTopic.Text("a/+")}}, raw.Publish{Topic: "a", Props: raw.Props{raw.ResponseTopic.Text("#")}})
			s := start(t, options{})
			for _, topic := range []string{"a/+", "#"} {
				s.refusedConnect(t, topic, 0x90, raw.Connect{ClientID: "c", Will: &raw.Will{Topic: topic}})
			}
		}, "MQTT-4.7.0-1"),
		v5("# stands alone in the last level, else the filter is answered by 0x8F", func(t *testing.T) {
			filters5(t, 0x8F, "a#", "a/b#", "#/a", "a/#/b", "##", "#/", "a/#/", "/#a", "$share/g/a#", "$share/g/#/a", "+#")
			filters5(t, 0, "#", "/#", "a/#", "a//#", "+/#", "$SYS/#")
			topics := []string{"sport", "sport/", "sport/t", "sport/t/1", "sports", "/sport"}
			matching5(t, topics, map[string]string{"#": "111111", "sport/#": "111100", "sport/t/#": "001100", "/#": "000001", "sport/t/1/#": "000100"})
		}, "MQTT-4.7.1-1"),
		v5("+ fills its level, else the filter is answered by 0x8F", func(t *testing.T) {
			filters5(t, 0x8F, "a+", "+a", "a/b+", "a/+b/c", "++", "+a/#", "$share/g/a+")
			filters5(t, 0, "+", "+/+", "/+", "a/+", "+/a/+/", "+/#", "$share/g/+")
			topics := []string{"a", "a/", "a/b", "/b", "/", "a/b/c", "a//c"}
			matching5(t, topics, map[string]string{
				"+": "1000000", "+/+": "0111100", "/+": "0001100", "a/+": "0110000", "a/+/c": "0000011", "+/b": "0011000", "+/+/#": "0111111", "a/+/#": "0110011",
			})
		}, "MQTT-4.7.1-2"),
		v5("a filter that begins with a wildcard matches no topic that begins with $, retained and shared ones included", func(t *testing.T) {
			topics := []string{"$x/a", "$x", "y/$x", "$", "$x/a/b"}
			matching5(t, topics, map[string]string{"#": "00100", "+/a": "00000", "+": "00000", "+/#": "00100", "+/a/#": "00000", "$x/#": "11001", "$x/+": "10000", "y/+": "00100", "$": "00010"})
			s := start(t, options{})
			c := s.join5("c")
			c.Subscribe(0, "$share/g/#", "$share/g/+/a", "$share/h/$x/a")
			c.Send(raw.Publish{Topic: "$x/a"})
			c.ExpectPublish("$x/a", "")
			c.Quiet()
		}, "MQTT-4.7.2-1"),
		v5("names and filters have at least one character: an empty topic without an alias is a protocol error, an empty filter is answered by 0x8F", func(t *testing.T) {
			violations5(t, 0x82, raw.Publish{}, raw.Publish{QoS: 1, ID: 1})
			filters5(t, 0x8F, "", "$share/g/")
			s := start(t, options{})
			c := s.join5("c")
			c.Send(raw.Unsubscribe{ID: 1, Filters: []string{""}})
			c.ExpectAck(raw.UNSUBACK, 1, 0x8F)
			s.refusedConnect(t, "an empty will topic", 0x90, raw.Connect{ClientID: "c", Will: &raw.Will{}})
			matching5(t, []string{"/", " ", "a"}, map[string]string{"/": "100", " ": "010", "a": "001"})
		}, "MQTT-4.7.3-1"),
		v5("U+0000 in a name or filter is malformed", func(t *testing.T) {
			violations5(t, 0x81, raw.Publish{Topic: "a\x00"}, raw.Publish{Topic: "\x00", QoS: 1, ID: 1}, sub5(1, 0, "a/\x00/#"), raw.Unsubscribe{ID: 1, Filters: []string{"\x00"}},
				raw.Publish{Topic: "a", Props: raw.Props{raw.ResponseTopic.Text("b\x00")}}, raw.Publish{Topic: "a\x00", Props: raw.Props{raw.TopicAlias.Int(1)}})
			start(t, options{}).refusedConnect(t, "a will topic with U+0000", 0x81, raw.Connect{ClientID: "c", Will: &raw.Will{Topic: "a\x00"}})
		}, "MQTT-4.7.3-2"),
		v5("names are compared byte by byte: case, slashes, spaces, dots and Unicode forms make a difference", func(t *testing.T) {
			topics := []string{"a/b", "A/b", "a//b", "/a/b", "a/b/", " a/b", "a/./b", "caf\u00e9", "cafe\u0301", "\ufeffa/b", "%61/b"}
			rows := make(map[string]string)
			for i, topic := range topics {
				row := []byte("00000000000")
				row[i] = '1'
				rows[topic] = string(row)
			}
			matching5(t, topics, rows)
		}, "MQTT-4.7.3-4"),
		v5("$share/ has a name of at least one character, and a filter behind it, else it is answered by 0x8F", func(t *testing.T) {
			filters5(t, 0x8F, "$share//a", "$share/", "$share", "$share//", "$share/g", "$share/g/")
			filters5(t, 0, "$share/g/a", "$share/ /a", "$share/g//", "$share/g//a", "$shared/g", "$share/$x/$SYS/#", "share/g")
		}, "MQTT-4.8.2-1"),
		v5("a ShareName with a wildcard is answered by 0x8F, and so is a filter behind it that is none", func(t *testing.T) {
			filters5(t, 0x8F, "$share/g+/a", "$share/+/a", "$share/#/a", "$share/g#/a", "$share/#", "$share/g/a#", "$share/g/#/b", "$share/g+/")
			filters5(t, 0, "$share/g/#", "$share/g/+/a")
			s := start(t, options{})
			c := s.join5("c") // the name ends at the first slash
			c.Subscribe(0, "$share/g/h/a")
			c.Send(raw.Publish{Topic: "a"}, raw.Publish{Topic: "g/h/a"}, raw.Publish{Topic: "$share/g/h/a"}, raw.Publish{Topic: "h/a", Payload: fmt.Sprint(1)})
			c.ExpectPublish("h/a", "1")
			c.Quiet()
		}, "MQTT-4.8.2-2"),
	}
}
