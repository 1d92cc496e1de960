package crash

import (
	"bufio"
	"cmp"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
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
// message had there, the comings and goings of whom they belong to, and the life and death of the broker.
func (h *history) trace(f finding) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	who := map[int]bool{f.who: true}
	ids := make(map[uint16]bool)
	first := f.at
	if m := f.msg; m != nil {
		if m.began != 0 {
			first = min(first, m.began)
		}
		for i, e := range h.events {
			if e.msg != m {
				continue
			}
			if e.kind == 3 && e.out {
				who[e.who] = true
			}
			if e.who == f.who {
				ids[e.id] = true
				first = min(first, moment(i+1))
			}
		}
	} else if i := int(f.at) - 1; i >= 0 && i < len(h.events) {
		ids[h.events[i].id] = true
	}
	var lines []string
	for i, e := range h.events {
		at := moment(i + 1)
		about := e.msg != nil && e.msg == f.msg && who[e.who]
		about = about || e.who < 0 || who[e.who] && e.kind == 0 || e.who == f.who && e.id != 0 && ids[e.id]
		if about && (at >= first-200 || at > f.at-200) && (at <= f.at+200 || f.kind == "lost") {
			lines = append(lines, h.line(i))
		}
	}
	if n := len(lines) - traced; n > 0 {
		lines = append(append(lines[:traced*2/3:traced*2/3], fmt.Sprintf("    ... %d more ...", n)), lines[len(lines)-traced/3:]...)
	}
	return strings.Join(lines, "\n")
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
		fmt.Fprintf(&b, " %s id=%d", e.kind, e.id)
	}
	if e.dup {
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
