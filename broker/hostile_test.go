package broker_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// heap is how many bytes are in use, garbage not counted. A test that compares two readings must not run beside others.
func heap() int64 {
	for range 3 { // twice for the pools, which keep what they have for one collection
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// unharmed expects that nothing has panicked and that the bystander is served as before.
func (s *server) unharmed(bystander *raw.Conn) {
	s.t.Helper()
	if n := s.stats().Panics; n != 0 {
		s.t.Fatalf("%d panics", n)
	}
	bystander.Quiet()
}

// alone waits until n connections are left.
func (s *server) alone(n int64) {
	s.t.Helper()
	eventually(s.t, func() error {
		if got := s.stats().Connections; got != n {
			return fmt.Errorf("%d connections, want %d", got, n)
		}
		return nil
	})
}

// outlast reads until the connection ends or a PINGREQ is answered.
func outlast(c *raw.Conn) {
	c.Send(raw.Pingreq{})
	for {
		if p, err := c.Next(time.Now().Add(c.Timeout)); err != nil || p.Type == raw.PINGRESP {
			return
		}
	}
}

// samples are packets of every type that a client may send, with everything in them.
func samples(v raw.Version) []raw.Sendable {
	connect := raw.Connect{
		Version: v, ClientID: "victim", Clean: true, KeepAlive: 60, User: "user", HasUser: true, Password: "password", HasPassword: true,
		Will: &raw.Will{Topic: "will", Payload: "gone", QoS: 1},
	}
	publish := raw.Publish{Topic: "a/b", Payload: "payload", QoS: 2, ID: 5}
	subscribe := raw.Subscribe{ID: 6, Filters: []raw.Filter{{Filter: "a/#", QoS: 2}, {Filter: "$share/g/+/b", QoS: 1}}}
	unsubscribe := raw.Unsubscribe{ID: 7, Filters: []string{"a/#", "x"}}
	puback, pubrec, pubrel, pubcomp := raw.Puback{ID: 1}, raw.Pubrec{ID: 2}, raw.Pubrel{ID: 3}, raw.Pubcomp{ID: 4}
	if v == raw.V5 {
		why := raw.Props{raw.ReasonString.Text("why"), raw.User("name", "value")}
		connect.Props = raw.Props{raw.SessionExpiry.Int(10), raw.ReceiveMaximum.Int(5), raw.MaximumPacketSize.Int(100), raw.TopicAliasMaximum.Int(3), raw.User("a", "b")}
		connect.Will.Props = raw.Props{raw.WillDelay.Int(1), raw.PayloadFormat.Int(1), raw.MessageExpiry.Int(9), raw.ContentType.Text("text"), raw.ResponseTopic.Text("r"), raw.CorrelationData.Bytes([]byte{1})}
		publish.Props = raw.Props{raw.PayloadFormat.Int(1), raw.MessageExpiry.Int(9), raw.TopicAlias.Int(1), raw.ResponseTopic.Text("r"), raw.CorrelationData.Bytes([]byte{1}), raw.ContentType.Text("text"), raw.User("a", "b")}
		subscribe.Props = raw.Props{raw.SubscriptionIdentifier.Int(300), raw.User("a", "b")}
		unsubscribe.Props = raw.Props{raw.User("a", "b")}
		puback.Code, puback.Props = 0x10, why
		pubrec.Code, pubrec.Props = 0x10, why
		pubrel.Code, pubrel.Props = 0x92, why
		pubcomp.Code, pubcomp.Props = 0x92, why
	}
	all := []raw.Sendable{connect, publish, puback, pubrec, pubrel, pubcomp, subscribe, unsubscribe, raw.Pingreq{}}
	if v == raw.V5 {
		all = append(all, raw.Auth{Code: 0x18, Props: raw.Props{raw.AuthMethod.Text("METHOD"), raw.AuthData.Bytes([]byte{1, 2})}},
			raw.Disconnect{Code: 4, Props: raw.Props{raw.SessionExpiry.Int(5), raw.ReasonString.Text("why"), raw.User("a", "b")}})
	}
	return append(all, raw.Disconnect{})
}

func TestPacketsCutShortAtEveryByteHarmNobody(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	bystander := s.open(raw.Connect{ClientID: "bystander", Clean: true})
	for _, v := range []raw.Version{raw.V31, raw.V311, raw.V5} {
		for i, p := range samples(v) {
			whole := raw.Encode(v, p)
			header := 2
			if whole[1] >= 0x80 {
				header = 3
			}
			// Said to be as short as it is, and said to be whole and then abandoned.
			for n := header; n < len(whole); n++ {
				for k, cut := range []raw.Sendable{raw.Frame(whole[0], whole[header:n]), raw.Bytes(whole[:n])} {
					c := raw.Dial(t, s.Addr)
					c.Version = v
					if i > 0 {
						c.Connected(raw.Connect{Version: v, ClientID: "victim", Clean: true})
					}
					c.Send(cut)
					if k == 0 {
						outlast(c)
					}
					c.Drop()
				}
			}
		}
		s.unharmed(bystander)
	}
	s.alone(1)
	s.unharmed(bystander)
}

func TestASubscribeThatEndsBehindItsFilterIsMalformed(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	bystander := s.open(raw.Connect{ClientID: "bystander", Clean: true})
	for _, b := range []raw.Bytes{{0x82, 5, 0, 1, 0, 0, 0}, {0x82, 6, 0, 1, 0, 0, 1, 'a'}} {
		c := s.open(raw.Connect{ClientID: "victim", Clean: true})
		c.Send(b)
		c.ExpectDisconnect(0x81)
		s.unharmed(bystander)
	}
}

// TestRandomBytesHarmNobody sends what a fuzzer would, through real sockets, to all parts of the server at once.
func TestRandomBytesHarmNobody(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	bystander := s.open(raw.Connect{ClientID: "bystander", Clean: true})
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(1, uint64(worker)))
			for range 150 {
				v := []raw.Version{raw.V31, raw.V311, raw.V5}[rng.IntN(3)]
				nc, err := net.Dial("tcp", s.Addr)
				if err != nil {
					t.Error(err)
					return
				}
				b := raw.Encode(v, raw.Connect{Version: v, ClientID: fmt.Sprint(rng.IntN(5)), Clean: rng.IntN(2) == 0})
				list := samples(v)
				for range rng.IntN(20) {
					p := raw.Encode(v, list[rng.IntN(len(list))])
					for range rng.IntN(3) {
						p[rng.IntN(len(p))] = byte(rng.IntN(256))
					}
					b = append(b, p...)
				}
				nc.Write(b)
				nc.Close()
			}
		})
	}
	all.Wait()
	s.unharmed(bystander)
}

