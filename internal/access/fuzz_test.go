package access

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/isthmus-iot/isthmus/bridge"
)

func FuzzACLFile(f *testing.F) {
	for _, s := range []string{
		"topic read a/#\nuser alice\ntopic deny a/x\npattern write u/%u/%c\n", "topic foo bar\n", "pattern %c%u+\n", "\r\n# x\n\ttopic\tread\tx\n",
		"topic $share/g/x\n", "user\ntopic\n", "topic \x00\xff", "pattern %c/g/#\npattern deny %u\n",
	} {
		f.Add(s, "alice", "c1")
		f.Add(s, "a/b", "$share")
	}
	f.Fuzz(func(t *testing.T, text, user, client string) {
		a := newACL()
		a.name = "x"
		if err := a.parse("x", text); err != nil {
			if a.count == 0 && err.Error() == "" {
				t.Fatal("an error without words")
			}
			return
		}
		p := a.permissions(user, client)
		for _, set := range p.sets {
			for _, r := range set.rules {
				if _, err := bridge.ParseFilter(string(r.filter)); err != nil {
					t.Fatalf("rule %s became %q: %v", r, r.filter, err)
				}
				if g, _ := r.filter.Share(); g != "" {
					t.Fatalf("rule %s became the shared filter %q", r, r.filter)
				}
			}
		}
		for _, topic := range []string{"a", "a/x", "$SYS/x", "u/alice/c1", "$share/g/x"} {
			got := p.Allowed(bridge.Read, bridge.Topic(topic))
			if explained, why := p.Explain(bridge.Read, topic); explained != got || why == "" {
				t.Fatalf("%q: %v, explained as %v %q", topic, got, explained, why)
			}
			if c := p.Covers(bridge.Filter(topic)); !strings.HasPrefix(topic, "$share/") && (c == bridge.CoversAll) != got {
				t.Fatalf("%q: %v, covered as %d", topic, got, c)
			}
		}
	})
}

func FuzzPasswordFile(f *testing.F) {
	for _, name := range []string{"pbkdf2.passwd", "sha512.passwd"} {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	for _, s := range []string{
		"# c\nalice:$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAA\n",
		"alice:" + newScramHash([]byte("x"), []byte("salt"), minScramIterations).String() + "\nalice:" + weaker,
		"alice", ":", "alice:$", "alice:$7$$$", "alice:$argon2id$v=19$m=,t=,p=$$", "alice:SCRAM-SHA-256$:$:", "\xff:\x00", "a:$6$A A$B",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a := accounts{}
		if err := a.parse("x", text); err != nil {
			return
		}
		for name, acc := range a {
			if acc.hash() == nil || checkUser(name) != nil {
				t.Fatalf("user %q is accepted", name)
			}
			if acc.scram != nil {
				if _, _, err := parseHash(acc.scram.String()); err != nil {
					t.Fatalf("user %q: SCRAM credential does not come back: %v", name, err)
				}
			}
			if h, ok := acc.password.(*argonHash); ok && int(h.memory)*int(h.passes) > maxArgonWork {
				t.Fatalf("user %q: a check costs too much", name)
			}
		}
	})
}

func FuzzScramServer(f *testing.F) {
	a := example(f)
	f.Add(exampleClientFirst, exampleClientFinal)
	f.Add("n,a=user,n=us=2Cer,r=x", "c=biws,r=x,p=AAAA")
	f.Add("y,,n=user,r=x,y=z", ",p=")
	f.Add("p=x,,", "")
	f.Fuzz(func(t *testing.T, first, final string) {
		e := a.SCRAM()
		e.nonce = "ours"
		answer, done, _, err := e.Step([]byte(first))
		if done || err == nil && !strings.Contains(string(answer), "ours,s=") {
			t.Fatalf("first answer is %q, done %v", answer, done)
		}
		if err != nil && bridge.ReasonOf(err) != bridge.NotAuthorized {
			t.Fatal(err)
		}
		if _, done, user, err := e.Step([]byte(final)); done || user != "" || bridge.ReasonOf(err) != bridge.NotAuthorized {
			t.Fatalf("proven without the password: %q, %v", user, err)
		}
	})
}

func FuzzScramClient(f *testing.F) {
	f.Add(exampleServerFirst, exampleServerFinal)
	f.Add("r=rOprNGfwEbeRWgbNEkqOx,s=AAAA,i=4096", "e=other-error")
	f.Fuzz(func(t *testing.T, first, final string) {
		c := NewScramClient("user", []byte("pencil"))
		c.nonce = "rOprNGfwEbeRWgbNEkqO"
		if i := strings.Index(first, "i="); i >= 0 && len(first) > i+6 {
			first = first[:i+6] // at most 9999 iterations, for speed
		}
		c.Step(nil)
		_, _, err := c.Step([]byte(first))
		if _, done, _ := c.Step([]byte(final)); done && (err != nil || final != exampleServerFinal && !strings.HasPrefix(final, exampleServerFinal+",")) {
			t.Fatalf("trusts %q after %q", final, first)
		}
	})
}
