package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/isthmus-iot/isthmus/internal/app"
)

// Env is what a command may touch of the outside world, so that tests can give it their own.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// Notef tells the user something that is not the result of the command: to standard error, as "isthmus: ...", lower case at
// the start and without a full stop.
func (e *Env) Notef(format string, args ...any) { e.note("", fmt.Sprintf(format, args...)) }

// Hintf says what to do next, as "isthmus: hint: ...".
func (e *Env) Hintf(format string, args ...any) { e.note("hint: ", fmt.Sprintf(format, args...)) }

// Printf writes a part of the result to standard output.
func (e *Env) Printf(format string, args ...any) { fmt.Fprintf(e.Stdout, format, args...) }

func (e *Env) note(kind, text string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(e.Stderr, "isthmus: %s%s\n", kind, strings.TrimSuffix(line, "\n"))
	}
}

// report prints an error as people should see it: what is wrong, then what to do next.
func (e *Env) report(err error) {
	var problems app.Problems
	if errors.As(err, &problems) {
		e.reportProblems(problems)
		return
	}
	if text := err.Error(); text != "" {
		e.note("", text)
	}
	var hinted *hintError
	if errors.As(err, &hinted) {
		for _, h := range hinted.hints {
			e.note("hint: ", h)
		}
	}
}

// reportProblems prints each problem with the lines around it.
func (e *Env) reportProblems(problems app.Problems) {
	for _, p := range problems {
		e.note("", p.Error())
		io.WriteString(e.Stderr, p.Excerpt())
		if p.Hint != "" {
			e.note("hint: ", p.Hint)
		}
	}
	if len(problems) > 1 {
		e.Notef("%d problems", len(problems))
	}
}

// Terminal reports whether w is a terminal that may get colours: not with NO_COLOR, not with TERM=dumb.
func Terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
