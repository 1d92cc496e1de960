package crash

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// broker is the program under test with its data directory. It is started again and again at the same address.
type broker struct {
	t    *testing.T
	dir  string
	addr string
	cmd  *exec.Cmd
	log  *os.File

	faults *rand.Rand    // of the disk; nil: the real program runs, on a disk that works
	mended bool          // the disk has no faults any more
	done   chan struct{} // the process has ended
}

// config allows more than the test needs, so that nothing may be dropped or refused.
const config = `
gateway: {id: crash, data: data}
mqtt:
  listen: [mqtt://%s]
  sys_interval: 0s
  limits: {connect_rate: 100000, connect_burst: 100000, queue_messages: 1000000, queue_bytes: 1GiB, unsent_bytes: 64MiB, inflight_out: 40}
ops: {listen: []}
log: {level: info, format: text}
`

// newBroker makes a data directory and chooses an address. Nothing is started.
func newBroker(t *testing.T) *broker {
	t.Helper()
	dir, err := os.MkdirTemp("", "isthmus") // short enough for the name of a socket in it
	if err != nil {
		t.Fatal(err)
	}
	b := &broker{t: t, dir: dir, addr: freeAddr(t)}
	t.Cleanup(func() {
		b.kill()
		if t.Failed() && *keepFlag {
			t.Logf("data directory and log are kept in %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	if err := os.WriteFile(b.file("isthmus.yaml"), fmt.Appendf(nil, config, b.addr), 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

// file is the name of a file of the broker's.
func (b *broker) file(name string) string { return filepath.Join(b.dir, name) }

// freeAddr is an address that nobody listens on, below those that systems give to outgoing connections: it must stay free
// while the broker is down.
func freeAddr(t *testing.T) string {
	t.Helper()
	for {
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(20_000+rand.N(12_000)))
		ln, err := net.Listen("tcp", addr)
		if err == nil {
			ln.Close()
			return addr
		}
	}
}

// start starts the process.
func (b *broker) start() {
	b.t.Helper()
	log, err := os.OpenFile(b.file("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		b.t.Fatal(err)
	}
	b.log, b.done = log, make(chan struct{})
	b.cmd = exec.Command(binary, "serve", "-c", b.file("isthmus.yaml"))
	if b.faults != nil {
		b.cmd = exec.Command(os.Args[0])
		b.cmd.Env = append(os.Environ(), envFaults+"="+b.plan())
	}
	b.cmd.Stdout, b.cmd.Stderr = log, log
	if err := b.cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	go func(cmd *exec.Cmd, done chan struct{}) {
		cmd.Wait()
		log.Close()
		close(done)
	}(b.cmd, b.done)
}

// ready waits until the broker accepts connections. It ends the test where the process ends instead.
func (b *broker) ready() time.Duration {
	b.t.Helper()
	begun := time.Now()
	for time.Since(begun) < patience {
		nc, err := net.DialTimeout("tcp", b.addr, patience)
		if err == nil {
			nc.Close()
			return time.Since(begun)
		}
		if b.ended() {
			b.t.Fatalf("the broker does not start (%v):\n%s", b.cmd.ProcessState, b.tail())
		}
		time.Sleep(5 * time.Millisecond)
	}
	b.t.Fatalf("the broker does not listen after %v:\n%s", patience, b.tail())
	return 0
}

// ended reports whether the process has ended.
func (b *broker) ended() bool {
	select {
	case <-b.done:
		return true
	default:
		return false
	}
}

// kill is kill -9.
func (b *broker) kill() {
	if b.cmd != nil {
		b.cmd.Process.Kill()
		<-b.done
	}
}

// stop ends the process as an operator does.
func (b *broker) stop() {
	b.t.Helper()
	b.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-b.done:
	case <-time.After(patience):
		b.t.Errorf("the broker does not end after SIGTERM:\n%s", b.tail())
		b.kill()
	}
	if code := b.cmd.ProcessState.ExitCode(); code != 0 {
		b.t.Errorf("the broker ended with exit code %d after SIGTERM:\n%s", code, b.tail())
	}
}

// tail is the end of what the broker has printed.
func (b *broker) tail() string {
	text, err := os.ReadFile(b.file("log"))
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-40):], []byte("\n")))
}

// complains gives lines of the log that must not be there.
func (b *broker) complains() (lines []string) {
	text, _ := os.ReadFile(b.file("log"))
	for line := range bytes.Lines(text) {
		for _, word := range []string{"DATA RACE", "panic", "level=ERROR"} {
			if bytes.Contains(line, []byte(word)) {
				lines = append(lines, string(bytes.TrimSpace(line)))
				break
			}
		}
	}
	return lines
}
