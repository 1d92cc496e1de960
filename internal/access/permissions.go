package access

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/isthmus-iot/isthmus/bridge"
)

var _ bridge.Permissions = (*permissions)(nil)

// permissions are the rules for one client. They are immutable.
type permissions struct {
	acl          *acl // nil: no ACL is configured, everything is allowed
	user, client string
	sets         []*ruleSet
	proof        proof
}

// Allowed decides about one topic. Its cost grows with the number of wildcard rules that apply to the client.
func (p *permissions) Allowed(a bridge.Action, topic bridge.Topic) bool {
	if p.acl == nil {
		return true
	}
	for _, s := range p.sets {
		if s.denies.match(topic) {
			return false
		}
	}
	for _, s := range p.sets {
		granted := &s.readable
		if a == bridge.Write {
			granted = &s.written
		}
		if granted.match(topic) {
			return true
		}
	}
	return false
}

// Covers decides about a filter. What two grants cover only together counts as part, which costs a check for each delivery
// and is never wrong.
func (p *permissions) Covers(f bridge.Filter) bridge.Coverage {
	c, _ := p.covers(f)
	return c
}

// covers also names the rule that decides; nil when there is none.
func (p *permissions) covers(f bridge.Filter) (bridge.Coverage, *rule) {
	if p.acl == nil {
		return bridge.CoversAll, nil
	}
	var cut, all, part *rule
	for _, s := range p.sets {
		for _, r := range s.rules {
			switch {
			case r.mode == deny:
				if r.filter.Covers(f) {
					return bridge.CoversNone, r
				}
				if cut == nil && r.filter.Overlaps(f) {
					cut = r
				}
			case r.mode&read != 0:
				if all == nil && r.filter.Covers(f) {
					all = r
				}
				if part == nil && r.filter.Overlaps(f) {
					part = r
				}
			}
		}
	}
	switch {
	case part == nil:
		return bridge.CoversNone, nil
	case all != nil && cut == nil:
		return bridge.CoversAll, all
	case all != nil:
		return bridge.CoversPart, cut
	}
	return bridge.CoversPart, part
}

// Explain names the rule that decides as "file:line: text", or says that there is none. For Subscribe topic may be a filter.
func (p *permissions) Explain(a bridge.Action, topic string) (allowed bool, rule string) {
	if p.acl == nil {
		return true, "no ACL is configured: whoever is let in may read and write every topic"
	}
	if a == bridge.Subscribe && (strings.ContainsAny(topic, "+#") || strings.HasPrefix(topic, "$share/")) {
		return p.explainFilter(topic)
	}
	t, err := bridge.ParseTopic(topic)
	if err != nil {
		return false, err.Error()
	}
	allowed = p.Allowed(a, t)
	want := read
	if a == bridge.Write {
		want = write
	}
	for _, r := range p.rules() {
		decides := r.mode == deny && !allowed || r.mode&want != 0 && allowed
		if decides && r.filter.Match(t) {
			return allowed, r.String()
		}
	}
	return false, p.byDefault(a, topic)
}

func (p *permissions) explainFilter(filter string) (allowed bool, rule string) {
	f, err := bridge.ParseFilter(filter)
	if err != nil {
		return false, err.Error()
	}
	c, r := p.covers(f)
	switch {
	case r == nil:
		return false, p.byDefault(bridge.Subscribe, filter)
	case c == bridge.CoversPart:
		return true, r.String() + " (part of the filter: each message is checked)"
	}
	return c == bridge.CoversAll, r.String()
}

// byDefault is the sentence for what no rule decides.
func (p *permissions) byDefault(a bridge.Action, topic string) string {
	who := "anonymous clients"
	if p.user != "" {
		who = fmt.Sprintf("user %q", p.user)
	}
	if p.client != "" {
		who += fmt.Sprintf(" with client id %q", p.client)
	}
	return fmt.Sprintf("no rule of %s lets %s %s %q: what no rule gives is denied", p.acl.name, who, a, topic)
}

// rules are all rules in the order in which they were read.
func (p *permissions) rules() []*rule {
	var all []*rule
	for _, s := range p.sets {
		all = append(all, s.rules...)
	}
	slices.SortFunc(all, func(a, b *rule) int { return cmp.Compare(a.number, b.number) })
	return all
}
