package access

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/isthmus-iot/isthmus/bridge"
)

// The example of RFC 7677 section 3.
const (
	exampleClientFirst = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
	exampleServerFirst = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
	exampleClientFinal = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
	exampleServerFinal = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
)

func example(t testing.TB) *Access {
	t.Helper()
	salt, _ := base64.StdEncoding.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	return open(t, Config{File: file(t, "users", "user:"+newScramHash([]byte("pencil"), salt, 4096).String()+"\n")}, nil)
}

func TestTheExampleOfRFC7677(t *testing.T) {
	e := example(t).SCRAM()
	e.nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	c := NewScramClient("user", []byte("pencil"))
	c.nonce = "rOprNGfwEbeRWgbNEkqO"
	var message []byte
	for i, want := range []string{exampleClientFirst, exampleServerFirst, exampleClientFinal, exampleServerFinal} {
		var err error
		var user string
		var done bool
		if i%2 == 0 {
			message, done, err = c.Step(message)
		} else {
			message, done, user, err = e.Step(message)
		}
		if err != nil || string(message) != want || done != (i == 3) || done != (user == "user") {
			t.Fatalf("message %d: got %q, done %v, user %q, %v", i, message, done, user, err)
		}
	}
	if _, done, err := c.Step(message); !done || err != nil {
		t.Errorf("client: done %v, %v", done, err)
	}
}

// run makes one exchange and returns who was proven.
func run(t *testing.T, a *Access, user, password string) (string, error) {
	t.Helper()
	c, e := NewScramClient(user, []byte(password)), a.SCRAM()
	var message []byte
	for {
		answer, done, err := c.Step(message)
		if err != nil {
			t.Fatal(err)
		}
		if done {
			return e.user, nil
		}
		if message, _, _, err = e.Step(answer); err != nil {
			return "", err
		}
	}
}

