package bridge

import (
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// naive is MQTT's matching written down from section 4.7 with no thought of speed: the reference for everything that
// matches.
func naive(filter, topic string) bool {
	if rest, ok := strings.CutPrefix(filter, "$share/"); ok {
		_, filter, _ = strings.Cut(rest, "/")
	}
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	if strings.HasPrefix(topic, "$") && (f[0] == "+" || f[0] == "#") {
		return false
	}
	return naiveLevels(f, t)
}

func naiveLevels(f, t []string) bool {
	switch {
	case len(f) == 0:
		return len(t) == 0
	case f[0] == "#":
		return true
	case len(t) == 0:
		return false
	}
	return (f[0] == "+" || f[0] == t[0]) && naiveLevels(f[1:], t[1:])
}

func TestTopicNamesAreCheckedOnEntry(t *testing.T) {
	for _, good := range []string{"a", "/", "//", "a/b", "/a", "a/", "$SYS/x", "$share/g/a", " ", "ä/日本", "a\ufeffb", strings.Repeat("x", 70000)} {
		if got, err := ParseTopic(good); err != nil || string(got) != good {
			t.Errorf("ParseTopic(%.20q) = %.20q, %v", good, got, err)
		}
	}
	for _, bad := range []string{"", "a+", "+", "#", "a/#", "a/+/b", "a\x00b", "\xff", "a\xed\xa0\x80", "\xc0\x80"} {
		if _, err := ParseTopic(bad); ReasonOf(err) != BadTopic {
			t.Errorf("ParseTopic(%q): %v, want BadTopic", bad, err)
		}
	}
}

func TestFiltersAreCheckedOnEntry(t *testing.T) {
	for _, good := range []string{
		"a", "/", "#", "+", "/#", "+/#", "a/#", "a/+", "+/+", "a/+/b", "//#", "$SYS/#", "$", "$share1", "$shared/a", "$share/g/a", "$share/g/#",
		"$share/g/+", "$share/g//", "$share/g//a", "$share/$x/$SYS/#", "ä/+",
	} {
		if got, err := ParseFilter(good); err != nil || string(got) != good {
			t.Errorf("ParseFilter(%q) = %q, %v", good, got, err)
		}
	}
	for _, bad := range []string{
		"", "a+/b", "a#", "x/+y/z", "#/a", "$share//x", "$share/g", "$share/g/", "$share/g+/x", "$share/g#/x", "$share/+/x", "$share/#", "$share",
		"$share/", "$share//", "$share/g/a#", "$share/g/#/a", "$share/g/$share/h/a", "##", "++", "+#", "a/##", "a/#/", "a\x00", "\xff",
	} {
		if _, err := ParseFilter(bad); ReasonOf(err) != BadFilter {
			t.Errorf("ParseFilter(%q): %v, want BadFilter", bad, err)
		}
	}
}

func TestTheHubHoldsTopicsAndFiltersAgainstItsLimits(t *testing.T) {
	h := newHub(t, Config{Limits: Limits{TopicBytes: 20, TopicLevels: 4}})
	c := attach(t, h, "c")
	for topic, want := range map[string]Reason{
		"a/b/c/d": OK, "a/b/c/d/e": BadTopic, "////": BadTopic, strings.Repeat("x", 20): OK, strings.Repeat("x", 21): BadTopic,
		strings.Repeat("/", 65535): BadTopic,
	} {
		if err := c.Publish(t.Context(), &Message{Topic: Topic(topic)}); ReasonOf(err) != want {
			t.Errorf("publishing to %.30q: %v, want %v", topic, err, want)
		}
	}
	for filter, want := range map[string]Reason{
		"a/b/c/#": OK, "a/b/c/d/#": BadFilter, "$share/g/a/b/c/d": OK, "$share/g/a/b/c/d/e": BadFilter, strings.Repeat("x", 21): BadFilter, "a#": BadFilter,
	} {
		if _, err := h.CheckFilter(filter); ReasonOf(err) != want {
			t.Errorf("filter %q: %v, want %v", filter, err, want)
		}
	}
}

func TestShareSplitsGroupAndFilter(t *testing.T) {
	for f, want := range map[Filter][2]string{
		"a/b": {"", "a/b"}, "$share/g/a/b": {"g", "a/b"}, "$share/g//": {"g", "/"}, "$shared/g/a": {"", "$shared/g/a"},
	} {
		if g, inner := f.Share(); g != want[0] || string(inner) != want[1] {
			t.Errorf("%q shares %q in %q", f, inner, g)
		}
	}
}

func TestMatchFollowsTheSpecification(t *testing.T) {
	for _, tt := range []struct {
		filter, topic string
		want          bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a", "a/", false}, {"a/", "a", false}, {"a/", "a/", true}, {"/a", "a", false}, {"/a", "/a", true},
		{"a/#", "a", true}, {"a/#", "a/", true}, {"a/#", "a/b/c", true}, {"a/#", "ab", false}, {"a/#", "b/a", false},
		{"+/#", "zz", true}, {"+/#", "/", true}, {"+/#", "a/b/c", true}, {"#", "a", true}, {"#", "/", true}, {"#", "a/b", true},
		{"+", "a", true}, {"+", "a/b", false}, {"+", "/", false}, {"+/+", "/", true}, {"/+", "/a", true}, {"+/a", "/a", true}, {"+/+", "a", false},
		{"a/+", "a", false}, {"a/+", "a/", true}, {"a/+/c", "a//c", true}, {"a//c", "a//c", true}, {"a/c", "a//c", false}, {"//", "//", true},
		{"a/+/#", "a", false}, {"a/+/#", "a/b", true}, {"a/+/#", "a/", true},
		{"#", "$SYS/x", false}, {"+/x", "$SYS/x", false}, {"+/#", "$SYS/x", false}, {"$SYS/#", "$SYS/x", true}, {"$SYS/#", "$SYS", true},
		{"$SYS/+", "$SYS/x", true}, {"a/#", "a/$b", true}, {"a/+", "a/$b", true}, {"+", "$", false}, {"#", "$", false}, {"$", "$", true},
		{"$share/g/#", "$SYS/x", false}, {"$share/g/+/x", "$SYS/x", false}, {"$share/g/$SYS/#", "$SYS/x", true}, {"$share/g/#", "a/b", true},
		{"$share/g/a", "$share/g/a", false}, {"A", "a", false}, {"ab", "a", false}, {"a", "ab", false}, {"+/b", "a/bc", false}, {"", "a", false}, {"a", "", false},
	} {
		if got := Filter(tt.filter).Match(Topic(tt.topic)); got != tt.want {
			t.Errorf("%q matches %q: %v", tt.filter, tt.topic, got)
		}
		if tt.filter != "" && tt.topic != "" && naive(tt.filter, tt.topic) != tt.want {
			t.Errorf("the naive matcher is wrong about %q and %q", tt.filter, tt.topic)
		}
	}
}

// worlds are all topics and all filters over a small alphabet: what holds there for Covers and Overlaps holds everywhere,
// because both look at one level at a time and at the first for '$'.
func worlds() (topics []Topic, filters []Filter) {
	var topicsOf, filtersOf func(prefix string, levels int)
	topicsOf = func(prefix string, levels int) {
		for _, l := range []string{"", "a", "b", "$"} {
			if s := prefix + l; s != "" {
				topics = append(topics, Topic(s))
			}
			if levels > 1 {
				topicsOf(prefix+l+"/", levels-1)
			}
		}
	}
	filtersOf = func(prefix string, levels int) {
		for _, l := range []string{"", "a", "$", "+", "#"} {
			if s := prefix + l; s != "" {
				filters = append(filters, Filter(s))
			}
			if levels > 1 && l != "#" {
				filtersOf(prefix+l+"/", levels-1)
			}
		}
	}
	topicsOf("", 4) // one level more than the filters: '#' and '+' differ only there
	filtersOf("", 3)
	return topics, filters
}

func TestCoversAndOverlapsAgreeWithMatchingEveryTopic(t *testing.T) {
	topics, filters := worlds()
	matches := make([][]bool, len(filters))
	for i, f := range filters {
		if _, err := ParseFilter(string(f)); err != nil {
			t.Fatalf("%q: %v", f, err)
		}
		matches[i] = make([]bool, len(topics))
		for j, topic := range topics {
			matches[i][j] = f.Match(topic)
			if want := naive(string(f), string(topic)); matches[i][j] != want {
				t.Fatalf("%q matches %q: %v, want %v", f, topic, matches[i][j], want)
			}
		}
	}
	for i, f := range filters {
		for k, g := range filters {
			covers, overlaps := true, false
			for j := range topics {
				covers = covers && (!matches[k][j] || matches[i][j])
				overlaps = overlaps || matches[i][j] && matches[k][j]
			}
			if got := f.Covers(g); got != covers {
				t.Errorf("%q covers %q: %v, want %v", f, g, got, covers)
			}
			if got := f.Overlaps(g); got != overlaps {
				t.Errorf("%q overlaps %q: %v, want %v", f, g, got, overlaps)
			}
		}
	}
}

func TestCoversAndOverlapsIgnoreTheShare(t *testing.T) {
	if f := Filter("$share/g/a/#"); !f.Covers("a/b") || !Filter("a/#").Covers(f) || !f.Overlaps("$share/h/+/b") || f.Overlaps("$share/h/b") {
		t.Error("a shared filter does not behave as the filter it shares")
	}
	for _, f := range []Filter{"", "a"} {
		if f.Covers("") || Filter("").Covers(f) || f.Overlaps("") {
			t.Errorf("%q and nothing have something in common", f)
		}
	}
}

// level draws from few levels, so that filters and topics meet.
func level(extra ...string) *rapid.Generator[string] {
	return rapid.SampledFrom(append([]string{"a", "b", "c", "", "$x"}, extra...))
}

var someTopic = rapid.Custom(func(t *rapid.T) string {
	s := strings.Join(rapid.SliceOfN(level(), 1, 4).Draw(t, "levels"), "/")
	if s == "" {
		return "a"
	}
	return s
})

var someFilter = rapid.Custom(func(t *rapid.T) string {
	levels := rapid.SliceOfN(level("+", "+"), 1, 4).Draw(t, "levels")
	if rapid.Bool().Draw(t, "hash") {
		levels = append(levels, "#")
		if rapid.Bool().Draw(t, "only the hash") {
			levels = levels[len(levels)-1:]
		}
	}
	s := strings.Join(levels, "/")
	if s == "" {
		return "+"
	}
	return s
})

func TestMatchAgreesWithTheNaiveMatcher(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, topic := someFilter.Draw(t, "filter"), someTopic.Draw(t, "topic")
		if rapid.Bool().Draw(t, "shared") {
			f = "$share/g/" + f
		}
		if got, want := Filter(f).Match(Topic(topic)), naive(f, topic); got != want {
			t.Fatalf("%q matches %q: %v, want %v", f, topic, got, want)
		}
	})
}

