// Package raw is for tests that talk to an MQTT broker, or play one, packet by packet: build any bytes, legal or not, send
// them, and state what must come back. Nothing is done behind the test's back: no acknowledgement, no ping, no check of what
// is sent.
//
//	c := raw.Dial(t, addr)                                  // MQTT 5 unless the CONNECT says otherwise
//	c.Send(raw.Connect{ClientID: "a", Clean: true, Props: raw.Props{raw.ReceiveMaximum.Int(2)}})
//	ack := c.Expect(raw.CONNACK)                            // ack.Code, ack.SessionPresent, ack.Props.Int(raw.ReceiveMaximum)
//	c.Send(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "a/#", QoS: 1}}})
//	c.Expect(raw.SUBACK)
//	c.Send(raw.Publish{Topic: "a/b", Payload: "hello", QoS: 1, ID: 7})
//	got := c.ExpectAll(raw.PUBACK, raw.PUBLISH)             // in either order, returned in the order asked for
//	c.Ack(got[1])
//	c.Send(raw.Frame(0x36, "a/b", uint16(9), byte(0)))      // by hand: QoS 3
//	c.ExpectDisconnect(0x81)                                // DISCONNECT with the code, then the end of the connection
//
// Open, Connected, Subscribe, Deliver and Quiet are short forms of what most tests do. Every wait has a deadline
// ([Conn.Timeout]); a failed expectation ends the test with what came instead and the packets seen before. Methods that fail
// the test must be called from its goroutine.
//
// A fake server is a Conn too: [On] an accepted connection, Expect(raw.CONNECT), Send(raw.Connack{}).
package raw