func TestMemoryFollowsTheBytesThatCameNotTheLengthAnnounced(t *testing.T) {
	const clients = 1000
	for _, test := range []struct {
		says  string
		bytes raw.Bytes
	}{
		{"more than is allowed", raw.Bytes{0x10, 0xFF, 0xFF, 0xFF, 0x7F}},
		{"as much as is allowed before CONNECT", raw.FrameOf(0x10, 65_000, "MQTT", 5)},
	} {
		t.Run(test.says, func(t *testing.T) {
			s := start(t, options{})
			s.open(raw.Connect{ClientID: "first", Clean: true}).Close() // what is made once is made
			s.alone(0)
			before := heap()
			all := make([]net.Conn, clients)
			for i := range all {
				nc, err := net.Dial("tcp", s.Addr)
				if err != nil {
					t.Fatal(err)
				}
				defer nc.Close()
				nc.Write(test.bytes)
				all[i] = nc
			}
			eventually(t, func() error {
				if st := s.stats(); st.Accepted != clients+1 {
					return fmt.Errorf("%d connections came", st.Accepted)
				}
				return nil
			})
			if grown := (heap() - before) / clients; grown > 4<<10 {
				t.Errorf("a connection costs %d bytes, the client's end included", grown)
			}
			runtime.KeepAlive(all)
		})
	}
	t.Run("as much as is allowed after CONNECT", func(t *testing.T) {
		s := start(t, options{})
		before := heap()
		all := make([]*raw.Conn, 100)
		for i := range all {
			all[i] = s.open(raw.Connect{ClientID: fmt.Sprint(i), Clean: true})
			all[i].Send(raw.FrameOf(0x30, 1_000_000, "topic"))
		}
		if grown := (heap() - before) / int64(len(all)); grown > 32<<10 { // of which the test's own buffers are half
			t.Errorf("a connection costs %d bytes", grown)
		}
		runtime.KeepAlive(all)
	})
}

func TestUntilItIsAcceptedAConnectMayBeOnlySoLarge(t *testing.T) {
	t.Parallel()
	s := start(t, options{limits: broker.Limits{ConnectBytes: 1000}})
	connect := func(size int) []byte {
		p := raw.Connect{ClientID: "c", Clean: true, HasPassword: true}
		p.Password = strings.Repeat("x", size-len(p.Encode(nil, raw.V5))-1) // the length takes one byte more
		return p.Encode(nil, raw.V5)
	}
	fits := raw.Dial(t, s.Addr)
	fits.Send(raw.Bytes(connect(1000)))
	fits.ExpectCode(raw.CONNACK, 0)
	fits.Publish(raw.Publish{Topic: "x", Payload: strings.Repeat("x", 2000), QoS: 1, ID: 1})

	// One byte more is refused by its header alone.
	over := raw.Dial(t, s.Addr)
	over.Send(raw.Bytes(connect(1001)[:3]))
	over.ExpectClosed()
}

func TestNothingThatIsKeptKeepsAPacketAlive(t *testing.T) {
	const n = 1000
	s := start(t, options{hub: bridge.Limits{Subscriptions: 3 * n}})
	c := s.open(raw.Connect{ClientID: strings.Repeat("c", 200), Clean: true, Props: raw.Props{raw.User("padding", strings.Repeat("x", 4000))}})
	var padding raw.Props
	for range 15 {
		padding = append(padding, raw.User("padding", strings.Repeat("x", 4000)))
	}
	before := heap()
	for i := range n {
		c.Send(raw.Subscribe{ID: 1, Props: padding, Filters: []raw.Filter{{Filter: fmt.Sprintf("a/%d", i)}, {Filter: fmt.Sprintf("+/%d", i)}, {Filter: fmt.Sprintf("$share/g/%d", i)}}})
		c.ExpectCode(raw.SUBACK, 0)
	}
	if grown := heap() - before; grown > 8<<20 {
		t.Errorf("%d subscriptions keep %d MiB", 3*n, grown>>20)
	}
	// Retained values and aliases, too.
	before = heap()
	for i := range 300 {
		c.Publish(raw.Publish{Topic: fmt.Sprintf("r/x/%d", i), Payload: "x", Retain: true, QoS: 1, ID: 1, Props: append(raw.Props{raw.TopicAlias.Int(uint32(i%32 + 1))}, padding...)})
	}
	// 300 values with their user properties are 18 MiB; with the packets they came in they would be 36.
	limit := int64(26 << 20)
	if s.Store != nil {
		limit += 16 << 20 // its tables in memory
	}
	if grown := heap() - before; grown > limit {
		t.Errorf("300 retained values keep %d MiB", grown>>20)
	}
}

