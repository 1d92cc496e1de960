package interop

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What only MQTT 5 has.

func libraryProperties(t *testing.T, d *driver) {
	topic := d.topic()
	sub, pub := d.connect(t, connect{Clean: true}), d.connect(t, connect{Clean: true})
	sub.do(t, "subscribe", map[string]any{"topic": topic, "qos": 2, "identifier": 268435455})
	sub.event(t, sub.events, "subscribed")
	for qos := range 3 {
		want := properties{ContentType: "application/json", ResponseTopic: topic + "/reply", Correlation: "c-1", Text: true,
			User: [][2]string{{"a", "1"}, {"a", "2"}, {"ä", "ö"}}}
		pub.publish(t, sent{Topic: topic, Payload: `{"x":1}`, QoS: qos, Properties: &want})
		got := sub.message(t)
		if text := fmt.Sprintf(`%s %d 0 {"x":1}`, topic, qos); got.String() != text {
			t.Errorf("got %q, want %q", got, text)
		}
		want.Identifiers = []int{268435455}
		if diff := cmp.Diff(&want, got.Properties); diff != "" {
			t.Errorf("properties (-want +got):\n%s", diff)
		}
	}
	// The expiry interval counts down where a message waits, so it may have lost a second on the way.
	pub.publish(t, sent{Topic: topic, Payload: "x", QoS: 1, Properties: &properties{Expiry: 100}})
	if p := sub.message(t).Properties; p.Expiry < 60 || p.Expiry > 100 {
		t.Errorf("expiry interval %d", p.Expiry)
	}
	sub.disconnect(t)
	pub.disconnect(t)
}

func libraryRequest(t *testing.T, d *driver) {
	topic := d.topic()
	asks, answers := d.connect(t, connect{Clean: true}), d.connect(t, connect{Clean: true})
	answers.subscribe(t, topic+"/request", 1)
	asks.subscribe(t, topic+"/reply/1", 1)
	asks.publish(t, sent{Topic: topic + "/request", Payload: "2+2", QoS: 1, Properties: &properties{ResponseTopic: topic + "/reply/1", Correlation: "q-7"}})
	question := answers.message(t)
	answers.publish(t, sent{Topic: question.Properties.ResponseTopic, Payload: "4", QoS: 1, Properties: &properties{Correlation: question.Properties.Correlation}})
	answer := asks.message(t)
	if answer.String() != topic+"/reply/1 1 0 4" || answer.Properties.Correlation != "q-7" {
		t.Errorf("got %q, correlation %q", answer, answer.Properties.Correlation)
	}
	asks.disconnect(t)
	answers.disconnect(t)
}

func libraryShared(t *testing.T, d *driver) {
	topic := d.topic()
	pub := d.connect(t, connect{Clean: true})
	members := []*client{d.connect(t, connect{Clean: true}), d.connect(t, connect{Clean: true})}
	for _, m := range members {
		m.subscribe(t, "$share/group/"+topic+"/#", 1)
		m.subscribe(t, topic+"-end", 1)
	}
	const n = 20
	var want []string
	for i := range n {
		pub.publish(t, sent{Topic: topic + "/x", Payload: fmt.Sprint(i), QoS: 1})
		want = append(want, fmt.Sprintf("%s/x 1 0 %d", topic, i))
	}
	pub.publish(t, sent{Topic: topic + "-end", Payload: "last", QoS: 1})
	var got []string
	for _, m := range members {
		before := len(got)
		for e := m.message(t); e.Topic != topic+"-end"; e = m.message(t) {
			got = append(got, e.String())
		}
		if len(got)-before != n/2 {
			t.Errorf("%s got %d of %d messages", m.name, len(got)-before, n)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("messages of all members (-want +got):\n%s", diff)
	}
	// The one that stays gets all.
	members[0].disconnect(t)
	for i := range 4 {
		pub.publish(t, sent{Topic: topic + "/x", Payload: fmt.Sprint(i), QoS: 1})
		members[1].wants(t, fmt.Sprintf("%s/x 1 0 %d", topic, i))
	}
	members[1].disconnect(t)
	pub.disconnect(t)
}

func libraryAliases(t *testing.T, d *driver) {
	topic := d.topic()
	sub, pub := d.connect(t, connect{Clean: true, Aliases: 2}), d.connect(t, connect{Clean: true})
	sub.subscribe(t, topic+"/#", 2)
	levels := 3
	if d.library == "MQTT.js" {
		levels = 2 // up to 5.16 it hands out a message of QoS 2 without the topic that an alias stands for
	}
	for qos := range levels {
		// Set, used, set to another topic, used.
		for i, name := range []string{"/a", "", "/b", ""} {
			m := sent{Payload: fmt.Sprint(i), QoS: qos, Properties: &properties{Alias: 1}}
			if name != "" {
				m.Topic = topic + name
			}
			pub.publish(t, m)
		}
		for i, name := range []string{"/a", "/a", "/b", "/b"} {
			got := sub.message(t)
			if want := fmt.Sprintf("%s%s %d 0 %d", topic, name, qos, i); got.String() != want {
				t.Fatalf("got %q, want %q", got, want)
			}
			if got.Properties.Alias < 1 || got.Properties.Alias > 2 {
				t.Errorf("the alias towards the subscriber is %d", got.Properties.Alias)
			}
		}
	}
	// More topics than aliases.
	for i := range 5 {
		pub.publish(t, sent{Topic: fmt.Sprintf("%s/many/%d", topic, i), Payload: "x", QoS: 1})
		sub.wants(t, fmt.Sprintf("%s/many/%d 1 0 x", topic, i))
	}
	sub.disconnect(t)
	pub.disconnect(t)
}
