package crash

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// report fails the test with what was found, a few of each kind with what led to it.
func (h *history) report(t *testing.T, list []finding) {
	t.Helper()
	slices.SortStableFunc(list, func(a, b finding) int { return cmp.Compare(a.at, b.at) })
	byKind := make(map[string][]finding)
	for _, f := range list {
		byKind[f.kind] = append(byKind[f.kind], f)
	}
	kinds := make([]string, 0, len(byKind))
	for kind := range byKind {
		kinds = append(kinds, kind)
	}
	slices.SortFunc(kinds, func(a, b string) int { return cmp.Compare(byKind[a][0].at, byKind[b][0].at) })
	for _, kind := range kinds {
		all := byKind[kind]
		t.Errorf("%s: %d times", kind, len(all))
		for _, f := range all[:min(2, len(all))] {
			t.Errorf("%s: %s\n%s", kind, f.text, h.trace(f))
		}
	}
	if name := *eventsFlag; name != "" && len(list) > 0 {
		if err := h.write(name); err != nil {
			t.Error(err)
		}
	}
}

// traced is how many events of a trace are shown.
const traced = 50

// trace shows the events that a finding is about: those of its message, those of the client with the identifiers that the
// message had there or with subscriptions that match it, the comings and goings of whom they belong to, and the life and death
// of the broker.
func (h *history) trace(f finding) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	who, ids := map[int]bool{f.who: true}, make(map[uint16]bool)
	first := f.at
	for i, e := range h.events {
		if e.msg == nil || e.msg != f.msg {
			continue
		}
		first = min(first, moment(i+1))
		if e.kind == wire.PUBLISH && e.out {
			who[e.who] = true
		}
		if e.who == f.who {
			ids[e.id] = true
		}
	}
	var before, after []string
	for i, e := range h.events {
		switch at := moment(i + 1); {
		case !f.concerns(e, who, ids, at > first-200):
		case at <= f.at:
			before = append(before, h.line(i))
		case f.msg != nil && len(after) < traced/3:
			after = append(after, h.line(i))
		}
	}
	if n := len(before) - traced*2/3; n > 0 {
		before = append([]string{fmt.Sprintf("    ... %d before ...", n)}, before[n:]...)
	}
	return strings.Join(append(before, after...), "\n")
}

// concerns reports whether an event belongs to the trace of a finding.
func (f *finding) concerns(e event, who map[int]bool, ids map[uint16]bool, near bool) bool {
	switch {
	case e.who < 0:
		return near || f.msg == nil
	case !who[e.who]:
		return false
	case e.msg != nil && e.msg == f.msg, f.msg == nil && (e.kind == 0 || e.kind == wire.CONNACK):
		return true
	case e.who != f.who || f.msg == nil:
		return near && (e.kind == 0 || e.kind == wire.CONNACK)
	}
	switch e.kind {
	case wire.SUBSCRIBE, wire.SUBACK, wire.UNSUBSCRIBE, wire.UNSUBACK:
		filter, _, _ := strings.Cut(e.text, " ")
		return matches(filter, f.msg.topic.name)
	case 0, wire.CONNACK:
		return near
	}
	return near && ids[e.id]
}

// line shows an event.
func (h *history) line(i int) string {
	e := h.events[i]
	name, arrow := "broker", " "
	if e.who >= 0 {
		name = fmt.Sprintf("%s/%d", h.names[e.who], e.conn)
		if e.kind != 0 {
			arrow = "<"
		}
		if e.out {
			arrow = ">"
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "    %7d %8.3fs life %-3d %-10s %s", i+1, e.since.Seconds(), e.life, name, arrow)
	if e.kind != 0 {
		fmt.Fprintf(&b, " %s", e.kind)
	}
	if e.id != 0 {
		fmt.Fprintf(&b, " id=%d", e.id)
	}
	if e.dup && e.kind == wire.PUBLISH {
		b.WriteString(" dup")
	}
	if e.msg != nil {
		fmt.Fprintf(&b, " %s", e.msg)
	}
	if e.text != "" {
		b.WriteString(" " + e.text)
	}
	return b.String()
}

// write writes all events to a file.
func (h *history) write(name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	w := bufio.NewWriter(f)
	for i := range h.events {
		fmt.Fprintln(w, h.line(i))
	}
	return w.Flush()
}

// summary counts what a run was made of.
func (h *history) summary() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var published, resent, delivered, again, without int
	for _, t := range h.topics {
		for _, m := range t.all {
			published++
			resent += max(0, m.sends-1)
		}
	}
	for _, r := range h.readers {
		delivered += len(r.deliveries)
		for m, n := range r.count {
			again += n - 1
			if n > 1 && m.sends == 1 {
				without += r.withoutDup(m)
			}
		}
	}
	return fmt.Sprintf("%d messages published, %d sent again; %d deliveries, %d of them repeated (QoS 1), of which the broker sent %d with DUP 0 though nobody published them twice; %d retained values seen; %d events",
		published, resent, delivered, again, without, len(h.observed), len(h.events))
}

// withoutDup counts the repeated deliveries of a message that do not say so.
func (r *reader) withoutDup(m *publication) (n int) {
	seen := false
	for _, d := range r.deliveries {
		if d.msg == m {
			if seen && !d.dup {
				n++
			}
			seen = true
		}
	}
	return n
}
