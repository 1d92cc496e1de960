package interop

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// How much is kept across the restart: by default little, so that it is quick. What is asked of a gateway on an ordinary
// machine is
//
//	go test ./internal/interop -run TestARestartWithMuch -restart.sessions 100000 -restart.retained 1000000 -restart.queued 1000000 -v
var (
	restartSessions = flag.Int("restart.sessions", 300, "sessions with 5 subscriptions each")
	restartRetained = flag.Int("restart.retained", 3000, "retained values")
	restartQueued   = flag.Int("restart.queued", 3000, "queued messages")
)

// TestARestartWithMuch kills a gateway that keeps many sessions, retained values and queued messages, and starts it again.
func TestARestartWithMuch(t *testing.T) {
	t.Parallel()
	dir := folder(t)
	file := filepath.Join(dir, "isthmus.yaml")
	write(t, file, `
gateway: {data: data}
mqtt: {listen: [mqtt://127.0.0.1:0], sys_interval: 0s, limits: {connect_rate: 1000000, connect_burst: 1000000}}
ops: {listen: [http://127.0.0.1:0]}
limits: {clients: 200000, retained_values: 2000000, retained_bytes: 2GiB, messages_per_second: 1000000000, bytes_per_second: 100GiB}
`)
	g := serveFile(t, file)
	sessions, perSession := *restartSessions, *restartQueued / *restartSessions
	name := func(i int) string { return fmt.Sprintf("s%06d", i) }
	inParallel(sessions, func(i int) {
		c := dialWire(t, g.ports["mqtt"], wire.Connect{Version: wire.V311, ClientID: name(i)})
		s := wire.Subscribe{ID: 1, Filters: []wire.Filter{{Filter: "q/" + name(i), QoS: 1}}}
		for k := range 4 {
			s.Filters = append(s.Filters, wire.Filter{Filter: fmt.Sprintf("f/%s/%d/+", name(i), k), QoS: byte(k % 3)})
		}
		c.write(s.Append(nil, wire.V311))
		c.expect(wire.SUBACK)
		c.write(wire.Disconnect{}.Append(nil, wire.V311))
		c.nc.Close()
	})
	const publishers = 4
	flow := func(n int, message func(i int) wire.Publish) {
		inParallel(publishers, func(p int) {
			c := dialWire(t, g.ports["mqtt"], wire.Connect{Version: wire.V311, ClientID: fmt.Sprint("pub", p), Clean: true})
			defer c.nc.Close()
			c.publish(p, n, publishers, message)
		})
	}
	flow(*restartRetained, func(i int) wire.Publish {
		return wire.Publish{Topic: fmt.Sprintf("r/%d/%d", i%1000, i), Payload: fmt.Appendf(nil, "retained value %d", i), QoS: 1, Retain: true}
	})
	flow(sessions*perSession, func(i int) wire.Publish {
		return wire.Publish{Topic: "q/" + name(i%sessions), Payload: fmt.Appendf(nil, "queued message %d", i), QoS: 1}
	})
	g.end(t, syscall.SIGKILL)

	began := time.Now()
	g = serveFile(t, file)
	took := time.Since(began)
	metrics := fetch(t, "http://127.0.0.1:"+g.ports["http"]+"/metrics")
	rss := residentBytes(g.cmd.Process.Pid)
	t.Logf("ready after %.2f s with %d sessions, %d retained values and %d queued messages; %d MiB resident; %s",
		took.Seconds(), sessions, *restartRetained, sessions*perSession, rss>>20, line(metrics, "go_memstats_heap_inuse_bytes"))
	for _, want := range []string{
		fmt.Sprintf(`isthmus_sessions{endpoint="mqtt"} %d`, sessions),
		fmt.Sprintf("isthmus_retained_values %d", *restartRetained),
		fmt.Sprintf(`isthmus_queued_messages{endpoint="mqtt"} %d`, sessions*perSession),
	} {
		if name, _, _ := strings.Cut(want, " "); asInt(line(metrics, name)) != asInt(want) {
			t.Errorf("want %s, got %q", want, line(metrics, name))
		}
	}
	// Every message of some sessions comes, once and in order; of all of them where they are few.
	var wrong atomic.Int64
	inParallel(min(sessions, 5000), func(k int) {
		i := k
		if sessions > 5000 {
			i = rand.IntN(sessions/5000) + k*(sessions/5000)
		}
		c := dialWire(t, g.ports["mqtt"], wire.Connect{Version: wire.V311, ClientID: name(i)})
		defer c.nc.Close()
		last := make([]int, publishers)
		for range perSession {
			p := c.expect(wire.PUBLISH)
			var n int
			fmt.Sscanf(p.Text(), "queued message %d", &n)
			if n%sessions != i || n+1 <= last[n%publishers] {
				wrong.Add(1)
			}
			last[n%publishers] = n + 1
			c.write(wire.Ack{Type: wire.PUBACK, ID: p.ID}.Append(nil, wire.V311))
		}
		c.write(wire.Ping{}.Append(nil))
		c.expect(wire.PINGRESP) // and nothing more
	})
	if n := wrong.Load(); n > 0 {
		t.Errorf("%d messages came to the wrong session, twice or out of order", n)
	}
}

