package access

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-iot/isthmus/bridge"
)

// open makes an Access that must be right.
func open(t testing.TB, c Config, former *Access) *Access {
	t.Helper()
	a, err := New(c, former)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Hashes of "secret".
const (
	weak   = "$7$101$f/DNcZ8HCQ7w03aP$J8DeN+ma247wOM2yXaq7xaVdzWCt59XwenWSOqjgxx27KjpLClqUXh/q3G/OkNwPVuRr1KODap+XlrjtN8DmgA=="
	weaker = "$6$7HQXWefTqt3+EQGh$FNEj8XceATdxg1QdrsdX5XvV3p4LQak7lU1xqCCFLf45DL0zAseSjksBdJGz7GoO1UuTIAEl2cPkprHf203zYg=="
)

func TestTheDoor(t *testing.T) {
	cert := &x509.Certificate{
		Subject: pkix.Name{CommonName: "alice"}, DNSNames: []string{"dev.example", "other.example"}, EmailAddresses: []string{"a@example"},
		URIs: []*url.URL{{Scheme: "spiffe", Host: "example", Path: "/dev"}},
	}
	secret := []byte("secret")
	file := file(t, "users", "alice:"+weak+"\nbob:"+HashSCRAM(secret)+"\n")
	withUsers := Config{File: file}
	inline := Config{UseIdentity: IdentityDNS, Users: []User{
		{Name: "carol", Password: weaker, Certificate: "dev.example", ClientIDs: []string{"c1", "lab-*"}}, {Name: "only-certificate"},
	}}
	const ok = bridge.OK
	for _, tt := range []struct {
		name   string
		config Config
		shown  bridge.Credentials
		reason bridge.Reason
		user   string
	}{
		{"a right password", withUsers, bridge.Credentials{User: "alice", HasUser: true, Password: secret}, ok, "alice"},
		{"a wrong password", withUsers, bridge.Credentials{User: "alice", HasUser: true, Password: []byte("x")}, bridge.Unauthenticated, ""},
		{"no password", withUsers, bridge.Credentials{User: "alice", HasUser: true}, bridge.Unauthenticated, ""},
		{"an unknown user", withUsers, bridge.Credentials{User: "eve", HasUser: true, Password: secret}, bridge.Unauthenticated, ""},
		{"a plain password against SCRAM", withUsers, bridge.Credentials{User: "bob", HasUser: true, Password: secret}, ok, "bob"},
		{"a wrong plain password against SCRAM", withUsers, bridge.Credentials{User: "bob", HasUser: true, Password: []byte("x")}, bridge.Unauthenticated, ""},
		{"nothing", withUsers, bridge.Credentials{}, bridge.Unauthenticated, ""},
		{"nothing from loopback", withUsers, bridge.Credentials{Loopback: true}, bridge.Unauthenticated, ""},
		{"nobody is let in by the zero configuration", Config{}, bridge.Credentials{Loopback: true}, bridge.Unauthenticated, ""},
		{"a user where none are configured", Config{}, bridge.Credentials{User: "alice", HasUser: true, Password: secret}, bridge.Unauthenticated, ""},

		{"anonymous from loopback", Config{Anonymous: AnonymousLoopback}, bridge.Credentials{Loopback: true}, ok, ""},
		{"anonymous from elsewhere", Config{Anonymous: AnonymousLoopback}, bridge.Credentials{}, bridge.Unauthenticated, ""},
		{"anonymous from anywhere", Config{Anonymous: AnonymousAll}, bridge.Credentials{}, ok, ""},
		{"a user name that nobody can check counts as none", Config{Anonymous: AnonymousAll}, bridge.Credentials{User: "alice", HasUser: true, Password: secret}, ok, ""},
		{"a user beside anonymous clients", Config{File: file, Anonymous: AnonymousAll}, bridge.Credentials{User: "alice", HasUser: true, Password: []byte("x")}, bridge.Unauthenticated, ""},
		{"an empty user name beside users", Config{File: file, Anonymous: AnonymousAll}, bridge.Credentials{HasUser: true}, ok, ""},
		{"a password without user name", Config{File: file, Anonymous: AnonymousAll}, bridge.Credentials{HasUser: true, Password: secret}, bridge.Unauthenticated, ""},

		{"a certificate that names nobody", withUsers, bridge.Credentials{Certificate: cert}, bridge.Unauthenticated, ""},
		{"a certificate beside a password", withUsers, bridge.Credentials{Certificate: cert, User: "bob", HasUser: true, Password: secret}, ok, "bob"},
		{"a common name", Config{UseIdentity: IdentityCommonName}, bridge.Credentials{Certificate: cert}, ok, "alice"},
		{"a DNS name", Config{UseIdentity: IdentityDNS}, bridge.Credentials{Certificate: cert}, ok, "dev.example"},
		{"an e-mail address", Config{UseIdentity: IdentityEmail}, bridge.Credentials{Certificate: cert}, ok, "a@example"},
		{"a URI", Config{UseIdentity: IdentityURI}, bridge.Credentials{Certificate: cert}, ok, "spiffe://example/dev"},
		{"a certificate without the name", Config{UseIdentity: IdentityURI, Anonymous: AnonymousAll}, bridge.Credentials{Certificate: &x509.Certificate{}}, bridge.Unauthenticated, ""},
		{"a name with control characters", Config{UseIdentity: IdentityCommonName}, bridge.Credentials{Certificate: &x509.Certificate{Subject: pkix.Name{CommonName: "a\x00b"}}}, bridge.Unauthenticated, ""},
		{"the certificate's user named again", Config{UseIdentity: IdentityCommonName}, bridge.Credentials{Certificate: cert, User: "alice", HasUser: true}, ok, "alice"},
		{"another than the certificate's user", Config{UseIdentity: IdentityCommonName, File: file}, bridge.Credentials{Certificate: cert, User: "bob", HasUser: true, Password: secret}, bridge.NotAuthorized, ""},
		{"a certificate of a user with another name", inline, bridge.Credentials{Certificate: cert, ClientID: "c1"}, ok, "carol"},
		{"no certificate but a password", inline, bridge.Credentials{User: "carol", HasUser: true, Password: secret, ClientID: "c1"}, ok, "carol"},
		{"a password for a user that has none", inline, bridge.Credentials{User: "only-certificate", HasUser: true, Password: secret}, bridge.Unauthenticated, ""},

		{"a client id of the user", inline, bridge.Credentials{User: "carol", HasUser: true, Password: secret, ClientID: "lab-7"}, ok, "carol"},
		{"a client id of others", inline, bridge.Credentials{User: "carol", HasUser: true, Password: secret, ClientID: "c12"}, bridge.NotAuthorized, ""},
		{"a client id of others with a certificate", inline, bridge.Credentials{Certificate: cert, ClientID: "x"}, bridge.NotAuthorized, ""},

		{"an exchange", withUsers, bridge.Credentials{Proven: "bob"}, ok, "bob"},
		{"an exchange of a user that is gone", withUsers, bridge.Credentials{Proven: "eve"}, bridge.NotAuthorized, ""},
		{"an exchange of another user", withUsers, bridge.Credentials{Proven: "bob", User: "alice", HasUser: true, Password: secret}, bridge.NotAuthorized, ""},
		{"an exchange of another than the certificate's user", Config{File: file, UseIdentity: IdentityCommonName}, bridge.Credentials{Proven: "bob", Certificate: cert}, bridge.NotAuthorized, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := open(t, tt.config, nil)
			for range 2 { // the second time from what is remembered
				id, err := a.Authenticate(t.Context(), tt.shown)
				if bridge.ReasonOf(err) != tt.reason {
					t.Fatalf("got %v, want %s", err, tt.reason)
				}
				if err == nil && (id.User != tt.user || id.ClientID != tt.shown.ClientID || !id.Permissions.Allowed(bridge.Write, "x")) {
					t.Errorf("got %+v, want user %q who may do everything", id, tt.user)
				}
			}
		})
	}
}

