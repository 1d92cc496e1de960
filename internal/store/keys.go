package store

import (
	"encoding/binary"
	"fmt"
	"strconv"

	"github.com/isthmus-iot/isthmus/bridge"
)

// The kinds of records: the first byte of a key. Numbers in keys are big endian, so that they sort.
const (
	kindFormat       = 'V' // -> version of the format
	kindBody         = 'm' // body 8 -> message
	kindSession      = 's' // number 8 -> the broker's record
	kindSubscription = 'u' // number 8, filter -> the broker's record
	kindEntry        = 'q' // number 8, position 8 -> entry
	kindFlight       = 'f' // number 8, position 8 -> flight: sent or released after it was pushed
	kindReceived     = 'i' // number 8, packet identifier 2 -> nothing
	kindEnded        = 'd' // number 8 -> nothing: the session's records are being removed
	kindRetained     = 'r' // topic -> message
	kindQueue        = 'n' // name -> number and limits of a named queue
)

// sessionKinds are the kinds whose key begins with the number of a session.
var sessionKinds = [...]byte{kindSession, kindSubscription, kindEntry, kindFlight, kindReceived, kindEnded}

// Sizes of keys.
const (
	numberKeySize   = 1 + 8
	entryKeySize    = 1 + 8 + 8
	receivedKeySize = 1 + 8 + 2
)

// numberKey is the key of a record of which there is one for each number, and the prefix of the others.
func numberKey(kind byte, number uint64) (key [numberKeySize]byte) {
	key[0] = kind
	binary.BigEndian.PutUint64(key[1:], number)
	return key
}

// positionKey is the key of an entry or a flight.
func positionKey(kind byte, number, position uint64) (key [entryKeySize]byte) {
	key[0] = kind
	binary.BigEndian.PutUint64(key[1:], number)
	binary.BigEndian.PutUint64(key[9:], position)
	return key
}

func receivedKey(number uint64, packetID uint16) (key [receivedKeySize]byte) {
	key[0] = kindReceived
	binary.BigEndian.PutUint64(key[1:], number)
	binary.BigEndian.PutUint16(key[9:], packetID)
	return key
}

func appendSubscriptionKey(b []byte, number uint64, filter string) []byte {
	b = append(b, kindSubscription)
	b = binary.BigEndian.AppendUint64(b, number)
	return append(b, filter...)
}

func appendTextKey(b []byte, kind byte, text string) []byte {
	return append(append(b, kind), text...)
}

// numberOf is the number in a key of a session's record or a body.
func numberOf(key []byte) (number uint64, ok bool) {
	if len(key) < numberKeySize {
		return 0, false
	}
	return binary.BigEndian.Uint64(key[1:]), true
}

// positionOf is the position in the key of an entry or a flight.
func positionOf(key []byte) (position uint64, ok bool) {
	if len(key) != entryKeySize {
		return 0, false
	}
	return binary.BigEndian.Uint64(key[9:]), true
}

// printKey writes a key for people.
func printKey(key []byte) string {
	if len(key) == 0 {
		return "empty key"
	}
	number, numbered := numberOf(key)
	position, positioned := positionOf(key)
	switch kind := key[0]; {
	case kind == kindRetained:
		return "retained value of " + strconv.Quote(string(key[1:]))
	case kind == kindQueue:
		return "queue " + strconv.Quote(string(key[1:]))
	case kind == kindFormat && len(key) == 1:
		return "version of the format"
	case kind == kindBody && len(key) == numberKeySize:
		return fmt.Sprintf("body %#x", number)
	case kind == kindSession && len(key) == numberKeySize:
		return fmt.Sprintf("session %d", number)
	case kind == kindEnded && len(key) == numberKeySize:
		return fmt.Sprintf("end of session %d", number)
	case kind == kindSubscription && numbered:
		return fmt.Sprintf("session %d, subscription %q", number, key[numberKeySize:])
	case kind == kindEntry && positioned:
		return fmt.Sprintf("session %d, entry %d", number, position)
	case kind == kindFlight && positioned:
		return fmt.Sprintf("session %d, entry %d, state", number, position)
	case kind == kindReceived && len(key) == receivedKeySize:
		return fmt.Sprintf("session %d, received packet identifier %d", number, binary.BigEndian.Uint16(key[9:]))
	}
	return fmt.Sprintf("key %q", key)
}

// A body's number has the size of its record in the low bits, in a floating form that is exact to 1/128. So the space that a
// body takes is known wherever its number is, without reading it and without keeping anything in memory.
const (
	bodySizeBits     = 12
	bodyMantissaBits = 7
)

// newBodyID makes the number of a body that takes size bytes.
func newBodyID(count uint64, size int) uint64 {
	exponent := uint64(0)
	for size>>exponent >= 1<<bodyMantissaBits {
		exponent++
	}
	return count<<bodySizeBits | exponent<<bodyMantissaBits | uint64(size>>exponent)
}

// bodySize is the size in a body's number.
func bodySize(id uint64) int64 {
	low := id & (1<<bodySizeBits - 1)
	return int64(low&(1<<bodyMantissaBits-1)) << (low >> bodyMantissaBits)
}

// entrySize is what an entry takes, from the length of its value.
func entrySize(value int) uint32 { return uint32(entryKeySize + value) }

// retainedSize is what the retained value m takes.
func retainedSize(m *bridge.Message) int64 { return int64(1 + len(m.Topic) + messageSize(m)) }
