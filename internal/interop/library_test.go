package interop

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestLibraries runs every scenario with every library and version through every door.
func TestLibraries(t *testing.T) {
	t.Parallel()
	names := map[int]string{3: "MQTT 3.1", 4: "MQTT 3.1.1", 5: "MQTT 5"}
	type scenario struct {
		name  string
		run   func(*testing.T, *driver)
		only5 bool
	}
	scenarios := []scenario{
		{"messages of every QoS arrive once", libraryEveryQoS, false},
		{"a retained message waits for who subscribes", libraryRetained, false},
		{"a session gets what it missed", librarySession, false},
		{"properties arrive as they were published", libraryProperties, true},
		{"a request gets its response", libraryRequest, true},
		{"a shared subscription gives each message to one member", libraryShared, true},
		{"topic aliases stand for topics both ways", libraryAliases, true},
	}
	all := doors(t)
	for _, l := range libraries {
		t.Run(l.name, func(t *testing.T) {
			program := l.start(t)
			for _, d := range all {
				for version, name := range names {
					t.Run(d.name+"/"+name, func(t *testing.T) {
						t.Parallel()
						shared := &driver{program, d, l.name, version}
						for _, s := range scenarios {
							if s.only5 && version < 5 {
								continue
							}
							t.Run(s.name, func(t *testing.T) { s.run(t, shared) })
						}
						t.Run("a will is sent when the client is killed", func(t *testing.T) {
							libraryWill(t, shared, &driver{l.start(t), d, l.name, version})
						})
					})
				}
			}
		})
	}
}

func libraryEveryQoS(t *testing.T, d *driver) {
	topic := d.topic()
	sub, pub := d.connect(t, connect{Clean: true}), d.connect(t, connect{Clean: true})
	sub.subscribe(t, topic+"/#", 2)
	for qos := range 3 {
		for i := range 10 {
			pub.do(t, "publish", sent{Topic: fmt.Sprintf("%s/%d", topic, qos), Payload: fmt.Sprint("hello ", i), QoS: qos})
		}
		for range 10 {
			pub.event(t, pub.events, "published")
		}
		for i := range 10 {
			sub.wants(t, fmt.Sprintf("%s/%d %d 0 hello %d", topic, qos, qos, i))
		}
	}
	pub.publish(t, sent{Topic: topic, Payload: "last", QoS: 2})
	sub.wants(t, topic+" 2 0 last")
	for qos := range 2 {
		sub := d.connect(t, connect{Clean: true})
		sub.subscribe(t, topic, qos)
		pub.publish(t, sent{Topic: topic, Payload: "less", QoS: 2})
		sub.wants(t, fmt.Sprintf("%s %d 0 less", topic, qos))
		sub.disconnect(t)
	}
	sub.disconnect(t)
	pub.disconnect(t)
}

func libraryRetained(t *testing.T, d *driver) {
	topic := d.topic()
	pub := d.connect(t, connect{Clean: true})
	for qos := range 3 {
		pub.publish(t, sent{Topic: fmt.Sprintf("%s/%d", topic, qos), Payload: "kept", QoS: qos, Retain: true})
		sub := d.connect(t, connect{Clean: true})
		sub.subscribe(t, fmt.Sprintf("%s/%d", topic, qos), 2)
		sub.wants(t, fmt.Sprintf("%s/%d %d 1 kept", topic, qos, qos))
		sub.disconnect(t)
	}
	pub.publish(t, sent{Topic: topic + "/0", QoS: 1, Retain: true}) // clears it
	sub := d.connect(t, connect{Clean: true})
	sub.subscribe(t, topic+"/0", 2)
	pub.publish(t, sent{Topic: topic + "/0", Payload: "live", QoS: 1, Retain: true})
	sub.wants(t, topic+"/0 1 0 live")
	sub.disconnect(t)
	pub.disconnect(t)
}

// libraryWill has a client in a process of its own, which is killed.
func libraryWill(t *testing.T, d, mortal *driver) {
	topic := d.topic()
	watch := d.connect(t, connect{Clean: true})
	watch.subscribe(t, topic+"/#", 2)
	for qos := range 3 {
		// The connections of a process end in any order, so every will has a topic of its own.
		mortal.connect(t, connect{Clean: true, Will: &sent{Topic: fmt.Sprintf("%s/%d", topic, qos), Payload: "gone", QoS: qos, Retain: true,
			Properties: &properties{ContentType: "text/plain", User: [][2]string{{"a", "1"}}}}})
	}
	polite := mortal.connect(t, connect{Clean: true, Will: &sent{Topic: topic + "/polite", Payload: "gone", QoS: 1}})
	polite.disconnect(t)
	mortal.kill()
	var got []string
	for range 3 {
		e := watch.message(t)
		got = append(got, e.String())
		want := &properties{ContentType: "text/plain", User: [][2]string{{"a", "1"}}}
		if diff := cmp.Diff(want, e.Properties); d.version == 5 && diff != "" {
			t.Errorf("properties (-want +got):\n%s", diff)
		}
	}
	slices.Sort(got)
	if want := []string{topic + "/0 0 0 gone", topic + "/1 1 0 gone", topic + "/2 2 0 gone"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	watch.subscribe(t, topic+"/2", 2)
	watch.wants(t, topic+"/2 2 1 gone")
	watch.disconnect(t)
}

func librarySession(t *testing.T, d *driver) {
	topic, id := d.topic(), clientID()
	keep := connect{ID: id, Expiry: 100}
	c := d.resume(t, keep, false)
	c.subscribe(t, topic, 2)
	c.disconnect(t)
	pub := d.connect(t, connect{Clean: true})
	for i := range 6 { // QoS 1 first: libraries hand out a message of QoS 2 when it is released, which is later
		pub.publish(t, sent{Topic: topic, Payload: fmt.Sprint("missed ", i), QoS: 1 + i/3})
	}
	c = d.resume(t, keep, true)
	for i := range 6 {
		c.wants(t, fmt.Sprintf("%s %d 0 missed %d", topic, 1+i/3, i))
	}
	pub.publish(t, sent{Topic: topic, Payload: "last", QoS: 2})
	c.wants(t, topic+" 2 0 last")
	c.disconnect(t)
	// A clean start ends it.
	c = d.resume(t, connect{ID: id, Clean: true}, false)
	c.disconnect(t)
	c = d.resume(t, keep, false)
	c.subscribe(t, topic+"/new", 2)
	pub.publish(t, sent{Topic: topic, Payload: "the subscription is gone", QoS: 2})
	pub.publish(t, sent{Topic: topic + "/new", Payload: "last", QoS: 2})
	c.wants(t, topic+"/new 2 0 last")
	c.disconnect(t)
	pub.disconnect(t)
}
