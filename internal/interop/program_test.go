package interop

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long something that must happen may take on a busy machine.
const patience = 30 * time.Second

// program is a process whose lines of output, standard error included, tests wait for. It is killed at the end of the test.
type program struct {
	t     *testing.T
	name  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	ended chan struct{}

	mu      sync.Mutex
	part    []byte // of a line
	lines   []string
	changed chan struct{} // closed at the next line

	*reader // from the first line on
}

// reader is a place in the lines of a program.
type reader struct {
	p  *program
	at int
}

// find looks for a program where servers are too; the test is skipped where it is missing.
func find(t *testing.T, name string) string {
	t.Helper()
	for _, at := range []string{name, "/usr/sbin/" + name, "/usr/local/sbin/" + name} {
		if path, err := exec.LookPath(at); err == nil {
			return path
		}
	}
	t.Skip("needs " + name)
	return ""
}

// launch starts a program.
func launch(t *testing.T, name string, args ...string) *program {
	t.Helper()
	p := &program{t: t, name: name, cmd: exec.Command(name, args...), ended: make(chan struct{}), changed: make(chan struct{})}
	p.name = name[strings.LastIndexByte(name, '/')+1:]
	p.reader = &reader{p: p}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.WaitDelay = time.Second // a child of its own could hold the pipe open
	stdin, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdin = stdin
	fmt.Fprintf(t.Output(), "%s %s\n", p.name, strings.Join(args, " "))
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(p.kill)
	return p
}

// Write takes output.
func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.part = append(p.part, b...)
	for {
		line, rest, ok := bytes.Cut(p.part, []byte("\n"))
		if !ok {
			return len(b), nil
		}
		p.lines = append(p.lines, string(line))
		fmt.Fprintf(p.t.Output(), "%s[%d]: %s\n", p.name, p.cmd.Process.Pid, line)
		p.part = rest
		close(p.changed)
		p.changed = make(chan struct{})
	}
}

// kill is kill -9.
func (p *program) kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

// end sends a signal and waits for the exit code.
func (p *program) end(t *testing.T, signal syscall.Signal) int {
	t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		t.Errorf("%s: %v", p.name, err)
	}
	return p.wait(t)
}

// wait waits for the exit code.
func (p *program) wait(t *testing.T) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		t.Errorf("%s does not end", p.name)
		p.kill()
	}
	return p.cmd.ProcessState.ExitCode()
}

// from is a reader that begins with what is printed from now on.
func (p *program) from() *reader {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &reader{p: p, at: len(p.lines)}
}

// next waits for the next line that match takes, and goes behind it.
func (r *reader) next(t *testing.T, what string, match func(line string) bool) string {
	t.Helper()
	timeout := time.After(patience)
	for over := false; ; {
		r.p.mu.Lock()
		lines, changed := r.p.lines[r.at:], r.p.changed
		r.p.mu.Unlock()
		for _, line := range lines {
			r.at++
			if match(line) {
				return line
			}
		}
		if over {
			t.Fatalf("%s ended (%v) without printing %s", r.p.name, r.p.cmd.ProcessState, what)
		}
		select {
		case <-changed:
		case <-r.p.ended: // and has printed all it had to
			over = true
		case <-timeout:
			t.Fatalf("%s did not print %s", r.p.name, what)
		}
	}
}

// after waits for the next line that begins with prefix and gives what follows.
func (r *reader) after(t *testing.T, prefix string) string {
	t.Helper()
	line := r.next(t, fmt.Sprintf("%q", prefix), func(line string) bool { return strings.HasPrefix(line, prefix) })
	return line[len(prefix):]
}

// contains waits for the next line that contains text.
func (r *reader) contains(t *testing.T, text string) string {
	t.Helper()
	return r.next(t, fmt.Sprintf("%q", text), func(line string) bool { return strings.Contains(line, text) })
}

// wants waits for lines that begin with prefix and compares what follows.
func (r *reader) wants(t *testing.T, prefix string, want ...string) {
	t.Helper()
	for _, want := range want {
		if got := r.after(t, prefix); got != want {
			t.Fatalf("%s printed %q, want %q", r.p.name, got, want)
		}
	}
}

// rest is the lines so far that begin with the given prefix, without what message lines begin with.
func (r *reader) rest(prefix string) (list []string) {
	r.p.mu.Lock()
	defer r.p.mu.Unlock()
	for _, line := range r.p.lines[r.at:] {
		if strings.HasPrefix(line, prefix) {
			list = append(list, strings.TrimPrefix(line, message))
		}
	}
	return list
}

// all is the lines so far, from the first on, that contain text.
func (p *program) all(text string) (list []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range p.lines {
		if strings.Contains(line, text) {
			list = append(list, line)
		}
	}
	return list
}

// run runs a program to its end and gives what it printed and its exit code.
func run(t *testing.T, stdin, name string, args ...string) (string, int) {
	t.Helper()
	p := launch(t, name, args...)
	if stdin != "" {
		if _, err := io.WriteString(p.stdin, stdin); err != nil {
			t.Fatal(err)
		}
	}
	p.stdin.Close()
	code := p.wait(t)
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(append(p.lines, string(p.part)), "\n"), code
}

// succeeds runs a program that must end with exit code 0.
func succeeds(t *testing.T, stdin, name string, args ...string) string {
	t.Helper()
	out, code := run(t, stdin, name, args...)
	if code != 0 {
		t.Fatalf("%s %s: exit code %d:\n%s", name, strings.Join(args, " "), code, out)
	}
	return out
}

// write writes a file of a test.
func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// read reads a file of a test.
func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
