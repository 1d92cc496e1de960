package house

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-iot/isthmus/internal/app"
	"github.com/isthmus-iot/isthmus/internal/cli"
)

// block is a piece of code in a document.
type block struct {
	file, language, text string
}

// blocks finds the code in all documents of the module.
func blocks(t *testing.T) (all []block) {
	t.Helper()
	fence := regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")
	for _, file := range documents(t) {
		for _, m := range fence.FindAllStringSubmatch(read(t, file), -1) {
			all = append(all, block{file, m[1], m[2]})
		}
	}
	return all
}

// documents lists the Markdown files of the module.
func documents(t *testing.T) (files []string) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || path != "." && strings.HasPrefix(d.Name(), ".")):
			return fs.SkipDir
		case filepath.Ext(path) == ".md":
			files = append(files, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestConfigurationInDocumentsLoads loads every yaml block where init has written the files that it may name.
func TestConfigurationInDocumentsLoads(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "plant")
	if code := cli.Main([]string{"init", dir}, nil, io.Discard, os.Stderr); code != 0 {
		t.Fatalf("init: exit code %d", code)
	}
	n := 0
	for _, b := range blocks(t) {
		if b.language != "yaml" {
			continue
		}
		n++
		if _, err := app.Parse(filepath.Join(dir, "isthmus.yaml"), []byte(b.text)); err != nil {
			t.Errorf("%s: %v\n%s", b.file, err, b.text)
		}
	}
	if n == 0 {
		t.Error("no document shows a configuration")
	}
}

// TestCommandsInDocumentsExist asks for the help of every command of ours in a sh block, with its flags.
func TestCommandsInDocumentsExist(t *testing.T) {
	n := 0
	for _, b := range blocks(t) {
		if b.language != "sh" {
			continue
		}
		for line := range strings.Lines(b.text) {
			line = strings.TrimPrefix(strings.TrimSpace(line), "$ ")
			args, ok := strings.CutPrefix(line, "isthmus")
			if !ok {
				args, ok = strings.CutPrefix(line, "go run .")
			}
			if !ok || args != "" && args[0] != ' ' {
				continue
			}
			n++
			var said strings.Builder
			if code := cli.Main(append(words(args), "--help"), nil, io.Discard, &said); code != 0 {
				t.Errorf("%s: %s\n%s", b.file, line, said.String())
			}
		}
	}
	if n == 0 {
		t.Error("no document shows a command")
	}
}

func TestWords(t *testing.T) {
	got := words(` pub -t 'a b' -m "c" x # comment`)
	if want := []string{"pub", "-t", "a b", "-m", "c", "x"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := words("sub u | jq"); !slices.Equal(got, []string{"sub", "u"}) {
		t.Errorf("%q", got)
	}
}

// words splits a command as a shell does, up to what the shell keeps for itself.
func words(line string) (list []string) {
	for _, w := range regexp.MustCompile(`'[^']*'|"[^"]*"|\S+`).FindAllString(line, -1) {
		if strings.ContainsAny(w[:1], "|&<>;#") {
			break
		}
		list = append(list, strings.Trim(w, `'"`))
	}
	return list
}

func TestReadmeHasTheTwoCommands(t *testing.T) {
	readme := read(t, "README.md")
	for _, command := range []string{"go run . serve", "go test ./..."} {
		if !regexp.MustCompile(`(?m)^(\$ )?` + regexp.QuoteMeta(command) + `$`).MatchString(readme) {
			t.Errorf("README.md does not have the line %s", command)
		}
	}
}

// TestPackagesThatOthersImportHaveAReadme looks for the sections of a README in their order.
func TestPackagesThatOthersImportHaveAReadme(t *testing.T) {
	sections := []string{"Name", "Description", "Configuration", "Metrics", "Examples"}
	for _, p := range goList(t, "./...") {
		name := ours(p.ImportPath)
		if name == "" || strings.Contains(name, "/") && name != "internal/ops" {
			continue
		}
		var found []string
		for _, m := range regexp.MustCompile(`(?m)^## (.*)$`).FindAllStringSubmatch(read(t, name+"/README.md"), -1) {
			if slices.Contains(sections, m[1]) {
				found = append(found, m[1])
			}
		}
		if !slices.Equal(found, sections) {
			t.Errorf("%s/README.md has the sections %v, want %v", name, found, sections)
		}
	}
}

// TestLinksInDocumentsLeadSomewhere follows the links to files.
func TestLinksInDocumentsLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)
	for _, file := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, file), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, filepath.Dir(file), m[1])); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
	}
}
