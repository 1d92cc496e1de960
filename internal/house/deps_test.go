package house

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestModulesInTheBinary compares the modules that the binary is made of with deps.txt, so that a new one is seen when a
// change is read.
func TestModulesInTheBinary(t *testing.T) {
	var list []string
	for _, p := range goList(t, "-deps", ".") {
		if m := p.Module; m != nil && !m.Main {
			list = append(list, m.Path+" "+m.Version)
		}
	}
	slices.Sort(list)
	got := strings.Join(slices.Compact(list), "\n") + "\n"
	if *update {
		if err := os.WriteFile("deps.txt", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("deps.txt")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("run go test ./internal/house -update after looking at the difference (-want +got):\n%s", diff)
	}
}

// TestArchitectureNamesEveryDependency compares ARCHITECTURE.md with go.mod.
func TestArchitectureNamesEveryDependency(t *testing.T) {
	text := read(t, "ARCHITECTURE.md")
	for line := range strings.Lines(read(t, "go.mod")) {
		path, version, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || !strings.HasPrefix(version, "v") || strings.HasSuffix(version, "// indirect") {
			continue
		}
		if !strings.Contains(text, "| `"+path+"` "+version+" |") {
			t.Errorf("ARCHITECTURE.md says nothing of %s %s", path, version)
		}
	}
}