func TestWrongPasswordsAndUnknownUsersAreToldApartByNothing(t *testing.T) {
	a := open(t, Config{File: file(t, "users", "alice:"+weak+"\n")}, nil)
	_, wrong := a.Authenticate(t.Context(), bridge.Credentials{User: "alice", HasUser: true, Password: []byte("x")})
	_, unknown := a.Authenticate(t.Context(), bridge.Credentials{User: "eve", HasUser: true, Password: []byte("x")})
	if wrong == nil || unknown == nil || wrong.Error() != unknown.Error() {
		t.Errorf("got %v and %v", wrong, unknown)
	}
	checks := &counting{}
	a.decoys = []hash{checks}
	a.accounts["bob"] = &account{name: "bob", password: checks}
	for i, user := range []string{"bob", "eve", "mallory"} {
		if _, err := a.login(t.Context(), user, []byte("x")); err == nil || checks.n != i+1 {
			t.Errorf("user %q: %v, %d checks", user, err, checks.n)
		}
	}
}

// counting is a stored password that no password fits.
type counting struct {
	n    int
	fits bool
}

func (c *counting) slow() bool         { return true }
func (c *counting) verify([]byte) bool { c.n++; return c.fits }

func TestVerifiedPasswordsAreRemembered(t *testing.T) {
	checks := &counting{fits: true}
	a := open(t, Config{File: file(t, "users", "")}, nil)
	a.accounts["alice"] = &account{name: "alice", password: checks}
	a.accounts["bob"] = &account{name: "bob", password: checks}
	for i, tt := range []struct {
		user, password string
		checks         int
	}{
		{"alice", "one", 1}, {"alice", "one", 1}, {"bob", "one", 2}, {"bob", "one", 2}, {"alice", "two", 3}, {"alice", "one", 4},
	} {
		if _, err := a.login(t.Context(), tt.user, []byte(tt.password)); err != nil || checks.n != tt.checks {
			t.Errorf("%d: %v, %d checks, want %d", i, err, checks.n, tt.checks)
		}
	}
}

