// Package mqttclient is a small MQTT client for 3.1, 3.1.1 and 5.0 over any net.Conn. The commands pub and sub, tests of the
// broker and links to brokers of older versions are made with it. Package wire is its codec, package raw the tool for tests
// that need to send what a client must not.
//
// # Bounded
//
// Messages in flight are bounded by the server's Receive Maximum and [Config.Window], bytes on the way out by
// [Config.OutBytes], messages that wait to be received by [Config.QueueMessages] and [Config.QueueBytes], one packet by
// [Config.PacketBytes]. What is full makes its producer wait: a call to Publish, or the server through TCP.
//
// # Order
//
// Messages leave in the order in which the Publish calls began if they come from one goroutine, and are received in the
// order in which they arrived. Acknowledgements leave in the order of arrival whatever the order of [Message.Ack].
//
// # Sessions
//
// The client's half of a session is a [Session]. Handing the same one to the next connection resends what was not finished,
// as MQTT 5 section 4.4 has it, and keeps QoS 2 exactly-once; Publish calls that wait go on waiting in between. Without one
// a lost connection ends them with an error and their outcome is unknown.
package mqttclient
