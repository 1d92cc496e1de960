package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
)

// conn is one network connection: a state machine that is fed what was read (feed) and appends what is to be written to its
// output. It owns no goroutine; see serve for the one that reads.
type conn struct {
	srv    *Server
	nc     net.Conn
	via    net.Listener // that it came in at; nil: somebody else accepted it
	socket *socket      // nc, where a poller reads it
	poller *poller
	out    output
	log    *slog.Logger

	phase     phase
	ready     atomic.Bool // CONNECT was accepted: what it set may be read by other goroutines
	woken     atomic.Bool // the reader shall leave now
	version   byte        // 3, 4 or 5; of what CONNECT said
	isBridge  bool        // a Mosquitto bridge: no echo, RETAIN as published
	session   *session
	client    *bridge.Client
	keepAlive time.Duration // 0: none
	maxPacket int           // of the client; 0: none
	sendMax   int           // QoS 1 and 2 under way towards the client
	quiet     bool          // the client wants no reason strings (Request Problem Information 0)
	lastRead  int64         // Unix nanoseconds
	announced *Limits       // to an MQTT 5 client: it goes by them until it leaves, whatever changes meanwhile

	owed       owed
	aliasesIn  []string // topic by alias-1
	aliasesOut *aliases // guarded by out.mu
	auth       *authentication

	reason byte          // that ended the connection, for the log
	noWill bool          // DISCONNECT 0x00 came (MQTT-3.14.4-3)
	done   chan struct{} // closed when the reader has ended and the session was left
}

type phase uint8

const (
	awaitConnect phase = iota
	authenticating
	connected
	disconnecting // nothing more is read
)

// packetLimit is the largest packet that is taken at the moment.
func (c *conn) packetLimit() int {
	if c.phase == awaitConnect || c.phase == authenticating {
		return c.srv.limits.Load().ConnectBytes
	}
	return c.promised().PacketBytes
}

// promised are the limits that CONNACK announced, and where it could not, those in force.
func (c *conn) promised() *Limits {
	if c.announced != nil {
		return c.announced
	}
	return c.srv.limits.Load()
}

// feed handles the packets in p and returns how many bytes it used; what is left is an incomplete packet whose whole size
// is need (0: not known yet). An error ends the connection.
func (c *conn) feed(b *bridge.Batch, w *workspace, p []byte) (used, need int, err error) {
	for {
		first, length, size, err := scanHeader(p[used:])
		if err != nil {
			return used, 0, err
		}
		if size == 0 {
			return used, 0, nil
		}
		if size+length > c.packetLimit() {
			return used, 0, &violation{codePacketTooLarge, "packet is too large"}
		}
		if len(p)-used < size+length {
			return used, size + length, nil
		}
		body := p[used+size : used+size+length : used+size+length]
		used += size + length
		w.packets++
		if err := c.packet(b, w, first, body); err != nil {
			return used, 0, err
		}
		if c.phase == disconnecting {
			return used, 0, errStopped
		}
	}
}

// packet handles one packet.
func (c *conn) packet(b *bridge.Batch, w *workspace, first byte, body []byte) error {
	kind := first >> 4
	if c.phase != connected {
		return c.packetBefore(b, w, first, body)
	}
	if kind == tPublish {
		return c.handlePublish(b, w, first, body)
	}
	if err := checkFlags(first, c.version); err != nil {
		return err
	}
	switch kind {
	case tPuback, tPubrec, tPubrel, tPubcomp:
		a, err := parseAck(body, c.version == 5)
		if err != nil {
			return err
		}
		return c.handleAck(b, kind, a)
	case tPingreq:
		if len(body) != 0 {
			return malformed("PINGREQ with a body")
		}
		c.sendSimple(b, tPingresp<<4)
	case tSubscribe:
		return c.handleSubscribe(b, body)
	case tUnsubscribe:
		return c.handleUnsubscribe(b, body)
	case tDisconnect:
		return c.handleDisconnect(body)
	case tAuth:
		return c.handleAuth(b, body)
	case tConnect:
		return protocolError("second CONNECT") // MQTT-3.1.0-2
	default:
		return protocolError("packet that only a server sends, or of no known type")
	}
	return nil
}

// packetBefore handles a packet before CONNECT was accepted (MQTT-3.1.0-1).
func (c *conn) packetBefore(b *bridge.Batch, w *workspace, first byte, body []byte) error {
	if err := checkFlags(first, c.version); err != nil {
		return err
	}
	switch {
	case c.phase == awaitConnect && first>>4 == tConnect:
		return c.handleConnect(b, body)
	case c.phase == authenticating && first>>4 == tAuth:
		return c.handleAuth(b, body)
	case c.phase == authenticating && first>>4 == tDisconnect:
		return errStopped
	}
	return protocolError("first packet is not CONNECT")
}

// checkFlags checks the reserved flags of all packets but PUBLISH (MQTT-2.1.3-1). MQTT 3.1 knows DUP also on the other packets
// that are answered (its section 2.1), and its clients set it where they send PUBREL again.
func checkFlags(first, version byte) error {
	want := byte(0)
	switch first >> 4 {
	case tPubrel, tSubscribe, tUnsubscribe:
		want = 2
		if version == 3 {
			first &^= 8
		}
	case tPublish:
		return nil
	}
	if first&15 != want {
		return malformed("reserved flags of the fixed header are set")
	}
	return nil
}