// wireConn is a connection at the level of packets.
type wireConn struct {
	t  *testing.T
	nc net.Conn
	r  *bufio.Reader
}

func dialWire(t *testing.T, port string, connect wire.Connect) *wireConn {
	nc, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", port))
	if err != nil {
		panic(err) // no test goroutine: see inParallel
	}
	nc.SetDeadline(time.Now().Add(10 * time.Minute))
	c := &wireConn{t, nc, bufio.NewReaderSize(nc, 4096)}
	c.write(connect.Append(nil))
	c.expect(wire.CONNACK)
	return c
}

func (c *wireConn) write(b []byte) {
	if _, err := c.nc.Write(b); err != nil {
		panic(err)
	}
}

func (c *wireConn) expect(want wire.Type) wire.Packet {
	var p wire.Packet
	header, body, err := wire.ReadFrame(c.r, 0)
	if err == nil {
		p, err = wire.Decode(wire.V311, header, body)
	}
	if err != nil || p.Type != want {
		panic(fmt.Sprintf("want %s, got %v, %v", want, p, err))
	}
	return p
}

// publish sends every step-th of n messages from first on, with up to 200 unacknowledged.
func (c *wireConn) publish(first, n, step int, message func(i int) wire.Publish) {
	room, done := make(chan struct{}, 200), make(chan struct{})
	count := (n - first + step - 1) / step
	go func() {
		defer close(done)
		for range count {
			c.expect(wire.PUBACK)
			<-room
		}
	}()
	w := bufio.NewWriterSize(c.nc, 16<<10)
	for k := range count {
		select {
		case room <- struct{}{}:
		default:
			w.Flush()
			room <- struct{}{}
		}
		m := message(first + k*step)
		m.ID = uint16(k%65535) + 1
		w.Write(m.Append(nil, wire.V311))
	}
	w.Flush()
	<-done
}

// inParallel runs f for 0 to n-1, some at a time. f panics where it fails: it does not run in the test's goroutine.
func inParallel(n int, f func(i int)) {
	var next atomic.Int64
	var all sync.WaitGroup
	for range min(n, 64) {
		all.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	all.Wait()
}

func fetch(t *testing.T, url string) string {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// line is the line of a text that begins with a word.
func line(text, word string) string {
	for l := range strings.Lines(text) {
		if strings.HasPrefix(l, word+" ") {
			return strings.TrimSpace(l)
		}
	}
	return ""
}

// asInt is the number at the end of a metric's line.
func asInt(line string) int64 {
	var f float64
	fmt.Sscanf(line[strings.LastIndexByte(line, ' ')+1:], "%g", &f)
	return int64(f)
}

func residentBytes(pid int) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	var size, resident int64
	fmt.Sscan(string(b), &size, &resident)
	return resident * int64(os.Getpagesize())
}
