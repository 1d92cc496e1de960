package broker

import (
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
)

// will is the message that a client leaves behind (MQTT 5 section 3.1.2.5).
type will struct {
	message *bridge.Message
	delay   uint32 // seconds to wait for the client to come back
	expiry  uint32 // message expiry interval in seconds, from when it is sent; 0: none
}

// publish sends the will on behalf of the client. Its right to is checked again: it may have been revoked since CONNECT.
func (w *will) publish(srv *Server, client *bridge.Client) {
	m := *w.message
	if w.expiry != 0 {
		m.Expires = time.Now().Add(time.Duration(w.expiry) * time.Second).UnixNano()
	}
	srv.contain("sending a will", func() {
		if err := client.PublishNow(&m); err != nil {
			srv.log.Debug("will refused", "client", client.ID(), "topic", string(m.Topic), "reason", bridge.ReasonOf(err))
		}
	})
}
