package app

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/isthmus-iot/isthmus/internal/access"
)

// Problem is one thing that is wrong with a configuration, at its place.
type Problem struct {
	File string // empty: no file was read
	Text string // what is wrong
	Hint string // what to do; may be empty

	place  place
	source string // the file's text
}

// Error is the place and the text on one line: "isthmus.yaml:4:3: unknown key ...".
func (p *Problem) Error() string {
	if p.File == "" {
		return p.Text
	}
	return fmt.Sprintf("%s:%d:%d: %s", p.File, p.place.line, p.place.column, p.Text)
}

// Place is line and column, from 1; 0 where no file was read.
func (p *Problem) Place() (line, column int) {
	if p.File == "" {
		return 0, 0
	}
	return p.place.line, p.place.column
}

// Excerpt is the lines around the place with a caret under it; empty where no file was read.
func (p *Problem) Excerpt() string {
	lines := strings.Split(p.source, "\n")
	if p.source == "" || p.place.line > len(lines) {
		return ""
	}
	var b strings.Builder
	for line := max(1, p.place.line-2); line <= p.place.line; line++ {
		fmt.Fprintf(&b, "%5d | %s\n", line, strings.TrimSuffix(lines[line-1], "\r"))
	}
	fmt.Fprintf(&b, "      | %s%s\n", strings.Repeat(" ", p.place.column-1), strings.Repeat("^", p.place.width))
	return b.String()
}

// at finds the place of a path, or of the nearest thing around it that was written.
func (c *Config) at(path string) place {
	for path != "" {
		if p, ok := c.places[path]; ok {
			return p
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return place{1, 1, 1}
}

// problem is something wrong with what stands at path.
func (c *Config) problem(path, hint, format string, args ...any) *Problem {
	return &Problem{File: c.File, Text: fmt.Sprintf(format, args...), Hint: hint, place: c.at(path), source: c.text}
}

// located gives mistakes that were found in the files of a configuration the form of Problems, with the line where one is
// known. Lines of the password file are not quoted.
func (c *Config) located(err error) error {
	if err == nil {
		return nil
	}
	var problems Problems
	for _, e := range flat(err) {
		var line *access.LineError
		if !errors.As(e, &line) {
			if path, _, ok := strings.Cut(e.Error(), ": "); ok && strings.HasPrefix(path, "users.") && c.File != "" {
				problems = append(problems, c.problem(path, "", "%v", e))
			} else {
				problems = append(problems, &Problem{Text: e.Error()})
			}
			continue
		}
		p := &Problem{File: line.File, Text: line.Text, place: place{line.Line, line.Column, 1}}
		if line.File == c.Users.ACL {
			if text, err := os.ReadFile(line.File); err == nil {
				p.source = string(text)
			}
		}
		problems = append(problems, p)
	}
	return problems
}

// unusable adds what to do to an error of the data directory.
func (c *Config) unusable(err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return Problems{{Text: err.Error(), Hint: "gateway.data must be a directory of the user that the gateway runs as"}}
}

// flat takes joined errors apart.
func flat(err error) (all []error) {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	for _, e := range joined.Unwrap() {
		all = append(all, flat(e)...)
	}
	return all
}

// Problems is everything that is wrong with a configuration, in the order of the file.
type Problems []*Problem

// Error joins the problems, one per line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// asError sorts the problems, gives them the file, and returns nil when there is none.
func (ps Problems) asError(file, source string) error {
	if len(ps) == 0 {
		return nil
	}
	for _, p := range ps {
		p.File, p.source = file, source
	}
	slices.SortStableFunc(ps, func(a, b *Problem) int {
		if a.place.line != b.place.line {
			return a.place.line - b.place.line
		}
		return a.place.column - b.place.column
	})
	return ps
}
