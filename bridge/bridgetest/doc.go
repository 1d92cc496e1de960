// Package bridgetest is the contract of an endpoint as a test: [TestEndpoint] runs the promises of the hub against an endpoint
// of any protocol, in the way of net's TestConn. The endpoint's own tests say how its clients connect, publish, subscribe,
// receive, stop reading and go; the suite does the rest, with an in-process client on the other side of the hub.
//
// It also has what tests around a hub need: an [Open] and a rule-based [Rules] access, a [Recorder] for deliveries, and
// [NoLeak].
package bridgetest
