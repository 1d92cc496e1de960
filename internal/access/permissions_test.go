package access

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/isthmus-iot/isthmus/bridge"
)

// naive decides by the words of the promise: split, compare level by level, a deny wins.
type naive struct {
	mode   mode
	filter string
}

func (n naive) match(topic string) bool {
	f, t := strings.Split(n.filter, "/"), strings.Split(topic, "/")
	if strings.HasPrefix(topic, "$") && (f[0] == "+" || f[0] == "#") {
		return false
	}
	for i, l := range f {
		if l == "#" {
			return true
		}
		if i >= len(t) || l != "+" && l != t[i] {
			return false
		}
		if i == len(t)-1 && len(f) == len(t)+1 && f[i+1] == "#" {
			return true
		}
	}
	return len(f) == len(t)
}

func decide(rules []naive, want mode, topic string) bool {
	granted := false
	for _, r := range rules {
		if !r.match(topic) {
			continue
		}
		if r.mode == deny {
			return false
		}
		granted = granted || r.mode&want != 0
	}
	return granted
}

// topics are all topics of up to three levels over a small alphabet.
func topics() []string {
	alphabet := []string{"a", "b", "", "$S", "cid"}
	all := []string{}
	for _, x := range alphabet {
		for _, y := range alphabet {
			all = append(all, x+"/"+y)
			for _, z := range alphabet {
				all = append(all, x+"/"+y+"/"+z)
			}
		}
		if x != "" {
			all = append(all, x)
		}
	}
	return all
}

func filterGen() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		levels := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "", "$S", "+", "cid"}), 1, 3).Draw(t, "levels")
		if rapid.IntRange(0, 3).Draw(t, "hash") == 0 {
			levels = append(levels, "#")
		}
		if f := strings.Join(levels, "/"); f != "" {
			return f
		}
		return "#"
	})
}

func TestDecisionsEqualThoseOfANaiveImplementation(t *testing.T) {
	all := topics()
	rapid.Check(t, func(t *rapid.T) {
		words := map[string]mode{"read": read, "write": write, "readwrite": readwrite, "deny": deny}
		var rules []naive
		var text strings.Builder
		for range rapid.IntRange(0, 8).Draw(t, "rules") {
			word := rapid.SampledFrom([]string{"read", "write", "readwrite", "deny"}).Draw(t, "word")
			keyword := rapid.SampledFrom([]string{"topic", "pattern"}).Draw(t, "keyword")
			f := filterGen().Draw(t, "filter")
			rules = append(rules, naive{words[word], f})
			if keyword == "pattern" {
				f = strings.ReplaceAll(f, "cid", "%c")
			}
			fmt.Fprintf(&text, "%s %s %s\n", keyword, word, f)
		}
		a := newACL()
		if err := a.parse("x", text.String()); err != nil {
			t.Fatal(err)
		}
		p := a.permissions("", "cid")
		for _, topic := range all {
			for action, want := range map[bridge.Action]mode{bridge.Write: write, bridge.Read: read, bridge.Subscribe: read} {
				if got := p.Allowed(action, bridge.Topic(topic)); got != decide(rules, want, topic) {
					t.Fatalf("%s %q: got %v with\n%s", action, topic, got, &text)
				}
			}
		}
		f := filterGen().Draw(t, "subscription")
		some, every := false, true
		for _, topic := range all {
			if (naive{filter: f}).match(topic) {
				ok := decide(rules, read, topic)
				some, every = some || ok, every && ok
			}
		}
		share := rapid.SampledFrom([]string{"", "$share/g/"}).Draw(t, "share")
		switch got := p.Covers(bridge.Filter(share + f)); {
		case got == bridge.CoversNone && some:
			t.Fatalf("%q: refused, but it has topics that may be read, with\n%s", f, &text)
		case got == bridge.CoversAll && !every:
			t.Fatalf("%q: all, but it has topics that may not be read, with\n%s", f, &text)
		default:
			if want := coverage(rules, f); got != want {
				t.Fatalf("%q: got %d, want %d with\n%s", f, got, want, &text)
			}
		}
	})
}

// coverage is the promise of Covers in the words of filters.
func coverage(rules []naive, f string) bridge.Coverage {
	var all, some, cut bool
	for _, r := range rules {
		g := bridge.Filter(r.filter)
		switch {
		case r.mode == deny && g.Covers(bridge.Filter(f)):
			return bridge.CoversNone
		case r.mode == deny:
			cut = cut || g.Overlaps(bridge.Filter(f))
		case r.mode&read != 0:
			all = all || g.Covers(bridge.Filter(f))
			some = some || g.Overlaps(bridge.Filter(f))
		}
	}
	switch {
	case !some:
		return bridge.CoversNone
	case all && !cut:
		return bridge.CoversAll
	}
	return bridge.CoversPart
}

func TestCoverageOfSubscriptions(t *testing.T) {
	const none, part, all = bridge.CoversNone, bridge.CoversPart, bridge.CoversAll
	p := rulesOf(t, "topic read a/#\ntopic write w/#\ntopic deny a/secret/#\ntopic read $SYS/#\ntopic read only/one\n").permissions("", "c")
	for f, want := range map[bridge.Filter]bridge.Coverage{
		"a/b": all, "a/b/#": all, "a": all, "a/+": part, "a/#": part, "a/secret": none, "a/secret/+": none, "a/secret/#": none,
		"w/x": none, "w/#": none, "#": part, "+": part, "x/#": none, "$SYS/#": all, "$SYS/broker/+": all, "only/+": part,
		"only/one": all, "only/one/#": part, "only/two": none, "$share/g/a/b": all, "$share/g/w/#": none,
	} {
		if got := p.Covers(f); got != want {
			t.Errorf("%q: got %d, want %d", f, got, want)
		}
	}
	if got := rulesOf(t, "topic read #\n").permissions("", "c").Covers("$SYS/#"); got != none {
		t.Errorf("$SYS/# with a grant of #: got %d", got)
	}
}

// busy are the permissions of a client with many rules of every kind.
func busy(t testing.TB) *permissions {
	var text strings.Builder
	for i := range 500 {
		fmt.Fprintf(&text, "user alice\ntopic read devices/%d/state\ntopic write devices/%d/set\n", i, i)
	}
	text.WriteString("topic read site/+/temperature\ntopic deny site/9/#\npattern write own/%u/%c/#\npattern read $SYS/broker/#\n")
	return rulesOf(t, text.String()).permissions("alice", "c1")
}

func TestDecisionsAllocateNothing(t *testing.T) {
	p := busy(t)
	for _, topic := range []bridge.Topic{"devices/77/state", "site/8/temperature", "site/9/temperature", "own/alice/c1/x/y", "nothing/of/this"} {
		for _, a := range []bridge.Action{bridge.Read, bridge.Write, bridge.Subscribe} {
			if n := testing.AllocsPerRun(100, func() { p.Allowed(a, topic) }); n != 0 {
				t.Errorf("%s %q: %v allocations", a, topic, n)
			}
		}
	}
}

// A million decisions per second is the least that is wanted, so 1000 ns for one.
func BenchmarkDecision(b *testing.B) {
	p := busy(b)
	topics := []bridge.Topic{"devices/77/state", "site/8/temperature", "site/9/temperature", "own/alice/c1/x/y", "nothing/of/this"}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p.Allowed(bridge.Read, topics[i%len(topics)])
	}
}