func TestADecoyThatFitsLetsNobodyIn(t *testing.T) {
	a := open(t, Config{File: file(t, "users", "alice:"+weak+"\n")}, nil)
	for range 2 {
		if _, err := a.login(t.Context(), "eve", []byte("secret")); bridge.ReasonOf(err) != bridge.Unauthenticated {
			t.Errorf("got %v", err)
		}
	}
}

func TestSlowChecksAreLimited(t *testing.T) {
	a := open(t, Config{File: file(t, "users", "alice:"+weak+"\n")}, nil)
	for range cap(a.process.slots) {
		a.process.slots <- struct{}{}
	}
	c := bridge.Credentials{User: "alice", HasUser: true, Password: []byte("secret")}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := a.Authenticate(ctx, c); bridge.ReasonOf(err) != bridge.Unavailable || !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled while waiting: got %v", err)
		}
	})
	cancel()
	wg.Wait()
	a.process.waiting.Store(maxWaiting)
	if _, err := a.Authenticate(t.Context(), c); bridge.ReasonOf(err) != bridge.Unavailable {
		t.Errorf("too many are waiting: got %v", err)
	}
	a.process.waiting.Store(0)
	<-a.process.slots
	if _, err := a.Authenticate(t.Context(), c); err != nil {
		t.Error(err)
	}
	if n := a.process.waiting.Load(); n != 0 {
		t.Errorf("%d are waiting", n)
	}
}

