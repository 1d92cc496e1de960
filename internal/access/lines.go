package access

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

const (
	maxFileBytes  = 64 << 20 // of a password or ACL file
	maxFileErrors = 100      // reported of one file
)

// LineError is a mistake at one place of a file.
type LineError struct {
	File   string
	Line   int // from 1
	Column int // in bytes, from 1
	Text   string
}

func (e *LineError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Text)
}

// lines walks over the lines of a file and collects mistakes, so that one reading reports all of them.
type lines struct {
	file   string
	number int
	text   string // the line without its end
	rest   string
	errs   []error
}

// next goes to the next line that is neither empty nor a comment; false at the end of the file.
func (l *lines) next() bool {
	for l.rest != "" {
		l.text, l.rest, _ = strings.Cut(l.rest, "\n")
		l.text = strings.TrimRight(l.text, " \t\r")
		l.number++
		start := strings.TrimLeft(l.text, " \t")
		if start == "" || start[0] == '#' {
			continue
		}
		if !utf8.ValidString(l.text) || strings.IndexByte(l.text, 0) >= 0 {
			l.fail(0, "line is not UTF-8 text")
			continue
		}
		return true
	}
	return false
}

// fail notes a mistake at a byte offset of the line.
func (l *lines) fail(offset int, format string, args ...any) {
	if len(l.errs) == maxFileErrors {
		l.errs = append(l.errs, fmt.Errorf("%s: more mistakes are not shown", l.file))
	}
	if len(l.errs) > maxFileErrors {
		return
	}
	l.errs = append(l.errs, &LineError{File: l.file, Line: l.number, Column: offset + 1, Text: fmt.Sprintf(format, args...)})
}

// place is where the line stands, for messages.
func (l *lines) place() string { return fmt.Sprintf("%s:%d", l.file, l.number) }

func (l *lines) err() error { return errors.Join(l.errs...) }

// field cuts the first word off s and the blanks behind it.
func field(s string) (word, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], " \t")
}

// readFile reads a file of at most maxFileBytes.
func readFile(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return "", err
	}
	if len(data) > maxFileBytes {
		return "", fmt.Errorf("%s: file is larger than %d MiB", name, maxFileBytes>>20)
	}
	return string(data), nil
}
