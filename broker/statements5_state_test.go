package broker_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/internal/certs"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// statements5State are chapters 4.1, 4.2, 4.4 and 4.5.
func statements5State() []statement {
	return []statement{
		v5("while a client is connected its session is kept whole, also one that ends with the connection: subscriptions, messages under way both ways", func(t *testing.T) {
			s := start(t, options{})
			c, pub := s.join5("c"), s.join5("pub")
			c.Subscribe(2, "a/#", "b")
			c.Send(raw.Publish{Topic: "a/1", Payload: "once", QoS: 2, ID: 1})
			c.ExpectAll(raw.PUBREC, raw.PUBLISH)
			pub.Publish(raw.Publish{Topic: "b", Payload: "held", QoS: 2, ID: 1})
			held := c.ExpectPublish("b", "held")
			for i := range 100 {
				topic := fmt.Sprintf("a/%d", i)
				pub.Publish(raw.Publish{Topic: topic, QoS: byte(i % 3), ID: 2})
				if p := c.Deliver(); p.Topic != topic {
					t.Fatalf("got %v, want %s", p, topic)
				}
			}
			c.Send(raw.Publish{Topic: "a/1", Payload: "once", QoS: 2, ID: 1, Dup: true})
			c.ExpectAck(raw.PUBREC, 1, 0) // and not delivered again
			c.Send(raw.Pubrel{ID: 1}, raw.Pubrec{ID: held.ID})
			c.ExpectAck(raw.PUBCOMP, 1, 0)
			c.ExpectAck(raw.PUBREL, held.ID, 0)
			c.Quiet()
		}, "MQTT-4.1.0-1"),
		v5("a session is there until its expiry interval has passed after the connection, and then nothing of it is", func(t *testing.T) {
			onFakeClock(t, options{}, func(s *fakeClock) {
				expiry := raw.Props{raw.SessionExpiry.Int(60)}
				again := raw.Connect{ClientID: "c", Props: expiry}
				c := s.open(raw.Connect{ClientID: "c", Clean: true, Props: expiry})
				c.Subscribe(1, "a")
				s.pass(5 * time.Minute) // connected time does not count
				s.drop(c)
				s.pass(59 * time.Second)
				if !s.present(again) {
					t.Error("the session has ended early")
				}
				s.pass(59 * time.Second) // counts from the last connection
				if !s.present(again) {
					t.Error("the session has ended early after a reconnect")
				}
				s.pass(61 * time.Second)
				if n := s.hub.Stats(); n.Clients != 0 || n.Subscriptions != 0 {
					t.Errorf("%d clients and %d subscriptions are left", n.Clients, n.Subscriptions)
				}
				pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
				pub.Send(raw.Publish{Topic: "a", QoS: 1, ID: 1})
				pub.ExpectAck(raw.PUBACK, 1, 0x10)
				if s.present(again) {
					t.Error("the session is there after its end")
				}
			})
		}, "MQTT-4.1.0-2"),
		v5("TCP and TLS are served, whatever pieces the bytes come in", func(t *testing.T) {
			ca, err := certs.Open(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			pair, err := ca.Server()
			if err != nil {
				t.Fatal(err)
			}
			cert, err := tls.LoadX509KeyPair(pair.Cert, pair.Key)
			if err != nil {
				t.Fatal(err)
			}
			talk := func(c *raw.Conn) {
				c.SendSplit(1, raw.Connect{ClientID: "c", Clean: true}, sub5(1, 2, "a"), raw.Publish{Topic: "a", Payload: "pieces", QoS: 2, ID: 1})
				c.ExpectCode(raw.CONNACK, 0)
				c.ExpectAck(raw.SUBACK, 1, 2)
				c.ExpectAll(raw.PUBREC, raw.PUBLISH)
				big := string(bytes.Repeat([]byte("x"), 300_000))
				c.Send(raw.Publish{Topic: "a", Payload: big}, raw.Pingreq{})
				c.ExpectPublish("a", big)
				c.Expect(raw.PINGRESP)
			}
			talk(raw.Dial(t, start(t, options{}).Addr))
			s := start(t, options{tls: &tls.Config{Certificates: []tls.Certificate{cert}}})
			nc, err := tls.Dial("tcp", s.Addr, &tls.Config{InsecureSkipVerify: true})
			if err != nil {
				t.Fatal(err)
			}
			talk(raw.On(t, nc))
		}, "MQTT-4.2-1"),
		v5("a resumed session is sent what was not acknowledged, PUBLISH and PUBREL, in its order, under the same identifiers, with DUP; what was acknowledged is not", func(t *testing.T) {
			s := start(t, options{})
			c, pub := s.keep5("c"), s.join5("pub")
			c.Subscribe(2, "a")
			for i, qos := range []byte{1, 2, 2, 1, 2, 1, 2} {
				pub.Publish(raw.Publish{Topic: "a", Payload: fmt.Sprint(i), QoS: qos, ID: 1, Props: raw.Props{raw.User("n", fmt.Sprint(i))}})
			}
			var got []raw.Packet
			for i := range 7 {
				p := c.ExpectPublish("a", fmt.Sprint(i))
				if p.Dup || slices.ContainsFunc(got, func(q raw.Packet) bool { return q.ID == p.ID }) {
					t.Fatalf("got %v, want DUP 0 and an identifier of its own", p)
				}
				got = append(got, p)
			}
			c.Ack(got[3])                                // PUBACK: done
			c.Send(raw.Pubrec{ID: got[1].ID})            // PUBREC: PUBREL goes on
			c.ExpectAck(raw.PUBREL, got[1].ID, 0)        //
			c.Send(raw.Pubrec{ID: got[6].ID})            // done
			c.Ack(c.ExpectAck(raw.PUBREL, got[6].ID, 0)) //
			c.Quiet()
			for range 2 { // each time again until it is acknowledged
				s.lose5(c)
				c = s.resume5("c")
				for _, i := range []int{0, 1, 2, 4, 5} {
					if i == 1 {
						c.ExpectAck(raw.PUBREL, got[1].ID, 0)
						continue
					}
					want := got[i]
					want.Dup, want.Flags = true, want.Flags|8
					if p := c.Expect(raw.PUBLISH); p.String() != want.String() {
						t.Fatalf("got %v, want %v", p, want)
					}
				}
				c.Quiet() // and only once on one connection
			}
			for _, i := range []int{0, 2, 4, 5} {
				c.Ack(got[i])
			}
			c.Ack(raw.Packet{Type: raw.PUBREL, ID: got[1].ID})
			c.Ack(c.ExpectAck(raw.PUBREL, got[2].ID, 0))
			c.Ack(c.ExpectAck(raw.PUBREL, got[4].ID, 0))
			c.Quiet()
			s.lose5(c)
			c = s.resume5("c")
			c.Quiet()
		}, "MQTT-4.4.0-1"),
		v5("on a connection that lasts nothing is sent again, whatever the client leaves out", func(t *testing.T) {
			onFakeClock(t, options{}, func(s *fakeClock) {
				c := s.open(raw.Connect{ClientID: "c", Clean: true, Props: raw.Props{raw.SessionExpiry.Int(60)}})
				c.Subscribe(2, "a")
				c.Send(raw.Publish{Topic: "a", QoS: 1, ID: 1})
				c.ExpectAll(raw.PUBACK, raw.PUBLISH)
				c.Send(raw.Publish{Topic: "a", QoS: 2, ID: 2})
				c.ExpectAll(raw.PUBREC, raw.PUBLISH)
				c.Send(raw.Publish{Topic: "a", QoS: 2, ID: 3})
				p := c.ExpectAll(raw.PUBREC, raw.PUBLISH)[1]
				c.Ack(p)
				c.ExpectAck(raw.PUBREL, p.ID, 0)
				for range 10 {
					s.pass(10 * time.Minute)
					c.Quiet()
				}
			})
		}, "MQTT-4.4.0-1"),
		v5("PUBACK and PUBREC from 0x80 end the exchange: no PUBREL, nothing again after a reconnect", func(t *testing.T) {
			s := start(t, options{})
			c, pub := s.keep5("c"), s.join5("pub")
			c.Subscribe(2, "a")
			pub.Publish(raw.Publish{Topic: "a", Payload: "1", QoS: 1, ID: 1})
			c.Send(raw.Puback{ID: c.ExpectPublish("a", "1").ID, Code: 0x97})
			pub.Publish(raw.Publish{Topic: "a", Payload: "2", QoS: 2, ID: 1})
			c.Send(raw.Pubrec{ID: c.ExpectPublish("a", "2").ID, Code: 0x80})
			c.Quiet()
			s.lose5(c)
			c = s.resume5("c")
			c.Quiet()
			if n := s.stats().Inflight; n != 0 {
				t.Errorf("%d messages are still under way", n)
			}
		}, "MQTT-4.4.0-2"),
		v5("an accepted message enters every matching session: connected, offline, of each version, with QoS 0 where it is connected", func(t *testing.T) {
			s := start(t, options{})
			var live []*raw.Conn
			for _, v := range []raw.Version{raw.V31, raw.V311, raw.V5} {
				for qos := range byte(3) {
					c := s.open(raw.Connect{Version: v, ClientID: fmt.Sprint("live", v, qos), Clean: true})
					c.Subscribe(qos, []string{"a/b", "a/+", "#"}[qos])
					live = append(live, c)
				}
			}
			for qos := range byte(3) {
				c := s.keep5(fmt.Sprint("offline", qos))
				c.Subscribe(qos, "+/b")
				s.leave5(c, raw.Disconnect{})
			}
			pub := s.join5("pub")
			pub.Publish(raw.Publish{Topic: "a/b", Payload: "x", QoS: 2, ID: 1})
			for i, c := range live {
				if p := c.Deliver(); p.Text() != "x" || int(p.QoS) != i%3 {
					t.Errorf("connection %d got %v", i, p)
				}
				c.Quiet()
			}
			s.resume5("offline0").Quiet() // QoS 0 is not kept
			for qos := byte(1); qos < 3; qos++ {
				c := s.resume5(fmt.Sprint("offline", qos))
				if p := c.Deliver(); p.Text() != "x" || p.QoS != qos || p.Dup {
					t.Errorf("the offline session of QoS %d got %v", qos, p)
				}
				c.Quiet()
			}
		}, "MQTT-4.5.0-1"),
	}
}