func TestATopicOf65535LevelsIsRefused(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("/", 65535)
	for _, hub := range []bridge.Limits{{}, {TopicBytes: 65535}} { // refused for its length, and for its levels
		s := start(t, options{hub: hub})
		bystander := s.open(raw.Connect{ClientID: "bystander", Clean: true})
		c := s.open(raw.Connect{ClientID: "deep", Clean: true})
		c.Send(raw.Publish{Topic: deep, Payload: "x", Retain: true, QoS: 1, ID: 1})
		c.ExpectAck(raw.PUBACK, 1, 0x90)
		c.Send(raw.Publish{Topic: deep, Payload: "x", Retain: true, QoS: 2, ID: 1})
		c.ExpectAck(raw.PUBREC, 1, 0x90)
		c.Send(raw.Publish{Topic: deep, Payload: "x", Retain: true})
		if hub.TopicBytes == 0 { // as long, and flat
			c.Send(raw.Publish{Topic: strings.Repeat("t", 60_000), Payload: "x", Retain: true, QoS: 1, ID: 1})
			c.ExpectAck(raw.PUBACK, 1, 0x90)
			c.Send(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: strings.Repeat("t", 60_000)}}})
			c.ExpectCode(raw.SUBACK, 0x8F)
		}
		c.Send(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: deep}, {Filter: deep[:60000] + "#"}, {Filter: "$share/g/" + deep[:60000]}}})
		c.ExpectCode(raw.SUBACK, 0x8F)
		c.Send(raw.Unsubscribe{ID: 1, Filters: []string{deep}})
		c.ExpectCode(raw.UNSUBACK, 0x11)
		c.Send(raw.Publish{Topic: "x", QoS: 1, ID: 1, Props: raw.Props{raw.ResponseTopic.Text(deep)}})
		c.ExpectDisconnect(0x95)
		will := raw.Dial(t, s.Addr)
		will.Send(raw.Connect{ClientID: "will", Clean: true, Will: &raw.Will{Topic: deep[:60000], Payload: "x", Retain: true}})
		will.ExpectCode(raw.CONNACK, 0x90)
		old := s.open(raw.Connect{Version: raw.V311, ClientID: "old", Clean: true})
		old.Send(raw.Publish{Topic: deep, Payload: "x", Retain: true, QoS: 1, ID: 1}) // 3.x has no other answer
		old.ExpectAck(raw.PUBACK, 1, 0)
		old.Send(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: deep}}})
		old.ExpectCode(raw.SUBACK, 0x80)
		if st := s.Hub.Stats(); st.Retained != 0 || st.Subscriptions != 0 {
			t.Errorf("%d retained values, %d subscriptions", st.Retained, st.Subscriptions)
		}
		s.unharmed(bystander)
	}
}

func TestTopicAliasesAreBoundedInNumberAndBytes(t *testing.T) {
	s := start(t, options{hub: bridge.Limits{TopicBytes: 1024}})
	before := heap()
	var all []*raw.Conn
	for i := range 20 {
		c := s.open(raw.Connect{ClientID: fmt.Sprint(i), Clean: true})
		for alias := range uint32(32) {
			c.Send(raw.Publish{Topic: strings.Repeat("t", 60_000), Props: raw.Props{raw.TopicAlias.Int(alias + 1)}})
		}
		c.Quiet()
		all = append(all, c)
	}
	if grown := heap() - before; grown > 8<<20 { // and not the 38 MiB that were sent
		t.Errorf("the aliases of %d clients keep %d MiB", len(all), grown>>20)
	}
	for _, test := range []struct {
		p    raw.Publish
		code raw.Code
	}{
		{raw.Publish{Topic: "x", Props: raw.Props{raw.TopicAlias.Int(0)}}, 0x94},
		{raw.Publish{Topic: "x", Props: raw.Props{raw.TopicAlias.Int(33)}}, 0x94},
		{raw.Publish{Props: raw.Props{raw.TopicAlias.Int(65535)}}, 0x94},
		{raw.Publish{Props: raw.Props{raw.TopicAlias.Int(7)}}, 0x82}, // never set
		{raw.Publish{}, 0x82},
	} {
		c := s.open(raw.Connect{ClientID: "aliases", Clean: true})
		c.Send(test.p)
		c.ExpectDisconnect(test.code)
	}
}

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestLogsNeverHoldPasswordsOrPayloads(t *testing.T) {
	t.Parallel()
	const password, payload = "MARKED-PASSWORD", "MARKED-PAYLOAD"
	var log lockedBuffer
	s := start(t, options{access: fenced{}, log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	for _, v := range []raw.Version{raw.V31, raw.V311, raw.V5} {
		connect := raw.Connect{
			Version: v, ClientID: "c", Clean: true, User: "u", HasUser: true, Password: password, HasPassword: true,
			Will: &raw.Will{Topic: "secret/will", Payload: payload},
		}
		refused := raw.Dial(t, s.Addr) // its will is not allowed
		refused.Send(connect)
		refused.Expect(raw.CONNACK)
		refused.Drop()
		connect.Will.Topic = "will"
		bad := connect
		bad.User = "bad"
		wrong := raw.Dial(t, s.Addr)
		wrong.Send(bad)
		wrong.Expect(raw.CONNACK)
		wrong.Drop()
		for _, p := range []raw.Sendable{
			connect, // a second CONNECT
			raw.Publish{Topic: "secret/x", Payload: payload, QoS: 1, ID: 1},
			raw.Publish{Topic: "a/#", Payload: payload, QoS: 1, ID: 1},
			raw.Publish{Topic: strings.Repeat("/", 2000), Payload: payload, QoS: 1, ID: 1},
			raw.WithFlags(raw.Publish{Topic: "a", Payload: payload, QoS: 1, ID: 1}, 6),
			raw.Shortened(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: payload}}}, 10),
			raw.Frame(0x30, uint16(60000), payload),
			raw.Frame(0x90, payload, password),
		} {
			c := s.open(connect)
			c.Send(p, p)
			outlast(c)
			c.Drop()
		}
	}
	s.stop()
	text := log.String()
	if !strings.Contains(text, "publish refused") || !strings.Contains(text, "connection ended") {
		t.Error("nothing was logged")
	}
	for _, mark := range []string{password, payload} {
		if i := strings.Index(text, mark); i >= 0 {
			t.Errorf("the log holds %s: ...%s", mark, text[max(0, i-300):i+len(mark)])
		}
	}
}

