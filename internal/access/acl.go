package access

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/isthmus-iot/isthmus/bridge"
)

// mode is what a rule gives. A rule that gives nothing denies.
type mode uint8

const (
	deny      mode = 0
	read      mode = 1
	write     mode = 2
	readwrite      = read | write
)

// modes are the words of ACL files.
func modes(word string) (mode, bool) {
	switch word {
	case "read":
		return read, true
	case "write":
		return write, true
	case "readwrite":
		return readwrite, true
	case "deny":
		return deny, true
	}
	return 0, false
}

// acl is every rule, by whom it applies to. It is immutable after it was made.
type acl struct {
	groups map[subject]*group
	count  int
	name   string // for "no rule of ..."
}

// subject is whom rules apply to. The zero value is everyone; of a client's fields those that are set must fit.
type subject struct {
	user, client string
	anonymous    bool
}

// group is the rules of one subject: those whose filter is fixed are shared by all its clients, the templates are expanded
// for each.
type group struct {
	fixed     ruleSet
	templates []*rule
}

// rule is one line.
type rule struct {
	place  string // file and line, or key
	text   string // as written
	number int    // order in which it was read
	mode   mode
	filter bridge.Filter // with %c and %u, when it is a template
}

func (r *rule) String() string { return r.place + ": " + r.text }

func newACL() *acl { return &acl{groups: map[subject]*group{}} }

// add takes a rule whose filter has been checked.
func (a *acl) add(s subject, template bool, r *rule) {
	r.number = a.count
	a.count++
	g := a.groups[s]
	if g == nil {
		g = &group{}
		a.groups[s] = g
	}
	if template && (strings.Contains(string(r.filter), "%c") || strings.Contains(string(r.filter), "%u")) {
		g.templates = append(g.templates, r)
	} else {
		g.fixed.add(r)
	}
}

// parse adds the rules of an ACL file. The error joins a [LineError] for each bad line.
func (a *acl) parse(file, text string) error {
	l := &lines{file: file, rest: text}
	who := subject{anonymous: true}
	for l.next() {
		line := strings.TrimLeft(l.text, " \t")
		keyword, rest := field(line)
		start, offset := len(l.text)-len(line), len(l.text)-len(rest)
		switch keyword {
		case "user":
			if rest == "" {
				l.fail(offset, "user name is missing")
				// What follows belongs to nobody that is known; the file is refused anyway.
				continue
			}
			who = subject{user: rest}
		case "topic", "pattern":
			if rest == "" {
				l.fail(offset, "topic filter is missing")
				continue
			}
			access, filter := readwrite, rest
			if word, tail := field(rest); tail != "" {
				m, ok := modes(word)
				if !ok {
					l.fail(offset, "%q is not one of read, write, readwrite, deny; a topic with a blank needs one of them before it", word)
					continue
				}
				access, filter = m, tail
			}
			if err := checkFilter(filter, keyword == "pattern"); err != nil {
				l.fail(len(l.text)-len(filter), "%v", err)
				continue
			}
			s := who
			if keyword == "pattern" {
				s = subject{}
			}
			a.add(s, keyword == "pattern", &rule{
				place: l.place(), text: line, mode: access, filter: bridge.Filter(filter),
			})
		default:
			l.fail(start, "%q is not one of user, topic, pattern", keyword)
		}
	}
	return l.err()
}

// addRules adds the rules of a configuration that has been validated.
func (a *acl) addRules(c Config) {
	for i, r := range c.Rules {
		who := subject{user: r.User, client: r.Client, anonymous: r.Anonymous}
		for _, list := range r.lists() {
			for j, f := range list.filters {
				a.add(who, true, &rule{
					place: c.key(fmt.Sprintf("rules[%d].%s[%d]", i, list.key, j)), text: f, mode: list.access, filter: bridge.Filter(f),
				})
			}
		}
	}
}

// permissions collects what applies to one client. user is empty for anonymous clients.
func (a *acl) permissions(user, client string) *permissions {
	p := &permissions{acl: a, user: user, client: client}
	named := subject{user: user}
	if user == "" {
		named = subject{anonymous: true}
	}
	who := []subject{{}, named}
	if client != "" {
		both := named
		both.client = client
		who = append(who, subject{client: client}, both)
	}
	own := &ruleSet{}
	for _, s := range who {
		g := a.groups[s]
		if g == nil {
			continue
		}
		if len(g.fixed.rules) > 0 {
			p.sets = append(p.sets, &g.fixed)
		}
		for _, t := range g.templates {
			if f, ok := t.expand(user, client); ok {
				r := *t
				r.filter = f
				own.add(&r)
			}
		}
	}
	if len(own.rules) > 0 {
		p.sets = append(p.sets, own)
	}
	return p
}

// expand puts a client's values into the template. ok is false when the rule does not apply to that client.
func (r *rule) expand(user, client string) (f bridge.Filter, ok bool) {
	t := string(r.filter)
	for _, v := range []struct{ name, value string }{{"%c", client}, {"%u", user}} {
		if !strings.Contains(t, v.name) {
			continue
		}
		if v.value == "" || strings.ContainsAny(v.value, "+#") {
			return "", false
		}
		// A deny takes the separator literally: it can only take away, and not to apply would give.
		if r.mode != deny && strings.Contains(v.value, "/") {
			return "", false
		}
	}
	// One pass, so that a user named "%c" stays that.
	s := strings.NewReplacer("%c", client, "%u", user).Replace(t)
	if s[0] == '$' && t[0] != '$' && r.mode != deny {
		return "", false // a client must not get into $SYS by its name
	}
	f, err := bridge.ParseFilter(s)
	if group, _ := f.Share(); err != nil || group != "" {
		return "", false
	}
	return f, true
}

// checkFilter reports why s can't be the filter of a rule. In a template the values count as ordinary text.
func checkFilter(s string, template bool) error {
	written := s
	if template {
		s = strings.NewReplacer("%c", "x", "%u", "x").Replace(s)
	}
	f, err := bridge.ParseFilter(s)
	if err != nil {
		return fmt.Errorf("%q: %w", written, errors.Unwrap(err))
	}
	if _, inner := f.Share(); inner != f {
		return fmt.Errorf("%q: rules are about topics: leave out $share and the group", written)
	}
	return nil
}

// plainText reports whether s is UTF-8 without control characters.
func plainText(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}
