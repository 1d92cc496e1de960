package wire

import "fmt"

// Code is a reason code of MQTT 5 (section 2.4) or a return code of a 3.x CONNACK or SUBACK.
type Code byte

// Failed reports whether the code refuses: 0x80 and above in MQTT 5. It does not fit a 3.x CONNACK, where everything but 0
// refuses.
func (c Code) Failed() bool { return c >= 0x80 }

// String is the code's name in MQTT 5, with its number.
func (c Code) String() string {
	if name, ok := codeName(c); ok {
		return fmt.Sprintf("0x%02X %s", byte(c), name)
	}
	return fmt.Sprintf("0x%02X", byte(c))
}

// ConnackString is the code's name in a CONNACK of version v; 3.x has codes of its own.
func (c Code) ConnackString(v Version) string {
	if v >= V5 {
		return c.String()
	}
	names := [...]string{
		"accepted", "unacceptable protocol version", "client identifier rejected", "server unavailable",
		"bad user name or password", "not authorized",
	}
	if int(c) < len(names) {
		return fmt.Sprintf("%d %s", byte(c), names[c])
	}
	return fmt.Sprintf("%d", byte(c))
}

func codeName(c Code) (string, bool) {
	switch c {
	case 0x00:
		return "success", true
	case 0x01:
		return "granted QoS 1", true
	case 0x02:
		return "granted QoS 2", true
	case 0x04:
		return "disconnect with will message", true
	case 0x10:
		return "no matching subscribers", true
	case 0x11:
		return "no subscription existed", true
	case 0x18:
		return "continue authentication", true
	case 0x19:
		return "re-authenticate", true
	case 0x80:
		return "unspecified error", true
	case 0x81:
		return "malformed packet", true
	case 0x82:
		return "protocol error", true
	case 0x83:
		return "implementation specific error", true
	case 0x84:
		return "unsupported protocol version", true
	case 0x85:
		return "client identifier not valid", true
	case 0x86:
		return "bad user name or password", true
	case 0x87:
		return "not authorized", true
	case 0x88:
		return "server unavailable", true
	case 0x89:
		return "server busy", true
	case 0x8A:
		return "banned", true
	case 0x8B:
		return "server shutting down", true
	case 0x8C:
		return "bad authentication method", true
	case 0x8D:
		return "keep alive timeout", true
	case 0x8E:
		return "session taken over", true
	case 0x8F:
		return "topic filter invalid", true
	case 0x90:
		return "topic name invalid", true
	case 0x91:
		return "packet identifier in use", true
	case 0x92:
		return "packet identifier not found", true
	case 0x93:
		return "receive maximum exceeded", true
	case 0x94:
		return "topic alias invalid", true
	case 0x95:
		return "packet too large", true
	case 0x96:
		return "message rate too high", true
	case 0x97:
		return "quota exceeded", true
	case 0x98:
		return "administrative action", true
	case 0x99:
		return "payload format invalid", true
	case 0x9A:
		return "retain not supported", true
	case 0x9B:
		return "QoS not supported", true
	case 0x9C:
		return "use another server", true
	case 0x9D:
		return "server moved", true
	case 0x9E:
		return "shared subscriptions not supported", true
	case 0x9F:
		return "connection rate exceeded", true
	case 0xA0:
		return "maximum connect time", true
	case 0xA1:
		return "subscription identifiers not supported", true
	case 0xA2:
		return "wildcard subscriptions not supported", true
	}
	return "", false
}
