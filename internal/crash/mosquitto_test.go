package crash

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// find looks for a program; the test is skipped where it is missing.
func find(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip("needs " + name)
	}
	return path
}

// mosquitto is mosquitto_pub and mosquitto_sub with the options of a case.
type mosquitto struct {
	broker  *broker
	version string
	session []string // options of a session that is kept
	qos     int
	topic   string
}

// command makes one that ends with the test at the latest.
func (m *mosquitto) command(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	host, port, err := net.SplitHostPort(m.broker.addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	// By themselves these programs say into a pipe that something has happened only when more has.
	all := []string{"-oL", find(t, name), "-h", host, "-p", port, "-V", m.version, "-t", m.topic, "-q", fmt.Sprint(m.qos)}
	cmd := exec.CommandContext(ctx, find(t, "stdbuf"), append(all, args...)...)
	cmd.WaitDelay = time.Second
	return cmd
}

// pub publishes and returns when that is acknowledged.
func (m *mosquitto) pub(t *testing.T, text string) {
	t.Helper()
	if out, err := m.command(t, "mosquitto_pub", "-m", text).CombinedOutput(); err != nil {
		t.Fatalf("mosquitto_pub: %v: %s", err, out)
	}
}

// sub runs mosquitto_sub to its end and gives the lines it has printed.
func (m *mosquitto) sub(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := m.command(t, "mosquitto_sub", append(m.session, append(args, "-F", "%q %r %p")...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("mosquitto_sub: %v: %s", err, out)
	}
	return strings.Fields(strings.ReplaceAll(strings.TrimSpace(string(out)), " ", ","))
}

// wants compares what was printed with messages that are not retained.
func (m *mosquitto) wants(t *testing.T, got []string, texts ...string) {
	t.Helper()
	var want []string
	for _, text := range texts {
		want = append(want, fmt.Sprintf("%d,0,%s", m.qos, text))
	}
	if !slices.Equal(got, want) {
		t.Fatalf("mosquitto_sub printed %q, want %q", got, want)
	}
}

// crash kills the broker and starts it again.
func (m *mosquitto) crash() {
	m.broker.kill()
	m.broker.start()
	m.broker.ready()
}

// TestMosquittoResumesAfterKill has Mosquitto's clients miss messages while the broker is killed.
func TestMosquittoResumesAfterKill(t *testing.T) {
	b := newBroker(t)
	b.start()
	b.ready()
	for version, options := range map[string][]string{"mqttv311": {"-c"}, "mqttv5": {"-c", "-x", "3600"}} {
		for qos := 1; qos <= 2; qos++ {
			m := mosquitto{broker: b, version: version, qos: qos}
			name := fmt.Sprintf("%s QoS %d", version, qos)
			t.Run(name+" away", func(t *testing.T) {
				m.topic = fmt.Sprintf("away/%s/%d", version, qos)
				m.session = append([]string{"-i", fmt.Sprintf("away-%s-%d", version, qos)}, options...)
				m.isAway(t)
			})
			t.Run(name+" connected", func(t *testing.T) {
				m.topic = fmt.Sprintf("connected/%s/%d", version, qos)
				m.session = append([]string{"-i", fmt.Sprintf("connected-%s-%d", version, qos)}, options...)
				m.isConnected(t)
			})
		}
	}
	b.stop()
}

// isAway has the client away when the broker is killed, before and after messages are published.
func (m *mosquitto) isAway(t *testing.T) {
	m.sub(t, "-E") // subscribes and goes
	m.crash()
	m.pub(t, "1")
	m.pub(t, "2")
	m.crash()
	m.pub(t, "3")
	m.wants(t, m.sub(t, "-C", "3"), "1", "2", "3")
	m.crash()
	m.pub(t, "4")
	got := m.sub(t, "-C", "1")
	if m.qos == 1 && len(got) == 1 && got[0] < "1,0,4" {
		return // the last one was not acknowledged when it went, and acknowledgements of the others may not have been kept
	}
	m.wants(t, got, "4")
}

// isConnected has the client connected when the broker is killed; it comes back by itself.
func (m *mosquitto) isConnected(t *testing.T) {
	cmd := m.command(t, "mosquitto_sub", append(m.session, "-d", "-F", "message %q,%r,%p")...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			select {
			case lines <- s.Text():
			case <-time.After(patience):
				return
			}
		}
	}()
	defer func() {
		cmd.Process.Kill()
		for range lines {
		}
		<-ended
		cmd.Wait()
	}()
	next := func(prefix string) string {
		t.Helper()
		for timeout := time.After(patience); ; {
			select {
			case line, ok := <-lines:
				if rest, found := strings.CutPrefix(line, prefix); found {
					return rest
				}
				if !ok {
					t.Fatalf("mosquitto_sub has ended, want %q", prefix)
				}
			case <-timeout:
				t.Fatalf("mosquitto_sub does not print %q", prefix)
			}
		}
	}
	next("Subscribed (mid: ")
	for i, text := range []string{"1", "2", "3"} {
		if i > 0 {
			m.crash()
		}
		m.pub(t, text)
		got := next("message ")
		for m.qos == 1 && got < "1,0,"+text { // it comes again: its acknowledgement was not kept
			got = next("message ")
		}
		m.wants(t, []string{got}, text)
	}
}