func TestSilentConnectionsAreClosedAtTheDeadline(t *testing.T) {
	t.Parallel()
	s := start(t, options{limits: broker.Limits{ConnectTimeout: 50 * time.Millisecond}})
	for i := range 50 {
		nc, err := net.Dial("tcp", s.Addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		switch i % 3 {
		case 0:
			nc.Write([]byte{0x10, 100, 0, 4, 'M'}) // begins and does not go on
		case 1:
			ended := make(chan struct{}) // drips
			defer func() { <-ended }()
			go func() {
				defer close(ended)
				for b := []byte{0x10, 0xFF, 0xFF, 0x02}; ; b = []byte{0} {
					if _, err := nc.Write(b); err != nil {
						return
					}
					time.Sleep(5 * time.Millisecond)
				}
			}()
		}
	}
	s.alone(0)
}

func TestASilentClientIsClosedAfterOneAndAHalfKeepAlivesHoweverLong(t *testing.T) {
	t.Parallel()
	for _, keepAlive := range []uint16{1, 3, 43690, 43691, 65535} {
		onFakeClock(t, options{}, func(s *fakeClock) {
			c := s.open(raw.Connect{Version: raw.V311, ClientID: "c", Clean: true, KeepAlive: keepAlive})
			limit := time.Duration(keepAlive) * time.Second * 3 / 2
			s.pass(limit - time.Millisecond)
			c.Quiet() // alive, and the time begins anew
			began := time.Now()
			c.Timeout = 2 * limit
			c.ExpectClosed()
			if took := time.Since(began); took < limit || took > limit+3*time.Second {
				t.Errorf("with a keep alive of %d s it was closed after %v, want %v", keepAlive, took, limit)
			}
		})
	}
	onFakeClock(t, options{}, func(s *fakeClock) {
		c := s.open(raw.Connect{Version: raw.V311, ClientID: "c", Clean: true})
		s.pass(1000 * time.Hour)
		c.Timeout = 2000 * time.Hour
		c.Quiet()
	})
	onFakeClock(t, options{}, func(s *fakeClock) {
		c, connack := s.connect(raw.Connect{ClientID: "c", Clean: true}) // MQTT 5: 0 is capped
		if got := connack.Props.Int(raw.ServerKeepAlive); got != 1200 {
			t.Errorf("Server Keep Alive is %d, want 1200", got)
		}
		began := time.Now()
		c.ExpectDisconnect(0x8D)
		if took := time.Since(began); took < 1800*time.Second || took > 1803*time.Second {
			t.Errorf("closed after %v", took)
		}
	})
}

func TestAPeerThatNeverFinishesItsHandshakeDelaysNobody(t *testing.T) {
	t.Parallel()
	config := selfSigned(t)
	silent := func(s *server) (all []net.Conn) {
		for range 20 {
			nc, err := net.Dial("tcp", s.Addr)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { nc.Close() })
			nc.Write([]byte{0x16, 3, 1}) // the beginning of a hello
			all = append(all, nc)
		}
		return all
	}
	s := start(t, options{tls: config, limits: broker.Limits{HandshakeTimeout: time.Hour}})
	silent(s)
	c := dialTLS(t, s)
	c.Connected(raw.Connect{ClientID: "c", Clean: true})
	c.Quiet()

	s = start(t, options{tls: config, limits: broker.Limits{HandshakeTimeout: 100 * time.Millisecond}})
	for _, nc := range silent(s) { // their time ends
		nc.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := nc.Read(make([]byte, 1)); os.IsTimeout(err) {
			t.Fatal("a connection without handshake is still open")
		}
	}
}

// scarce is a listener that has run out of file descriptors for a while.
type scarce struct {
	net.Listener
	left atomic.Int64
}

func (l *scarce) Accept() (net.Conn, error) {
	if l.left.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}

func TestAListenerSurvivesRunningOutOfDescriptors(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	addr := s.listen(func(ln net.Listener) net.Listener {
		l := &scarce{Listener: ln}
		l.left.Store(5)
		return l
	})
	c := raw.Dial(t, addr)
	c.Connected(raw.Connect{ClientID: "c", Clean: true})
	c.Quiet()
	if n := s.stats().AcceptFails; n != 5 {
		t.Errorf("%d failures are counted, want 5", n)
	}
}

// TestAServerOutOfDescriptorsComesBack runs a server in a process with few of them, uses them up, and frees them.
func TestAServerOutOfDescriptorsComesBack(t *testing.T) {
	t.Parallel()
	const child = "ISTHMUS_TEST_FEW_DESCRIPTORS"
	if os.Getenv(child) != "" {
		s := start(t, options{})
		fewDescriptors(t, 64)
		fmt.Fprintln(os.Stdout, s.Addr)
		os.Stdin.Read(make([]byte, 1)) // until the parent is done
		return
	}
	if testing.Short() {
		t.Skip("starts a process")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), child+"=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer stdin.Close()
	line := make([]byte, 100)
	n, err := stdout.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimSpace(string(line[:n]))
	if strings.Contains(addr, "SKIP") {
		t.Skip("the limit on descriptors cannot be lowered here")
	}
	first := raw.Dial(t, addr)
	first.Connected(raw.Connect{ClientID: "first", Clean: true})
	var hoard []net.Conn
	for range 200 {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		hoard = append(hoard, nc)
	}
	first.Quiet() // who is there is served meanwhile
	for _, nc := range hoard {
		nc.Close()
	}
	c := raw.Dial(t, addr)
	c.Connected(raw.Connect{ClientID: "later", Clean: true})
	c.Quiet()
	first.Quiet()
}

