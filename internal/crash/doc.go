// Package crash kills the real binary with SIGKILL again and again under load and checks that nothing it has acknowledged is
// missing afterwards and nothing exactly-once is doubled. It knows the broker only by its wire.
//
//	go test ./internal/crash                                  some 10 kills; with -short a few
//	go test ./internal/crash -run Killed -crash.kills=100     the whole test
//	go test ./internal/crash -run Killed -crash.seed=S        the plan of a run that failed
//
// Besides, -crash.events=FILE writes all events of a run that failed, -crash.keep keeps its data directory, and
// -crash.binary=FILE tests a program that is built already.
//
// # The load
//
// Publishers and subscribers of MQTT 5 and 3.1.1, all with persistent sessions, publish numbered messages at QoS 1 and 2 and
// receive them through exact, wildcard and overlapping filters. At random they say goodbye, drop the connection, also in the
// middle of a packet, come back soon or late, take their own session over by a second connection, hold back
// acknowledgements, read nothing for a while, subscribe and unsubscribe. A few end their session and begin another, of which
// the old one must leave no trace. The clients are not killed: each keeps its half of the session as the specification has it
// (MQTT-4.4.0-1), so what is lost or doubled was lost or doubled by the broker. Packet identifiers are used again as soon as
// they are free, so that a late or doubled acknowledgement hits another message.
//
// The broker is killed after a time, when so many packets have gone to and fro, while it is still starting, or as soon as a
// client has taken a packet of some kind: what is acknowledged a little too early is lost most often just then.
//
// A seed fixes topics, filters, sizes and the dice of every client. It does not fix how the machine interleaves them: a run
// with the seed of a failure is the same plan, not the same run. What a failed run needs to be understood is printed with it.
//
// # The history and the oracle
//
// Every packet of every client is an event in one history; its place there is its time. A message counts as published from
// before its first PUBLISH is written to after its PUBACK or PUBREC is read, a subscription likewise. What happens in between
// may go either way, everything else may not. When all has been drained the oracle looks for:
//
//   - a message that was acknowledged, matched a subscription all the time, and was not delivered;
//   - a message delivered at QoS 2 and delivered again, one that came on one connection more often than it was published, one
//     that nobody published, one without a subscription, one at the wrong QoS, with other content or other properties;
//   - order: for each subscriber and topic (a topic has one publisher and one QoS) the first deliveries are in the order of
//     publishing, whatever QoS was granted. Repeated deliveries at QoS 1 may go back, and so may a message that was sent twice
//     while the subscription came or went;
//   - a retained value older than the last one acknowledged, or younger than the last one sent. This is also asked in the
//     middle of the run, of values that are cleared now and then as well;
//   - a session that is not present though its CONNACK was received, or is present though it was ended;
//   - packets that must not be: acknowledgements that nobody waits for or out of order, an identifier that is still in use, a
//     QoS 2 message sent again without DUP or under another identifier, a PUBREL before the PUBREC, a PUBREL that is answered
//     with "not found" though it was never sent before, more messages under way than the Receive Maximum, handshakes that
//     never end.
//
// # At the end
//
// Publishing stops with a last message on every topic. When each has arrived where it must and all handshakes are complete,
// the broker is killed once more, ended by SIGTERM and started again: then no session may have anything left to send.
package crash