// Flush writes what the batch has appended.
func (c *conn) Flush() { c.out.flush() }

// Crowded reports whether several batches often append between two writes.
func (c *conn) Crowded() bool {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return c.out.crowd.expected()
}

// sendSimple appends a packet without a body.
func (c *conn) sendSimple(b *bridge.Batch, first byte) {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.over() {
		o.end(append(o.begin(b, c), first, 0))
	}
}

// maxReason bounds a reason string: it may repeat a topic, and tells nothing that a longer one would not.
const maxReason = 2048

// sendAck appends an acknowledgement. It is taken even where there is no room, because it answers a packet that was read:
// a client that does not take its acknowledgements is not read from (see serve). It reports false only for PUBREL without
// room and on a closed connection.
func (c *conn) sendAck(b *bridge.Batch, first byte, id uint16, code byte, reason string) bool {
	if c.quiet || len(reason) > maxReason {
		reason = ""
	}
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.over() {
		return false
	}
	p := o.begin(b, c)
	n := len(p)
	p = appendAck(p, first, id, c.version == 5, code, reason)
	if c.maxPacket != 0 && len(p)-n > c.maxPacket { // MQTT-3.4.2-2
		p = appendAck(p[:n], first, id, c.version == 5, code, "")
	}
	o.end(p)
	return true
}

// sendPacket appends an encoded control packet. One that is larger than the client takes counts as sent (MQTT-3.1.2-25).
func (c *conn) sendPacket(b *bridge.Batch, pk []byte) {
	if c.maxPacket != 0 && len(pk) > c.maxPacket {
		return
	}
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.over() {
		o.end(append(o.begin(b, c), pk...))
	}
}

// sendLast appends a DISCONNECT. Nothing follows it.
func (c *conn) sendLast(b *bridge.Batch, pk []byte) {
	c.sendPacket(b, pk)
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.parted = true
}

// handleDisconnect ends the connection as the client wishes (MQTT 5 section 3.14).
func (c *conn) handleDisconnect(body []byte) error {
	pk, err := decodeDisconnect(body, c.version)
	if err != nil {
		return err
	}
	s := c.session
	if pk.hasExpiry {
		s.mu.Lock()
		if s.expiry == 0 && pk.expiry != 0 {
			s.mu.Unlock()
			return protocolError("session expiry in DISCONNECT where CONNECT had none")
		}
		s.expiry = c.srv.sessionExpiry(pk.expiry)
		s.mu.Unlock()
	}
	c.noWill = pk.code == codeSuccess
	c.phase = disconnecting
	return errStopped
}

// fail tells the client why its connection ends, in the words of its version, and closes it. MQTT 5 clients that are
// connected get a DISCONNECT; before that a CONNACK is the only answer there is (MQTT-3.14.0-1).
func (c *conn) fail(b *bridge.Batch, err error) {
	if errors.Is(err, errStopped) { // it has been told, or has said goodbye itself
		c.phase = disconnecting
		return
	}
	var v *violation
	code, text := byte(codeUnspecified), ""
	if errors.As(err, &v) {
		code, text = v.code, v.text
	} else if r := bridge.ReasonOf(err); r != bridge.Internal {
		code, text = wire[r].disconnect, err.Error()
	}
	c.reason = code
	switch {
	case c.phase == connected && c.version == 5:
		c.sendLast(b, encodeDisconnect(code, text, "", c.maxPacket))
	case c.phase != connected && c.version == 5 && code >= codeUnspecified:
		c.sendPacket(b, encodeConnackRefusal(5, code, text, c.maxPacket))
	}
	c.phase = disconnecting
}

// kick ends the connection from another goroutine: for take-over and where its rights have ended. It waits for nobody: the
// reader leaves at once, and what waits to be written, the DISCONNECT at its end, is given the time to linger.
func (c *conn) kick(code byte, text, reference string) {
	b := c.srv.hub.Begin()
	defer b.End()
	if c.ready.Load() && c.version == 5 {
		c.sendLast(b, encodeDisconnect(code, text, reference, c.maxPacket))
	}
	b.Flush()
	c.out.finish()
	c.wake()
}

// wake makes the reader look whether the connection is ending. Closing the socket would do so too, but it waits for the
// reader, and whoever calls this may be the reader, or one that the reader waits for.
func (c *conn) wake() {
	c.woken.Store(true)
	c.nc.SetReadDeadline(time.Unix(1, 0))
}

// logEnd writes the one line about the end of a connection.
func (c *conn) logEnd(err error) {
	id := ""
	if c.session != nil {
		id = c.session.id
	}
	c.log.Debug("connection ended", "remote", remoteOf(c.nc), "client", id, "code", fmt.Sprintf("0x%02X", c.reason), "error", err)
}

func remoteOf(nc net.Conn) string {
	if a := nc.RemoteAddr(); a != nil {
		return a.String()
	}
	return ""
}
