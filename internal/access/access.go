package access

import (
	"context"
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/isthmus-iot/isthmus/bridge"
)

var _ bridge.Access = (*Access)(nil)

// Access is the users and rules of one moment. It is immutable and safe for concurrent use.
type Access struct {
	config       Config
	process      *process
	accounts     accounts
	certificates map[string]string // identity in a certificate → user, where they differ
	acl          *acl              // nil: everything is allowed
	decoys       []hash

	scramIterations, scramSalt int // for users that SCRAM does not know
}

// New reads the files that c names. former is the Access that the new one replaces, nil at the start: what clients can
// observe, such as how SCRAM answers for unknown users, stays the same over a reload, and both together keep the limit on
// concurrent password checks. Remembered passwords do not go over.
//
// The error joins everything that is wrong; mistakes in files are [LineError]s.
func New(c Config, former *Access) (*Access, error) {
	a := &Access{config: c, accounts: accounts{}, certificates: map[string]string{}}
	if former != nil {
		a.process = former.process
	} else {
		a.process = newProcess()
	}
	errs := []error{c.Validate()}
	if c.File != "" {
		text, err := readFile(c.File)
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: create it with isthmus passwd %s USER", err, c.File)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("reading the password file: %w", err))
		}
		errs = append(errs, a.accounts.parse(c.File, text))
	}
	errs = append(errs, a.accounts.addUsers(c))
	for _, u := range c.Users {
		if u.Certificate != "" {
			a.certificates[u.Certificate] = u.Name
		}
	}
	if c.ACL != "" || c.Rules != nil {
		a.acl = newACL()
		a.acl.name = c.key("rules")
		if c.ACL != "" {
			a.acl.name = filepath.Base(c.ACL)
			if c.Rules != nil {
				a.acl.name += " and " + c.key("rules")
			}
			text, err := readFile(c.ACL)
			if err != nil {
				errs = append(errs, fmt.Errorf("reading the ACL file: %w", err))
			}
			errs = append(errs, a.acl.parse(c.ACL, text))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if a.acl != nil {
		a.acl.addRules(c)
	}
	a.decoys = a.accounts.decoys()
	a.scramIterations, a.scramSalt = a.accounts.scramForm()
	return a, nil
}

// proof is how a client was let in, kept with its permissions so that a later Access can tell whether it still would be.
type proof struct {
	by          proofBy
	secrets     string      // of the account, for password and exchange
	certificate string      // identity in the certificate
	part        UseIdentity // of the certificate
}

type proofBy uint8

const (
	byNothing     proofBy = iota // anonymous
	byNothingHere                // anonymous, on this machine
	byPassword
	byExchange // SCRAM or PSK
	byCertificate
)

// Authenticate finds out who a client is. In this order: the verified certificate, where certificates name users; what an
// exchange has proven; user name and password; nothing, where anonymous clients may come in. Where no users are configured
// at all and anonymous clients may come in, a user name and password count as nothing.
//
// A password check that is not remembered takes as long as its hash asks for, waits for its turn and ends early with ctx.
func (a *Access) Authenticate(ctx context.Context, c bridge.Credentials) (*bridge.Identity, error) {
	user, p, err := a.prove(ctx, c)
	if err != nil {
		return nil, err
	}
	if acc := a.accounts[user]; user != "" && acc != nil && !acc.mayUse(c.ClientID) {
		return nil, bridge.Refuse(bridge.NotAuthorized, fmt.Sprintf("user %q may not use client id %q", user, c.ClientID))
	}
	return &bridge.Identity{User: user, ClientID: c.ClientID, Permissions: a.permissions(user, c.ClientID, p)}, nil
}

// prove returns the user; empty for anonymous clients.
func (a *Access) prove(ctx context.Context, c bridge.Credentials) (user string, p proof, err error) {
	if c.Certificate != nil && a.config.UseIdentity != "" {
		name, err := identity(c.Certificate, a.config.UseIdentity)
		if err != nil {
			return "", p, err
		}
		user = a.certified(name)
		if err := a.same(c, user, "certificate"); err != nil {
			return "", p, err
		}
		return user, proof{by: byCertificate, certificate: name, part: a.config.UseIdentity}, nil
	}
	if c.Proven != "" {
		acc := a.accounts[c.Proven]
		if acc == nil {
			return "", p, bridge.Refuse(bridge.NotAuthorized, fmt.Sprintf("user %q does not exist any more", c.Proven))
		}
		if err := a.same(c, c.Proven, "exchange"); err != nil {
			return "", p, err
		}
		return c.Proven, proof{by: byExchange, secrets: acc.secrets}, nil
	}
	anonymous, by := a.anonymous(c.Loopback)
	if c.User != "" && !(anonymous && a.nobody()) {
		acc, err := a.login(ctx, c.User, c.Password)
		if err != nil {
			return "", p, err
		}
		return c.User, proof{by: byPassword, secrets: acc.secrets}, nil
	}
	switch {
	case !anonymous:
		return "", p, bridge.Refuse(bridge.Unauthenticated, "a user name and password are needed")
	case c.User == "" && len(c.Password) > 0 && !a.nobody():
		return "", p, bridge.Refuse(bridge.Unauthenticated, "password came without a user name")
	}
	return "", proof{by: by}, nil
}

// login checks a user name and password.
func (a *Access) login(ctx context.Context, user string, password []byte) (*account, error) {
	acc := a.accounts[user]
	seen := a.process.digest(recentPassword, user, password)
	var h hash
	if acc != nil {
		if r := acc.recent.Load(); r != nil && hmac.Equal(r[:], seen[:]) {
			return acc, nil
		}
		h = acc.hash()
	}
	known := h != nil
	if !known {
		h = a.decoy(user)
	}
	if h != nil {
		ok, err := a.process.verify(ctx, h, password)
		if err != nil {
			return nil, err
		}
		if ok && known {
			acc.recent.Store(&seen)
			return acc, nil
		}
	}
	return nil, bridge.Refuse(bridge.Unauthenticated, "user name or password is wrong")
}

// decoy is the stored password that an unknown user's is verified against, always the same for one name.
func (a *Access) decoy(user string) hash {
	if len(a.decoys) == 0 {
		return nil
	}
	d := a.process.digest(decoyChoice, user, nil)
	return a.decoys[binary.BigEndian.Uint64(d[:])%uint64(len(a.decoys))]
}

// Permissions finds the rules that hold now for a client that a former Access let in. ok is false when the user is gone, its
// password or SCRAM credential is another, its certificate names another user, it may not use its client id any more, or
// anonymous clients like it may not come in any more.
func (a *Access) Permissions(id *bridge.Identity) (bridge.Permissions, bool) {
	former, ok := id.Permissions.(*permissions)
	if !ok {
		return nil, false // not let in by an Access
	}
	p := former.proof
	acc := a.accounts[id.User]
	switch p.by {
	case byNothing, byNothingHere:
		if open, _ := a.anonymous(p.by == byNothingHere); !open || id.User != "" {
			return nil, false
		}
	case byPassword, byExchange:
		if acc == nil || acc.secrets != p.secrets {
			return nil, false
		}
	case byCertificate:
		if p.part != a.config.UseIdentity || a.certified(p.certificate) != id.User {
			return nil, false
		}
	}
	if acc != nil && !acc.mayUse(id.ClientID) {
		return nil, false
	}
	return a.permissions(id.User, id.ClientID, p), true
}

func (a *Access) permissions(user, clientID string, p proof) *permissions {
	if a.acl == nil {
		return &permissions{user: user, client: clientID, proof: p}
	}
	perms := a.acl.permissions(user, clientID)
	perms.proof = p
	return perms
}

// anonymous reports whether a client may come in without a user name.
func (a *Access) anonymous(loopback bool) (bool, proofBy) {
	by := byNothing
	if loopback {
		by = byNothingHere
	}
	return a.config.Anonymous == AnonymousAll || loopback && a.config.Anonymous == AnonymousLoopback, by
}

// nobody reports whether no users are configured at all.
func (a *Access) nobody() bool { return a.config.File == "" && len(a.config.Users) == 0 }

// certified is the user that an identity in a certificate names.
func (a *Access) certified(name string) string {
	if user, ok := a.certificates[name]; ok {
		return user
	}
	return name
}

// same reports a client that names itself other than what has proven it.
func (a *Access) same(c bridge.Credentials, user, what string) error {
	switch {
	case c.User != "" && c.User != user:
		return bridge.Refuse(bridge.NotAuthorized, fmt.Sprintf("user name %q is not the %q of the %s", c.User, user, what))
	case c.Proven != "" && c.Proven != user:
		return bridge.Refuse(bridge.NotAuthorized, fmt.Sprintf("exchange proved %q, not the %q of the %s", c.Proven, user, what))
	}
	return nil
}
