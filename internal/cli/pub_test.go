package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// buffer is an output that may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// call is one command that runs in the background.
type call struct {
	out, err buffer
	done     chan int
}

func begin(stdin string, args ...string) *call {
	c := &call{done: make(chan int, 1)}
	go func() { c.done <- Main(args, strings.NewReader(stdin), &c.out, &c.err) }()
	return c
}

// end waits for the command and checks its exit code.
func (c *call) end(t *testing.T, want int) {
	t.Helper()
	select {
	case got := <-c.done:
		if got != want {
			t.Fatalf("exit code is %d, want %d: %s", got, want, c.err.String())
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("the command does not end: %s%s", c.out.String(), c.err.String())
	}
}

// fakeServer accepts connections one after the other.
type fakeServer struct {
	t  *testing.T
	ln net.Listener
}

func newFakeServer(t *testing.T) *fakeServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return &fakeServer{t, ln}
}

func (s *fakeServer) url(path string) string { return "mqtt://" + s.ln.Addr().String() + path }

// accept waits for a client and answers its CONNECT.
func (s *fakeServer) accept(ack raw.Connack) (*raw.Conn, raw.Packet) {
	s.t.Helper()
	nc, err := s.ln.Accept()
	if err != nil {
		s.t.Fatal(err)
	}
	c := raw.On(s.t, nc)
	connect := c.Expect(raw.CONNECT)
	c.Send(ack)
	return c, connect
}

func TestPubSendsWhatTheFlagsSay(t *testing.T) {
	file := filepath.Join(t.TempDir(), "message")
	if err := os.WriteFile(file, []byte("from a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		path  string
		args  []string
		stdin string
		want  []string // topic and payload
	}{
		"an argument and the path":  {path: "/a/b", args: []string{"hello"}, want: []string{"a/b hello"}},
		"-m and -t":                 {args: []string{"-m", "hello", "-t", "x"}, want: []string{"x hello"}},
		"-t wins over the path":     {path: "/a/b", args: []string{"-m", "", "-t", "x"}, want: []string{"x "}},
		"a file":                    {path: "/a", args: []string{"-f", file}, want: []string{"a from a file"}},
		"standard input":            {path: "/a", args: []string{"-s"}, stdin: "one\ntwo\n", want: []string{"a one\ntwo\n"}},
		"lines of standard input":   {path: "/a", args: []string{"-l"}, stdin: "one\r\n\nthree", want: []string{"a one", "a ", "a three"}},
		"a message that is nothing": {path: "/a", args: []string{"-n"}, want: []string{"a "}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeServer(t)
			c := begin(tc.stdin, append([]string{"pub", s.url(tc.path)}, tc.args...)...)
			conn, _ := s.accept(raw.Connack{})
			for _, want := range tc.want {
				if p := conn.Expect(raw.PUBLISH); p.Topic+" "+p.Text() != want || p.QoS != 0 || p.Retain {
					t.Errorf("got %v, want %q", p, want)
				}
			}
			conn.Expect(raw.DISCONNECT)
			conn.Net.Close()
			c.end(t, 0)
			if c.out.String()+c.err.String() != "" {
				t.Errorf("it says %q %q", c.out.String(), c.err.String())
			}
		})
	}
}

