package broker

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/mochi-mqtt/server/v2/packets"
)

// refusal is a CONNECT that is answered with a CONNACK other than success.
type refusal struct {
	code5 byte // reason code of MQTT 5
	code3 byte // return code of 3.x; 0: close without CONNACK (MQTT-3.2.2-6)
	text  string
}

// handleConnect takes a CONNECT up to the point where the client is let in, or where enhanced authentication goes on.
func (c *conn) handleConnect(b *bridge.Batch, body []byte) error {
	l := c.srv.limits.Load()
	pk, err := decodeConnect(body, l, b.Now)
	if err != nil {
		// Refused in the words of the version that was asked for, as far as it can be told.
		if v, _, _ := connectVersion(body); v != 0 {
			c.version = v
		}
		var v *violation
		if errors.As(err, &v) && v.code == codeUnsupportedVersion && c.version != 5 {
			return c.refuse(b, refusal{codeUnsupportedVersion, 1, v.text}) // MQTT-3.1.2-2 of 3.1.1
		}
		return err
	}
	c.version, c.isBridge, c.quiet, c.maxPacket = pk.version, pk.bridge, pk.quiet, int(pk.maxPacket)
	if r, ok := c.checkConnectLimits(pk, l); !ok {
		return c.refuse(b, r)
	}
	if pk.authMethod != "" {
		return c.beginAuth(b, pk)
	}
	return c.admit(b, pk, "")
}

// checkConnectLimits holds a well-formed CONNECT against what this server allows.
func (c *conn) checkConnectLimits(pk *connectPacket, l *Limits) (r refusal, ok bool) {
	switch {
	case len(pk.clientID) > l.ClientIDBytes:
		return refusal{codeClientIDInvalid, 2, "client identifier is too long"}, false
	case pk.clientID == "" && (pk.version == 3 || pk.version == 4 && !pk.clean):
		return refusal{codeClientIDInvalid, 2, "client identifier is empty"}, false // MQTT-3.1.3-8 of 3.1.1
	case pk.will != nil && int(pk.will.message.QoS) > l.MaximumQoS:
		return refusal{codeQoSNotSupported, 5, "will QoS is above Maximum QoS"}, false
	case pk.will != nil && pk.will.message.Retain && l.NoRetain:
		return refusal{codeRetainNotSupported, 5, "retained messages are not available"}, false
	}
	return refusal{}, true
}

// refuse answers CONNECT with a refusal and ends the connection.
func (c *conn) refuse(b *bridge.Batch, r refusal) error {
	code := r.code5
	if c.version != 5 {
		code = r.code3
	}
	c.srv.counters.Refused.Add(1)
	c.reason = r.code5
	if code != 0 {
		c.sendPacket(b, encodeConnackRefusal(c.version, code, r.text, c.maxPacket))
	}
	c.log.Debug("connect refused", "remote", remoteOf(c.nc), "reason", r.text)
	return errStopped
}

func (c *conn) refuseFor(b *bridge.Batch, err error) error {
	w := wire[bridge.ReasonOf(err)]
	return c.refuse(b, refusal{w.connect, w.connect3, bridge.ReasonOf(err).String()})
}