func TestAReloadKeepsWhoWouldBeLetInNow(t *testing.T) {
	users := "alice:" + weak + "\nbob:" + weak + "\ncarol:" + weak + "\n"
	cert := &x509.Certificate{Subject: pkix.Name{CommonName: "dev"}}
	before := Config{File: file(t, "a", users), Anonymous: AnonymousAll, UseIdentity: IdentityCommonName}
	after := before
	after.File = file(t, "b", strings.Replace(strings.Replace(users, "alice:"+weak, "alice:"+weaker, 1), "bob:", "rob:", 1))
	remapped := before
	remapped.Users = []User{{Name: "gadget", Certificate: "dev"}}
	bound := before
	bound.Users = []User{{Name: "carol", ClientIDs: []string{"other"}}}
	noIdentity, local := before, before
	noIdentity.UseIdentity, local.Anonymous = "", AnonymousLoopback
	secret := []byte("secret")
	for _, tt := range []struct {
		name  string
		after Config
		shown bridge.Credentials
		want  bool
	}{
		{"an unchanged user stays", after, bridge.Credentials{User: "carol", HasUser: true, Password: secret}, true},
		{"a user with another hash goes", after, bridge.Credentials{User: "alice", HasUser: true, Password: secret}, false},
		{"a removed user goes", after, bridge.Credentials{User: "bob", HasUser: true, Password: secret}, false},
		{"a removed user of an exchange goes", after, bridge.Credentials{Proven: "bob"}, false},
		{"an unchanged user of an exchange stays", after, bridge.Credentials{Proven: "carol"}, true},
		{"an anonymous client stays", after, bridge.Credentials{}, true},
		{"an anonymous client goes when only local ones may come", local, bridge.Credentials{}, false},
		{"a local anonymous client stays then", local, bridge.Credentials{Loopback: true}, true},
		{"a certificate stays", after, bridge.Credentials{Certificate: cert}, true},
		{"a certificate goes when it names another user", remapped, bridge.Credentials{Certificate: cert}, false},
		{"a certificate goes when certificates name nobody", noIdentity, bridge.Credentials{Certificate: cert}, false},
		{"a user goes whose client id is another's", bound, bridge.Credentials{User: "carol", HasUser: true, Password: secret}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := open(t, before, nil)
			id, err := a.Authenticate(t.Context(), tt.shown)
			if err != nil {
				t.Fatal(err)
			}
			tt.after.Rules = []Rule{{Read: []string{"r"}}}
			b := open(t, tt.after, a)
			p, ok := b.Permissions(id)
			if ok != tt.want {
				t.Fatalf("got %v", ok)
			}
			if ok && (p.Allowed(bridge.Write, "r") || !p.Allowed(bridge.Read, "r")) {
				t.Error("the new rules don't hold")
			}
			if ok { // and over one more
				next := *id
				next.Permissions = p
				if _, ok := open(t, tt.after, b).Permissions(&next); !ok {
					t.Error("the next reload loses it")
				}
			}
		})
	}
	if _, ok := open(t, before, nil).Permissions(&bridge.Identity{User: "alice"}); ok {
		t.Error("an identity of nobody's is let in")
	}
}

func TestEverythingThatIsWrongIsReportedTogether(t *testing.T) {
	users, rules := file(t, "users", "alice:plain\n"), file(t, "acl", "nonsense\n")
	_, err := New(Config{
		Source: "isthmus.yaml", File: users, ACL: rules, Anonymous: "some", UseIdentity: "cn",
		Users: []User{{Name: "a:b", Password: weak}, {Name: "bob"}, {Name: "bob", Password: weak}, {Name: "carol", Password: weak, SCRAM: weak, ClientIDs: []string{"a*b"}}},
		Rules: []Rule{{}, {User: "x", Anonymous: true, Read: []string{"a/#/b"}}},
	}, nil)
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		users + ":1:7: ", rules + ":1:1: ", `isthmus.yaml: users.anonymous: "some" is not one of`, `isthmus.yaml: users.use_identity: "cn" is not one of`,
		`users.list[0].name: user name "a:b" has a ':'`, `users.list[2]: user "bob" stands already at isthmus.yaml: users.list[1]`,
		`users.list[3].scram: user "carol": not a SCRAM credential`, `users.list[3].client_ids[0]: "a*b"`, "users.rules[0]: rule gives and denies nothing",
		"users.rules[1]: anonymous clients have no user name", `users.rules[1].read[0]: "a/#/b": # is not the last level`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in\n%v", want, err)
		}
	}
	var line *LineError
	if !errors.As(err, &line) || line.File != users || line.Line != 1 {
		t.Errorf("got %+v", line)
	}
	_, err = New(Config{File: users + ".none", ACL: rules + ".none"}, nil)
	if err == nil || !strings.Contains(err.Error(), "create it with isthmus passwd") || !strings.Contains(err.Error(), "reading the ACL file") {
		t.Errorf("got %v", err)
	}
	_, err = New(Config{Users: []User{{Name: "bob"}}}, nil)
	if err == nil || !strings.Contains(err.Error(), "has no password and certificates name nobody") {
		t.Errorf("got %v", err)
	}
}

func TestDecoysAreAMixtureOfTheUsersHashes(t *testing.T) {
	a := accounts{}
	for i := range 5000 {
		a.named(strings.Repeat("x", i+1)).password = &counting{}
	}
	a.named("nothing")
	if n := len(a.decoys()); n < 500 || n > 1024 {
		t.Errorf("%d decoys", n)
	}
	if d := cmp.Diff(0, len(accounts{}.decoys())); d != "" {
		t.Error(d)
	}
}
