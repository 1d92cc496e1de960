// Package house has the tests that keep the house: which package may import which, which modules are in the binary, and that
// the documents say what is so.
package house

import (
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write deps.txt")

const module = "github.com/isthmus-iot/isthmus"

// root is the directory of the module.
const root = "../.."

// goPackage is what go list says of a package.
type goPackage struct {
	ImportPath string
	Dir        string
	Doc        string
	Standard   bool
	Imports    []string
	GoFiles    []string
	Module     *struct {
		Path, Version string
		Main          bool
	}
}

// goList lists packages, always those of the same system, so that what is committed does not depend on where it was made.
func goList(t *testing.T, args ...string) (packages []goPackage) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Doc,Standard,Imports,GoFiles,Module"}, args...)...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for d := json.NewDecoder(out); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("go list: %v", err)
	}
	return packages
}

// read reads a file of the module.
func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
