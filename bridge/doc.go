// Package bridge is the vocabulary of Isthmus and the hub at its centre: [Message], [Topic], [Filter], [Client], the
// routing table, retained values, limits and counters. Endpoints (MQTT, CoAP, WebSocket, uplinks, links to other brokers)
// attach clients to the [Hub] and exchange messages through it; the hub knows none of them. It imports the standard
// library only.
//
// # Order
//
// Messages of one publisher on one topic reach each sink in the order in which they were published. Nothing more is
// promised: two publishers are not ordered against each other.
//
// # Bytes
//
// A message handed to [Client.PublishAsync] may be borrowed: its strings and slices may be views into the endpoint's read
// buffer. They are valid until the call returns. A [Sink] that holds on to a message calls [Message.Keep], which copies it
// at most once for all sinks together.
//
// # Batches
//
// An endpoint handles what one read brought as one [Batch]. Sinks that were given bytes register with the batch and are
// flushed once, when the endpoint calls [Batch.End]. Latency therefore does not depend on a timer and a burst costs each
// subscriber one write.
package bridge
