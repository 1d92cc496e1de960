package access

import "github.com/isthmus-iot/isthmus/bridge"

// ruleSet is rules made ready for quick decisions.
type ruleSet struct {
	rules             []*rule // all, in order; for subscriptions and explanations
	denies            filters
	readable, written filters
}

// filters are split so that the common case, a topic without wildcards, costs one look-up however many there are.
type filters struct {
	exact map[bridge.Topic]struct{}
	wild  []bridge.Filter
}

func (s *ruleSet) add(r *rule) {
	s.rules = append(s.rules, r)
	if r.mode == deny {
		s.denies.add(r.filter)
	}
	if r.mode&read != 0 {
		s.readable.add(r.filter)
	}
	if r.mode&write != 0 {
		s.written.add(r.filter)
	}
}

func (f *filters) add(filter bridge.Filter) {
	if filter.Wild() {
		f.wild = append(f.wild, filter)
		return
	}
	if f.exact == nil {
		f.exact = map[bridge.Topic]struct{}{}
	}
	f.exact[bridge.Topic(filter)] = struct{}{}
}

// match reports whether some filter matches. It allocates nothing.
func (f *filters) match(topic bridge.Topic) bool {
	if len(f.exact) > 0 {
		if _, ok := f.exact[topic]; ok {
			return true
		}
	}
	for _, w := range f.wild {
		if w.Match(topic) {
			return true
		}
	}
	return false
}
