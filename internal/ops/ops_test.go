package ops

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/isthmus-iot/isthmus/bridge"
)

// fakeGateway is a gateway with one endpoint.
type fakeGateway struct {
	reload error
	parts  []Readiness
	asked  *bridge.Message
}

func (g *fakeGateway) Reading() Reading {
	e := bridge.EndpointStats{Name: "mqtt", Connections: 2, MessagesIn: [3]uint64{1, 2, 3}, Dropped: map[bridge.DropReason]uint64{}}
	for i, r := range bridge.DropReasons() {
		e.Dropped[r] = uint64(i)
	}
	return Reading{
		Stats: bridge.Stats{Clients: 7, Endpoints: []bridge.EndpointStats{e}}, Reloaded: true, ReloadedAt: 1,
		Store: &Store{
			Used: 1 << 20, Disk: 3 << 19, Limit: 10 << 30, Free: -1, Queued: 4, Full: true, Commits: 3, Syncing: 30 * time.Millisecond,
			Syncs: []SyncCount{{time.Millisecond, 1}, {10 * time.Millisecond, 2}},
		},
	}
}
func (g *fakeGateway) Parts() []Readiness { return g.parts }
func (g *fakeGateway) Status() Status {
	return Status{ID: "plant-7", Listeners: []Listener{{"mqtt://[::1]:1883", "everybody"}}}
}
func (g *fakeGateway) Explain(m *bridge.Message, client, user string) []bridge.Step {
	g.asked = m
	return []bridge.Step{{Stage: "acl", Subject: client + "/" + user, OK: true, Text: "access.acl:3"}}
}
func (g *fakeGateway) Reload(context.Context) error { return g.reload }

type part struct{ err error }

func (p part) Name() string { return "mqtt" }
func (p part) Ready() error { return p.err }

func newServer(t *testing.T, g Gateway) *Server {
	t.Helper()
	s, err := New(Config{Gateway: g, Version: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestMetricsAreCleanForLint(t *testing.T) {
	problems, err := testutil.GatherAndLint(newRegistry("v1", (&fakeGateway{}).Reading))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "isthmus_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

func TestMetricsHaveValues(t *testing.T) {
	code, body := get(t, newServer(t, &fakeGateway{}).public, "/metrics")
	if code != http.StatusOK {
		t.Fatal(code)
	}
	for _, line := range []string{
		`isthmus_connections{endpoint="mqtt"} 2`, `isthmus_clients 7`, `isthmus_messages_received_total{endpoint="mqtt",qos="2"} 3`,
		`isthmus_messages_dropped_total{endpoint="mqtt",reason="slow_consumer"} 1`, `isthmus_config_last_reload_successful 1`,
		`version="v1"`, "go_goroutines ", `isthmus_store_bytes 1.048576e+06`, `isthmus_store_full 1`, `isthmus_store_failed 0`,
		`isthmus_store_commit_seconds_bucket{le="0.01"} 2`, `isthmus_store_commit_seconds_bucket{le="+Inf"} 3`, `isthmus_store_commit_seconds_sum 0.03`,
	} {
		if !strings.Contains(body, line) {
			t.Errorf("no %s", line)
		}
	}
}

func TestBytesAreReadByPeople(t *testing.T) {
	for n, want := range map[Bytes]string{
		-1: "-1 B", 0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1536: "1.5 KiB", 10 << 20: "10 MiB", 10 << 30: "10 GiB", 1 << 62: "4194304 TiB",
	} {
		if got := n.String(); got != want {
			t.Errorf("%d: %s, want %s", int64(n), got, want)
		}
	}
}

func TestReadmeListsEveryMetric(t *testing.T) {
	families, err := newRegistry("v1", (&fakeGateway{}).Reading).Gather()
	if err != nil {
		t.Fatal(err)
	}
	gathered := map[string]string{}
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "isthmus_") {
			gathered[f.GetName()] = f.GetHelp()
		}
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `(isthmus_[a-z_]+)` \\|[^|]*\\|[^|]*\\| (.*) \\|$").FindAllStringSubmatch(string(readme), -1) {
		listed[row[1]] = row[2]
	}
	if diff := cmp.Diff(gathered, listed); diff != "" {
		t.Errorf("README.md (-gathered +listed):\n%s", diff)
	}
}

func TestHealth(t *testing.T) {
	g := &fakeGateway{parts: []Readiness{part{}}}
	h := newServer(t, g).public
	for path, want := range map[string]string{"/livez": "ok\n", "/readyz": "ok\n", "/healthz": "ok\n", "/readyz?verbose": "[+] mqtt ok\nok\n"} {
		if code, body := get(t, h, path); code != http.StatusOK || body != want {
			t.Errorf("%s: %d %q", path, code, body)
		}
	}
	g.parts = []Readiness{part{errors.New("no listener")}}
	if code, body := get(t, h, "/readyz?verbose"); code != http.StatusServiceUnavailable || body != "[-] mqtt: no listener\nnot ready\n" {
		t.Errorf("%d %q", code, body)
	}
	if code, _ := get(t, h, "/livez"); code != http.StatusOK {
		t.Errorf("alive but not ready: %d", code)
	}
}

func TestThePublicListenerHasNoAdminAPI(t *testing.T) {
	if code, _ := get(t, newServer(t, &fakeGateway{}).public, "/api/v1/status"); code != http.StatusNotFound {
		t.Errorf("status %d", code)
	}
}

// admin serves the admin API of g on a socket and returns a client and the socket's directory.
func admin(t *testing.T, g Gateway) (*Client, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "isthmus")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	dir = filepath.Join(dir, "data")
	ln, err := ListenAdmin(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- newServer(t, g).ServeAdmin(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serving: %v", err)
		}
	})
	return NewClient(filepath.Join(dir, SocketName)), dir
}

