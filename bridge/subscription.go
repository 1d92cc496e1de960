package bridge

import "sync/atomic"

// RetainHandling says which retained values a subscription is sent (MQTT 5 section 3.8.3.1).
type RetainHandling uint8

// The retain handlings.
const (
	RetainSend      RetainHandling = iota // at every subscribe
	RetainSendIfNew                       // only where the subscription did not exist
	RetainDontSend                        // never
)

// SubscribeOptions are the options of a subscription (MQTT 5 section 3.8.3.1).
type SubscribeOptions struct {
	QoS               QoS
	NoLocal           bool // not what this client published
	RetainAsPublished bool // keep the RETAIN flag
	RetainHandling    RetainHandling
	Identifier        uint32 // 1 to 268,435,455; 0: none
}

// Subscription is one client's interest in one filter. It is in the routing table from [Client.Subscribe] to
// [Client.Unsubscribe].
type Subscription struct {
	Filter  Filter // as subscribed, with the share prefix
	Options SubscribeOptions

	owner *Client
	sink  Sink
	group *group // of a shared subscription

	access atomic.Uint64 // what the owner may read of the filter: see Client.mayRead

	place int32 // in its fan-out; guarded by the table's lock
}

// Owner is the client that subscribed.
func (s *Subscription) Owner() *Client { return s.owner }

// Shared reports whether s is a member of a shared group.
func (s *Subscription) Shared() bool { return s.group != nil }

// Sink is what a subscription delivers to. Deliver takes responsibility for the message or refuses it; it never waits for a
// peer and never blocks on a lock that is held across a system call. It runs in the publisher's goroutine and must neither
// keep the Delivery nor a borrowed message ([Message.Keep]), nor publish with the Delivery's Batch.
type Sink interface {
	Deliver(d *Delivery) Outcome
}

// Outcome is what a sink did with a delivery.
type Outcome uint8

// The outcomes.
const (
	Delivered Outcome = iota // on its way to a connected peer
	Queued                   // kept for later
	NotNow                   // no room or nobody connected; only where Delivery.LiveOnly or Connected asks
	Dropped                  // refused for good; the sink has counted why with Delivery.Drop
)

// DropReason says why a message did not reach a subscriber. Every drop is counted under one.
type DropReason uint8

// The reasons of drops.
const (
	DropQueueFull     DropReason = iota // count or byte limit of the session's queue
	DropSlowConsumer                    // limit on unsent bytes of a connection, QoS 0
	DropOffline                         // QoS 0 for a session without connection
	DropExpired                         // its lifetime passed while it waited
	DropTooLarge                        // above the client's Maximum Packet Size
	DropNotAuthorized                   // the ACL does not let the subscriber read it
	DropLoop                            // hop limit
	DropNoMember                        // no member of a shared group took it
	DropRefused                         // the publish was refused: ACL, limits, topic
	DropSessionEnded                    // the session ended with it in its queue
	DropFailed                          // our fault: it could not be encoded or stored
	dropReasons
)

var dropNames = [dropReasons]string{
	"queue_full", "slow_consumer", "offline", "expired", "too_large", "not_authorized", "loop", "no_member", "refused",
	"session_ended", "failed",
}

// String is the name in metrics and logs.
func (r DropReason) String() string { return dropNames[r] }

// DropReasons lists every DropReason.
func DropReasons() []DropReason {
	all := make([]DropReason, dropReasons)
	for i := range all {
		all[i] = DropReason(i)
	}
	return all
}

// Delivery is one message on its way into one sink. It belongs to the hub and is used again after Deliver returns.
type Delivery struct {
	Message      *Message
	Subscription *Subscription // of overlapping ones, that of the highest QoS
	QoS          QoS           // the lower of published and granted, the highest of overlapping subscriptions (MQTT-3.3.4-2)
	Retain       bool          // the RETAIN flag to show
	Identifiers  []uint32      // of all matching subscriptions (MQTT-3.3.4-3, MQTT-3.3.4-4)
	Batch        *Batch        // where to register for the flush
	LiveOnly     bool          // answer NotNow rather than queueing or dropping
	Connected    bool          // answer NotNow rather than queueing for an offline client

	member bool // of a shared group: if this one drops it, another one may take it
}

// Drop counts a drop for the sink's endpoint and returns Dropped. What one member of a shared group drops is not counted:
// either another one takes it, or it is counted once under DropNoMember.
func (d *Delivery) Drop(r DropReason) Outcome {
	if !d.member {
		d.Batch.drop(d.Subscription.owner.counters, r)
	}
	return Dropped
}

// Later tells the publisher's acknowledgement to wait until the store has synced up to r.
func (d *Delivery) Later(r Receipt) { d.Batch.receipt = max(d.Batch.receipt, r) }

// Durability says how the message's copies are to be kept.
func (d *Delivery) Durability() Durability { return d.Batch.durability }

// Body is the message's body in the store, shared by all sinks that store it.
func (d *Delivery) Body() *Body {
	b := d.Batch
	if b.body.ID == 0 && !b.body.Sole {
		b.body.Sole = b.sole()
	}
	return &b.body
}

// Form returns a scratch buffer that lives as long as the delivery of the current message and is shared by all of its
// sinks that give the same key: the place for an encoding that is made once. Its length is 0 the first time.
func (d *Delivery) Form(key uint32) *[]byte { return d.Batch.form(key) }
