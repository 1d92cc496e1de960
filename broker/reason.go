package broker

import "github.com/isthmus-iot/isthmus/bridge"

// The reason codes of MQTT 5 section 2.4 that a server uses.
const (
	codeSuccess               = 0x00
	codeDisconnectWithWill    = 0x04
	codeNoMatchingSubscribers = 0x10
	codeNoSubscriptionExisted = 0x11
	codeContinue              = 0x18
	codeReauthenticate        = 0x19
	codeUnspecified           = 0x80
	codeMalformed             = 0x81
	codeProtocolError         = 0x82
	codeImplementation        = 0x83
	codeUnsupportedVersion    = 0x84
	codeClientIDInvalid       = 0x85
	codeBadUserOrPassword     = 0x86
	codeNotAuthorized         = 0x87
	codeServerUnavailable     = 0x88
	codeServerBusy            = 0x89
	codeShuttingDown          = 0x8B
	codeBadAuthMethod         = 0x8C
	codeKeepAliveTimeout      = 0x8D
	codeSessionTakenOver      = 0x8E
	codeFilterInvalid         = 0x8F
	codeTopicInvalid          = 0x90
	codeIdentifierInUse       = 0x91
	codeIdentifierNotFound    = 0x92
	codeReceiveMaximum        = 0x93
	codeTopicAliasInvalid     = 0x94
	codePacketTooLarge        = 0x95
	codeMessageRate           = 0x96
	codeQuotaExceeded         = 0x97
	codeAdministrative        = 0x98
	codePayloadFormatInvalid  = 0x99
	codeRetainNotSupported    = 0x9A
	codeQoSNotSupported       = 0x9B
	codeUseAnotherServer      = 0x9C
	codeServerMoved           = 0x9D
	codeSharedNotSupported    = 0x9E
	codeConnectionRate        = 0x9F
	codeWildcardNotSupported  = 0xA2
)

// wireCodes are the codes for one Reason where it may occur.
type wireCodes struct {
	publish    byte // PUBACK, PUBREC: only 80 83 87 90 91 97 99 are legal besides success
	subscribe  byte // SUBACK
	connect    byte // CONNACK of MQTT 5
	connect3   byte // CONNACK of 3.x, 0 to 5
	disconnect byte // DISCONNECT
}

// wire is the one table from Reason to MQTT.
var wire = map[bridge.Reason]wireCodes{
	bridge.OK:                   {codeSuccess, codeSuccess, codeSuccess, 0, codeSuccess},
	bridge.NotAuthorized:        {codeNotAuthorized, codeNotAuthorized, codeNotAuthorized, 5, codeNotAuthorized},
	bridge.Unauthenticated:      {codeNotAuthorized, codeNotAuthorized, codeBadUserOrPassword, 4, codeNotAuthorized},
	bridge.BadTopic:             {codeTopicInvalid, codeFilterInvalid, codeTopicInvalid, 5, codeTopicInvalid},
	bridge.BadFilter:            {codeTopicInvalid, codeFilterInvalid, codeTopicInvalid, 5, codeFilterInvalid},
	bridge.TooLarge:             {codeQuotaExceeded, codeQuotaExceeded, codePacketTooLarge, 5, codePacketTooLarge},
	bridge.QuotaExceeded:        {codeQuotaExceeded, codeQuotaExceeded, codeQuotaExceeded, 3, codeQuotaExceeded},
	bridge.RateLimited:          {codeQuotaExceeded, codeQuotaExceeded, codeConnectionRate, 3, codeMessageRate},
	bridge.Busy:                 {codeQuotaExceeded, codeQuotaExceeded, codeServerBusy, 3, codeServerBusy},
	bridge.Expired:              {codeImplementation, codeImplementation, codeImplementation, 3, codeImplementation},
	bridge.Loop:                 {codeImplementation, codeImplementation, codeImplementation, 3, codeImplementation},
	bridge.Unavailable:          {codeQuotaExceeded, codeQuotaExceeded, codeServerUnavailable, 3, codeShuttingDown},
	bridge.Unsupported:          {codeImplementation, codeImplementation, codeImplementation, 1, codeImplementation},
	bridge.BadPayload:           {codePayloadFormatInvalid, codeUnspecified, codePayloadFormatInvalid, 5, codePayloadFormatInvalid},
	bridge.NoMatchingSubscriber: {codeNoMatchingSubscribers, codeSuccess, codeSuccess, 0, codeSuccess},
	bridge.Internal:             {codeUnspecified, codeUnspecified, codeUnspecified, 3, codeUnspecified},
}

// mayAckOld says whether a 3.x client that was refused for r may be answered with a positive acknowledgement
// (MQTT-3.3.5-2). Where the server has failed to keep the message only closing is honest.
func mayAckOld(r bridge.Reason) bool {
	switch r {
	case bridge.Busy, bridge.Unavailable, bridge.Internal, bridge.QuotaExceeded:
		return false
	}
	return true
}
