package bench

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Target is a broker to be loaded.
type Target struct {
	Name string // may be empty
	URL  string
	PID  int // 0: unknown
}

// ParseTarget understands [NAME=]URL[@@PID], for example mosquitto=mqtt://127.0.0.1:1883@@4711.
func ParseTarget(s string) (t Target, err error) {
	t.URL = s
	if name, rest, ok := strings.Cut(s, "="); ok && !strings.Contains(name, ":") {
		t.Name, t.URL = name, rest
	}
	if url, pid, ok := strings.Cut(t.URL, "@@"); ok {
		if t.PID, err = strconv.Atoi(pid); err != nil || t.PID < 1 {
			return t, fmt.Errorf("%q is not a process id", pid)
		}
		t.URL = url
	}
	return t, nil
}

// Compare runs cfg against every target, rounds times, the targets taking turns so that a noisy minute meets all of them.
// Each result is given to seen when it is there. It returns the results of each target, in the order of the rounds.
func Compare(ctx context.Context, targets []Target, rounds int, cfg Config, seen func(*Result)) ([][]*Result, error) {
	all := make([][]*Result, len(targets))
	for range max(1, rounds) {
		for i, t := range targets {
			r, err := Run(ctx, t.URL, t.PID, cfg)
			if err != nil {
				if t.Name != "" {
					err = fmt.Errorf("%s: %w", t.Name, err)
				}
				return all, err
			}
			r.Name = t.Name
			all[i] = append(all[i], r)
			seen(r)
		}
	}
	return all, nil
}

// figure is what a comparison shows of a result.
func figure(r *Result) float64 {
	switch {
	case r.Mode == Idle:
		return r.RSSPerConnection / 1024
	case r.RSSAfter > 0:
		return r.CPUPerMessage
	}
	return r.Rate
}

// median is the middle figure; of an even number the mean of the middle two.
func median(rs []*Result) float64 {
	var all []float64
	for _, r := range rs {
		all = append(all, figure(r))
	}
	slices.Sort(all)
	n := len(all)
	if n == 0 {
		return 0
	}
	return (all[(n-1)/2] + all[n/2]) / 2
}

// WriteRow writes one row of a table: the label, and for each target the median of its figure (KiB per connection when idle,
// microseconds of CPU per delivered message where the process is known, else messages per second) with the range over the
// rounds and the ratio to the target at index base.
func WriteRow(w io.Writer, label string, all [][]*Result, base int) {
	fmt.Fprintf(w, "| %s |", label)
	reference := median(all[base])
	for i, rs := range all {
		low, high := figure(rs[0]), figure(rs[0])
		faults := int64(0)
		for _, r := range rs {
			low, high = min(low, figure(r)), max(high, figure(r))
			faults += r.Lost + r.Duplicates + r.Reordered + r.Refused
		}
		m := median(rs)
		fmt.Fprintf(w, " %s", short(m))
		if len(rs) > 1 {
			fmt.Fprintf(w, " (%s-%s)", short(low), short(high))
		}
		if i != base && reference != 0 {
			fmt.Fprintf(w, " %.2fx", m/reference)
		}
		if faults > 0 {
			fmt.Fprintf(w, " !%d", faults)
		}
		fmt.Fprint(w, " |")
	}
	fmt.Fprintln(w)
}

// short writes a figure with three digits or so.
func short(f float64) string {
	switch {
	case f >= 100:
		return strconv.FormatFloat(f, 'f', 0, 64)
	case f >= 10:
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	return strconv.FormatFloat(f, 'f', 2, 64)
}
