package mqttclient_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

func ExampleDial() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	c, err := mqttclient.Dial(ctx, mqttclient.Config{
		URL:     "mqtt://user:secret@localhost",
		Handler: func(m *mqttclient.Message) { fmt.Println(m.Topic, string(m.Payload)) },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Subscribe(ctx, nil, wire.Filter{Filter: "plant/#", QoS: 1}); err != nil {
		log.Fatal(err)
	}
	if _, err := c.Publish(ctx, mqttclient.Publication{Topic: "plant/1", Payload: []byte("21.5"), QoS: 1}); err != nil {
		log.Fatal(err)
	}
	if err := c.Disconnect(ctx, 0, nil); err != nil {
		log.Fatal(err)
	}
}