func TestOldClientsNeverReceiveWordsOfMQTT5(t *testing.T) {
	t.Parallel()
	for _, v := range []raw.Version{raw.V31, raw.V311} {
		s := start(t, options{access: fenced{}, limits: broker.Limits{InflightIn: 1}})
		closes := func(what string, packets ...raw.Sendable) {
			c := s.open(raw.Connect{Version: v, ClientID: "victim", Clean: true})
			defer c.Drop()
			c.Send(packets...)
			if p, err := c.Next(time.Now().Add(c.Timeout)); err == nil {
				t.Errorf("%s in MQTT %v: got %s", what, v, p)
			} else if os.IsTimeout(err) {
				t.Errorf("%s in MQTT %v: still open", what, v)
			}
		}
		closes("second CONNECT", raw.Connect{Version: v, ClientID: "victim"})
		closes("AUTH", raw.Frame(0xF0))
		closes("packet of a server", raw.Frame(0xD0))
		closes("bad QoS", raw.WithFlags(raw.Publish{Topic: "x"}, 6))
		closes("wildcard", raw.Publish{Topic: "#"})
		closes("no topic", raw.Publish{})
		closes("too large", raw.FrameOf(0x30, 2<<20))
		closes("varint", raw.Bytes{0x30, 0x80, 0x80, 0x80, 0x80, 1})

		c := s.open(raw.Connect{Version: v, ClientID: "c", Clean: true})
		next := s.open(raw.Connect{Version: v, ClientID: "c", Clean: true})
		c.ExpectClosed() // taken over
		c.Drop()
		s.Hub.SetAccess(nobody{})
		next.ExpectClosed()
		s.Hub.SetAccess(open{})
		last := s.open(raw.Connect{Version: v, ClientID: "last", Clean: true})
		next.Drop()
		ended := make(chan struct{})
		go func() {
			s.stop()
			close(ended)
		}()
		last.ExpectClosed() // shut down
		last.Drop()
		<-ended
	}
}

func TestTheLimitOnClientsCountsClientIDsSoATakeOverIsNeverRefused(t *testing.T) {
	t.Parallel()
	s := start(t, options{hub: bridge.Limits{Clients: 2}})
	a := s.open(raw.Connect{ClientID: "a", Clean: true})
	kept := s.open(raw.Connect{ClientID: "kept", Clean: true, Props: raw.Props{raw.SessionExpiry.Int(100)}})
	refused := func(v raw.Version, code raw.Code) {
		c := raw.Dial(t, s.Addr)
		c.Send(raw.Connect{Version: v, ClientID: "one too many", Clean: true})
		c.ExpectCode(raw.CONNACK, code)
		c.ExpectClosed()
		c.Drop()
	}
	refused(raw.V5, 0x97)
	refused(raw.V311, 3)
	again := s.open(raw.Connect{ClientID: "a", Clean: true})
	a.ExpectDisconnect(0x8E)
	a.Drop()
	kept.Drop() // offline it still counts, and may come back
	s.alone(1)
	refused(raw.V5, 0x97)
	s.open(raw.Connect{ClientID: "kept"}).Close()
	again.Quiet()
}

func TestTheLimitOnConnectionsActsBeforeAnyByteIsParsed(t *testing.T) {
	t.Parallel()
	s := start(t, options{limits: broker.Limits{Connections: 2}})
	var all []*raw.Conn
	for i := range 3 { // and one, so that somebody may be taken over
		all = append(all, s.open(raw.Connect{ClientID: fmt.Sprint(i), Clean: true}))
	}
	raw.Dial(t, s.Addr).ExpectClosed()
	if n := s.stats().Refused; n != 1 {
		t.Errorf("%d connections are counted as refused, want 1", n)
	}
	all[0].Close()
	s.alone(2)
	s.open(raw.Connect{ClientID: "next", Clean: true}).Quiet()
}

// bomb lets everybody in, but panics where the name says so.
type bomb struct{ open }

func (b bomb) Authenticate(ctx context.Context, c bridge.Credentials) (*bridge.Identity, error) {
	if c.User == "authenticate" {
		panic("authenticate")
	}
	id, err := b.open.Authenticate(ctx, c)
	id.Permissions = b
	return id, err
}

func (b bomb) Permissions(id *bridge.Identity) (bridge.Permissions, bool) {
	if id.User == "permissions" {
		panic("permissions")
	}
	return b, true
}
func (bomb) Allowed(_ bridge.Action, t bridge.Topic) bool {
	if t == "panic/allowed" {
		panic("allowed")
	}
	return true
}
func (bomb) Covers(f bridge.Filter) bridge.Coverage {
	if f == "panic/covers" {
		panic("covers")
	}
	return bridge.CoversPart
}

// bombSink panics at every delivery.
type bombSink struct{}

func (bombSink) Deliver(*bridge.Delivery) bridge.Outcome { panic("sink") }