func TestExchangesProveUsers(t *testing.T) {
	path := file(t, "users", "plain:"+weak+"\n")
	for _, user := range []string{"alice", "a,b=c", "=2C"} {
		if _, err := SetPassword(path, user, []byte("secret,=ü"), PasswordOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	a := open(t, Config{File: path}, nil)
	for _, tt := range []struct {
		user, password string
		want           bool
	}{
		{"alice", "secret,=ü", true}, {"a,b=c", "secret,=ü", true}, {"=2C", "secret,=ü", true},
		{"alice", "other", false}, {"eve", "secret,=ü", false}, {"plain", "secret", false},
	} {
		got, err := run(t, a, tt.user, tt.password)
		if tt.want && (err != nil || got != tt.user) {
			t.Errorf("%q: got %q, %v", tt.user, got, err)
		}
		if !tt.want && bridge.ReasonOf(err) != bridge.NotAuthorized {
			t.Errorf("%q with %q: got %v", tt.user, tt.password, err)
		}
	}
}

func TestUnknownUsersLookLikeKnownOnesAlsoAfterAReload(t *testing.T) {
	path := file(t, "users", "")
	for _, user := range []string{"alice", "bob"} {
		if _, err := SetPassword(path, user, []byte("secret"), PasswordOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	a := open(t, Config{File: path}, nil)
	b := open(t, Config{File: path}, a)
	first := func(a *Access, user string) string {
		answer, _, _, err := a.SCRAM().Step([]byte("n,,n=" + user + ",r=abc"))
		if err != nil {
			t.Fatal(err)
		}
		_, form, _ := strings.Cut(string(answer), ",")
		return form
	}
	for _, user := range []string{"alice", "eve", "mallory"} {
		form := first(a, user)
		if form != first(a, user) || form != first(b, user) {
			t.Errorf("%q: the salt changes", user)
		}
		if len(form) != len(first(a, "alice")) || !strings.HasSuffix(form, ",i=15000") {
			t.Errorf("%q: %s is not like %s", user, form, first(a, "alice"))
		}
	}
	if first(a, "eve") == first(a, "mallory") {
		t.Error("two users have one salt")
	}
}

func TestBadMessagesAreRefused(t *testing.T) {
	a := example(t)
	for _, first := range []string{
		"", "n", "n,", "n,,", "n,,n=user", "p=tls-unique,,n=user,r=abc", "x,,n=user,r=abc", "n,,m=ext,n=user,r=abc", "n,,r=abc,n=user",
		"n,,n=,r=abc", "n,,n=us=er,r=abc", "n,,n=user,r=", "n,,n=user,r=a\x00b", "n,a=other,n=user,r=abc", "n,x,n=user,r=abc",
		"n,,n=us\xffer,r=abc", "n,,n=user,r=" + strings.Repeat("x", maxNonce+1), strings.Repeat("x", maxScramBytes+1),
	} {
		e := a.SCRAM()
		if _, _, _, err := e.Step([]byte(first)); bridge.ReasonOf(err) != bridge.NotAuthorized {
			t.Errorf("first %.40q: got %v", first, err)
		}
		if _, _, _, err := e.Step([]byte(exampleClientFirst)); bridge.ReasonOf(err) != bridge.NotAuthorized {
			t.Errorf("first %.40q: went on with %v", first, err)
		}
	}
	for _, first := range []string{"y,,n=user,r=abc", "n,a=user,n=user,r=abc", "n,,n=user,r=abc,x=extension"} {
		if _, _, _, err := a.SCRAM().Step([]byte(first)); err != nil {
			t.Errorf("first %q: got %v", first, err)
		}
	}
	const nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	const proof = ",p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
	for _, final := range []string{
		"", "c=biws", "c=biws,r=" + nonce, "c=biws,r=" + nonce + ",p=", "c=biws,r=" + nonce + ",p=AAAA", "c=biws,r=" + nonce + "x" + proof,
		"c=eSws,r=" + nonce + proof, "c=!,r=" + nonce + proof, "r=" + nonce + ",c=biws" + proof, "c=biws,r=" + nonce + ",x=y" + proof,
		"c=biws,r=" + nonce + ",p=AHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
	} {
		e := a.SCRAM()
		e.nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
		if _, _, _, err := e.Step([]byte(exampleClientFirst)); err != nil {
			t.Fatal(err)
		}
		if _, done, user, err := e.Step([]byte(final)); bridge.ReasonOf(err) != bridge.NotAuthorized || done || user != "" {
			t.Errorf("final %q: got done %v, user %q, %v", final, done, user, err)
		}
		if _, _, _, err := e.Step([]byte(exampleClientFinal)); err == nil {
			t.Errorf("final %q: went on", final)
		}
	}
}

func TestClientsDoNotTrustServersThatProveNothing(t *testing.T) {
	for _, first := range []string{
		"", "r=abc", "r=other,s=AAAA,i=4096", "r=rOprNGfwEbeRWgbNEkqO,s=AAAA,i=4096", "r=rOprNGfwEbeRWgbNEkqOx,s=!,i=4096", "r=rOprNGfwEbeRWgbNEkqOx,s=,i=4096",
		"r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=1", "r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=999999999", "m=x,r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=4096",
	} {
		c := NewScramClient("user", []byte("pencil"))
		c.nonce = "rOprNGfwEbeRWgbNEkqO"
		c.Step(nil)
		if _, _, err := c.Step([]byte(first)); err == nil {
			t.Errorf("first %q is accepted", first)
		}
	}
	for _, final := range []string{"", "v=", "v=AAAA", "e=invalid-proof", "x=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="} {
		c := NewScramClient("user", []byte("pencil"))
		c.nonce = "rOprNGfwEbeRWgbNEkqO"
		c.Step(nil)
		if _, _, err := c.Step([]byte(exampleServerFirst)); err != nil {
			t.Fatal(err)
		}
		if _, done, err := c.Step([]byte(final)); err == nil || done {
			t.Errorf("final %q is accepted", final)
		}
		if _, done, err := c.Step([]byte(exampleServerFinal)); err == nil || done {
			t.Errorf("final %q: went on", final)
		}
	}
}
