package app

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/isthmus-iot/isthmus/bridge"
)

// again starts a gateway anew, with the data of the one before.
func (g *gateway) again(config string) *gateway {
	g.t.Helper()
	g.stop()
	err := <-g.done
	g.done <- err
	next := &gateway{t: g.t, dir: g.dir, log: g.log, done: make(chan error, 1)}
	next.run(config)
	return next
}

// packet sends an MQTT packet.
func packet(t *testing.T, conn net.Conn, first byte, body string) {
	t.Helper()
	length := []byte{first}
	for n := len(body); ; n >>= 7 {
		if n < 0x80 {
			length = append(length, byte(n))
			break
		}
		length = append(length, byte(n)|0x80)
	}
	if _, err := conn.Write(append(length, body...)); err != nil {
		t.Fatal(err)
	}
}

// field is a text as MQTT writes it.
func field(s string) string { return string([]byte{byte(len(s) >> 8), byte(len(s))}) + s }

// answer reads a packet of two or four bytes.
func answer(t *testing.T, conn net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
		t.Fatalf("the gateway answers %q, %v, want %q", got, err, want)
	}
}

// visit connects as a 3.1.1 client whose session is kept.
func visit(t *testing.T, address, id string, present byte) net.Conn {
	t.Helper()
	conn := dial(t, address)
	t.Cleanup(func() { conn.Close() })
	packet(t, conn, 0x10, field("MQTT")+"\x04\x00\x00\x3c"+field(id))
	answer(t, conn, "\x20\x02"+string(present)+"\x00")
	return conn
}

// retain publishes a retained message at QoS 1.
func retain(t *testing.T, conn net.Conn, topic, payload string) {
	t.Helper()
	packet(t, conn, 0x33, field(topic)+"\x00\x01"+payload)
	answer(t, conn, "\x40\x02\x00\x01")
}

// ready asks for /readyz until it has the status.
func (g *gateway) ready(status int) string {
	g.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		response, err := http.Get("http://" + g.address(1) + "/readyz?verbose")
		if err != nil {
			g.t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		switch {
		case response.StatusCode == status:
			return string(body)
		case time.Now().After(deadline):
			g.t.Fatalf("%s: %s", response.Status, body)
		}
	}
}

func TestARestartForgetsNothing(t *testing.T) {
	g := start(t, open)
	conn := visit(t, g.address(0), "keeper", 0)
	packet(t, conn, 0x82, "\x00\x01"+field("jobs/#")+"\x01")
	answer(t, conn, "\x90\x03\x00\x01\x01")
	retain(t, conn, "plant/temp", "21.5")
	conn.Close()
	other := visit(t, g.address(0), "other", 0)
	packet(t, other, 0x32, field("jobs/1")+"\x00\x01weld")
	answer(t, other, "\x40\x02\x00\x01")
	other.Close()

	var log bytes.Buffer
	config := strings.Replace(open, "data: data", "data: ./data", 1) + "log: {format: json}\n"
	g.log = &log
	next := g.again(config)
	steps := fmt.Sprint(next.Explain(&bridge.Message{Topic: "plant/temp", Payload: []byte("22"), Retain: true}, "", ""))
	if !strings.Contains(steps, "replaces a retained value of 4 bytes") {
		t.Error(steps)
	}
	if s := next.Reading().Store; s == nil || s.Used == 0 || s.Queued != 1 || s.Failed || s.Full {
		t.Errorf("figures of the store: %+v", s)
	}
	visit(t, next.address(0), "keeper", 1).Close()
	if info, err := os.Stat(next.file("data/store")); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	next.stop()
	next.done <- <-next.done
	for _, part := range []string{`"msg":"store opened"`, `"dir":"` + next.file("data/store"), `"sessions":2,"queued_messages":1,"retained_values":1,"bytes":`, `"took":"`} {
		if !strings.Contains(log.String(), part) {
			t.Errorf("the log does not say %s:\n%s", part, log.String())
		}
	}
}

func TestAFullStoreIsNotReady(t *testing.T) {
	g := start(t, open+"store: {reserve_bytes: 1000000GiB}\n")
	body := g.ready(http.StatusServiceUnavailable)
	if !strings.Contains(body, "[-] store: full: it takes ") || !strings.Contains(body, "(store.reserve_bytes is 977 TiB)") || !strings.Contains(body, "[+] mqtt ok") {
		t.Error(body)
	}
}

// A store that has failed by itself is in the scripts of internal/cli: it leaves goroutines of Pebble behind.
func TestAStoreThatKeepsNothingIsNotReady(t *testing.T) {
	g := start(t, open)
	if body := g.ready(http.StatusOK); !strings.Contains(body, "[+] store ok") {
		t.Error(body)
	}
	if err := g.store.Close(); err != nil {
		t.Fatal(err)
	}
	if body := g.ready(http.StatusServiceUnavailable); !strings.Contains(body, "[-] store: failed, and nothing is kept any more: store is closed") {
		t.Error(body)
	}
	if !g.Reading().Store.Failed {
		t.Error("the metric says that the store keeps what it is given")
	}
}