func TestAdminAPI(t *testing.T) {
	g := &fakeGateway{parts: []Readiness{part{}}}
	client, dir := admin(t, g)
	ctx := context.Background()

	status, err := client.Status(ctx)
	if err != nil || status.ID != "plant-7" || !status.Ready || status.Hub.Clients != 7 || status.Endpoints[0].Dropped["slow_consumer"] != 1 || status.Store.Used != 1<<20 || !status.Store.Full {
		t.Errorf("status %+v, %v", status, err)
	}
	steps, err := client.Explain(ctx, &bridge.Message{Topic: "a/b c", QoS: 2, Retain: true}, "dev", "ann")
	if err != nil || len(steps) != 1 || steps[0].Subject != "dev/ann" || g.asked.Topic != "a/b c" || g.asked.QoS != 2 || !g.asked.Retain {
		t.Errorf("explain %+v of %+v, %v", steps, g.asked, err)
	}
	if _, err := client.Explain(ctx, &bridge.Message{Topic: "a/#"}, "", ""); err == nil || !strings.Contains(err.Error(), "wildcard") {
		t.Errorf("explain of a filter: %v", err)
	}
	if err := client.Reload(ctx); err != nil {
		t.Errorf("reload: %v", err)
	}
	g.reload = errors.New("isthmus.yaml:1:1: wrong")
	if err := client.Reload(ctx); err == nil || err.Error() != g.reload.Error() {
		t.Errorf("failed reload: %v", err)
	}
	if runtime.GOOS != "windows" {
		info, err := os.Stat(filepath.Join(dir, SocketName))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the socket is open to others: %v, %v", info.Mode(), err)
		}
	}
	if _, err := ListenAdmin(dir); err == nil {
		t.Error("two gateways share a data directory")
	}
}

func TestNobodyListensAtTheSocket(t *testing.T) {
	client := NewClient(filepath.Join(t.TempDir(), SocketName))
	if _, err := client.Status(context.Background()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("%v", err)
	}
}

func TestServingEndsWithTheContext(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- newServer(t, &fakeGateway{}).ServePublic(ctx, ln) }()
	// A connection that says nothing must not hold up the end.
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	response, err := http.Get("http://" + ln.Addr().String() + "/livez")
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("still serving")
	}
}
