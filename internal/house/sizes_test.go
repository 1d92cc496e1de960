package house

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestSizes reports how long the files are: information for who reads a change (go test -v ./internal/house -run Sizes), not
// a limit.
func TestSizes(t *testing.T) {
	type size struct {
		lines int
		file  string
	}
	var sizes []size
	for _, p := range goList(t, "./...") {
		for _, f := range p.GoFiles {
			text, err := os.ReadFile(filepath.Join(p.Dir, f))
			if err != nil {
				t.Fatal(err)
			}
			sizes = append(sizes, size{strings.Count(string(text), "\n"), filepath.Join(ours(p.ImportPath), f)})
		}
	}
	slices.SortFunc(sizes, func(a, b size) int { return a.lines - b.lines })
	at := func(part float64) int { return sizes[int(part*float64(len(sizes)-1))].lines }
	t.Logf("%d files, median %d lines, p90 %d", len(sizes), at(0.5), at(0.9))
	for _, s := range slices.Backward(sizes[max(0, len(sizes)-5):]) {
		t.Logf("%5d %s", s.lines, s.file)
	}
}
