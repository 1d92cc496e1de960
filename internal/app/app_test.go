package app

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/internal/access"
	"github.com/isthmus-iot/isthmus/internal/certs"
)

// TestMain fails when a goroutine is left after the tests.
func TestMain(m *testing.M) {
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	for wait := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > 2 && time.Now().Before(wait); {
		time.Sleep(10 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); code == 0 && n > 2 {
		stacks := make([]byte, 1<<20)
		fmt.Printf("%d goroutines are left:\n%s\n", n, stacks[:runtime.Stack(stacks, true)])
		code = 1
	}
	os.Exit(code)
}

// gateway is a running App with its configuration in a directory of its own.
type gateway struct {
	*App
	t    *testing.T
	dir  string
	log  io.Writer // nil: nobody reads it
	stop func()
	done chan error
}

// start runs a gateway with a configuration. It ends with the test.
func start(t *testing.T, config string) *gateway {
	t.Helper()
	g := prepare(t)
	g.run(config)
	return g
}

// prepare makes the directory for a gateway that run will start.
func prepare(t *testing.T) *gateway {
	return &gateway{t: t, dir: shortDir(t), done: make(chan error, 1)}
}

// run starts the gateway.
func (g *gateway) run(config string) {
	t := g.t
	t.Helper()
	g.write("isthmus.yaml", config)
	c, err := Load(g.file("isthmus.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	log := g.log
	if log == nil {
		log = io.Discard
	}
	if g.App, err = New(c, NewLogger(log, false, c.Log)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	g.stop = cancel
	go func() { g.done <- g.Run(ctx) }()
	select {
	case <-g.Ready():
	case err := <-g.done:
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-g.done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("Run does not end")
		}
	})
}

// shortDir is a directory whose name leaves room for that of a socket.
func shortDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "isthmus")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func (g *gateway) file(name string) string { return filepath.Join(g.dir, name) }

func (g *gateway) write(name, text string) {
	g.t.Helper()
	if err := os.WriteFile(g.file(name), []byte(text), 0o600); err != nil {
		g.t.Fatal(err)
	}
}

// user adds a user whose password is the name.
func (g *gateway) user(name string) {
	g.t.Helper()
	if _, err := access.SetPassword(g.file("users.passwd"), name, []byte(name), access.PasswordOptions{NoSCRAM: true}); err != nil {
		g.t.Fatal(err)
	}
}

// address is where the i-th listener listens, as host:port.
func (g *gateway) address(i int) string {
	_, address, _ := strings.Cut(g.Status().Listeners[i].Address, "://")
	return address
}

// freePort is a port that nobody listens on.
func freePort(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

// connect connects as an MQTT 3.1.1 client, with user name and password when user is not empty, and returns what CONNACK
// said.
func connect(t *testing.T, conn net.Conn, user string) byte {
	t.Helper()
	t.Cleanup(func() { conn.Close() })
	field := func(s string) string { return string([]byte{byte(len(s) >> 8), byte(len(s))}) + s }
	flags, rest := byte(2), field("test-"+user)
	if user != "" {
		flags |= 0xC0
		rest += field(user) + field(user)
	}
	body := field("MQTT") + string([]byte{4, flags, 0, 60}) + rest
	if _, err := conn.Write(append([]byte{0x10, byte(len(body))}, body...)); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	var connack [4]byte
	if _, err := io.ReadFull(conn, connack[:]); err != nil {
		t.Fatalf("no CONNACK: %v", err)
	}
	return connack[3]
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// alive reports whether the server answers a PINGREQ.
func alive(conn net.Conn) bool {
	conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Write([]byte{0xC0, 0}); err != nil {
		return false
	}
	var pong [2]byte
	_, err := io.ReadFull(conn, pong[:])
	return err == nil && pong[0] == 0xD0
}

// ends reports whether the server ends the connection; it is not told to at once.
func ends(conn net.Conn) bool {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if !alive(conn) {
			return true
		}
	}
	return false
}

const open = "mqtt: {listen: [mqtt://127.0.0.1:0]}\nops: {listen: [http://127.0.0.1:0]}\ngateway: {data: data}\n"

func TestAGatewayServesUntilItIsStopped(t *testing.T) {
	g := start(t, open)
	conn := dial(t, g.address(0))
	if code := connect(t, conn, ""); code != 0 {
		t.Fatalf("CONNACK %d", code)
	}
	for path, want := range map[string]string{"readyz?verbose": "[+] mqtt ok", "metrics": `isthmus_connections{endpoint="mqtt"} 1`} {
		response, err := http.Get("http://" + g.address(1) + "/" + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		if response.StatusCode != http.StatusOK || !strings.Contains(string(body), want) {
			t.Errorf("%s: %s, no %s", path, response.Status, want)
		}
	}
	g.stop()
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection ends with %v", err)
	}
	err := <-g.done
	g.done <- err
	if err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", g.address(0)); err == nil {
		t.Error("still listening")
	}
}

func TestLocalhostIsOnePortOfBothIPVersions(t *testing.T) {
	l, err := listen(t.Context(), Address{"mqtt", "localhost", "0"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	for _, socket := range l.sockets {
		if _, port, _ := net.SplitHostPort(socket.Addr().String()); port != l.bound().Port {
			t.Errorf("%s, want port %s", socket.Addr(), l.bound().Port)
		}
	}
}

func TestAnAddressThatIsTakenIsNamed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	_, err = listen(t.Context(), Address{"mqtt", "127.0.0.1", port})
	if want := "listening on mqtt://127.0.0.1:" + port + ": another program listens there"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestReloadTakesOverUsersAndListeners(t *testing.T) {
	port := freePort(t)
	config := func(listen string) string {
		return "gateway: {data: data}\nusers: {file: users.passwd, anonymous: loopback}\nops: {listen: []}\nmqtt: {listen: [" + listen + "]}\n"
	}
	first := "mqtt://127.0.0.1:" + port
	g := prepare(t)
	g.user("ann")
	g.user("bob")
	g.run(config(first))

	ann, bob := dial(t, g.address(0)), dial(t, g.address(0))
	if a, b := connect(t, ann, "ann"), connect(t, bob, "bob"); a != 0 || b != 0 {
		t.Fatalf("CONNACK %d, %d", a, b)
	}

	if _, err := access.DeleteUser(g.file("users.passwd"), "bob"); err != nil {
		t.Fatal(err)
	}
	g.write("isthmus.yaml", config(first+", mqtt://127.0.0.1:0"))
	if err := g.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !alive(ann) {
		t.Error("a client of a listener that stays lost its connection")
	}
	if !ends(bob) {
		t.Error("a client whose user is gone is still connected")
	}
	fresh := dial(t, g.address(1))
	if code := connect(t, fresh, ""); code != 0 {
		t.Errorf("the new listener answers CONNACK %d", code)
	}
	if !g.Reading().Reloaded {
		t.Error("the metric says that the reload failed")
	}

	g.write("isthmus.yaml", config("mqtt://127.0.0.1:0"))
	if err := g.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if conn, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
		conn.Close()
		t.Error("a listener that has vanished still accepts")
	}
	if !ends(ann) {
		t.Error("a client of a listener that has vanished is still connected")
	}
	if !alive(fresh) {
		t.Error("a client of a listener that stays lost its connection when another vanished")
	}
	if len(g.Status().Listeners) != 1 {
		t.Errorf("listeners: %v", g.Status().Listeners)
	}
}

func TestReloadIsAllOrNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, c := range map[string]struct{ config, want string }{
		"unknown key":            {open + "mqt: {}\n", `isthmus.yaml:4:1: unknown key "mqt"`},
		"missing file":           {open + "users: {acl: missing.acl}\n", "missing.acl: no such file"},
		"mistake in a file":      {open + "users: {acl: bad.acl}\n", "bad.acl:1:7"},
		"address taken":          {strings.Replace(open, "mqtt://127.0.0.1:0", "mqtt://127.0.0.1:0, mqtt://"+taken.Addr().String(), 1) + "limits: {clients: 5}\n", "another program listens there"},
		"limit of the store":     {open + "store: {limit_bytes: 1GiB}\n", "isthmus.yaml:4:22: store.limit_bytes cannot change while the gateway runs"},
		"reserve of the store":   {open + "store: {reserve_bytes: 0}\n", "store.reserve_bytes cannot change while the gateway runs"},
		"key that needs restart": {open + "log: {format: json}\n", "isthmus.yaml:4:15: log.format cannot change while the gateway runs"},
	} {
		t.Run(name, func(t *testing.T) {
			g := start(t, open)
			g.write("bad.acl", "topic reed a\n")
			conn := dial(t, g.address(0))
			if code := connect(t, conn, ""); code != 0 {
				t.Fatalf("CONNACK %d", code)
			}
			before := g.config
			g.write("isthmus.yaml", c.config)
			err := g.Reload(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %s", err, c.want)
			}
			if g.config != before || g.hub.Limits().Clients == 5 || len(g.Status().Listeners) != 2 {
				t.Error("something of the new configuration is in force")
			}
			if g.Reading().Reloaded {
				t.Error("the metric says that the reload was successful")
			}
			if !alive(conn) {
				t.Error("a client lost its connection")
			}

			g.write("isthmus.yaml", open+"limits: {clients: 6}\n")
			if err := g.Reload(t.Context()); err != nil || g.hub.Limits().Clients != 6 || !g.Reading().Reloaded {
				t.Errorf("after the mistake is mended: %v", err)
			}
		})
	}
}

func TestReloadTakesOverCertificates(t *testing.T) {
	dir := shortDir(t)
	pair := func(name string) (certs.Pair, *x509.CertPool) {
		authority, err := certs.Open(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		p, err := authority.Server()
		if err != nil {
			t.Fatal(err)
		}
		pem, err := os.ReadFile(authority.Cert())
		if err != nil {
			t.Fatal(err)
		}
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(pem)
		return p, pool
	}
	oldPair, oldCA := pair("old")
	newPair, newCA := pair("new")
	config := func(p certs.Pair) string {
		return fmt.Sprintf("mqtt: {listen: [mqtts://127.0.0.1:0]}\nops: {listen: []}\ngateway: {data: data}\ntls: {cert: %s, key: %s}\n", p.Cert, p.Key)
	}
	g := start(t, config(oldPair))
	dialTLS := func(ca *x509.CertPool) (net.Conn, error) {
		return tls.Dial("tcp", g.address(0), &tls.Config{RootCAs: ca})
	}
	before, err := dialTLS(oldCA)
	if err != nil {
		t.Fatal(err)
	}
	if code := connect(t, before, ""); code != 0 {
		t.Fatalf("CONNACK %d", code)
	}
	g.write("isthmus.yaml", config(newPair))
	if err := g.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, err := dialTLS(newCA)
	if err != nil {
		t.Fatalf("the new certificate is not in use: %v", err)
	}
	after.Close()
	if !alive(before) {
		t.Error("a client lost its connection")
	}
}

func TestExplainKnowsClientsThatAreNotConnected(t *testing.T) {
	g := prepare(t)
	g.user("pump")
	g.write("access.acl", "user pump\ntopic write plant/#\n")
	g.run(open + "users: {file: users.passwd, acl: access.acl}\n")
	for user, want := range map[string]bool{"pump": true, "nobody": false, "": false} {
		steps := g.Explain(&bridge.Message{Topic: "plant/temp"}, "x", user)
		i := slices.IndexFunc(steps, func(s bridge.Step) bool { return s.Stage == "acl" })
		if i < 0 || steps[i].OK != want {
			t.Errorf("user %q: %v", user, steps)
		}
	}
}

func TestTheServiceManagerIsTold(t *testing.T) {
	name := filepath.Join(shortDir(t), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Skipf("no datagram sockets: %v", err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", name)
	expect := func(want string) {
		t.Helper()
		buf := make([]byte, 4096)
		manager.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := manager.Read(buf)
		if err != nil || !strings.HasPrefix(string(buf[:n]), want) {
			t.Errorf("%q, %v, want %s", buf[:n], err, want)
		}
	}
	g := start(t, open)
	expect("READY=1\nSTATUS=serving 2 addresses")
	if err := g.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	expect("RELOADING=1\nMONOTONIC_USEC=")
	expect("READY=1\n")
	g.stop()
	expect("STOPPING=1\n")
}

func TestLogsAreTextForPeopleAndJSONForPrograms(t *testing.T) {
	for _, c := range []struct {
		log      Log
		terminal bool
		want     string
	}{
		{Log{"info", "auto"}, true, "level=INFO msg=hello"},
		{Log{"info", "auto"}, false, `"level":"INFO","msg":"hello"`},
		{Log{"info", "text"}, false, "level=INFO msg=hello"},
		{Log{"warn", "json"}, true, ""},
	} {
		var b strings.Builder
		l := NewLogger(&b, c.terminal, c.log)
		l.Info("hello")
		if line, _ := bufio.NewReader(strings.NewReader(b.String())).ReadString('\n'); !strings.Contains(line, c.want) || (c.want == "") != (line == "") {
			t.Errorf("%+v: %q", c.log, line)
		}
	}
}

func TestWhoMayConnectIsSaidInWords(t *testing.T) {
	for text, want := range map[string]string{
		"mqtt: {listen: [mqtt://localhost]}":                                       "everybody on this machine",
		"mqtt: {listen: [mqtt://]}\nusers: {anonymous: all}":                       "everybody from everywhere",
		"mqtt: {listen: [mqtt://]}\nusers: {file: /dev/null}":                      "users from everywhere",
		"mqtt: {listen: [mqtt://localhost]}\nusers: {file: /dev/null}":             "users on this machine",
		"mqtt: {listen: [mqtt://]}\nusers: {file: /dev/null, anonymous: loopback}": "users from everywhere, and everybody on this machine",
		"mqtt: {listen: [mqtt://]}\nusers: {use_identity: dns}":                    "owners of a client certificate from everywhere",
		"mqtt: {listen: [mqtt://localhost]}\nusers: {anonymous: none}":             "nobody",
	} {
		c, err := Parse("isthmus.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := who(c, c.MQTT.Listen[0]); got != want {
			t.Errorf("%s\n%s, want %s", text, got, want)
		}
	}
}