func TestReloadTakesOverDurabilities(t *testing.T) {
	g := start(t, open)
	is := func(topic bridge.Topic, want bridge.Durability) {
		t.Helper()
		if got := g.hub.Durability(topic); got != want {
			t.Errorf("%s is kept by %s, want %s", topic, got, want)
		}
	}
	is("telemetry/x", bridge.Fsync)
	g.write("isthmus.yaml", open+"store: {durability: os, topics: [{filter: telemetry/#, durability: memory}, {filter: '+/x', durability: fsync}]}\n")
	if err := g.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	is("telemetry/x", bridge.Memory)
	is("alarm/x", bridge.Fsync)
	is("alarm", bridge.OS)
}

// TestAStoreThatCannotBeUsed looks at what serve says: one line, and what to do.
func TestAStoreThatCannotBeUsed(t *testing.T) {
	// plant puts a record into the store.
	plant := func(key, value string) func(*gateway) {
		return func(g *gateway) {
			db, err := pebble.Open(g.file("data/store"), &pebble.Options{Logger: silent{}})
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Set([]byte(key), []byte(value), pebble.Sync); err != nil {
				t.Error(err)
			}
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	filled := start(t, open)
	visit(t, filled.address(0), "one", 0).Close()
	visit(t, filled.address(0), "two", 0).Close()
	filled.stop()
	filled.done <- <-filled.done

	for name, c := range map[string]struct {
		config string
		harm   func(*gateway)
		want   string // after the name of the store; the hint after a line break
	}{
		"damaged": {open, func(g *gateway) {
			found, _ := filepath.Glob(g.file("data/store/MANIFEST-*"))
			for _, name := range found {
				if err := os.WriteFile(name, []byte("nonsense"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}, `damaged: pebble: malformed manifest file "MANIFEST-`},
		"damaged record": {open, plant("rx", "\xff"), "loading retained values: "},
		"newer":          {open, plant("V", "\x63"), "written in format 99; this version of isthmus knows format 1; start a newer version of isthmus, or restore a copy"},
		"not a folder": {open, func(g *gateway) {
			os.RemoveAll(g.file("data/store"))
			os.WriteFile(g.file("data/store"), nil, 0o600)
		}, "not a directory"},
		"something else": {open, func(g *gateway) {
			os.RemoveAll(g.file("data/store"))
			os.Mkdir(g.file("data/store"), 0o700)
			os.WriteFile(g.file("data/store/photo.jpeg"), nil, 0o600)
		}, "not a store: it contains photo.jpeg; "},
	} {
		t.Run(name, func(t *testing.T) {
			g := prepare(t)
			if err := os.CopyFS(g.file("data"), os.DirFS(filled.file("data"))); err != nil {
				t.Fatal(err)
			}
			c.harm(g)
			g.write("isthmus.yaml", c.config)
			err := g.fails(t)
			if err == nil {
				t.Fatal("the gateway starts")
			}
			text := explain(err)
			if text == "no problem\n" {
				text = err.Error()
			}
			if !strings.HasPrefix(text, "store "+g.file("data/store")+": ") || !strings.Contains(text, c.want) {
				t.Errorf("%s\nwant %s", text, c.want)
			}
		})
	}

	t.Run("locked", func(t *testing.T) {
		g := start(t, open)
		if err := g.fails(t); err == nil || err.Error() != "another gateway runs with the data directory "+g.file("data") {
			t.Errorf("with a socket: %v", err)
		}
		if err := os.Remove(g.file("data/isthmus.sock")); err != nil {
			t.Fatal(err)
		}
		if err := g.fails(t); err == nil || err.Error() != "store "+g.file("data/store")+": in use by another process" {
			t.Errorf("without a socket: %v", err)
		}
	})

	t.Run("not permitted", func(t *testing.T) {
		if os.Geteuid() <= 0 {
			t.Skip("root may write everywhere")
		}
		g := prepare(t)
		g.write("isthmus.yaml", open)
		if err := os.Chmod(g.dir, 0o500); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(g.dir, 0o700)
		want := "making the data directory " + g.file("data") + ": permission denied\nhint: gateway.data must be a directory of the user that the gateway runs as\n"
		if got := explain(g.fails(t)); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	})
}

// fails runs the gateway anew, which must not get ready, and returns why.
func (g *gateway) fails(t *testing.T) error {
	t.Helper()
	c, err := Load(g.file("isthmus.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(c, NewLogger(io.Discard, false, c.Log))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return a.Run(ctx)
}

// silent is a logger for Pebble.
type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}
