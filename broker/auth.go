package broker

import (
	"github.com/isthmus-iot/isthmus/bridge"
)

// authentication is enhanced authentication on one connection (MQTT 5 section 4.12).
type authentication struct {
	method   string
	exchange Exchange // nil between exchanges
	answer   []byte   // the last answer, for CONNACK
	connect  *connectPacket
}

// established ends the exchange that let the client in; the method stays for re-authentication.
func (a *authentication) established() *authentication {
	if a == nil {
		return nil
	}
	return &authentication{method: a.method}
}

// lastWords are the method and data for CONNACK (MQTT-4.12.0-5).
func (a *authentication) lastWords() (method string, data []byte) {
	if a == nil {
		return "", nil
	}
	return a.method, a.answer
}

// beginAuth starts the exchange that CONNECT asks for.
func (c *conn) beginAuth(b *bridge.Batch, pk *connectPacket) error {
	begin := c.srv.cfg.Exchanges[pk.authMethod]
	if begin == nil {
		return c.refuse(b, refusal{codeBadAuthMethod, 5, "authentication method is not supported"})
	}
	c.auth = &authentication{method: pk.authMethod, exchange: begin(), connect: pk}
	c.phase = authenticating
	return c.stepAuth(b, pk.authData)
}

// handleAuth takes an AUTH: the next step during CONNECT, or of a re-authentication.
func (c *conn) handleAuth(b *bridge.Batch, body []byte) error {
	if c.version != 5 {
		return protocolError("AUTH before MQTT 5")
	}
	pk, err := decodeAuth(body)
	if err != nil {
		return err
	}
	switch {
	case c.auth == nil:
		return protocolError("AUTH where CONNECT named no method") // MQTT-4.12.0-7
	case pk.method != c.auth.method:
		return protocolError("AUTH with another method than CONNECT's") // MQTT-4.12.0-5
	case c.phase == connected && c.auth.exchange == nil:
		if pk.code != codeReauthenticate {
			return protocolError("AUTH that begins no re-authentication") // MQTT-4.12.1-1
		}
		c.auth.exchange = c.srv.cfg.Exchanges[c.auth.method]()
	case pk.code != codeContinue:
		return protocolError("AUTH that does not go on") // MQTT-4.12.0-3
	}
	return c.stepAuth(b, pk.data)
}

// stepAuth gives the exchange the client's data and does what it says.
func (c *conn) stepAuth(b *bridge.Batch, data []byte) error {
	answer, done, user, err := c.auth.exchange.Step(data)
	switch {
	case err != nil && c.phase == connected: // MQTT-4.12.1-2
		return &violation{codeNotAuthorized, "re-authentication failed"}
	case err != nil:
		return c.refuseFor(b, err)
	case !done:
		c.sendPacket(b, encodeAuth(codeContinue, c.auth.method, answer, c.maxPacket))
		return nil
	case c.phase == connected:
		if user != c.client.Identity().User {
			return &violation{codeNotAuthorized, "re-authentication as another user"}
		}
		c.auth.exchange = nil
		c.sendPacket(b, encodeAuth(codeSuccess, c.auth.method, answer, c.maxPacket))
		return nil
	}
	c.auth.answer = answer
	return c.admit(b, c.auth.connect, user)
}