func FuzzParseTopic(f *testing.F) {
	for _, s := range []string{"a/b", "", "a\x00", "+", "a#", "\xff", "$SYS/x", "//"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		topic, err := ParseTopic(s)
		want := s != "" && utf8.ValidString(s) && !strings.ContainsAny(s, "\x00+#")
		if (err == nil) != want || want && string(topic) != s {
			t.Fatalf("ParseTopic(%q) = %q, %v", s, topic, err)
		}
		if want && Levels(topic) != len(strings.Split(s, "/")) {
			t.Fatalf("%q has %d levels", s, Levels(topic))
		}
		// A topic is a filter that matches itself.
		if want && !strings.HasPrefix(s, "$share") {
			if g, err := ParseFilter(s); err != nil || !g.Match(topic) || g.Wild() {
				t.Fatalf("as a filter %q does not match itself: %v", s, err)
			}
		}
	})
}

func FuzzParseFilter(f *testing.F) {
	for _, s := range []string{"a/b", "", "a/#", "+/a", "a+", "#/a", "$share/g/a", "$share//a", "$share/g", "$share/g/$share/h/a", "\xff", "a\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		g, err := ParseFilter(s)
		if err != nil {
			if ReasonOf(err) != BadFilter || g != "" {
				t.Fatalf("ParseFilter(%q) = %q, %v", s, g, err)
			}
			return
		}
		if string(g) != s {
			t.Fatalf("ParseFilter(%q) = %q", s, g)
		}
		_, inner := g.Share()
		if _, err := ParseFilter(string(inner)); err != nil {
			t.Fatalf("%q is valid, what it shares is not: %v", s, err)
		}
		for i, l := range strings.Split(string(inner), "/") {
			wild := strings.ContainsAny(l, "+#")
			if wild && len(l) != 1 || l == "#" && i != Levels(inner)-1 {
				t.Fatalf("%q was let in", s)
			}
		}
		if !g.Covers(g) || !g.Overlaps(g) {
			t.Fatalf("%q does not cover or overlap itself", s)
		}
	})
}

