package wire

import "fmt"

// Type is the type of a control packet (MQTT 5 section 2.1.2).
type Type byte

// The control packet types. AUTH exists in MQTT 5 only.
const (
	CONNECT     Type = 1
	CONNACK     Type = 2
	PUBLISH     Type = 3
	PUBACK      Type = 4
	PUBREC      Type = 5
	PUBREL      Type = 6
	PUBCOMP     Type = 7
	SUBSCRIBE   Type = 8
	SUBACK      Type = 9
	UNSUBSCRIBE Type = 10
	UNSUBACK    Type = 11
	PINGREQ     Type = 12
	PINGRESP    Type = 13
	DISCONNECT  Type = 14
	AUTH        Type = 15
)

// String is the type's name as the specification writes it.
func (t Type) String() string {
	names := [...]string{
		"type 0", "CONNECT", "CONNACK", "PUBLISH", "PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "SUBSCRIBE", "SUBACK",
		"UNSUBSCRIBE", "UNSUBACK", "PINGREQ", "PINGRESP", "DISCONNECT", "AUTH",
	}
	if int(t) < len(names) {
		return names[t]
	}
	return fmt.Sprintf("type %d", byte(t))
}

// Version is the protocol level of a CONNECT.
type Version byte

// The versions.
const (
	V31  Version = 3 // protocol name MQIsdp
	V311 Version = 4
	V5   Version = 5
)

// String is the version as people write it: "3.1", "3.1.1", "5".
func (v Version) String() string {
	switch v {
	case V31:
		return "3.1"
	case V311:
		return "3.1.1"
	case V5:
		return "5"
	}
	return fmt.Sprintf("level %d", byte(v))
}

// ParseVersion understands "3.1", "3.1.1", "5", "5.0" and the names of mosquitto's tools: "mqttv31", "mqttv311", "mqttv5",
// "31", "311".
func ParseVersion(s string) (Version, error) {
	switch s {
	case "3.1", "31", "mqttv31":
		return V31, nil
	case "3.1.1", "311", "mqttv311":
		return V311, nil
	case "5", "5.0", "mqttv5":
		return V5, nil
	}
	return 0, fmt.Errorf("protocol version %q is unknown, want 3.1, 3.1.1 or 5", s)
}
