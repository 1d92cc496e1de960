package bridgetest

import (
	"context"
	"fmt"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
)

// Endpoint is a running endpoint as its clients see it. A trait that is left out means that the protocol has no such thing;
// the checks that need it are skipped.
type Endpoint struct {
	// Name is what the endpoint's clients and counters go by in the hub.
	Name string
	// Dial connects a client. The error is that of the handshake.
	Dial func(ctx context.Context, o DialOptions) (Peer, error)
	// Stop shuts the endpoint down, politely, and returns when it has ended; at the end of grace at the latest it closes what
	// is still open. A second call does nothing.
	Stop func(grace time.Duration) error
	// Code is the endpoint's table from Reason to its code on the wire.
	Code func(bridge.Reason) uint32

	// QoS are the levels at which clients publish and subscribe, from low to high; from 1 on Publish waits for the
	// acknowledgement.
	QoS []bridge.QoS
	// Backlog is how many bytes the endpoint may hold for one client that does not read, over all its buffers and queues.
	Backlog int
	// MaxPayload is the largest payload the endpoint lets in. Where topic and payload count together, it is what a topic of 128
	// bytes leaves.
	MaxPayload int
	// Passwords says that Dial shows user and password.
	Passwords bool
	// NoEcho says that a subscription can leave out what its own client published.
	NoEcho bool
	// Sessions says that a client can be found again by its id: a second connection takes it over, and its queue outlives a
	// connection if asked.
	Sessions bool
	// Retained says that a subscriber is sent retained values.
	Retained bool
}

// DialOptions say who connects.
type DialOptions struct {
	ID, User, Password string
	// Keep asks that the session outlives the connection and to be given the one that did. Only with Sessions.
	Keep bool
}

// Peer is one connected client of the endpoint's protocol. Publish and Subscribe are called from one goroutine at a time,
// Receive from another one.
type Peer interface {
	// Publish sends topic, payload, QoS and retain of m. From QoS 1 on it returns when the acknowledgement is there, with a
	// *Refused where that says no. An endpoint that refuses by closing gives any other error.
	Publish(ctx context.Context, m bridge.Message) error
	// Subscribe returns when the subscription is confirmed, with a *Refused if it is not.
	Subscribe(ctx context.Context, s Subscription) error
	// Receive returns the next message, acknowledged, or an error when the connection has ended. What arrives while nobody
	// receives is not lost; it takes part in back pressure only while the peer is stalled.
	Receive(ctx context.Context) (bridge.Message, error)
	// Stall stops reading from the connection, as a client whose process is stopped; Resume goes on.
	Stall()
	Resume()
	// Close says goodbye and waits until everything the peer started has ended; Abort leaves without a word. Both may be
	// called after the connection has ended, and after one another.
	Close() error
	Abort() error
}

// Subscription is what a peer asks for.
type Subscription struct {
	Filter string
	QoS    bridge.QoS
	NoEcho bool
}

// Refused is a refusal in the protocol's words.
type Refused struct{ Code uint32 }

func (r *Refused) Error() string { return fmt.Sprintf("refused with code %#x", r.Code) }
