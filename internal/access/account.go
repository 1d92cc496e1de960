package access

import (
	"cmp"
	"errors"
	"fmt"
	"sort"
	"strings"
	"sync/atomic"
)

// account is what is known of one user.
type account struct {
	name      string
	password  hash       // nil: none
	scram     *scramHash // nil: none
	place     string     // where the password was read, for messages
	scramAt   string
	inline    string // place in the configuration, if it stands there
	clientIDs []string

	// secrets are the hashes as written. A client that is in stays in over a reload only when they are the same.
	secrets string

	// recent is a keyed digest of the password that was verified last. It spares a reconnecting client, and us, the slow
	// hash; since it is one per user it is bounded, and it ends with the Access.
	recent atomic.Pointer[[32]byte]
}

// hash is what a plain password is verified against; nil: there is none.
func (a *account) hash() hash {
	switch {
	case a.password != nil:
		return a.password
	case a.scram != nil:
		return a.scram
	}
	return nil
}

// mayUse reports whether the user may come in with a client id.
func (a *account) mayUse(clientID string) bool {
	if len(a.clientIDs) == 0 {
		return true
	}
	for _, id := range a.clientIDs {
		if prefix, ok := strings.CutSuffix(id, "*"); ok && strings.HasPrefix(clientID, prefix) || id == clientID {
			return true
		}
	}
	return false
}

// set takes one stored password.
func (a *account) set(place, text string, h hash) error {
	if s, ok := h.(*scramHash); ok {
		if a.scram != nil {
			return fmt.Errorf("user %q has a SCRAM credential already at %s: remove one of them", a.name, a.scramAt)
		}
		a.scram, a.scramAt = s, place
	} else {
		if a.password != nil {
			return fmt.Errorf("user %q has a password already at %s: remove one of them", a.name, a.place)
		}
		a.password, a.place = h, place
	}
	a.secrets += text + "\n"
	return nil
}

// accounts are the users by name.
type accounts map[string]*account

func (a accounts) named(name string) *account {
	if a[name] == nil {
		a[name] = &account{name: name}
	}
	return a[name]
}

// parse adds the users of a password file. The error joins a [LineError] for each bad line.
func (a accounts) parse(file, text string) error {
	l := &lines{file: file, rest: text}
	for l.next() {
		name, rest, ok := strings.Cut(l.text, ":")
		start := len(name) - len(strings.TrimLeft(name, " \t"))
		name = strings.TrimSpace(name)
		if !ok {
			l.fail(start, "user %q has no password hash: set one with isthmus passwd %s %s", name, file, name)
			continue
		}
		if err := checkUser(name); err != nil {
			l.fail(start, "%v", err)
			continue
		}
		secret := strings.TrimSpace(rest)
		at := len(l.text) - len(strings.TrimLeft(rest, " \t"))
		h, offset, err := parseHash(secret)
		if err != nil {
			l.fail(at+offset, "user %q: %v", name, err)
			continue
		}
		if err := a.named(name).set(l.place(), secret, h); err != nil {
			l.fail(start, "%v", err)
		}
	}
	return l.err()
}

// addUsers adds the users of a configuration that has been validated.
func (a accounts) addUsers(c Config) error {
	var errs []error
	for i, u := range c.Users {
		key := fmt.Sprintf("list[%d]", i)
		acc := a.named(u.Name)
		if acc.inline != "" {
			errs = append(errs, fmt.Errorf("%s: user %q stands already at %s: make them one", c.key(key), u.Name, acc.inline))
			continue
		}
		acc.inline, acc.clientIDs = c.key(key), u.ClientIDs
		for _, s := range []struct{ key, text string }{{".password", u.Password}, {".scram", u.SCRAM}} {
			if s.text == "" {
				continue
			}
			h, _, err := parseHash(strings.TrimSpace(s.text))
			if _, isScram := h.(*scramHash); err == nil && s.key == ".scram" && !isScram {
				err = errors.New("not a SCRAM credential: one begins with " + scramMethod + "$")
			}
			if err == nil {
				err = acc.set(c.key(key+s.key), s.text, h)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: user %q: %w", c.key(key+s.key), u.Name, err))
			}
		}
		if acc.hash() == nil && c.UseIdentity == "" {
			errs = append(errs, fmt.Errorf("%s: user %q has no password and certificates name nobody: nobody could come in with it; add password, or set use_identity", c.key(key), u.Name))
		}
	}
	return errors.Join(errs...)
}

// decoys are stored passwords that an unknown user's password is verified against, so that the time an answer takes does not
// say who exists. Taking them from real users makes the times alike also where a file has several forms.
func (a accounts) decoys() []hash {
	const most = 1024 // enough for the mixture
	var names []string
	for name, acc := range a {
		if acc.hash() != nil {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	var d []hash
	for i := 0; i < len(names); i += 1 + len(names)/most {
		d = append(d, a[names[i]].hash())
	}
	return d
}

// scramForm is what SCRAM says of users that it does not know: the iterations and salt length that most users have.
func (a accounts) scramForm() (iterations, salt int) {
	type form struct{ iterations, salt int }
	count := map[form]int{}
	for _, acc := range a {
		if acc.scram != nil {
			count[form{acc.scram.iterations, len(acc.scram.salt)}]++
		}
	}
	best := form{scramIterations, saltBytes}
	for f, n := range count {
		if c := cmp.Or(cmp.Compare(n, count[best]), cmp.Compare(f.iterations, best.iterations), cmp.Compare(f.salt, best.salt)); c > 0 {
			best = f
		}
	}
	return best.iterations, best.salt
}
