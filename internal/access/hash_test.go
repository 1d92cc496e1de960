package access

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestStoredPasswordsOfEveryFormAreVerified(t *testing.T) {
	form := func(name string) string {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		_, h, _ := strings.Cut(strings.TrimSpace(string(text)), ":")
		return h
	}
	for name, text := range map[string]string{
		"PBKDF2 of mosquitto_passwd":  form("pbkdf2.passwd"),
		"SHA-512 of mosquitto_passwd": form("sha512.passwd"),
		"our argon2id":                Hash([]byte("secret")),
		"our SCRAM":                   HashSCRAM([]byte("secret")),
		"SCRAM with few iterations":   newScramHash([]byte("secret"), []byte("0123456789abcdef"), 4096).String(),
	} {
		t.Run(name, func(t *testing.T) {
			h, _, err := parseHash(text)
			if err != nil {
				t.Fatal(err)
			}
			for password, want := range map[string]bool{"secret": true, "Secret": false, "": false, "secret ": false} {
				if h.verify([]byte(password)) != want {
					t.Errorf("password %q: want %v", password, want)
				}
			}
		})
	}
}

// The vectors are of the reference implementation's own tests.
func TestArgon2idIsThatOfTheReferenceImplementation(t *testing.T) {
	for _, text := range []string{
		"$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
		"$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc",
	} {
		h, _, err := parseHash(text)
		if err != nil {
			t.Fatal(err)
		}
		if !h.verify([]byte("password")) || h.verify([]byte("passwort")) {
			t.Errorf("%s is not verified", text)
		}
	}
}

func TestFilesOfMosquittoPasswdAreRead(t *testing.T) {
	tool, err := exec.LookPath("mosquitto_passwd")
	if err != nil {
		t.Skip("needs mosquitto_passwd, which is in the package mosquitto")
	}
	for _, form := range []string{"sha512-pbkdf2", "sha512"} {
		path := filepath.Join(t.TempDir(), "passwd")
		passwords := map[string]string{"alice": "secret", "b ob": "pa:ss$wörd", "carol": strings.Repeat("x", 200)}
		args := []string{"-c"}
		for user, password := range passwords {
			args = append(args, "-H", form, "-b", path, user, password)
			if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v\n%s", form, err, out)
			}
			args = nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		a := accounts{}
		if err := a.parse(path, string(text)); err != nil {
			t.Fatal(err)
		}
		for user, password := range passwords {
			if acc := a[user]; acc == nil || !acc.hash().verify([]byte(password)) || acc.hash().verify([]byte("other")) {
				t.Errorf("%s: user %q is not verified", form, user)
			}
		}
	}
}

func TestMistakesInPasswordFilesAreAllReported(t *testing.T) {
	const sum = "J8DeN+ma247wOM2yXaq7xaVdzWCt59XwenWSOqjgxx27KjpLClqUXh/q3G/OkNwPVuRr1KODap+XlrjtN8DmgA=="
	text := strings.Join([]string{
		"# comment",
		"alice",
		"alice:",
		"alice:plain",
		"alice:$5$abc$def",
		"alice:$6$AAAA",
		"alice:$7$0$AAAA$" + sum,
		"alice:$7$3000000$AAAA$" + sum,
		"alice:$7$101$A!AA$" + sum,
		"alice:$7$101$AAAA$AAAA",
		"alice:$argon2id$v=16$m=8,t=1,p=1$AAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAA",
		"alice:$argon2id$v=19$m=99999999,t=1,p=1$AAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAA",
		"alice:$argon2id$v=19$m=262144,t=32,p=1$AAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAA",
		"alice:$argon2id$v=19$m=8,t=1,p=2$AAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAA",
		"alice:SCRAM-SHA-256$1:AAAA$AAAA:AAAA",
		"alice:SCRAM-SHA-256$4096:AAAA$AAAA:AAAA",
		" :x",
		"bob:$7$101$AAAA$" + sum,
		"  bob : $7$101$AAAA$" + sum,
	}, "\n")
	err := accounts{}.parse("p", text)
	if err == nil {
		t.Fatal("no error")
	}
	want := []string{
		`p:2:1: user "alice" has no password hash: set one with isthmus passwd p alice`,
		`p:3:7: user "alice": password hash is missing: set one with isthmus passwd`,
		`p:4:7: user "alice": password is not hashed, or in a form that is unknown: set it with isthmus passwd, or convert a file of plain passwords with mosquitto_passwd -U`,
		`p:5:8: user "alice": password hash of form $5$ is unknown, want $6$, $7$, $argon2id$ or SCRAM-SHA-256$`,
		`p:6:7: user "alice": password hash of form $6$ has 2 parts: it is incomplete or has a '$' too many; set it anew with isthmus passwd`,
		`p:7:10: user "alice": iterations are "0", want 1 to 2000000`,
		`p:8:10: user "alice": iterations are "3000000", want 1 to 2000000`,
		`p:9:14: user "alice": salt "A!AA" is not base64`,
		`p:10:19: user "alice": hash has 3 bytes, want 64 to 64`,
		`p:11:17: user "alice": argon2 version "v=16" is unknown, want v=19`,
		`p:12:22: user "alice": argon2 memory in KiB are "99999999", want 8 to 262144`,
		`p:13:22: user "alice": argon2 memory of 262144 KiB in 32 passes is too much work, at most 1048576 together`,
		`p:14:22: user "alice": argon2 memory of 8 KiB is below 8 for each of 2 lanes`,
		`p:15:21: user "alice": iterations are "1", want 4096 to 2000000`,
		`p:16:31: user "alice": stored key has 3 bytes, want 32 to 32`,
		`p:17:2: user name is empty`,
		`p:19:3: user "bob" has a password already at p:18: remove one of them`,
	}
	if d := cmp.Diff(want, strings.Split(err.Error(), "\n")); d != "" {
		t.Error(d)
	}
}

func TestAUserMayHaveAScramLineBesidesAnother(t *testing.T) {
	a := accounts{}
	text := "alice:" + HashSCRAM([]byte("x")) + "\nalice:$7$101$f/DNcZ8HCQ7w03aP$J8DeN+ma247wOM2yXaq7xaVdzWCt59XwenWSOqjgxx27KjpLClqUXh/q3G/OkNwPVuRr1KODap+XlrjtN8DmgA==\n"
	if err := a.parse("p", text); err != nil {
		t.Fatal(err)
	}
	if acc := a["alice"]; acc.scram == nil || acc.password == nil {
		t.Error("one of the lines is lost")
	}
	if err := a.parse("p", text); err == nil {
		t.Error("the same again is accepted")
	}
}
