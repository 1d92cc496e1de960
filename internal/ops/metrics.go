package ops

import (
	"fmt"
	"net/http"
	"runtime"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/isthmus-iot/isthmus/bridge"
)

// Reading is what the metrics are made of.
type Reading struct {
	Stats      bridge.Stats
	Store      *Store // nil: it is not open
	Reloaded   bool   // the last reload, or the start, was successful
	ReloadedAt int64  // when a configuration was last put in force, in Unix seconds
}

// metric is one number of a Reading.
type metric struct {
	name, help string
	kind       prometheus.ValueType
	value      func(*Reading) float64
}

// endpointMetric is one number of an endpoint, labelled with its name.
type endpointMetric struct {
	name, help string
	kind       prometheus.ValueType
	value      func(*bridge.EndpointStats) float64
}

// storeMetric is one number of the store.
type storeMetric struct {
	name, help string
	kind       prometheus.ValueType
	value      func(*Store) float64
}

const (
	gauge   = prometheus.GaugeValue
	counter = prometheus.CounterValue
)

func metrics() []metric {
	return []metric{
		{"isthmus_clients", "Clients that are attached, connected or not.", gauge, func(r *Reading) float64 { return float64(r.Stats.Clients) }},
		{"isthmus_subscriptions", "Subscriptions in the routing table.", gauge, func(r *Reading) float64 { return float64(r.Stats.Subscriptions) }},
		{"isthmus_retained_values", "Retained values.", gauge, func(r *Reading) float64 { return float64(r.Stats.Retained) }},
		{"isthmus_retained_bytes", "Size of all retained values.", gauge, func(r *Reading) float64 { return float64(r.Stats.RetainedBytes) }},
		{"isthmus_config_last_reload_successful", "Whether the last reload of the configuration was successful (1) or not (0).", gauge, func(r *Reading) float64 { return truth(r.Reloaded) }},
		{"isthmus_config_last_reload_success_timestamp_seconds", "When a configuration was last put in force.", gauge, func(r *Reading) float64 { return float64(r.ReloadedAt) }},
	}
}

func endpointMetrics() []endpointMetric {
	return []endpointMetric{
		{"isthmus_connections", "Open connections.", gauge, func(e *bridge.EndpointStats) float64 { return float64(e.Connections) }},
		{"isthmus_connections_accepted_total", "Connections accepted.", counter, func(e *bridge.EndpointStats) float64 { return float64(e.Accepted) }},
		{"isthmus_connections_refused_total", "Connections refused before or at authentication.", counter, func(e *bridge.EndpointStats) float64 { return float64(e.Refused) }},
		{"isthmus_accept_errors_total", "Failed attempts to accept a connection, such as too many open files.", counter, func(e *bridge.EndpointStats) float64 { return float64(e.AcceptFails) }},
		{"isthmus_sessions", "Sessions, connected or kept for a client that is away.", gauge, func(e *bridge.EndpointStats) float64 { return float64(e.Sessions) }},
		{"isthmus_queued_messages", "Messages that wait in the queues of sessions.", gauge, func(e *bridge.EndpointStats) float64 { return float64(e.Queued) }},
		{"isthmus_queued_bytes", "Size of the messages that wait in the queues of sessions.", gauge, func(e *bridge.EndpointStats) float64 { return float64(e.QueuedBytes) }},
		{"isthmus_inflight_messages", "Messages sent to clients that have not acknowledged them.", gauge, func(e *bridge.EndpointStats) float64 { return float64(e.Inflight) }},
		{"isthmus_received_bytes_total", "Bytes received.", counter, func(e *bridge.EndpointStats) float64 { return float64(e.BytesIn) }},
		{"isthmus_sent_bytes_total", "Bytes sent.", counter, func(e *bridge.EndpointStats) float64 { return float64(e.BytesOut) }},
		{"isthmus_panics_total", "Connections that ended by a fault in the gateway; each is logged with its stack.", counter, func(e *bridge.EndpointStats) float64 { return float64(e.Panics) }},
	}
}

