package access

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// Config says who may come in and what they may do. The zero value lets nobody in. File names are taken as they are: relative
// ones start at the working directory.
type Config struct {
	// File is a password file as mosquitto has them; see the package comment.
	File string `yaml:"file"`
	// ACL is an ACL file as mosquitto has them. Together with Rules it is one list. Without both there is no ACL, and
	// everyone who is let in may read and write everything.
	ACL string `yaml:"acl"`
	// Anonymous says which clients need no user name: none (default), loopback (those on this machine) or all.
	Anonymous Anonymous `yaml:"anonymous"`
	// UseIdentity names the part of a verified client certificate that is the user: common_name, dns, uri or email (the
	// first such subject alternative name). Default: certificates name nobody. A client with such a certificate needs no
	// password and need not be in File or Users.
	UseIdentity UseIdentity `yaml:"use_identity"`
	// Users are users in the configuration itself, besides those of File.
	Users []User `yaml:"list"`
	// Rules are the ACL in YAML form. An empty list, as opposed to none, is an ACL that gives nothing.
	Rules []Rule `yaml:"rules"`

	// Source names the configuration in messages, for example "isthmus.yaml".
	Source string `yaml:"-"`
}

// User is one user in the configuration. It may also complete a user of the password file, when it has no Password and SCRAM
// of its own.
type User struct {
	Name string `yaml:"name"`
	// Password is a hash in one of the forms of password files.
	Password string `yaml:"password"`
	// SCRAM is a SCRAM-SHA-256 line besides the password.
	SCRAM string `yaml:"scram"`
	// Certificate is the identity in the client certificate that names this user, where it is not the user's name.
	Certificate string `yaml:"certificate"`
	// ClientIDs are the client ids that the user may use; one that ends in '*' is a prefix. Default: any.
	ClientIDs []string `yaml:"client_ids"`
}

// Rule gives or denies topics. It applies to one user, to one client id, to both together or to anonymous clients; without any
// of them to everyone, as a pattern line of an ACL file. In all filters %c stands for the client id and %u for the user name.
type Rule struct {
	User      string `yaml:"user"`
	Client    string `yaml:"client"`
	Anonymous bool   `yaml:"anonymous"`

	Allow []string `yaml:"allow"` // read and write
	Read  []string `yaml:"read"`
	Write []string `yaml:"write"`
	Deny  []string `yaml:"deny"` // neither, whatever else gives it
}

// Anonymous says which clients may come in without a user name.
type Anonymous string

// The values of Anonymous. The empty one means none.
const (
	AnonymousNone     Anonymous = "none"
	AnonymousLoopback Anonymous = "loopback"
	AnonymousAll      Anonymous = "all"
)

// UseIdentity says what in a client certificate is the user.
type UseIdentity string

// The values of UseIdentity. The empty one means that certificates name nobody.
const (
	IdentityCommonName UseIdentity = "common_name"
	IdentityDNS        UseIdentity = "dns"
	IdentityURI        UseIdentity = "uri"
	IdentityEmail      UseIdentity = "email"
)

// Validate reports everything that makes no sense in the configuration itself. It reads no files.
func (c Config) Validate() error {
	var errs []error
	fail := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", c.key(key), fmt.Sprintf(format, args...)))
	}
	switch c.Anonymous {
	case "", AnonymousNone, AnonymousLoopback, AnonymousAll:
	default:
		fail("anonymous", "%q is not one of none, loopback, all", c.Anonymous)
	}
	switch c.UseIdentity {
	case "", IdentityCommonName, IdentityDNS, IdentityURI, IdentityEmail:
	default:
		fail("use_identity", "%q is not one of common_name, dns, uri, email", c.UseIdentity)
	}
	certificates := map[string]bool{}
	for i, u := range c.Users {
		key := fmt.Sprintf("list[%d]", i)
		if err := checkUser(u.Name); err != nil {
			fail(key+".name", "%v", err)
		}
		if u.Certificate != "" && c.UseIdentity == "" {
			fail(key+".certificate", "certificates name nobody here: set use_identity")
		}
		if u.Certificate != "" && certificates[u.Certificate] {
			fail(key+".certificate", "%q names another user already", u.Certificate)
		}
		certificates[u.Certificate] = true
		for j, id := range u.ClientIDs {
			if id == "" || strings.Contains(strings.TrimSuffix(id, "*"), "*") {
				fail(fmt.Sprintf("%s.client_ids[%d]", key, j), "%q is neither a client id nor a prefix and '*'", id)
			}
		}
	}
	for i, r := range c.Rules {
		key := fmt.Sprintf("rules[%d]", i)
		if r.Anonymous && r.User != "" {
			fail(key, "anonymous clients have no user name: leave out user or anonymous")
		}
		if len(r.Allow)+len(r.Read)+len(r.Write)+len(r.Deny) == 0 {
			fail(key, "rule gives and denies nothing: add allow, read, write or deny")
		}
		for _, l := range r.lists() {
			for j, f := range l.filters {
				if err := checkFilter(f, true); err != nil {
					fail(fmt.Sprintf("%s.%s[%d]", key, l.key, j), "%v", err)
				}
			}
		}
	}
	return errors.Join(errs...)
}

// key is a key of the configuration as messages have it.
func (c Config) key(k string) string {
	k = "users." + k
	if c.Source != "" {
		return path.Clean(c.Source) + ": " + k
	}
	return k
}

// ruleList is one of the lists of a Rule.
type ruleList struct {
	key     string
	access  mode
	filters []string
}

func (r Rule) lists() []ruleList {
	return []ruleList{
		{"allow", readwrite, r.Allow}, {"read", read, r.Read}, {"write", write, r.Write}, {"deny", deny, r.Deny},
	}
}

// checkUser reports why a name can't be a user's. Names with ':', or with blanks around them, can't be written in a password
// file.
func checkUser(name string) error {
	switch {
	case name == "":
		return errors.New("user name is empty")
	case len(name) > 65535:
		return errors.New("user name is longer than 65535 bytes")
	case strings.TrimSpace(name) != name:
		return fmt.Errorf("user name %q has blanks around it", name)
	case name[0] == '#':
		return fmt.Errorf("user name %q begins with '#', as comments do", name)
	case strings.Contains(name, ":"):
		return fmt.Errorf("user name %q has a ':'", name)
	case !plainText(name):
		return fmt.Errorf("user name %q is not plain UTF-8 text", name)
	}
	return nil
}
