package bridge

import (
	"context"
	"crypto/x509"
	"net"
)

// Credentials are what a client shows at the door, whatever it speaks.
type Credentials struct {
	Endpoint    string // name of the endpoint
	ClientID    string
	User        string
	HasUser     bool
	Password    []byte
	Certificate *x509.Certificate // verified leaf of the TLS or DTLS peer; nil: none
	Remote      net.Addr          // nil where there is none
	Loopback    bool              // the peer is on this machine
	// Proven names the user that an exchange (enhanced authentication, PSK) has proven already; empty: none.
	Proven string
}

// Identity is who a client is, as the door found it. It is immutable.
type Identity struct {
	User        string // empty: anonymous
	ClientID    string
	Permissions Permissions
}

// Action is what permission is asked for.
type Action uint8

// The actions.
const (
	Write     Action = iota // publish to a topic
	Read                    // be given a message of a topic
	Subscribe               // subscribe to a filter
)

// String names the action as ACL files and explain do.
func (a Action) String() string { return [...]string{"write", "read", "subscribe"}[a] }

// Coverage says how much of a filter a client may read.
type Coverage uint8

// The coverages.
const (
	CoversNone Coverage = iota // no topic of the filter: the subscription is refused
	CoversPart                 // some: each delivery is checked
	CoversAll                  // every one: no delivery needs a check
)

// Permissions are the rules for one identity. Implementations are immutable and safe for concurrent use; after a reload the
// hub asks for new ones through [Access.Permissions].
type Permissions interface {
	// Allowed decides about one topic. It allocates nothing.
	Allowed(a Action, topic Topic) bool
	// Covers decides about a filter for Subscribe.
	Covers(f Filter) Coverage
	// Explain names the rule that decides (file, line, text) for people.
	Explain(a Action, topic string) (allowed bool, rule string)
}

// Access is the one door: users and rules for all protocols. Implementations are immutable; a reload makes a new one and
// gives it to [Hub.SetAccess].
type Access interface {
	// Authenticate checks credentials. The error carries Unauthenticated, NotAuthorized or Unavailable.
	Authenticate(ctx context.Context, c Credentials) (*Identity, error)
	// Permissions finds the rules for an identity that a former Access let in; ok is false if it would not be let in now.
	Permissions(id *Identity) (p Permissions, ok bool)
}
