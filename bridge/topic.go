package bridge

import (
	"strings"
	"unicode/utf8"
)

// Topic is a topic name in MQTT form (MQTT 5 section 4.7): levels separated by '/', no wildcards, no U+0000, not empty.
type Topic string

// Filter is a topic filter in MQTT form: a topic whose levels may be '+' (one level) and whose last may be '#' (this level
// and all below). A shared filter has the prefix "$share/<name>/" (MQTT 5 section 4.8.2).
type Filter string

// sharePrefix begins a shared filter.
const sharePrefix = "$share/"

// ParseTopic checks s against MQTT's rules for topic names. The error carries [BadTopic].
func ParseTopic(s string) (Topic, error) {
	switch {
	case s == "":
		return "", Refuse(BadTopic, "topic name is empty")
	case !wellFormed(s):
		return "", Refuse(BadTopic, "topic name is not well-formed UTF-8")
	case strings.ContainsAny(s, "+#"):
		return "", Refuse(BadTopic, "topic name has a wildcard")
	}
	return Topic(s), nil
}

// ParseFilter checks s against MQTT's rules for topic filters and shared subscriptions. The error carries [BadFilter].
func ParseFilter(s string) (Filter, error) {
	if s == "" {
		return "", Refuse(BadFilter, "topic filter is empty")
	}
	if !wellFormed(s) {
		return "", Refuse(BadFilter, "topic filter is not well-formed UTF-8")
	}
	rest := s
	if rest == "$share" || strings.HasPrefix(rest, sharePrefix) {
		name, filter, ok := strings.Cut(strings.TrimPrefix(rest, sharePrefix), "/")
		if rest == "$share" || !ok || name == "" || filter == "" || strings.ContainsAny(name, "+#") {
			return "", Refuse(BadFilter, "shared filter is not $share/<name>/<filter>")
		}
		if filter == "$share" || strings.HasPrefix(filter, sharePrefix) {
			return "", Refuse(BadFilter, "shared filter shares a shared filter")
		}
		rest = filter
	}
	for level, tail, more := "", rest, true; more; {
		level, tail, more = strings.Cut(tail, "/")
		if level == "#" && more {
			return "", Refuse(BadFilter, "# is not the last level")
		}
		if len(level) > 1 && strings.ContainsAny(level, "+#") {
			return "", Refuse(BadFilter, "wildcard does not fill its level")
		}
	}
	return Filter(s), nil
}

// Share splits a shared filter into the group's name and the filter it shares; group is empty for an ordinary filter.
func (f Filter) Share() (group string, filter Filter) {
	rest, ok := strings.CutPrefix(string(f), sharePrefix)
	if !ok {
		return "", f
	}
	group, tail, _ := strings.Cut(rest, "/")
	return group, Filter(tail)
}

// Wild reports whether f has a wildcard.
func (f Filter) Wild() bool { return strings.ContainsAny(string(f), "+#") }

// Match reports whether topic matches f (MQTT 5 section 4.7.1 and 4.7.2): "a/#" matches "a", "+/#" matches "a", a filter
// that begins with a wildcard matches no topic that begins with '$'. A shared filter matches what the filter it shares
// matches. It allocates nothing and takes time linear in the shorter of the two.
func (f Filter) Match(topic Topic) bool {
	_, f = f.Share()
	if topic == "" || f == "" {
		return false
	}
	if topic[0] == '$' && (f[0] == '+' || f[0] == '#') {
		return false
	}
	// Byte by byte, because ACLs ask this for every message. i and j are at the beginning of a level of each.
	for i, j := 0, 0; ; i, j = i+1, j+1 {
		switch {
		case i < len(f) && f[i] == '#':
			return true
		case i < len(f) && f[i] == '+':
			i++
			for j < len(topic) && topic[j] != '/' {
				j++
			}
		default:
			for i < len(f) && f[i] != '/' {
				if j == len(topic) || topic[j] != f[i] {
					return false
				}
				i, j = i+1, j+1
			}
			if j < len(topic) && topic[j] != '/' {
				return false
			}
		}
		switch {
		case j == len(topic):
			return i == len(f) || f[i:] == "/#"
		case i == len(f):
			return false
		}
	}
}

// Covers reports whether every topic that g matches is matched by f too. Both are taken without their share prefix.
func (f Filter) Covers(g Filter) bool {
	f, g = f.plain(), g.plain()
	if f == "" || g == "" {
		return false
	}
	if g[0] == '$' && (f[0] == '+' || f[0] == '#') {
		return false
	}
	ff, gg := string(f), string(g)
	for {
		fl, frest, fmore := strings.Cut(ff, "/")
		if fl == "#" {
			return true
		}
		gl, grest, gmore := strings.Cut(gg, "/")
		if gl == "#" || fl != "+" && fl != gl {
			return false
		}
		if !gmore {
			return !fmore || frest == "#"
		}
		if !fmore {
			return false
		}
		ff, gg = frest, grest
	}
}

// Overlaps reports whether some topic may match both f and g.
func (f Filter) Overlaps(g Filter) bool {
	f, g = f.plain(), g.plain()
	if f == "" || g == "" {
		return false
	}
	wild := func(x Filter) bool { return x[0] == '+' || x[0] == '#' }
	if f[0] == '$' && wild(g) || g[0] == '$' && wild(f) {
		return false
	}
	ff, gg := string(f), string(g)
	for {
		fl, frest, fmore := strings.Cut(ff, "/")
		gl, grest, gmore := strings.Cut(gg, "/")
		if fl == "#" || gl == "#" {
			return true
		}
		if fl != "+" && gl != "+" && fl != gl {
			return false
		}
		switch {
		case !fmore && !gmore:
			return true
		case !fmore:
			return grest == "#"
		case !gmore:
			return frest == "#"
		}
		ff, gg = frest, grest
	}
}

// plain is f without its share prefix and in the form that can be compared level by level: the two filters below are the
// only ones for which another one matches the same topics, because every topic has a first level and none is empty.
func (f Filter) plain() Filter {
	_, f = f.Share()
	switch f {
	case "+/#":
		return "#"
	case "/#":
		return "/+/#"
	}
	return f
}

// Levels counts the levels of a topic or filter.
func Levels[T ~string](s T) int { return strings.Count(string(s), "/") + 1 }

// wellFormed reports whether s is a UTF-8 string as MQTT wants it (MQTT-1.5.4-1, MQTT-1.5.4-2): no surrogates, no U+0000.
func wellFormed(s string) bool { return strings.IndexByte(s, 0) < 0 && utf8.ValidString(s) }
