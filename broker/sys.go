package broker

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
)

// publishSys publishes the $SYS topics that monitoring tools know from Mosquitto, retained, until ctx ends. The figures are
// readings of counters: no lock is taken that traffic needs.
func (s *Server) publishSys(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.SysInterval)
	defer tick.Stop()
	var loads loads
	last := make(map[string]string)
	for {
		s.contain("publishing $SYS", func() { s.publishChanged(last, &loads) })
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// publishChanged publishes the topics whose value is not what it was, as Mosquitto does.
func (s *Server) publishChanged(last map[string]string, loads *loads) {
	b := s.hub.Begin()
	defer b.End()
	for _, t := range s.sysTopics(loads, time.Now()) {
		if last[t.name] == t.value {
			continue
		}
		last[t.name] = t.value
		s.hub.PublishSystem(b, &bridge.Message{
			Topic: bridge.Topic("$SYS/broker/" + t.name), Payload: []byte(t.value), Retain: true, Time: b.Now,
		})
	}
}

type sysTopic struct{ name, value string }

func (s *Server) sysTopics(loads *loads, now time.Time) []sysTopic {
	c := s.counters
	hub := s.hub.Stats()
	sum := func(byQoS [3]uint64) uint64 { return byQoS[0] + byQoS[1] + byQoS[2] }
	var in, out [3]uint64
	for q := range in {
		in[q], out[q] = c.MessagesIn[q].Load(), c.MessagesOut[q].Load()
	}
	dropped := uint64(0)
	for i := range c.Dropped {
		dropped += c.Dropped[i].Load()
	}
	connected, sessions := c.Connections.Load(), c.Sessions.Load()
	topics := []sysTopic{
		{"version", "Isthmus " + s.cfg.Version},
		{"uptime", fmt.Sprintf("%d seconds", int(now.Sub(s.started).Seconds()))},
		{"clients/connected", strconv.FormatInt(connected, 10)},
		{"clients/active", strconv.FormatInt(connected, 10)},
		{"clients/disconnected", strconv.FormatInt(max(0, sessions-connected), 10)},
		{"clients/inactive", strconv.FormatInt(max(0, sessions-connected), 10)},
		{"clients/total", strconv.FormatInt(sessions, 10)},
		{"messages/received", strconv.FormatUint(sum(in), 10)},
		{"messages/sent", strconv.FormatUint(sum(out), 10)},
		{"messages/stored", strconv.FormatInt(int64(hub.Retained)+c.Queued.Load(), 10)},
		{"publish/messages/received", strconv.FormatUint(sum(in), 10)},
		{"publish/messages/sent", strconv.FormatUint(sum(out), 10)},
		{"publish/messages/dropped", strconv.FormatUint(dropped, 10)},
		{"bytes/received", strconv.FormatUint(c.BytesIn.Load(), 10)},
		{"bytes/sent", strconv.FormatUint(c.BytesOut.Load(), 10)},
		{"subscriptions/count", strconv.Itoa(hub.Subscriptions)},
		{"retained messages/count", strconv.Itoa(hub.Retained)},
		{"store/messages/count", strconv.FormatInt(int64(hub.Retained)+c.Queued.Load(), 10)},
		{"store/messages/bytes", strconv.FormatInt(hub.RetainedBytes+c.QueuedBytes.Load(), 10)},
	}
	return append(topics, loads.topics(now, map[string]uint64{
		"messages/received": sum(in), "messages/sent": sum(out), "publish/received": sum(in), "publish/sent": sum(out),
		"publish/dropped": dropped, "bytes/received": c.BytesIn.Load(), "bytes/sent": c.BytesOut.Load(), "connections": c.Accepted.Load(),
	})...)
}

// loads are moving averages per minute over 1, 5 and 15 minutes.
type loads struct {
	at     time.Time
	totals map[string]uint64
	rates  map[string][3]float64
}

func (l *loads) topics(now time.Time, totals map[string]uint64) (topics []sysTopic) {
	if l.rates == nil {
		l.rates = make(map[string][3]float64)
	}
	minutes := now.Sub(l.at).Minutes()
	for name, total := range totals {
		rates := l.rates[name]
		if l.totals != nil && minutes > 0 {
			perMinute := float64(total-l.totals[name]) / minutes
			for i, window := range [3]float64{1, 5, 15} {
				k := math.Exp(-minutes / window)
				rates[i] = rates[i]*k + perMinute*(1-k)
			}
			l.rates[name] = rates
		}
		for i, window := range [3]string{"1min", "5min", "15min"} {
			topics = append(topics, sysTopic{"load/" + name + "/" + window, strconv.FormatFloat(rates[i], 'f', 2, 64)})
		}
	}
	l.at, l.totals = now, totals
	return topics
}