func FuzzMatch(f *testing.F) {
	for _, s := range [][2]string{{"a/#", "a"}, {"+/#", "$x"}, {"a/+/c", "a//c"}, {"$share/g/#", "b"}, {"a", "ab"}, {"/", "/"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, filter, topic string) {
		if _, err := ParseFilter(filter); err != nil {
			return
		}
		if _, err := ParseTopic(topic); err != nil {
			return
		}
		want := naive(filter, topic)
		if got := Filter(filter).Match(Topic(topic)); got != want {
			t.Fatalf("%q matches %q: %v, want %v", filter, topic, got, want)
		}
		// The table must agree.
		h := newHub(t, Config{Limits: Limits{TopicBytes: 65535, TopicLevels: 1024}})
		s := &Subscription{Filter: Filter(filter), owner: attach(t, h, "c"), sink: nowhere{}}
		h.table.add(s, nil)
		if found := h.table.match(topic, nil); (len(found) == 1) != want || len(found) > 1 {
			t.Fatalf("the table finds %d filters for %q and %q, want %v", len(found), filter, topic, want)
		}
		h.table.remove(s)
		expectEmpty(t, h)
		// And so must the tree of retained values.
		r := newRetained(h.table.hashOf)
		if _, err := r.set(&Message{Topic: Topic(topic), Payload: []byte("x")}, DefaultLimits(), Memory); err != nil {
			t.Fatal(err)
		}
		if m := r.cursor(Filter(filter)).Next(); (m != nil) != want {
			t.Fatalf("the retained value at %q is met by %q: %v, want %v", topic, filter, m != nil, want)
		}
	})
}