func storeMetrics() []storeMetric {
	return []storeMetric{
		{"isthmus_store_bytes", "Size of the messages and retained values in the store.", gauge, func(s *Store) float64 { return float64(s.Used) }},
		{"isthmus_store_disk_bytes", "What the store takes on disk.", gauge, func(s *Store) float64 { return float64(s.Disk) }},
		{"isthmus_store_limit_bytes", "Limit of isthmus_store_bytes and isthmus_store_disk_bytes.", gauge, func(s *Store) float64 { return float64(s.Limit) }},
		{"isthmus_store_free_bytes", "What the file system of the store has left; -1 where that is unknown.", gauge, func(s *Store) float64 { return float64(s.Free) }},
		{"isthmus_store_queued_messages", "Messages in the store that wait for their subscriber or its acknowledgement.", gauge, func(s *Store) float64 { return float64(s.Queued) }},
		{"isthmus_store_full", "Whether the store is at a limit (1) and refuses what would take more space.", gauge, func(s *Store) float64 { return truth(s.Full) }},
		{"isthmus_store_failed", "Whether the store has failed (1) and nothing is kept any more.", gauge, func(s *Store) float64 { return truth(s.Failed) }},
		{"isthmus_store_pending_bytes", "What waits for its commit.", gauge, func(s *Store) float64 { return float64(s.Pending) }},
		{"isthmus_store_records_total", "Records written in commits.", counter, func(s *Store) float64 { return float64(s.Records) }},
		{"isthmus_store_written_bytes_total", "Bytes written in commits.", counter, func(s *Store) float64 { return float64(s.Written) }},
	}
}

// truth is 1 for yes and 0 for no.
func truth(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// collector reads all numbers at once when Prometheus asks.
type collector struct {
	read                    func() Reading
	metrics                 []metric
	endpointMetrics         []endpointMetric
	storeMetrics            []storeMetric
	descs                   map[string]*prometheus.Desc
	received, sent, dropped *prometheus.Desc
	commits                 *prometheus.Desc
}

func newCollector(read func() Reading) *collector {
	c := &collector{
		read: read, metrics: metrics(), endpointMetrics: endpointMetrics(), storeMetrics: storeMetrics(), descs: map[string]*prometheus.Desc{},
		received: prometheus.NewDesc("isthmus_messages_received_total", "Messages received from clients.", []string{"endpoint", "qos"}, nil),
		sent:     prometheus.NewDesc("isthmus_messages_sent_total", "Messages sent to clients.", []string{"endpoint", "qos"}, nil),
		dropped:  prometheus.NewDesc("isthmus_messages_dropped_total", "Messages that did not reach a subscriber.", []string{"endpoint", "reason"}, nil),
		commits:  prometheus.NewDesc("isthmus_store_commit_seconds", "Time from the begin of a commit until it is on disk.", nil, nil),
	}
	for _, m := range c.metrics {
		c.descs[m.name] = prometheus.NewDesc(m.name, m.help, nil, nil)
	}
	for _, m := range c.endpointMetrics {
		c.descs[m.name] = prometheus.NewDesc(m.name, m.help, []string{"endpoint"}, nil)
	}
	for _, m := range c.storeMetrics {
		c.descs[m.name] = prometheus.NewDesc(m.name, m.help, nil, nil)
	}
	return c
}

// Describe lists what Collect gives.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
	ch <- c.received
	ch <- c.sent
	ch <- c.dropped
	ch <- c.commits
}

// Collect reads the counters.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	r := c.read()
	for _, m := range c.metrics {
		ch <- prometheus.MustNewConstMetric(c.descs[m.name], m.kind, m.value(&r))
	}
	for i := range r.Stats.Endpoints {
		e := &r.Stats.Endpoints[i]
		for _, m := range c.endpointMetrics {
			ch <- prometheus.MustNewConstMetric(c.descs[m.name], m.kind, m.value(e), e.Name)
		}
		for qos := range e.MessagesIn {
			ch <- prometheus.MustNewConstMetric(c.received, counter, float64(e.MessagesIn[qos]), e.Name, strconv.Itoa(qos))
			ch <- prometheus.MustNewConstMetric(c.sent, counter, float64(e.MessagesOut[qos]), e.Name, strconv.Itoa(qos))
		}
		for reason, n := range e.Dropped {
			ch <- prometheus.MustNewConstMetric(c.dropped, counter, float64(n), e.Name, fmt.Sprint(reason))
		}
	}
	if r.Store != nil {
		c.collectStore(ch, r.Store)
	}
}

func (c *collector) collectStore(ch chan<- prometheus.Metric, s *Store) {
	for _, m := range c.storeMetrics {
		ch <- prometheus.MustNewConstMetric(c.descs[m.name], m.kind, m.value(s))
	}
	buckets := map[float64]uint64{}
	for _, b := range s.Syncs {
		buckets[b.Within.Seconds()] = b.Count
	}
	ch <- prometheus.MustNewConstHistogram(c.commits, s.Commits, s.Syncing.Seconds(), buckets)
}

// newRegistry has the gateway's own metrics and those of the Go runtime and the process.
func newRegistry(version string, read func() Reading) *prometheus.Registry {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		newCollector(read),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "isthmus_build_info", Help: "Which build this is; always 1.",
			ConstLabels: prometheus.Labels{"version": version, "goversion": runtime.Version()},
		}, func() float64 { return 1 }),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return registry
}

// metricsHandler serves the registry in Prometheus' format.
func metricsHandler(registry *prometheus.Registry) http.Handler {
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}
