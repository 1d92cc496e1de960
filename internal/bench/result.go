package bench

import (
	"fmt"
	"io"
	"time"
)

// Result is what one run measured. Times are in seconds or, where the name says so, microseconds.
type Result struct {
	Name       string `json:"name,omitempty"` // of the broker, where it has one
	URL        string `json:"url"`
	Mode       Mode   `json:"mode"`
	Clients    int    `json:"clients"`
	QoS        byte   `json:"qos"`
	Size       int    `json:"size"`
	Window     int    `json:"window"`
	Batch      int    `json:"batch"`
	Version    string `json:"version"`
	Bystanders int    `json:"bystanders"`

	Connections  int     `json:"connections"`
	SetupSeconds float64 `json:"setup_seconds"`
	Seconds      float64 `json:"seconds"`
	Published    int64   `json:"published"`
	Delivered    int64   `json:"delivered"` // mode connect: connections made
	Rate         float64 `json:"delivered_per_second"`

	// Of the whole run, warm-up included.
	Lost       int64 `json:"lost"`
	Duplicates int64 `json:"duplicates"`
	Reordered  int64 `json:"reordered"`
	Refused    int64 `json:"refused"`

	Latency struct {
		P50  float64 `json:"p50"`
		P75  float64 `json:"p75"`
		P90  float64 `json:"p90"`
		P95  float64 `json:"p95"`
		P99  float64 `json:"p99"`
		P999 float64 `json:"p99.9"`
		Max  float64 `json:"max"`
	} `json:"latency_microseconds"`

	GeneratorCPUSeconds float64 `json:"generator_cpu_seconds"` // of this process, to see which of the two is measured

	// Zero where no process was given.
	CPUSeconds       float64 `json:"cpu_seconds"`
	CPUPerMessage    float64 `json:"cpu_microseconds_per_message"` // delivered
	RSSBefore        int64   `json:"rss_before_bytes"`
	RSSAfter         int64   `json:"rss_after_bytes"`
	RSSPerConnection float64 `json:"rss_per_connection_bytes"` // mode idle

	latency Histogram
}

// account takes over the process's figures.
func (r *Result) account(before, after process, known bool) {
	if r.Seconds > 0 {
		r.Rate = float64(r.Delivered) / r.Seconds
	}
	r.GeneratorCPUSeconds = (after.own - before.own).Seconds()
	if !known {
		return
	}
	r.CPUSeconds = (after.cpu - before.cpu).Seconds()
	r.RSSBefore, r.RSSAfter = before.rss, after.rss
	if r.Delivered > 0 {
		r.CPUPerMessage = r.CPUSeconds * 1e6 / float64(r.Delivered)
	}
	if r.Mode == Idle && r.Connections > 0 {
		r.RSSPerConnection = float64(after.rss-before.rss) / float64(r.Connections)
	}
}

// add sums up a run that has ended.
func (r *Result) add(run *run) {
	for _, s := range run.subscribers {
		r.latency.Add(&s.latency)
		r.Duplicates += s.duplicates
		r.Reordered += s.reordered
		for i := range s.streams {
			r.Lost += s.streams[i].lost()
		}
	}
	for _, p := range run.publishers {
		r.Refused += p.refused.Load()
	}
	r.percentiles()
}

func (r *Result) percentiles() {
	h, l := &r.latency, &r.Latency
	if h.Count() == 0 {
		return
	}
	us := func(q float64) float64 { return float64(h.Quantile(q)) / float64(time.Microsecond) }
	l.P50, l.P75, l.P90, l.P95, l.P99, l.P999 = us(.50), us(.75), us(.90), us(.95), us(.99), us(.999)
	l.Max = float64(h.Max()) / float64(time.Microsecond)
}

// Clean reports whether every message came once and in order.
func (r *Result) Clean() bool {
	return r.Lost == 0 && r.Duplicates == 0 && r.Reordered == 0 && r.Refused == 0
}

// WriteText writes the result for people.
func (r *Result) WriteText(w io.Writer) {
	name := r.URL
	if r.Name != "" {
		name = r.Name + " (" + r.URL + ")"
	}
	fmt.Fprintf(w, "%s\n", name)
	row := func(label, format string, args ...any) {
		fmt.Fprintf(w, "  %-12s %s\n", label, fmt.Sprintf(format, args...))
	}
	row("load", "%s, %d clients, QoS %d, %d bytes, window %d, batch %d, MQTT %s, %d bystanders", r.Mode, r.Clients, r.QoS, r.Size, r.Window, r.Batch, r.Version, r.Bystanders)
	switch r.Mode {
	case Idle:
		row("connections", "%d in %.2f s", r.Connections, r.SetupSeconds)
	case Connect:
		row("connections", "%d in %.2f s, %.0f/s", r.Delivered, r.Seconds, r.Rate)
	default:
		row("delivered", "%d in %.2f s, %.0f/s", r.Delivered, r.Seconds, r.Rate)
		row("checked", "%d lost, %d duplicates, %d reordered, %d refused", r.Lost, r.Duplicates, r.Reordered, r.Refused)
	}
	if r.latency.Count() > 0 {
		l := r.Latency
		row("latency ms", "p50 %.3f  p75 %.3f  p90 %.3f  p95 %.3f  p99 %.3f  p99.9 %.3f  max %.3f",
			l.P50/1e3, l.P75/1e3, l.P90/1e3, l.P95/1e3, l.P99/1e3, l.P999/1e3, l.Max/1e3)
	}
	if r.RSSAfter > 0 {
		row("broker CPU", "%.2f s, the generator's %.2f s", r.CPUSeconds, r.GeneratorCPUSeconds)
		if r.Delivered > 0 {
			what := "delivered message"
			if r.Mode == Connect {
				what = "connection"
			}
			row("", "%.2f us per %s", r.CPUPerMessage, what)
		}
		row("broker RSS", "%.1f MiB, %.1f MiB before", float64(r.RSSAfter)/(1<<20), float64(r.RSSBefore)/(1<<20))
		if r.Mode == Idle {
			row("", "%.1f KiB per connection", r.RSSPerConnection/1024)
		}
	}
}
