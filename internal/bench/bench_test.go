package bench

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

func TestEveryModeRunsAgainstMosquitto(t *testing.T) {
	addr := raw.Mosquitto(t, "max_queued_messages 0")
	for _, mode := range Modes() {
		for qos := range byte(3) {
			for _, v := range []wire.Version{wire.V311, wire.V5} {
				t.Run(fmt.Sprintf("%s QoS %d MQTT %s", mode, qos, v), func(t *testing.T) {
					cfg := Config{
						Mode: mode, Clients: 5, QoS: qos, Version: v, Messages: 200, Duration: 20 * time.Millisecond, Warmup: 10 * time.Millisecond,
						Window: 20, Batch: 1 + int(qos)*4, Bystanders: 1010,
					}
					r, err := Run(t.Context(), "mqtt://"+addr, os.Getpid(), cfg)
					if err != nil {
						t.Fatal(err)
					}
					if !r.Clean() {
						t.Errorf("%d lost, %d duplicates, %d reordered, %d refused", r.Lost, r.Duplicates, r.Reordered, r.Refused)
					}
					if mode != Idle && (r.Delivered == 0 || r.Latency.Max <= 0) {
						t.Errorf("%d delivered, latency %v", r.Delivered, r.Latency)
					}
					var text strings.Builder
					r.WriteText(&text)
					if !strings.Contains(text.String(), string(mode)+", 5 clients") {
						t.Errorf("text is %s", text.String())
					}
				})
			}
		}
	}
}

func TestLargeMessagesHaveAWriterOfTheirOwn(t *testing.T) {
	b := &fakeBroker{}
	r, err := Run(t.Context(), b.start(t), 0, Config{Clients: 2, Size: 100_000, Messages: 50, Warmup: -1})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Clean() || r.Delivered < 50 {
		t.Errorf("%+v", r)
	}
}

func TestFaultsOfABrokerAreCounted(t *testing.T) {
	var held wire.Packet
	for name, tc := range map[string]struct {
		fault                       func(n int, m wire.Packet) []wire.Packet
		lost, duplicates, reordered int64
	}{
		"none": {fault: nil},
		"a message lost": {fault: func(n int, m wire.Packet) []wire.Packet {
			if n == 5 {
				return nil
			}
			return []wire.Packet{m}
		}, lost: 1},
		"a message twice": {fault: func(n int, m wire.Packet) []wire.Packet {
			if n == 5 {
				return []wire.Packet{m, m}
			}
			return []wire.Packet{m}
		}, duplicates: 1},
		"two messages swapped": {fault: func(n int, m wire.Packet) []wire.Packet {
			switch n {
			case 5:
				held = m
				return nil
			case 6:
				return []wire.Packet{m, held}
			}
			return []wire.Packet{m}
		}, reordered: 1},
	} {
		for _, mode := range []Mode{Pair, FanOut, FanIn} {
			t.Run(name+" "+string(mode), func(t *testing.T) {
				b := &fakeBroker{fault: tc.fault}
				r, err := Run(t.Context(), b.start(t), 0, Config{Mode: mode, Clients: 1, Messages: 200, Warmup: -1, Stall: time.Second})
				if err != nil {
					t.Fatal(err)
				}
				if r.Lost != tc.lost || r.Duplicates != tc.duplicates || r.Reordered != tc.reordered {
					t.Errorf("%d lost, %d duplicates, %d reordered", r.Lost, r.Duplicates, r.Reordered)
				}
			})
		}
	}
}

func TestABrokerThatStopsIsReported(t *testing.T) {
	b := &fakeBroker{fault: func(int, wire.Packet) []wire.Packet { return nil }}
	_, err := Run(t.Context(), b.start(t), 0, Config{Clients: 2, Stall: 50 * time.Millisecond})
	if err == nil || !strings.Contains(err.Error(), "stalled") {
		t.Errorf("error is %v", err)
	}
}

func TestTargetsTakeTurns(t *testing.T) {
	b := &fakeBroker{}
	url := b.start(t)
	targets := []Target{{Name: "one", URL: url}, {Name: "two", URL: url}}
	var order []string
	all, err := Compare(t.Context(), targets, 2, Config{Clients: 1, Messages: 10, Warmup: -1}, func(r *Result) { order = append(order, r.Name) })
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(order, []string{"one", "two", "one", "two"}) {
		t.Errorf("order is %v", order)
	}
	var row strings.Builder
	WriteRow(&row, "pair", all, 0)
	if strings.Count(row.String(), "|") != 4 {
		t.Errorf("row is %s", row.String())
	}
}

