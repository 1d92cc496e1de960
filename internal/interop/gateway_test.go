package interop

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// gateway is a running isthmus serve.
type gateway struct {
	*program
	file  string            // its configuration
	ports map[string]string // by scheme
}

// plain is a configuration without users: clients of this machine may do everything.
const plain = `
gateway: {data: data}
mqtt: {listen: [mqtt://127.0.0.1:0], sys_interval: 1s}
ops: {listen: [http://127.0.0.1:0]}
log: {level: debug, format: json}
`

// serve starts a gateway and waits until it is open. It ends with the test, by SIGTERM and with exit code 0.
func serve(t *testing.T, config string) *gateway {
	t.Helper()
	file := filepath.Join(folder(t), "isthmus.yaml")
	write(t, file, config)
	return serveFile(t, file)
}

func serveFile(t *testing.T, file string) *gateway {
	t.Helper()
	g := &gateway{program: launch(t, binary, "serve", "-c", file), file: file, ports: make(map[string]string)}
	t.Cleanup(func() {
		select {
		case <-g.ended: // by the test
		default:
			if code := g.end(t, syscall.SIGTERM); code != 0 {
				t.Errorf("isthmus serve ended with exit code %d", code)
			}
		}
	})
	for g.ports["http"] == "" { // it is the last to be opened
		var said struct{ Address string }
		if err := json.Unmarshal([]byte(g.contains(t, `"msg":"listening"`)), &said); err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse(said.Address)
		if err != nil {
			t.Fatal(err)
		}
		g.ports[u.Scheme] = u.Port()
	}
	return g
}

// folder is a directory that is short enough for the name of a socket in it, which those of tests are not.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "isthmus")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// reload sends SIGHUP and waits for the outcome: the text of the log.
func (g *gateway) reload(t *testing.T, want string) string {
	t.Helper()
	log := g.from()
	if err := g.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	line := log.contains(t, `"msg":"reload`)
	if !strings.Contains(line, want) {
		t.Fatalf("the reload said %s, want %q", line, want)
	}
	return line
}

// door is a way into a gateway: a listener and how clients prove who they are.
type door struct {
	name           string
	port           string
	user, password string
	ca, cert, key  string
	tree           string // what the client may use begins so
}

// doors starts a gateway that needs no users and one from a set-up of isthmus init, and gives the ways into them.
func doors(t *testing.T) []door {
	t.Helper()
	open := serve(t, plain)
	dir := filepath.Join(folder(t), "plant")
	said := succeeds(t, "", binary, "init", dir, "--port", "0", "--tls-port", "0", "--ops-port", "0")
	password := regexp.MustCompile(`(?m)^  admin +(\S{20,})$`).FindStringSubmatch(said)
	if password == nil {
		t.Fatalf("isthmus init names no password:\n%s", said)
	}
	plant := serveFile(t, filepath.Join(dir, "isthmus.yaml"))
	tls := func(name string) string { return filepath.Join(dir, "tls", name) }
	return []door{
		{name: "TCP", port: open.ports["mqtt"]},
		{name: "TLS with password", port: plant.ports["mqtts"], ca: tls("ca.crt"), user: "admin", password: password[1]},
		{name: "TLS with client certificate", port: plant.ports["mqtts"], ca: tls("ca.crt"),
			cert: tls("client-device.crt"), key: tls("client-device.key"), tree: "devices/device/"},
	}
}

var serial atomic.Int64

// topic is a topic that no other test uses; what is below it is free too.
func (d door) topic() string { return fmt.Sprintf("%st%d", d.tree, serial.Add(1)) }

// clientID is a client id that no other test uses, short enough for every version.
func clientID() string { return fmt.Sprintf("client-%d", serial.Add(1)) }

// freePort is a port that nobody listens on, for programs that cannot choose one themselves. It is below those that systems
// give to outgoing connections, of which other tests make many meanwhile.
func freePort(t *testing.T) string {
	t.Helper()
	for {
		port := strconv.Itoa(20_000 + rand.N(12_000))
		ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", port))
		if err == nil {
			ln.Close()
			return port
		}
	}
}
