package ops

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
)

// Status describes a running gateway.
type Status struct {
	ID        string     `json:"id"`
	Version   string     `json:"version"`
	Process   int        `json:"process"` // its id
	Started   time.Time  `json:"started"`
	Config    string     `json:"config,omitempty"` // the configuration file
	Listeners []Listener `json:"listeners"`
	Ready     bool       `json:"ready"`
	Parts     []Check    `json:"parts"`
	Hub       HubStatus  `json:"hub"`
	Endpoints []Endpoint `json:"endpoints"`
	Store     *Store     `json:"store,omitempty"` // nil: it is not open
}

// Listener is one address that clients can connect to.
type Listener struct {
	Address string `json:"address"` // as a URL
	Who     string `json:"who"`     // may connect
}

// HubStatus is the totals of the hub.
type HubStatus struct {
	Clients       int   `json:"clients"`
	Subscriptions int   `json:"subscriptions"`
	Retained      int   `json:"retained_values"`
	RetainedBytes int64 `json:"retained_bytes"`
}

// Endpoint is the counters of one endpoint.
type Endpoint struct {
	Name        string            `json:"name"`
	Connections int64             `json:"connections"`
	Sessions    int64             `json:"sessions"`
	Queued      int64             `json:"queued_messages"`
	QueuedBytes int64             `json:"queued_bytes"`
	Inflight    int64             `json:"inflight_messages"`
	Accepted    uint64            `json:"connections_accepted"`
	Refused     uint64            `json:"connections_refused"`
	Received    [3]uint64         `json:"messages_received"` // by QoS
	Sent        [3]uint64         `json:"messages_sent"`     // by QoS
	BytesIn     uint64            `json:"bytes_received"`
	BytesOut    uint64            `json:"bytes_sent"`
	Dropped     map[string]uint64 `json:"dropped,omitempty"` // by reason; those that happened
}

func (s *Status) count(r Reading) {
	stats := r.Stats
	s.Store = r.Store
	s.Hub = HubStatus{stats.Clients, stats.Subscriptions, stats.Retained, stats.RetainedBytes}
	s.Endpoints = []Endpoint{}
	for _, e := range stats.Endpoints {
		dropped := map[string]uint64{}
		for reason, n := range e.Dropped {
			if n > 0 {
				dropped[reason.String()] = n
			}
		}
		s.Endpoints = append(s.Endpoints, Endpoint{
			e.Name, e.Connections, e.Sessions, e.Queued, e.QueuedBytes, e.Inflight, e.Accepted, e.Refused,
			e.MessagesIn, e.MessagesOut, e.BytesIn, e.BytesOut, dropped,
		})
	}
}

// Failure is the answer to a request that could not be fulfilled.
type Failure struct {
	Error string `json:"error"`
}

// adminHandler is the admin API.
func adminHandler(cfg Config) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/status", func(w http.ResponseWriter, _ *http.Request) {
		status := cfg.Gateway.Status()
		status.Version = cfg.Version
		status.Parts, status.Ready = check(cfg.Gateway.Parts())
		status.count(cfg.Gateway.Reading())
		answer(w, http.StatusOK, status)
	})
	mux.HandleFunc("GET /api/v1/explain", func(w http.ResponseWriter, r *http.Request) {
		m, err := messageOf(r)
		if err != nil {
			answer(w, http.StatusBadRequest, Failure{err.Error()})
			return
		}
		q := r.URL.Query()
		answer(w, http.StatusOK, cfg.Gateway.Explain(m, q.Get("client"), q.Get("user")))
	})
	mux.HandleFunc("POST /api/v1/reload", func(w http.ResponseWriter, r *http.Request) {
		if err := cfg.Gateway.Reload(r.Context()); err != nil {
			answer(w, http.StatusUnprocessableEntity, Failure{err.Error()})
			return
		}
		answer(w, http.StatusOK, struct{}{})
	})
	return mux
}

// messageOf makes the message that a request asks about.
func messageOf(r *http.Request) (*bridge.Message, error) {
	q := r.URL.Query()
	topic, err := bridge.ParseTopic(q.Get("topic"))
	if err != nil {
		return nil, fmt.Errorf("topic %q: %w", q.Get("topic"), err)
	}
	m := &bridge.Message{Topic: topic, Payload: []byte("example"), Time: time.Now().UnixNano()}
	if text := q.Get("qos"); text != "" {
		qos, err := strconv.ParseUint(text, 10, 8)
		if err != nil || qos > 2 {
			return nil, fmt.Errorf("qos is %q, want 0, 1 or 2", text)
		}
		m.QoS = bridge.QoS(qos)
	}
	if text := q.Get("retain"); text != "" {
		if m.Retain, err = strconv.ParseBool(text); err != nil {
			return nil, fmt.Errorf("retain is %q, want true or false", text)
		}
	}
	return m, nil
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(body)
}
