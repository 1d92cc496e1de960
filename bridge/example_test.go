package bridge_test

import (
	"context"
	"fmt"

	"github.com/isthmus-iot/isthmus/bridge"
)

// A sink that prints. A real one appends the message to its connection's buffer and registers for the flush.
type printer struct{ name string }

func (p printer) Deliver(d *bridge.Delivery) bridge.Outcome {
	fmt.Printf("%s got %s on %s at QoS %d\n", p.name, d.Message.Payload, d.Message.Topic, d.QoS)
	return bridge.Delivered
}

// open lets everybody do everything.
type open struct{}

func (open) Authenticate(_ context.Context, c bridge.Credentials) (*bridge.Identity, error) {
	return &bridge.Identity{User: c.User, ClientID: c.ClientID, Permissions: open{}}, nil
}
func (open) Permissions(*bridge.Identity) (bridge.Permissions, bool) { return open{}, true }
func (open) Allowed(bridge.Action, bridge.Topic) bool                { return true }
func (open) Covers(bridge.Filter) bridge.Coverage                    { return bridge.CoversAll }
func (open) Explain(bridge.Action, string) (bool, string)            { return true, "everybody may do everything" }

// Two endpoints meet in the hub: what the CoAP sensor publishes reaches the MQTT client, also the value from before it came.
func Example() {
	hub, err := bridge.New(bridge.Config{Access: open{}})
	if err != nil {
		panic(err)
	}
	attach := func(endpoint, id string) *bridge.Client {
		who, err := hub.Authenticate(context.Background(), bridge.Credentials{Endpoint: endpoint, ClientID: id})
		if err != nil {
			panic(err)
		}
		c, err := hub.Attach(who, hub.Counters(endpoint), func(bridge.Reason) {})
		if err != nil {
			panic(err)
		}
		return c
	}
	sensor, app := attach("coap", "sensor"), attach("mqtt", "app")
	defer sensor.Close()
	defer app.Close()

	report := func(value string) {
		m := &bridge.Message{Topic: "lab/1/temperature", Payload: []byte(value), QoS: 1, Retain: true}
		if err := sensor.Publish(context.Background(), m); err != nil {
			panic(err)
		}
	}
	report("21.5")

	filter, err := hub.CheckFilter("lab/+/temperature")
	if err != nil {
		panic(err)
	}
	if _, _, err := app.Subscribe(filter, bridge.SubscribeOptions{QoS: 1}, printer{"app"}); err != nil {
		panic(err)
	}
	for m := range app.Retained(filter).All() {
		fmt.Printf("app got retained %s\n", m.Payload)
	}
	report("21.6")

	// Output:
	// app got retained 21.5
	// app got 21.6 on lab/1/temperature at QoS 1
}
