package crash

import (
	"strings"
	"testing"
)

// matches reports whether a filter matches a topic, level by level as the specification says (section 4.7).
func matches(filter, topic string) bool {
	f, t := strings.Split(filter, "/"), strings.Split(topic, "/")
	for i, level := range f {
		switch {
		case level == "#":
			return true
		case i >= len(t) || level != "+" && level != t[i]:
			return false
		}
	}
	return len(f) == len(t)
}

func TestMatches(t *testing.T) {
	for _, tc := range []struct {
		filter, topic string
		want          bool
	}{
		{"a/b", "a/b", true}, {"a/b", "a/c", false}, {"a/b", "a", false}, {"a", "a/b", false}, {"a/+", "a/b", true},
		{"a/+", "a/b/c", false}, {"a/#", "a/b/c", true}, {"a/#", "a", true}, {"+/b", "a/b", true}, {"#", "a/b", true},
	} {
		if got := matches(tc.filter, tc.topic); got != tc.want {
			t.Errorf("%s, %s: %t", tc.filter, tc.topic, got)
		}
	}
}
