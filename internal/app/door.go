package app

import (
	"context"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/internal/access"
)

// door is users and rules as the hub has them. For Explain it also finds the rules of clients that are not connected.
type door struct{ *access.Access }

var _ bridge.Access = door{}

// Permissions finds the rules for a client that was let in before, or, for an identity without any, those it would have if
// it were let in on this machine.
func (d door) Permissions(id *bridge.Identity) (bridge.Permissions, bool) {
	if id.Permissions != nil {
		return d.Access.Permissions(id)
	}
	would, err := d.Authenticate(context.Background(), bridge.Credentials{ClientID: id.ClientID, Proven: id.User, Loopback: true})
	if err != nil {
		return nil, false
	}
	return would.Permissions, true
}
