package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/isthmus-iot/isthmus/internal/bench"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

func TestBenchPrintsTextJSONOrARow(t *testing.T) {
	addr := raw.Mosquitto(t, "max_queued_messages 0")
	args := []string{"bench", "one=mqtt://" + addr, "two=mqtt://" + addr, "--clients", "2", "--messages", "50", "--warmup", "10ms"}

	c := begin("", args...)
	c.end(t, 0)
	if got := c.out.String(); strings.Count(got, "0 lost, 0 duplicates") != 2 || !strings.Contains(got, "p99.9") {
		t.Errorf("text is %q", got)
	}
	c = begin("", append(args, "--json")...)
	c.end(t, 0)
	for line := range strings.Lines(c.out.String()) {
		var r bench.Result
		if err := json.Unmarshal([]byte(line), &r); err != nil || r.Delivered < 50 {
			t.Errorf("%v: %s", err, line)
		}
	}
	c = begin("", append(args, "--rounds", "2", "--row", "pairs", "--base", "two")...)
	c.end(t, 0)
	if got := c.out.String(); !strings.HasPrefix(got, "| pairs | ") || strings.Count(got, "|") != 4 {
		t.Errorf("row is %q", got)
	}
}

func TestBenchRefusesWhatMakesNoSense(t *testing.T) {
	for name, args := range map[string][]string{
		"no URL":              {},
		"a scheme of its own": {"http://h"},
		"a mode of its own":   {"mqtt://h", "--mode", "x"},
		"MQTT 3.1":            {"mqtt://h", "--version", "3.1"},
		"no process id":       {"mqtt://h@@x"},
	} {
		t.Run(name, func(t *testing.T) { begin("", append([]string{"bench"}, args...)...).end(t, 2) })
	}
}