// TestAPanicEndsOneConnection makes code panic that the engine calls, wherever it calls it.
func TestAPanicEndsOneConnection(t *testing.T) {
	t.Parallel()
	subscribe := func(filter string) raw.Sendable {
		return raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: filter, QoS: 1}}}
	}
	for _, test := range []struct {
		name    string
		connect raw.Connect
		packets []raw.Sendable
	}{
		{"at authentication", raw.Connect{User: "authenticate"}, nil},
		{"when the client is attached", raw.Connect{User: "permissions"}, nil},
		{"at a publish", raw.Connect{}, []raw.Sendable{raw.Publish{Topic: "panic/allowed", QoS: 1, ID: 1}}},
		{"at a subscribe", raw.Connect{}, []raw.Sendable{subscribe("panic/covers")}},
		{"in a sink", raw.Connect{}, []raw.Sendable{raw.Publish{Topic: "panic/sink", QoS: 1, ID: 1}}},
		{"in a sink, retained", raw.Connect{}, []raw.Sendable{raw.Publish{Topic: "panic/sink", Payload: "x", Retain: true, QoS: 2, ID: 1}}},
		{"when a will is announced", raw.Connect{Will: &raw.Will{Topic: "panic/allowed"}}, nil},
		{"when a will is sent", raw.Connect{Will: &raw.Will{Topic: "panic/sink"}}, []raw.Sendable{raw.Disconnect{Code: 4}}},
		{"when a delayed will is sent", raw.Connect{
			Props: raw.Props{raw.SessionExpiry.Int(1)}, Will: &raw.Will{Topic: "panic/sink", Props: raw.Props{raw.WillDelay.Int(1)}},
		}, []raw.Sendable{raw.Disconnect{Code: 4}}},
		{"when retained values are read", raw.Connect{}, []raw.Sendable{subscribe("panic/#")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var log lockedBuffer
			s := start(t, options{access: bomb{}, log: slog.New(slog.NewTextHandler(&log, nil))})
			bystander := s.open(raw.Connect{ClientID: "bystander", Clean: true})
			bystander.Subscribe(1, "a")
			sink, err := s.Hub.Attach(&bridge.Identity{ClientID: "sink", Permissions: open{}}, s.Hub.Counters("test"), func(bridge.Reason) {})
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := sink.Subscribe("panic/sink", bridge.SubscribeOptions{}, bombSink{}); err != nil {
				t.Fatal(err)
			}
			b := s.Hub.Begin()
			s.Hub.PublishSystem(b, &bridge.Message{Topic: "panic/allowed", Payload: []byte("x"), Retain: true})
			b.End()

			test.connect.ClientID, test.connect.Clean = "victim", true
			c := raw.Dial(t, s.Addr)
			c.Send(append([]raw.Sendable{test.connect}, test.packets...)...)
			for {
				if _, err := c.Next(time.Now().Add(c.Timeout)); err != nil {
					if os.IsTimeout(err) {
						t.Fatal("the connection is still open")
					}
					break
				}
			}
			c.Drop()
			eventually(t, func() error {
				st, hub := s.stats(), s.Hub.Stats()
				if st.Panics != 1 || st.Connections != 1 || st.Sessions != 1 || hub.Clients != 2 || hub.Subscriptions != 2 {
					return fmt.Errorf("%d panics, %d connections, %d sessions, %d clients, %d subscriptions", st.Panics, st.Connections, st.Sessions, hub.Clients, hub.Subscriptions)
				}
				return nil
			})
			if text := log.String(); !strings.Contains(text, "panic") || !strings.Contains(text, "goroutine") {
				t.Errorf("the panic is not logged with its stack: %s", text)
			}
			// The client id can be used again, and everybody else is served.
			again := s.open(raw.Connect{ClientID: "victim", Clean: true})
			again.Publish(raw.Publish{Topic: "a", Payload: "x", QoS: 1, ID: 1})
			bystander.Deliver()
		})
	}
}

// TestAPanicWhileASessionIsResumedLeavesItUsable lets the rules panic when a client comes back.
func TestAPanicWhileASessionIsResumedLeavesItUsable(t *testing.T) {
	t.Parallel()
	s := start(t, options{access: bomb{}})
	s.open(raw.Connect{ClientID: "c", Clean: true, Props: raw.Props{raw.SessionExpiry.Int(100)}}).Drop()
	c := raw.Dial(t, s.Addr)
	c.Send(raw.Connect{ClientID: "c", User: "permissions"})
	c.ExpectClosed()
	c.Drop()
	again, connack := raw.Open(t, s.Addr, raw.Connect{ClientID: "c"})
	if !connack.SessionPresent {
		t.Error("the session is gone")
	}
	again.Quiet()
}

func TestRevokedRightsEndAtTheNextPacketAlsoBehindAnAlias(t *testing.T) {
	t.Parallel()
	s := start(t, options{access: open{}})
	sub := s.open(raw.Connect{ClientID: "sub", Clean: true})
	sub.Subscribe(1, "secret/#", "+/x")
	pub := s.open(raw.Connect{ClientID: "pub", Clean: true})
	send := func(topic string, code raw.Code) {
		pub.Send(raw.Publish{Topic: topic, Payload: "x", QoS: 1, ID: 1, Props: raw.Props{raw.TopicAlias.Int(1)}})
		pub.ExpectAck(raw.PUBACK, 1, code)
	}
	send("secret/x", 0)
	send("", 0)
	sub.Deliver()
	sub.Deliver()
	s.Hub.SetAccess(fenced{})
	send("", 0x87)
	send("secret/x", 0x87)
	// The alias is known all the same, as the client believes.
	send("", 0x87)
	sub.Quiet()
	// And who may no longer read is given nothing, whoever may write.
	system := func() {
		b := s.Hub.Begin()
		defer b.End()
		s.Hub.PublishSystem(b, &bridge.Message{Topic: "secret/x", Payload: []byte("system")})
	}
	system()
	sub.Quiet()
	s.Hub.SetAccess(open{})
	system()
	sub.ExpectPublish("secret/x", "system")
	send("", 0)
	sub.Deliver()
}

func TestAClientWhoseUserIsGoneIsSentAwayEvenWhileItConnects(t *testing.T) {
	t.Parallel()
	s := start(t, options{})
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 30 {
				nc, err := net.Dial("tcp", s.Addr)
				if err != nil {
					t.Error(err)
					return
				}
				connect := raw.Connect{ClientID: fmt.Sprint(i), Clean: n%2 == 0, Props: raw.Props{raw.SessionExpiry.Int(100)}}
				nc.Write(connect.Encode(nil, raw.V5))
				defer nc.Close()
			}
		})
	}
	for range 20 {
		s.Hub.SetAccess(open{})
		runtime.Gosched()
		s.Hub.SetAccess(nobody{})
	}
	all.Wait()
	eventually(t, func() error {
		live := 0
		for _, c := range s.Hub.Clients() {
			if p := c.Identity().Permissions; !p.Allowed(bridge.Write, "x") {
				live++
			}
		}
		if n := s.stats().Connections; n != 0 {
			return fmt.Errorf("%d connections of clients that are not let in, %d sessions", n, live)
		}
		return nil
	})
}

