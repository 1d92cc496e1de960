package crash

import "fmt"

// expectation is what a subscriber's subscriptions say of a message.
type expectation struct {
	certain     byte // QoS it is delivered with at least; 0: it need not be delivered
	possible    byte // QoS it is delivered with at most; 0: it must not be delivered
	identifiers map[uint32]bool
}

// expects holds a message against the subscriptions: those that were there all the time from before the message was first
// sent until it was acknowledged are certain, those that may have been there at some time in between are possible. In
// identifiers those of certain ones are true.
func (r *reader) expects(m *publication) expectation {
	var x expectation
	for _, s := range r.subscriptions {
		if !matches(s.filter, m.topic.name) || s.asked == 0 || m.began == 0 {
			continue
		}
		if m.acked != 0 && s.asked > m.acked || s.left != 0 && s.left < m.began {
			continue
		}
		qos := min(m.topic.qos, s.qos)
		x.possible = max(x.possible, qos)
		certain := m.acked != 0 && s.granted != 0 && s.granted < m.began && (s.leaving == 0 || s.leaving > m.acked)
		if certain {
			x.certain = max(x.certain, qos)
		}
		if s.identifier != 0 {
			if x.identifiers == nil {
				x.identifiers = make(map[uint32]bool)
			}
			x.identifiers[s.identifier] = x.identifiers[s.identifier] || certain
		}
	}
	return x
}

// check is the oracle: all that is wrong with a history, what the clients found first.
func (h *history) check() []finding {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := append([]finding(nil), h.findings...)
	for _, r := range h.readers {
		list = append(list, h.checkReader(r)...)
	}
	for _, o := range h.observed {
		if f, wrong := h.checkObservation(o); wrong {
			list = append(list, f)
		}
	}
	return list
}

// checkReader looks at all messages of one subscriber.
func (h *history) checkReader(r *reader) (list []finding) {
	wrong := func(d moment, m *publication, kind, format string, args ...any) {
		list = append(list, finding{kind, h.names[r.who] + ": " + fmt.Sprintf(format, args...), r.who, m, d})
	}
	got := make(map[*publication][]delivery, len(r.count))
	newest := make(map[*topic]*publication) // of the first deliveries
	for _, d := range r.deliveries {
		before := got[d.msg]
		got[d.msg] = append(before, d)
		if len(before) > 0 {
			continue
		}
		if last := newest[d.msg.topic]; last == nil || last.n < d.msg.n {
			newest[d.msg.topic] = d.msg
		} else if r.ordered(d.msg) {
			wrong(d.at, d.msg, "order", "%s was delivered for the first time after %s", d.msg, last)
		}
	}
	for _, t := range h.topics {
		if !r.interested(t) {
			continue
		}
		for _, m := range t.all {
			x := r.expects(m)
			if ds := got[m]; len(ds) > 0 {
				h.checkDeliveries(r, m, x, ds, wrong)
			} else if x.certain > 0 && !r.ended {
				wrong(m.acked, m, "lost", "%s was acknowledged and is not delivered", m)
			}
			delete(got, m)
		}
	}
	for m, ds := range got { // of topics that no filter matches
		wrong(ds[0].at, m, "not subscribed", "%s was delivered and no filter matches it", m)
	}
	return list
}

// ordered reports whether a message must be delivered before later ones of its topic, if it is. One that was sent twice need
// not: the first time there may have been no subscription yet, when the later ones came there was, and what became of all
// this was lost in a crash or with the connection.
func (r *reader) ordered(m *publication) bool { return m.sends == 1 || r.expects(m).certain > 0 }

// interested reports whether any filter ever matched a topic.
func (r *reader) interested(t *topic) bool {
	for _, s := range r.subscriptions {
		if matches(s.filter, t.name) {
			return true
		}
	}
	return false
}

// checkDeliveries looks at the deliveries of one message to one subscriber.
func (h *history) checkDeliveries(r *reader, m *publication, x expectation, ds []delivery, wrong func(moment, *publication, string, string, ...any)) {
	conns := make(map[int]int)
	exactly := 0 // deliveries up to the first one at QoS 2: after that one there must be none
	for i, d := range ds {
		switch {
		case x.possible == 0:
			wrong(d.at, m, "not subscribed", "%s was delivered without a subscription", m)
			return
		case d.qos < x.certain || d.qos > x.possible:
			wrong(d.at, m, "wrong QoS", "%s was delivered with QoS %d, the subscriptions give %d to %d", m, d.qos, x.certain, x.possible)
		}
		if r.v5 {
			checkIdentifiers(m, x, d, wrong)
		}
		conns[d.conn]++
		if exactly == 0 && d.qos == 2 {
			exactly = i + 1
		}
	}
	if exactly > 0 && len(ds) > exactly {
		wrong(ds[exactly].at, m, "doubled", "%s was delivered with QoS 2 and came again", m)
		return
	}
	often := m.sends
	if m.topic.qos == 2 {
		often = 1
	}
	for conn, n := range conns {
		if n > often {
			wrong(ds[len(ds)-1].at, m, "repeated", "%s came %d times on connection %d; it was sent %d times", m, n, conn, m.sends)
		}
	}
}

// checkIdentifiers compares the subscription identifiers of a delivery with those of the subscriptions.
func checkIdentifiers(m *publication, x expectation, d delivery, wrong func(moment, *publication, string, string, ...any)) {
	has := make(map[uint32]bool)
	for _, id := range d.identifiers {
		has[id] = true
		if _, possible := x.identifiers[id]; !possible {
			wrong(d.at, m, "identifier", "%s was delivered with subscription identifier %d, possible are %v", m, id, x.identifiers)
		}
	}
	for id, certain := range x.identifiers {
		if certain && !has[id] {
			wrong(d.at, m, "identifier", "%s was delivered without subscription identifier %d", m, id)
		}
	}
}

// mayRetain gives the values that a topic may have had at some time between two moments, by number: 0 is none. It is what
// the last one acknowledged before left, or anything that was sent later.
func (t *topic) mayRetain(since, until moment) map[int]bool {
	values := map[int]bool{0: true}
	for _, m := range t.all {
		if !m.retain || m.began == 0 || m.began > until {
			continue
		}
		if m.acked != 0 && m.acked <= since {
			clear(values)
		}
		if m.clears {
			values[0] = true
		} else {
			values[m.n] = true
		}
	}
	return values
}

// checkObservation looks at one retained value that was seen.
func (h *history) checkObservation(o observation) (finding, bool) {
	values := o.topic.mayRetain(o.since, o.at)
	if values[o.n] {
		return finding{}, false
	}
	var m *publication
	text := "nothing"
	if o.n > 0 {
		m = o.topic.all[o.n-1]
		text = m.String()
	}
	newest := 0
	for n := range values {
		newest = max(newest, n)
	}
	if m == nil && newest > 0 {
		m = o.topic.all[newest-1]
	}
	return finding{"retained", fmt.Sprintf("%s got %s as the retained value of %s, which has QoS %d; %d values are possible, the newest of them is %d (0: none)",
		h.names[o.who], text, o.topic.name, o.topic.qos, len(values), newest), o.who, m, o.at}, true
}

// awaits reports whether one of the topics must have a retained value, if it was asked for at a moment.
func (h *history) awaits(topics map[string]*topic, since moment) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, t := range topics {
		if !t.mayRetain(since, moment(len(h.events)))[0] {
			return true
		}
	}
	return false
}
