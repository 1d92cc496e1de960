package access

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-iot/isthmus/bridge"
)

// file puts text into a new file.
func file(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// rulesOf parses an ACL that must be right.
func rulesOf(t testing.TB, text string) *acl {
	t.Helper()
	a := newACL()
	a.name = "test.acl"
	if err := a.parse("test.acl", text); err != nil {
		t.Fatal(err)
	}
	return a
}

// The expectations marked "mosquitto" were observed with mosquitto 2.0.11.
func TestRulesDecideAsWritten(t *testing.T) {
	const (
		w  = bridge.Write
		r  = bridge.Read
		s  = bridge.Subscribe
		no = false
	)
	type ask struct {
		user, client string
		action       bridge.Action
		topic        bridge.Topic
		want         bool
	}
	for _, tt := range []struct {
		name, acl string
		asks      []ask
	}{
		{"an empty list denies everything (mosquitto)", "", []ask{{"", "c", w, "q", no}, {"alice", "c", r, "q", no}}},
		{"lines before the first user are for anonymous clients only (mosquitto)", "topic readwrite t/a\nuser alice\ntopic read r\n", []ask{
			{"", "c", w, "t/a", true}, {"alice", "c", w, "t/a", no}, {"alice", "c", r, "r", true}, {"alice", "c", w, "r", no}, {"bob", "c", r, "r", no},
		}},
		{"read gives read and subscribe, write gives write", "topic read r\ntopic write w\n", []ask{
			{"", "c", r, "r", true}, {"", "c", s, "r", true}, {"", "c", w, "r", no}, {"", "c", w, "w", true}, {"", "c", r, "w", no}, {"", "c", s, "w", no},
		}},
		{"no keyword gives both", "topic x\n", []ask{{"", "c", r, "x", true}, {"", "c", w, "x", true}}},
		{"a keyword alone is a topic (mosquitto)", "topic deny\n", []ask{{"", "c", w, "deny", true}}},
		{"a topic may have blanks after a keyword (mosquitto)", "topic read  foo bar  \n", []ask{{"", "c", r, "foo bar", true}}},
		{"a pattern without values is for everyone (mosquitto)", "user alice\npattern write p/all\n", []ask{
			{"", "c", w, "p/all", true}, {"bob", "c", w, "p/all", true}, {"bob", "a+b", w, "p/all", true},
		}},
		{"%c and %u stand for client id and user name, also within a level (mosquitto)", "pattern write c/%c\npattern write u/%u\npattern write x%c\n", []ask{
			{"", "cid", w, "c/cid", true}, {"", "cid", w, "xcid", true}, {"alice", "cid", w, "u/alice", true}, {"alice", "cid", w, "u/bob", no},
			{"", "cid", w, "u/%u", no}, {"", "cid", w, "u/", no}, {"", "", w, "c/", no},
		}},
		{"topic lines have no values", "topic write c/%c\n", []ask{{"", "cid", w, "c/cid", no}, {"", "cid", w, "c/%c", true}}},
		{"a user may stand twice (mosquitto)", "user alice\ntopic a\nuser bob\ntopic b\nuser alice  \ntopic c\n", []ask{
			{"alice", "c", w, "a", true}, {"alice", "c", w, "c", true}, {"alice", "c", w, "b", no},
		}},
		{"a deny wins before and after a grant", "user alice\ntopic deny a/x\ntopic write a/#\ntopic deny a/y\n", []ask{
			{"alice", "c", w, "a/x", no}, {"alice", "c", w, "a/y", no}, {"alice", "c", w, "a/z", true}, {"alice", "c", w, "a", true},
		}},
		{"a deny of a pattern wins over a grant of a topic line", "pattern deny a/%c\nuser alice\ntopic a/#\n", []ask{
			{"alice", "c", w, "a/c", no}, {"alice", "d", w, "a/c", true},
		}},
		{"a deny of a user wins over a grant of a pattern (mosquitto)", "user alice\npattern write a/#\ntopic deny a/y\n", []ask{
			{"alice", "c", w, "a/y", no}, {"bob", "c", w, "a/y", true},
		}},
		{"devices/1 grants nothing below it, a/# includes a", "topic devices/1\ntopic a/#\n", []ask{
			{"", "c", w, "devices/1", true}, {"", "c", w, "devices/1/x", no}, {"", "c", w, "devices/10", no}, {"", "c", r, "a", true}, {"", "c", r, "a/b/c", true}, {"", "c", r, "ab", no},
		}},
		{"wildcards at the start do not reach $SYS (mosquitto)", "topic #\ntopic +/x\n", []ask{{"", "c", r, "$SYS/x", no}, {"", "c", r, "q/x", true}}},
		{"$SYS needs its own grant", "topic read $SYS/#\n", []ask{{"", "c", r, "$SYS/broker/uptime", true}, {"", "c", w, "$SYS/broker/uptime", no}}},
		{"values don't become wildcards or separators", "pattern write u/%u\npattern write c/%c/x\n", []ask{
			{"", "+", w, "c/a/x", no}, {"", "+", w, "c/+/x", no}, {"", "#", w, "c/a/x", no}, {"", "a/b", w, "c/a/b/x", no}, {"a/b", "c", w, "u/a/b", no},
			{"#", "c", w, "u/a", no}, {"a/b", "c", w, "c/c/x", true}, {"%c", "c", w, "u/c", no}, {"%c", "c", w, "u/%c", true},
		}},
		{"values don't reach $SYS (mosquitto) nor make a shared filter", "pattern write %c/#\npattern read %c/g/#\n", []ask{
			{"", "$SYS", w, "$SYS/x", no}, {"", "$share", w, "x", no}, {"", "$share", r, "x", no}, {"", "a", w, "a/x", true},
		}},
		{"a value with a separator doesn't escape a deny", "topic a/#\npattern deny a/%c\n", []ask{
			{"", "b", w, "a/b", no}, {"", "b/c", w, "a/b/c", no}, {"", "b/c", w, "a/b", true}, {"", "+", w, "a/x", true},
		}},
		{"ends of line and blanks before a keyword don't matter", "\r\n\n  topic write foo\r\n\t# comment\n", []ask{{"", "c", w, "foo", true}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := rulesOf(t, tt.acl)
			for _, q := range tt.asks {
				p := a.permissions(q.user, q.client)
				if got := p.Allowed(q.action, q.topic); got != q.want {
					t.Errorf("user %q client %q %s %q: got %v", q.user, q.client, q.action, q.topic, got)
				}
				if got, why := p.Explain(q.action, string(q.topic)); got != q.want || why == "" {
					t.Errorf("explain user %q client %q %s %q: got %v %q", q.user, q.client, q.action, q.topic, got, why)
				}
			}
		})
	}
}

func TestMistakesInACLFilesAreAllReported(t *testing.T) {
	text := strings.Join([]string{
		"topic",
		"topic foo bar",
		"# topic",
		"topic read a/#/b",
		"user",
		"  bogus x",
		"pattern read %c#",
		"topic read $share/g/x",
		"topic write a/b # comment",
		"topic read \xff",
		"TOPIC read x",
	}, "\n")
	err := newACL().parse("x.acl", text)
	want := []string{
		`x.acl:1:6: topic filter is missing`,
		`x.acl:2:7: "foo" is not one of read, write, readwrite, deny; a topic with a blank needs one of them before it`,
		`x.acl:4:12: "a/#/b": # is not the last level`,
		`x.acl:5:5: user name is missing`,
		`x.acl:6:3: "bogus" is not one of user, topic, pattern`,
		`x.acl:7:14: "%c#": wildcard does not fill its level`,
		`x.acl:8:12: "$share/g/x": rules are about topics: leave out $share and the group`,
		`x.acl:9:13: "a/b # comment": wildcard does not fill its level`,
		`x.acl:10:1: line is not UTF-8 text`,
		`x.acl:11:1: "TOPIC" is not one of user, topic, pattern`,
	}
	if err == nil {
		t.Fatal("no error")
	}
	if d := cmp.Diff(want, strings.Split(err.Error(), "\n")); d != "" {
		t.Error(d)
	}
}

func TestAFileFullOfMistakesIsReportedInPart(t *testing.T) {
	err := newACL().parse("x.acl", strings.Repeat("nonsense\n", 1000))
	if n := len(strings.Split(err.Error(), "\n")); n != maxFileErrors+1 {
		t.Errorf("got %d lines", n)
	}
}

func TestExplainNamesTheRule(t *testing.T) {
	a := rulesOf(t, "topic read pub/#\nuser alice\ntopic a/#\ntopic deny a/secret\npattern read own/%c\n")
	for _, tt := range []struct {
		user, client string
		action       bridge.Action
		topic        string
		want         bool
		rule         string
	}{
		{"alice", "c1", bridge.Write, "a/b", true, "test.acl:3: topic a/#"},
		{"alice", "c1", bridge.Write, "a/secret", false, "test.acl:4: topic deny a/secret"},
		{"alice", "c1", bridge.Read, "own/c1", true, "test.acl:5: pattern read own/%c"},
		{"alice", "c1", bridge.Write, "own/c1", false, `no rule of test.acl lets user "alice" with client id "c1" write "own/c1": what no rule gives is denied`},
		{"", "", bridge.Read, "a/b", false, `no rule of test.acl lets anonymous clients read "a/b": what no rule gives is denied`},
		{"", "", bridge.Subscribe, "pub/+", true, "test.acl:1: topic read pub/#"},
		{"", "", bridge.Subscribe, "$share/g/pub/+", true, "test.acl:1: topic read pub/#"},
		{"", "", bridge.Subscribe, "#", true, "test.acl:1: topic read pub/# (part of the filter: each message is checked)"},
		{"alice", "c1", bridge.Subscribe, "a/+", true, "test.acl:4: topic deny a/secret (part of the filter: each message is checked)"},
		{"", "", bridge.Subscribe, "a/+", false, `no rule of test.acl lets anonymous clients subscribe "a/+": what no rule gives is denied`},
		{"", "", bridge.Write, "a/+", false, "topic name has a wildcard"},
		{"", "", bridge.Subscribe, "a/#/b", false, "# is not the last level"},
	} {
		got, rule := a.permissions(tt.user, tt.client).Explain(tt.action, tt.topic)
		if got != tt.want || rule != tt.rule {
			t.Errorf("user %q %s %q: got %v %q, want %v %q", tt.user, tt.action, tt.topic, got, rule, tt.want, tt.rule)
		}
	}
	open := &permissions{}
	if ok, why := open.Explain(bridge.Write, "x"); !ok || !strings.HasPrefix(why, "no ACL is configured") {
		t.Errorf("allow-all: got %v %q", ok, why)
	}
}

func TestRulesOfTheConfigurationMeanTheSame(t *testing.T) {
	c := Config{
		Source: "isthmus.yaml", Anonymous: AnonymousAll,
		Rules: []Rule{
			{Read: []string{"public/#"}},
			{User: "alice", Allow: []string{"a/#", "u/%u/%c"}, Deny: []string{"a/x"}},
			{Client: "c7", Write: []string{"seven"}},
			{User: "alice", Client: "c7", Write: []string{"both"}},
			{Anonymous: true, Write: []string{"guests"}},
			{Anonymous: true, Client: "c8", Write: []string{"guest8"}},
		},
	}
	a, err := New(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		user, client string
		topic        bridge.Topic
		want         bool
		rule         string
	}{
		{"alice", "c", "a/b", true, "isthmus.yaml: users.rules[1].allow[0]: a/#"},
		{"alice", "c", "a/x", false, "isthmus.yaml: users.rules[1].deny[0]: a/x"},
		{"alice", "c", "u/alice/c", true, "isthmus.yaml: users.rules[1].allow[1]: u/%u/%c"},
		{"alice", "c7", "both", true, "isthmus.yaml: users.rules[3].write[0]: both"},
		{"alice", "c7", "seven", true, "isthmus.yaml: users.rules[2].write[0]: seven"},
		{"bob", "c7", "seven", true, "isthmus.yaml: users.rules[2].write[0]: seven"},
		{"bob", "c7", "both", false, `no rule of isthmus.yaml: users.rules lets user "bob" with client id "c7" write "both": what no rule gives is denied`},
		{"", "c8", "guest8", true, "isthmus.yaml: users.rules[5].write[0]: guest8"},
		{"", "", "guests", true, "isthmus.yaml: users.rules[4].write[0]: guests"},
		{"bob", "", "guests", false, `no rule of isthmus.yaml: users.rules lets user "bob" write "guests": what no rule gives is denied`},
	} {
		got, rule := a.permissions(tt.user, tt.client, proof{}).Explain(bridge.Write, string(tt.topic))
		if got != tt.want || rule != tt.rule {
			t.Errorf("user %q client %q write %q: got %v %q, want %v %q", tt.user, tt.client, tt.topic, got, rule, tt.want, tt.rule)
		}
	}
}