func TestPubConnectsAsTheFlagsSay(t *testing.T) {
	s := newFakeServer(t)
	c := begin("", "pub", s.url("/a"), "x", "-i", "me", "-u", "user", "-P", "secret", "-c", "-x", "60", "-k", "7", "-r", "-q", "1",
		"--will-topic", "w", "--will-payload", "gone", "--will-qos", "2", "--will-retain",
		"-D", "publish content-type text/plain; charset=utf-8", "-D", "publish user-property a b c", "-D", "connect receive-maximum 5",
		"-D", "will will-delay-interval 9", "-D", "disconnect session-expiry-interval 3")
	conn, p := s.accept(raw.Connack{})
	got := p.Connect
	if got.ClientID != "me" || got.User != "user" || string(got.Password) != "secret" || got.Clean || got.KeepAlive != 7 ||
		got.Props.Int(raw.SessionExpiry) != 60 || got.Props.Int(raw.ReceiveMaximum) != 5 {
		t.Errorf("CONNECT is %+v", got)
	}
	if w := got.Will; w.Topic != "w" || string(w.Payload) != "gone" || w.QoS != 2 || !w.Retain || w.Props.Int(raw.WillDelay) != 9 {
		t.Errorf("will is %+v", w)
	}
	p = conn.ExpectPublish("a", "x")
	if !p.Retain || p.QoS != 1 || p.Props.Text(raw.ContentType) != "text/plain; charset=utf-8" || p.Props.Users()[0] != [2]string{"a", "b c"} {
		t.Errorf("PUBLISH is %v", p)
	}
	conn.Send(raw.Puback{ID: p.ID, Code: 0x10})
	if p := conn.Expect(raw.DISCONNECT); p.Props.Int(raw.SessionExpiry) != 3 {
		t.Errorf("DISCONNECT is %v", p)
	}
	conn.Net.Close()
	c.end(t, 0)
	if got, want := c.err.String(), "isthmus: nobody is subscribed to \"a\"\n"; got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
}

func TestPubSaysWhatIsWrongAndWhatToDo(t *testing.T) {
	dead := newFakeServer(t)
	dead.ln.Close()
	for name, tc := range map[string]struct {
		args []string
		exit int
		want string
	}{
		"nothing listens":        {[]string{dead.url("/a"), "x"}, 1, "hint: nothing listens there"},
		"no message":             {[]string{"mqtt://h/a"}, 2, "hint: name it behind the URL"},
		"two messages":           {[]string{"mqtt://h/a", "x", "-m", "y"}, 2, "twice"},
		"a message and a source": {[]string{"mqtt://h/a", "x", "-n"}, 2, "only one of"},
		"no topic":               {[]string{"mqtt://h", "x"}, 2, "hint: name it with -t"},
		"QoS 3":                  {[]string{"mqtt://h/a", "x", "-q", "3"}, 2, "QoS is 3"},
		"a scheme of its own":    {[]string{"http://h/a", "x"}, 2, "hint: a URL looks like"},
		"a version of its own":   {[]string{"mqtt://h/a", "x", "-V", "4"}, 2, "want 3.1, 3.1.1 or 5"},
		"a session without name": {[]string{"mqtt://h/a", "x", "-c"}, 2, "hint: name it with -i"},
		"properties before 5":    {[]string{"mqtt://h/a", "x", "-V", "3.1.1", "-D", "publish content-type x"}, 2, "-D needs MQTT 5"},
		"an unknown property":    {[]string{"mqtt://h/a", "x", "-D", "publish colour red"}, 2, `property "colour" is unknown`},
		"an unknown packet":      {[]string{"mqtt://h/a", "x", "-D", "pub content-type x"}, 2, `packet "pub" is unknown`},
		"a number over its bits": {[]string{"mqtt://h/a", "x", "-D", "connect receive-maximum 65536"}, 2, "not a number of 16 bits"},
		"a will without a topic": {[]string{"mqtt://h/a", "x", "--will-payload", "x"}, 2, "hint: name it with --will-topic"},
		"half a key pair":        {[]string{"mqtts://h/a", "x", "--cert", "f"}, 2, "go together"},
		"a file that is missing": {[]string{"mqtt://h/a", "-f", "/does/not/exist"}, 1, "reading the message"},
	} {
		t.Run(name, func(t *testing.T) {
			c := begin("", append([]string{"pub"}, tc.args...)...)
			c.end(t, tc.exit)
			for line := range strings.Lines(c.err.String()) {
				if !strings.HasPrefix(line, "isthmus: ") {
					t.Errorf("line %q", line)
				}
			}
			if !strings.Contains(c.err.String(), tc.want) {
				t.Errorf("it says %q, want %q", c.err.String(), tc.want)
			}
		})
	}
}