func TestRowsShowTheMedianTheRangeAndTheRatio(t *testing.T) {
	results := func(figures ...float64) (rs []*Result) {
		for _, f := range figures {
			rs = append(rs, &Result{Mode: Pair, RSSAfter: 1, CPUPerMessage: f})
		}
		return rs
	}
	var row strings.Builder
	all := [][]*Result{results(2, 1, 3), results(5, 4, 123)}
	all[1][0].Lost = 7
	WriteRow(&row, "x", all, 0)
	if got, want := row.String(), "| x | 2.00 (1.00-3.00) | 5.00 (4.00-123) 2.50x !7 |\n"; got != want {
		t.Errorf("got %s want %s", got, want)
	}
}

func TestTargetsAreUnderstood(t *testing.T) {
	for in, want := range map[string]Target{
		"mqtt://h":                {URL: "mqtt://h"},
		"a=mqtt://h:1@@77":        {Name: "a", URL: "mqtt://h:1", PID: 77},
		"mqtt://u:p=w@h@@1":       {URL: "mqtt://u:p=w@h", PID: 1},
		"h:1":                     {URL: "h:1"},
		"my-broker=127.0.0.1:183": {Name: "my-broker", URL: "127.0.0.1:183"},
	} {
		if got, err := ParseTarget(in); err != nil || got != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	if _, err := ParseTarget("mqtt://h@@x"); err == nil {
		t.Error("a process id of x is accepted")
	}
}

func TestHistogramsKnowAValueToTwoPercent(t *testing.T) {
	var h, other Histogram
	rng := rand.New(rand.NewPCG(1, 2))
	var all []time.Duration
	for i := range 100_000 {
		d := time.Duration(rng.ExpFloat64() * 1e6)
		all = append(all, d)
		if i%2 == 0 {
			h.Record(d)
		} else {
			other.Record(d)
		}
	}
	h.Add(&other)
	slices.Sort(all)
	if h.Count() != int64(len(all)) || h.Max() != all[len(all)-1] || h.Quantile(1) != h.Max() {
		t.Errorf("count %d, max %v", h.Count(), h.Max())
	}
	for _, q := range []float64{.001, .5, .9, .99, .999} {
		want := all[int(q*float64(len(all)))-1]
		if got := h.Quantile(q); got < want || float64(got) > 1.016*float64(want)+1 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
}

func TestBucketsCoverEveryDuration(t *testing.T) {
	last := -1
	for ns := uint64(0); ns < 1<<62; ns += 1 + ns/100 {
		i := bucket(ns)
		if i < last || upper(i) < ns || i > 0 && upper(i-1) >= ns {
			t.Fatalf("%d ns: bucket %d up to %d", ns, i, upper(i))
		}
		last = i
	}
	var h Histogram
	if h.Record(-1); h.Quantile(.5) != 0 {
		t.Errorf("a negative duration counts as %v", h.Quantile(.5))
	}
}

func TestTheProcessIsRead(t *testing.T) {
	stat := "12 (a ) b) S 1 2 3 4 5 6 7 8 9 10 150 25 0 0"
	if cpu, err := parseStat([]byte(stat)); err != nil || cpu != 1750*time.Millisecond {
		t.Errorf("cpu is %v, %v", cpu, err)
	}
	if rss, err := parseStatus([]byte("Name: x\nVmRSS:\t  12 kB\n")); err != nil || rss != 12<<10 {
		t.Errorf("rss is %d, %v", rss, err)
	}
	if _, err := parseStat([]byte("12 (x) S")); err == nil {
		t.Error("a short stat is accepted")
	}
}

func TestConfigsThatMakeNoSenseAreRefused(t *testing.T) {
	for name, c := range map[string]Config{
		"a mode of its own":     {Mode: "x"},
		"QoS 3":                 {QoS: 3},
		"a payload too small":   {Size: 15},
		"a window below batch":  {Window: 3, Batch: 4},
		"a huge window":         {Window: 40000},
		"MQTT 3.1":              {Version: wire.V31},
		"negative bystanders":   {Bystanders: -1},
		"no clients":            {Clients: -1},
		"a rate below zero":     {Rate: -1},
		"a negative batch":      {Batch: -1},
		"a negative duration":   {Duration: -1},
		"a negative stall time": {Stall: -1},
	} {
		if err := c.Validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func FuzzSplit(f *testing.F) {
	f.Add(byte(5), wire.Publish{Topic: "a", Payload: []byte("x"), QoS: 1, ID: 3, Props: wire.Props{wire.TopicAlias.Int(1)}}.Append(nil, wire.V5))
	f.Add(byte(4), wire.Publish{Topic: "a", Payload: []byte("x")}.Append(nil, wire.V311))
	f.Fuzz(func(t *testing.T, level byte, b []byte) {
		v := wire.Version(4 + level%2)
		header, body, size, err := wire.Next(b)
		if err != nil || size == 0 || wire.Type(header>>4) != wire.PUBLISH {
			return
		}
		id, payload, err := split(v, header, body)
		if p, decodeErr := wire.Decode(v, header, body); decodeErr == nil && (err != nil || id != p.ID || string(payload) != p.Text()) {
			t.Fatalf("id %d, %q, %v; want %s", id, payload, err, p)
		}
	})
}
