package mqttclient

import (
	"net"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// FuzzServer lets a server send anything: the client must end when the server does.
func FuzzServer(f *testing.F) {
	f.Add(byte(5), raw.Encode(raw.V5,
		raw.Publish{Topic: "a", QoS: 2, ID: 1, Props: raw.Props{raw.TopicAlias.Int(1)}}, raw.Pubrel{ID: 1}, raw.Publish{Props: raw.Props{raw.TopicAlias.Int(1)}},
		raw.Puback{ID: 1}, raw.Pubrec{ID: 1}, raw.Pubcomp{ID: 1}, raw.Suback{ID: 1, Codes: []raw.Code{0}}, raw.Pingresp{}, raw.Auth{Code: 0x18}, raw.Disconnect{Code: 0x8B}))
	f.Add(byte(4), raw.Encode(raw.V311, raw.Publish{Topic: "a", QoS: 1, ID: 1, Dup: true}, raw.Unsuback{ID: 1}))
	f.Fuzz(func(t *testing.T, level byte, b []byte) {
		v := wire.Version(4 + level%2)
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			s := raw.On(t, far)
			s.Version = v
			if _, err := s.Next(time.Now().Add(10 * time.Second)); err != nil {
				return
			}
			go func() {
				for {
					if _, err := far.Read(make([]byte, 4096)); err != nil {
						return
					}
				}
			}()
			far.Write(append(raw.Encode(v, raw.Connack{}), b...))
		}()
		cfg := Config{Version: v, Handler: func(m *Message) {}}
		if v == wire.V5 {
			cfg.Props = wire.Props{wire.TopicAliasMaximum.Int(10)}
		}
		c, err := Connect(t.Context(), near, cfg)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		_ = c.PublishAsync(t.Context(), Publication{Topic: "a", QoS: 2}, func(_ wire.Code, err error) { done <- err })
		select {
		case <-c.Done():
		case <-time.After(10 * time.Second):
			t.Fatal("the client goes on")
		}
		c.Close()
	})
}
