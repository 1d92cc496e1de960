package app

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

// TestProblems reads testdata/problems.txtar: configurations and, after each, what is to be said of it.
func TestProblems(t *testing.T) {
	const name = "testdata/problems.txtar"
	archive, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(archive.Files); i += 2 {
		config, want := archive.Files[i], &archive.Files[i+1]
		t.Run(strings.TrimSuffix(config.Name, ".yaml"), func(t *testing.T) {
			_, err := Parse(config.Name, config.Data)
			got := explain(err)
			if *update {
				want.Data = []byte(got)
			}
			if diff := cmp.Diff(string(want.Data), got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
	if *update {
		if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// explain writes problems as the command line does.
func explain(err error) string {
	var problems Problems
	if !errors.As(err, &problems) {
		return "no problem\n"
	}
	var b strings.Builder
	for _, p := range problems {
		b.WriteString(p.Error() + "\n" + p.Excerpt())
		if p.Hint != "" {
			b.WriteString("hint: " + p.Hint + "\n")
		}
	}
	return b.String()
}