// admit authenticates the client, gives it its session and sends CONNACK. proven is the user that enhanced authentication
// has proven.
func (c *conn) admit(b *bridge.Batch, pk *connectPacket, proven string) error {
	assigned := ""
	if pk.clientID == "" {
		assigned = "auto-" + rand.Text()
		pk.clientID = assigned
	}
	ctx, cancel := context.WithTimeout(context.Background(), c.srv.limits.Load().ConnectTimeout)
	defer cancel()
	identity, err := c.srv.hub.Authenticate(ctx, c.credentials(pk, proven))
	if err != nil {
		return c.refuseFor(b, err)
	}
	if pk.will != nil {
		if err := c.srv.hub.Admit(identity, pk.will.message.Topic); err != nil {
			return c.refuseFor(b, err)
		}
	}
	if pk.version == 5 {
		c.announced = c.srv.limits.Load()
	}
	c.keepAlive = time.Duration(pk.keepAlive) * time.Second
	limit := c.srv.limits.Load().MaxKeepAlive
	capped := pk.version == 5 && (c.keepAlive == 0 || c.keepAlive > limit)
	if capped {
		c.keepAlive = limit
	}
	c.sendMax = c.srv.limits.Load().InflightOut
	if pk.receiveMax != 0 {
		c.sendMax = min(c.sendMax, int(pk.receiveMax))
	}
	if n := min(int(pk.aliasMax), c.srv.limits.Load().TopicAliasesOut); n > 0 {
		c.aliasesOut = &aliases{max: n}
	}
	if c.maxPacket != 0 && len(c.connack(pk, false, assigned, capped)) > c.maxPacket {
		// Without a CONNACK it would wait for ever (MQTT-3.1.2-24).
		return c.refuse(b, refusal{codePacketTooLarge, 5, "CONNACK is above Maximum Packet Size"})
	}
	present, err := c.srv.join(b, c, identity, pk, func(present bool) {
		c.sendPacket(b, c.connack(pk, present, assigned, capped))
	})
	if err != nil {
		return c.refuseFor(b, err)
	}
	c.phase = connected
	if c.keepAlive == 0 {
		c.nc.SetReadDeadline(time.Time{})
	} else {
		c.nc.SetReadDeadline(time.Now().Add(c.keepAlive + c.keepAlive/2))
	}
	if c.out.ending() { // taken over already, by one who has perhaps set a deadline before ours
		return errStopped
	}
	c.auth = c.auth.established()
	c.log.Debug("client connected", "client", c.session.id, "remote", remoteOf(c.nc), "version", c.version, "user", identity.User, "session_present", present)
	return nil
}

func (c *conn) credentials(pk *connectPacket, proven string) bridge.Credentials {
	cred := bridge.Credentials{
		Endpoint: c.srv.counters.Name, ClientID: pk.clientID, User: pk.user, HasUser: pk.hasUser, Password: pk.password,
		Remote: c.nc.RemoteAddr(), Proven: proven,
	}
	if t, ok := c.nc.(*tls.Conn); ok {
		if certs := t.ConnectionState().VerifiedChains; len(certs) > 0 && len(certs[0]) > 0 {
			cred.Certificate = certs[0][0]
		}
	}
	if a, ok := cred.Remote.(*net.TCPAddr); ok {
		cred.Loopback = a.IP.IsLoopback()
	}
	return cred
}

// connack is the CONNACK that lets a client in: it announces every limit that is in force (MQTT 5 section 3.2.2.3).
func (c *conn) connack(pk *connectPacket, present bool, assigned string, capped bool) []byte {
	out := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}, ProtocolVersion: c.version, SessionPresent: present}
	if c.version == 3 {
		out.SessionPresent = false // MQTT 3.1 has no such flag
	}
	if c.version == 5 {
		l := c.promised()
		p := &out.Properties
		p.ReceiveMaximum = uint16(l.InflightIn)
		p.MaximumPacketSize = uint32(l.PacketBytes)
		p.TopicAliasMaximum = uint16(l.TopicAliasesIn)
		p.AssignedClientID = assigned
		p.MaximumQosFlag, p.MaximumQos = true, byte(l.MaximumQoS)
		p.RetainAvailableFlag = l.NoRetain
		p.WildcardSubAvailableFlag = l.NoWildcards
		p.SharedSubAvailableFlag = l.NoShared
		if capped {
			p.ServerKeepAliveFlag, p.ServerKeepAlive = true, uint16(c.keepAlive/time.Second)
		}
		if got := uint32(c.srv.sessionExpiry(pk.expiry) / time.Second); got != pk.expiry && pk.expiry != 0 {
			p.SessionExpiryIntervalFlag, p.SessionExpiryInterval = true, got
		}
		p.AuthenticationMethod, p.AuthenticationData = c.auth.lastWords()
	}
	return encode(&out, c.maxPacket, func(pk *packets.Packet, buf *bytes.Buffer) error { return pk.ConnackEncode(buf) })
}
