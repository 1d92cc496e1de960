package crash

import (
	"strings"
	"testing"
)

// matches reports whether a filter matches a topic, level by level as the specification says (section 4.7).
func matches(filter, topic string) bool {
	for {
		want, restOfFilter, moreOfFilter := strings.Cut(filter, "/")
		if want == "#" {
			return true
		}
		level, restOfTopic, moreOfTopic := strings.Cut(topic, "/")
		switch {
		case want != "+" && want != level:
			return false
		case !moreOfTopic:
			return !moreOfFilter || restOfFilter == "#"
		case !moreOfFilter:
			return false
		}
		filter, topic = restOfFilter, restOfTopic
	}
}

func TestMatches(t *testing.T) {
	for _, tc := range []struct {
		filter, topic string
		want          bool
	}{
		{"a/b", "a/b", true}, {"a/b", "a/c", false}, {"a/b", "a", false}, {"a", "a/b", false}, {"a/+", "a/b", true},
		{"a/+", "a/b/c", false}, {"a/#", "a/b/c", true}, {"a/#", "a", true}, {"+/b", "a/b", true}, {"#", "a/b", true}, {"a/b/#", "a", false},
	} {
		if got := matches(tc.filter, tc.topic); got != tc.want {
			t.Errorf("%s, %s: %t", tc.filter, tc.topic, got)
		}
	}
}
