package bridgetest

import (
	"context"
	"fmt"

	"github.com/isthmus-iot/isthmus/bridge"
)

// Open is a [bridge.Access] that lets everybody do everything.
type Open struct{}

var (
	_ bridge.Access      = Open{}
	_ bridge.Permissions = Open{}
	_ bridge.Access      = Rules{}
	_ bridge.Permissions = User{}
)

// Authenticate lets everybody in.
func (Open) Authenticate(_ context.Context, c bridge.Credentials) (*bridge.Identity, error) {
	return &bridge.Identity{User: c.User, ClientID: c.ClientID, Permissions: Open{}}, nil
}

// Permissions are the same for everybody.
func (Open) Permissions(*bridge.Identity) (bridge.Permissions, bool) { return Open{}, true }

// Allowed is true.
func (Open) Allowed(bridge.Action, bridge.Topic) bool { return true }

// Covers is everything.
func (Open) Covers(bridge.Filter) bridge.Coverage { return bridge.CoversAll }

// Explain says so.
func (Open) Explain(bridge.Action, string) (bool, string) { return true, "everybody may do everything" }

// Rules is a [bridge.Access] with users by name. The empty name, if it is there, is for clients that name no user.
type Rules map[string]User

// User is what one user may do; its methods are the user's [bridge.Permissions].
type User struct {
	Password    string // empty: none is asked for
	Write, Read []bridge.Filter
}

// Authenticate compares name and password.
func (r Rules) Authenticate(_ context.Context, c bridge.Credentials) (*bridge.Identity, error) {
	u, ok := r[c.User]
	if !ok || u.Password != string(c.Password) {
		return nil, bridge.Refuse(bridge.Unauthenticated, "unknown user or wrong password")
	}
	return &bridge.Identity{User: c.User, ClientID: c.ClientID, Permissions: u}, nil
}

// Permissions finds the user again.
func (r Rules) Permissions(id *bridge.Identity) (bridge.Permissions, bool) {
	u, ok := r[id.User]
	return u, ok
}

// Allowed reports whether one of the user's filters matches.
func (u User) Allowed(a bridge.Action, topic bridge.Topic) bool {
	_, ok := u.match(a, topic)
	return ok
}

func (u User) match(a bridge.Action, topic bridge.Topic) (bridge.Filter, bool) {
	list := u.Read
	if a == bridge.Write {
		list = u.Write
	}
	for _, f := range list {
		if f.Match(topic) {
			return f, true
		}
	}
	return "", false
}

// Covers says how much of f the user's filters for reading cover.
func (u User) Covers(f bridge.Filter) bridge.Coverage {
	c := bridge.CoversNone
	for _, r := range u.Read {
		if r.Covers(f) {
			return bridge.CoversAll
		}
		if r.Overlaps(f) {
			c = bridge.CoversPart
		}
	}
	return c
}

// Explain names the filter that grants.
func (u User) Explain(a bridge.Action, topic string) (bool, string) {
	if f, ok := u.match(a, bridge.Topic(topic)); ok {
		return true, fmt.Sprintf("%v %s", a, f)
	}
	return false, "no rule matches"
}