func TestAfterLoadAllGaugesAreZero(t *testing.T) {
	t.Parallel()
	s := start(t, options{limits: broker.Limits{QueueMessages: 20, InflightOut: 5, UnsentBytes: 32 << 10}})
	s.LetFlap()
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			rng := rand.New(rand.NewPCG(2, uint64(worker)))
			for range 40 {
				nc, err := net.Dial("tcp", s.Addr)
				if err != nil {
					t.Error(err)
					return
				}
				var b []byte
				v := []raw.Version{raw.V311, raw.V5}[rng.IntN(2)]
				connect := raw.Connect{Version: v, ClientID: fmt.Sprint(rng.IntN(10)), Clean: rng.IntN(4) == 0}
				if v == raw.V5 {
					connect.Props = raw.Props{raw.SessionExpiry.Int(uint32(rng.IntN(2) * 100)), raw.ReceiveMaximum.Int(uint32(1 + rng.IntN(9)))}
				}
				b = connect.Encode(b, v)
				for range rng.IntN(30) {
					topic := fmt.Sprintf("t/%d", rng.IntN(4))
					id := uint16(1 + rng.IntN(20))
					switch rng.IntN(8) {
					case 0:
						b = raw.Subscribe{ID: id, Filters: []raw.Filter{{Filter: topic, QoS: byte(rng.IntN(3))}, {Filter: "$share/g/t/#", QoS: byte(rng.IntN(3))}}}.Encode(b, v)
					case 1:
						b = raw.Unsubscribe{ID: id, Filters: []string{topic, "$share/g/t/#"}}.Encode(b, v)
					case 2:
						b = raw.Puback{ID: id}.Encode(b, v)
					case 3:
						b = raw.Pubrel{ID: id}.Encode(b, v)
					default:
						b = raw.Publish{Topic: topic, Payload: strings.Repeat("x", rng.IntN(2000)), QoS: byte(rng.IntN(3)), ID: id, Retain: rng.IntN(5) == 0}.Encode(b, v)
					}
				}
				nc.Write(b)
				if rng.IntN(2) == 0 {
					nc.SetReadDeadline(time.Now().Add(time.Duration(rng.IntN(5)) * time.Millisecond))
					nc.Read(make([]byte, 4096))
				}
				nc.Close()
			}
		})
	}
	all.Wait()
	eventually(t, func() error { // the last of them may not have been looked at yet
		if st := s.stats(); st.Accepted != 8*40 || st.Connections != 0 {
			return fmt.Errorf("%d connections came, %d are left", st.Accepted, st.Connections)
		}
		return nil
	})
	for i := range 10 {
		s.open(raw.Connect{Version: raw.V311, ClientID: fmt.Sprint(i), Clean: true}).Close()
	}
	eventually(t, func() error {
		st, hub := s.stats(), s.Hub.Stats()
		if st.Connections != 0 || st.Sessions != 0 || st.Queued != 0 || st.QueuedBytes != 0 || st.Inflight != 0 || hub.Clients != 0 || hub.Subscriptions != 0 {
			return fmt.Errorf("left are %d connections, %d sessions, %d queued of %d bytes, %d in flight, %d clients, %d subscriptions",
				st.Connections, st.Sessions, st.Queued, st.QueuedBytes, st.Inflight, hub.Clients, hub.Subscriptions)
		}
		return nil
	})
	if n := s.stats().Panics; n != 0 {
		t.Errorf("%d panics", n)
	}
}

func TestShutdownUnderLoadEndsWithinItsGrace(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		o := options{}
		if secure {
			o.tls = selfSigned(t)
		}
		s := start(t, o)
		dial := func() net.Conn {
			if secure {
				return dialTLS(t, s).Net
			}
			nc, err := net.Dial("tcp", s.Addr)
			if err != nil {
				t.Fatal(err)
			}
			return nc
		}
		var list []net.Conn
		for range 60 {
			list = append(list, dial())
		}
		var all sync.WaitGroup
		for i, nc := range list {
			all.Go(func() {
				v := []raw.Version{raw.V311, raw.V5}[i%2]
				b := raw.Connect{Version: v, ClientID: fmt.Sprint(i % 40), Clean: i%3 == 0}.Encode(nil, v)
				b = raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "#", QoS: 1}}}.Encode(b, v)
				nc.Write(b)
				if i%2 == 0 {
					go func() { // half of them read what they are given
						for buf := make([]byte, 64<<10); ; {
							if _, err := nc.Read(buf); err != nil {
								return
							}
						}
					}()
				}
				p := raw.Publish{Topic: "x", Payload: strings.Repeat("x", 500), QoS: 1, ID: 1}.Encode(nil, v)
				p = slices.Concat(slices.Repeat([][]byte{p}, 20)...)
				for {
					if _, err := nc.Write(p); err != nil {
						return
					}
				}
			})
		}
		eventually(t, func() error {
			if st := s.stats(); st.MessagesOut[1] < 1000 {
				return fmt.Errorf("only %d messages went out", st.MessagesOut[1])
			}
			return nil
		})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			s.stop() // with a grace of 3 s
		}()
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			buf := make([]byte, 1<<20)
			t.Fatalf("shutdown hangs:\n%s", buf[:runtime.Stack(buf, true)])
		}
		for _, nc := range list {
			nc.Close()
		}
		all.Wait()
		if st := s.stats(); st.Connections != 0 || st.Panics != 0 {
			t.Errorf("%d connections are left, %d panics", st.Connections, st.Panics)
		}
	}
}