func TestRefusalsAreExplained(t *testing.T) {
	t.Run("connect", func(t *testing.T) {
		s := newFakeServer(t)
		c := begin("", "pub", s.url("/a"), "x", "-V", "3.1.1")
		s.accept(raw.Connack{Code: 5})
		c.end(t, 1)
		want := "isthmus: connecting: connect refused: 5 not authorized\nisthmus: hint: name the user with -u NAME -P PASSWORD, or in the URL: mqtt://NAME:PASSWORD@HOST\n"
		if got := c.err.String(); got != want {
			t.Errorf("it says %q", got)
		}
	})
	t.Run("publish", func(t *testing.T) {
		s := newFakeServer(t)
		c := begin("1\n2\n3\n", "pub", s.url("/a"), "-l", "-q", "1")
		conn, _ := s.accept(raw.Connack{})
		for _, code := range []raw.Code{0, 0x87, 0x87} {
			conn.Send(raw.Puback{ID: conn.Expect(raw.PUBLISH).ID, Code: code})
		}
		c.end(t, 1)
		for _, want := range []string{"2 messages were not published", "0x87 not authorized", `hint: the server's access rules forbid it; on an Isthmus, isthmus explain "a"`} {
			if !strings.Contains(c.err.String(), want) {
				t.Errorf("it says %q, want %q", c.err.String(), want)
			}
		}
	})
}

// certificate writes a self-signed certificate for localhost.
func certificate(t *testing.T) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(t.TempDir(), "cert.pem"), filepath.Join(t.TempDir(), "key.pem")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

func TestPubChecksTheServersCertificate(t *testing.T) {
	certFile, keyFile := certificate(t)
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		host string
		args []string
		exit int
		want string
	}{
		"an authority nobody named": {"localhost", nil, 1, "hint: name the server's authority with --cafile"},
		"the authority is named":    {"localhost", []string{"--cafile", certFile}, 0, ""},
		"another name":              {"127.0.0.1", []string{"--cafile", certFile}, 1, "hint: use the name in the server's certificate"},
		"no check":                  {"127.0.0.1", []string{"--insecure"}, 0, ""},
		"no PEM":                    {"localhost", []string{"--cafile", os.DevNull}, 1, "holds no certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newFakeServer(t)
			s.ln = tls.NewListener(s.ln, &tls.Config{Certificates: []tls.Certificate{pair}})
			_, port, _ := net.SplitHostPort(s.ln.Addr().String())
			c := begin("", append([]string{"pub", "mqtts://" + tc.host + ":" + port + "/a", "x"}, tc.args...)...)
			if tc.exit == 0 {
				conn, _ := s.accept(raw.Connack{})
				conn.ExpectPublish("a", "x")
				conn.Expect(raw.DISCONNECT)
				conn.Net.Close()
			} else if !strings.Contains(tc.want, "holds") {
				nc, err := s.ln.Accept()
				if err != nil {
					t.Fatal(err)
				}
				_ = nc.(*tls.Conn).Handshake()
				nc.Close()
			}
			c.end(t, tc.exit)
			if !strings.Contains(c.err.String(), tc.want) {
				t.Errorf("it says %q, want %q", c.err.String(), tc.want)
			}
		})
	}
}

func TestPubAndSubMeetAtMosquitto(t *testing.T) {
	url := "mqtt://" + raw.Mosquitto(t)
	for _, version := range []string{"3.1", "3.1.1", "5"} {
		for _, qos := range []string{"0", "1", "2"} {
			t.Run("MQTT "+version+" QoS "+qos, func(t *testing.T) {
				topic := "/" + version + "/" + qos
				begin("", "pub", url+topic, "hello", "-r", "-V", version, "-q", qos).end(t, 0)
				sub := begin("", "sub", url+topic, "-C", "1", "-v", "-V", version, "-q", qos)
				sub.end(t, 0)
				if got, want := sub.out.String(), topic[1:]+" hello\n"; got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			})
		}
	}
}
