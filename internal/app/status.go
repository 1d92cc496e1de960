package app

import (
	"errors"
	"fmt"
	"os"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/internal/access"
	"github.com/isthmus-iot/isthmus/internal/ops"
)

var _ ops.Gateway = (*App)(nil)

// Status describes the gateway.
func (a *App) Status() ops.Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := ops.Status{ID: a.config.Gateway.ID, Version: Version(), Process: os.Getpid(), Started: a.started, Config: a.config.File}
	for _, l := range a.listeners {
		s.Listeners = append(s.Listeners, ops.Listener{Address: l.bound().String(), Who: who(a.config, l.Address)})
	}
	return s
}

// Reading reads all counters.
func (a *App) Reading() ops.Reading {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := ops.Reading{Stats: a.hub.Stats(), Reloaded: a.reloaded, ReloadedAt: a.reloadedAt.Unix()}
	if a.store != nil {
		r.Store = figures(a.store)
	}
	return r
}

// Explain tells what would happen to a message.
func (a *App) Explain(m *bridge.Message, client, user string) []bridge.Step {
	return a.hub.Explain(m, client, user)
}

// Parts are who must be ready for the gateway to be.
func (a *App) Parts() []ops.Readiness { return []ops.Readiness{listening{a}, kept{a}} }

// listening is ready while clients can connect.
type listening struct{ *App }

// Name is the part's name.
func (listening) Name() string { return "mqtt" }

// Ready reports whether clients can connect.
func (l listening) Ready() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch l.state {
	case starting:
		return errors.New("starting")
	case stopping:
		return errors.New("stopping")
	}
	return nil
}

// who says who can connect at an address.
func (a *App) who(address Address) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return who(a.config, address)
}

func who(c *Config, address Address) string {
	from := "from everywhere"
	if address.Loopback() {
		from = "on this machine"
	}
	if address.Scheme == "http" {
		return "everybody " + from
	}
	users := ""
	switch {
	case c.Users.File != "" || len(c.Users.Users) > 0:
		users = "users " + from
	case c.Users.UseIdentity != "":
		users = "owners of a client certificate " + from
	}
	if address.Secure() && c.TLS.RequireClientCert {
		from += " with a client certificate"
	}
	switch {
	case c.Users.Anonymous == access.AnonymousAll:
		return "everybody " + from
	case c.Users.Anonymous == access.AnonymousLoopback && users == "":
		return "everybody on this machine"
	case c.Users.Anonymous == access.AnonymousLoopback:
		return users + ", and everybody on this machine"
	case users == "":
		return "nobody"
	}
	return users
}

// summary is the state of the gateway in one line, for the service manager.
func (a *App) summary() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := fmt.Sprintf("serving %d addresses", len(a.listeners))
	if len(a.listeners) == 1 {
		s = "serving " + a.listeners[0].Address.String()
	}
	if !a.reloaded {
		s += "; the last reload failed, the configuration before it is in force"
	}
	return s
}
