// Package wire is the codec of MQTT 3.1, 3.1.1 and 5.0 for the sides that are not the broker: the client, the load generator
// and the tests. Encoders append to a slice and check nothing, so that a test can send what must not be sent; decoders check
// every length and refuse what is left over. Both directions are covered, so a few lines make a fake server.
//
// # Bytes
//
// What [Decode] returns shares the body it was given: the payload and binary values are views, strings are copies.
package wire