// pipes is a listener without a network.
type pipes struct {
	conns chan net.Conn
	ended chan struct{}
	end   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), ended: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case nc := <-p.conns:
		return nc, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.end.Do(func() { close(p.ended) })
	return nil
}

func (*pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// dial makes a connection that Accept returns.
func (p *pipes) dial(t testing.TB) *raw.Conn {
	ours, theirs := net.Pipe()
	p.conns <- theirs
	c := raw.On(t, ours)
	c.Timeout = time.Hour // costs nothing on a fake clock
	return c
}

func TestWithoutConfigurationASilentConnectionIsClosedAfterTenSeconds(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]*tls.Config{"CONNECT": nil, "TLS handshake": selfSigned(t)} {
		t.Run(name, func(t *testing.T) {
			onFakeClock(t, options{}, func(s *fakeClock) {
				ln := newPipes()
				ctx, cancel := context.WithCancel(context.Background())
				var serving sync.WaitGroup
				serving.Go(func() { s.Serve(ctx, ln, broker.Listener{TLS: config}) })
				defer serving.Wait()
				defer cancel()
				for _, b := range []raw.Bytes{nil, {0x10}, {0x10, 100, 0, 4, 'M'}} {
					if config != nil && b != nil {
						b = raw.Bytes{0x16, 3, 1} // the beginning of a hello
					}
					began := time.Now()
					c := ln.dial(s.t)
					if b != nil {
						c.Send(b)
					}
					c.ExpectClosed()
					if took := time.Since(began); took < 9*time.Second || took > 13*time.Second {
						t.Errorf("after % X it was closed in %v, want 10s", []byte(b), took)
					}
				}
			})
		})
	}
}

// TestAListenerOutOfDescriptorsTriesAgainWithoutHaste counts how long five failures in a row take.
func TestAListenerOutOfDescriptorsTriesAgainWithoutHaste(t *testing.T) {
	t.Parallel()
	onFakeClock(t, options{}, func(s *fakeClock) {
		ln := &scarce{Listener: newPipes()}
		ln.left.Store(5)
		ctx, cancel := context.WithCancel(context.Background())
		var serving sync.WaitGroup
		serving.Go(func() { s.Serve(ctx, ln, broker.Listener{}) })
		defer serving.Wait()
		defer cancel()
		began := time.Now()
		c := ln.Listener.(*pipes).dial(s.t)
		if took := time.Since(began); took < 100*time.Millisecond || took > 5*time.Second {
			t.Errorf("five failures took %v", took)
		}
		c.Connected(raw.Connect{ClientID: "c", Clean: true})
		c.Quiet()
		c.Close()
	})
}

// TestAPacketMayHaveOnlySoManyParts sends what fits into a packet and would take many times its size in memory.
func TestAPacketMayHaveOnlySoManyParts(t *testing.T) {
	t.Parallel()
	s := start(t, options{limits: broker.Limits{UserProperties: 3, FiltersPerPacket: 2}})
	bystander := s.open(raw.Connect{ClientID: "bystander", Clean: true})
	users := func(n int) raw.Props { return slices.Repeat(raw.Props{raw.User("", "")}, n) }
	filters := func(n int) (f []raw.Filter) { return slices.Repeat([]raw.Filter{{Filter: "x"}}, n) }
	for _, test := range []struct {
		most, over raw.Sendable
		answer     raw.Type
	}{
		{raw.Publish{Topic: "x", QoS: 1, ID: 1, Props: users(3)}, raw.Publish{Topic: "x", QoS: 1, ID: 1, Props: users(4)}, raw.PUBACK},
		{raw.Subscribe{ID: 1, Filters: filters(2)}, raw.Subscribe{ID: 1, Filters: filters(3)}, raw.SUBACK},
		{raw.Subscribe{ID: 1, Filters: filters(1), Props: users(3)}, raw.Subscribe{ID: 1, Filters: filters(1), Props: users(4)}, raw.SUBACK},
		{raw.Unsubscribe{ID: 1, Filters: []string{"x", "y"}}, raw.Unsubscribe{ID: 1, Filters: []string{"x", "y", "z"}}, raw.UNSUBACK},
		{raw.Unsubscribe{ID: 1, Filters: []string{"x"}, Props: users(3)}, raw.Unsubscribe{ID: 1, Filters: []string{"x"}, Props: users(4)}, raw.UNSUBACK},
	} {
		c := s.open(raw.Connect{ClientID: "victim", Clean: true})
		c.Send(test.most)
		c.Expect(test.answer)
		c.Send(test.over)
		c.ExpectDisconnect(0x97)
		s.unharmed(bystander)
	}
	c := raw.Dial(t, s.Addr)
	c.Send(raw.Connect{ClientID: "victim", Clean: true, Props: users(4)})
	c.ExpectCode(raw.CONNACK, 0x97)
	c.ExpectClosed()
}

// TestAClientThatStopsInTheMiddleOfAuthenticationIsClosedAfterTenSecondsToo counts from the beginning of the connection.
func TestAClientThatStopsInTheMiddleOfAuthenticationIsClosedAfterTenSecondsToo(t *testing.T) {
	t.Parallel()
	onFakeClock(t, options{exchanges: map[string]func() broker.Exchange{"steps": newSteps}}, func(s *fakeClock) {
		began := time.Now()
		c := s.dial()
		c.Timeout = time.Hour
		s.pass(6 * time.Second)
		c.Send(raw.Connect{ClientID: "c", Props: raw.Props{raw.AuthMethod.Text("steps")}})
		c.ExpectCode(raw.AUTH, 0x18)
		c.ExpectCode(raw.CONNACK, 0x80)
		c.ExpectClosed()
		if took := time.Since(began); took < 10*time.Second || took > 13*time.Second {
			t.Errorf("it was closed after %v", took)
		}
	})
}
