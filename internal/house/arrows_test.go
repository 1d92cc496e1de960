package house

import (
	"slices"
	"strings"
	"testing"
)

// arrows says which packages of ours a package may import. A key stands for the package and all below it that have no key of
// their own; so does a value that ends in "/...".
var arrows = map[string][]string{
	"":                    {"internal/cli"}, // main
	"internal/cli":        {"bridge", "internal/..."},
	"internal/app":        {"bridge/...", "broker", "coap", "wsgate/...", "mappings", "internal/..."},
	"bridge":              {},
	"bridge/remote":       {"bridge"},
	"bridge/cluster":      {"bridge"},
	"bridge/bridgetest":   {"bridge"},
	"broker":              {"bridge"},
	"broker/mochi":        {"bridge"},
	"coap":                {"bridge"},
	"wsgate":              {"bridge", "wsgate/..."},
	"mappings":            {"bridge"},
	"conformance":         {"conformance/..."},
	"internal/access":     {"bridge"},
	"internal/certs":      {"bridge"},
	"internal/store":      {"bridge"},
	"internal/ops":        {"bridge"},
	"internal/mqttclient": {"bridge", "internal/mqttclient/..."},
	"internal/bench":      {"bridge", "internal/mqttclient/..."},
	"internal/crash":      {},
	"internal/house":      {},
	"internal/interop":    {},
}

// outside says which packages may import what is not ours and not of the standard library, tests excepted. The longest
// matching key decides; what has none may not be imported at all.
var outside = map[string][]string{
	"github.com/mochi-mqtt/server/v2/packets": {"broker", "broker/mochi", "internal/mqttclient"},
	"github.com/mochi-mqtt/server/v2":         {"broker/mochi"},
	"github.com/cockroachdb/pebble/v2":        {"internal/store"},
	"github.com/prometheus/client_golang":     {"internal/ops"},
	"github.com/goccy/go-yaml":                {"internal/app"},
	"github.com/spf13/cobra":                  {"internal/cli"},
	"github.com/spf13/pflag":                  {"internal/cli"},
	"golang.org/x/crypto":                     {"internal/access"},
	"golang.org/x/sys":                        {"internal/app"},
	"golang.org/x/term":                       {"internal/cli"},
}

func TestArrows(t *testing.T) {
	for _, p := range goList(t, "./...") {
		from := ours(p.ImportPath)
		key := longest(from, keys(arrows))
		if key == "" && from != "" {
			t.Errorf("%s: not in the table of arrows", from)
			continue
		}
		for _, path := range p.Imports {
			switch {
			case path == module || strings.HasPrefix(path, module+"/"):
				if to := ours(path); to != key && !allowed(to, arrows[key]) {
					t.Errorf("%s imports %s: the arrows allow it %v", from, to, arrows[key])
				}
			case strings.Contains(strings.SplitN(path, "/", 2)[0], "."):
				if rule := longest(path, keys(outside)); rule == "" || !slices.Contains(outside[rule], key) {
					t.Errorf("%s imports %s: only %v may", from, path, outside[rule])
				}
			}
		}
	}
}

func TestOnlyOneFileKnowsTheYAMLLibrary(t *testing.T) {
	for _, p := range goList(t, "./internal/app") {
		for _, f := range p.GoFiles {
			if strings.Contains(read(t, "internal/app/"+f), `"github.com/goccy/`) && f != "yaml.go" {
				t.Errorf("internal/app/%s imports goccy/go-yaml: only yaml.go may", f)
			}
		}
	}
}

func TestEveryPackageHasAComment(t *testing.T) {
	for _, p := range goList(t, "./...") {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
}

// ours is a package's path within the module; empty: main.
func ours(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
}

// longest finds the longest of keys that path is or lies below.
func longest(path string, keys []string) (best string) {
	for _, k := range keys {
		if (path == k || strings.HasPrefix(path, k+"/")) && len(k) > len(best) {
			best = k
		}
	}
	return best
}

func allowed(path string, list []string) bool {
	return slices.ContainsFunc(list, func(a string) bool {
		below, all := strings.CutSuffix(a, "/...")
		return path == below || all && strings.HasPrefix(path, below+"/")
	})
}

func keys(m map[string][]string) (list []string) {
	for k := range m {
		list = append(list, k)
	}
	return list
}
