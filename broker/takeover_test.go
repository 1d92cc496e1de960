package broker_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/raw"
)

// held lets everybody do everything, but whoever publishes to "held" waits in the middle of it until release is closed.
type held struct {
	open
	entered chan struct{} // somebody waits
	release chan struct{}
}

func newHeld() *held { return &held{entered: make(chan struct{}, 100), release: make(chan struct{})} }

func (h *held) Authenticate(ctx context.Context, c bridge.Credentials) (*bridge.Identity, error) {
	id, err := h.open.Authenticate(ctx, c)
	id.Permissions = h
	return id, err
}
func (h *held) Permissions(*bridge.Identity) (bridge.Permissions, bool) { return h, true }
func (h *held) Allowed(_ bridge.Action, t bridge.Topic) bool {
	if t == "held" {
		h.entered <- struct{}{}
		<-h.release
	}
	return true
}

// TestATakeOverWaitsForWhatTheOldConnectionIsAtWorkOn has a client send a QoS 2 message, and again over a new connection while
// the first is still being handled.
func TestATakeOverWaitsForWhatTheOldConnectionIsAtWorkOn(t *testing.T) {
	t.Parallel()
	access := newHeld()
	s := start(t, options{access: access})
	sub := s.open(raw.Connect{ClientID: "sub", Clean: true})
	sub.Subscribe(2, "held")
	connect := raw.Connect{ClientID: "pub", Props: raw.Props{raw.SessionExpiry.Int(100)}}
	old := s.open(connect)
	old.Send(raw.Publish{Topic: "held", Payload: "once", QoS: 2, ID: 1})
	<-access.entered
	next := raw.Dial(t, s.Addr)
	next.Send(connect, raw.Publish{Topic: "held", Payload: "once", QoS: 2, ID: 1, Dup: true})
	select {
	case <-access.entered:
		t.Error("it is handled beside the first")
	case <-time.After(50 * time.Millisecond): // enough for that to happen; nothing is late where it does not
	}
	close(access.release)
	next.ExpectCode(raw.CONNACK, 0)
	next.ExpectAck(raw.PUBREC, 1, 0)
	next.Send(raw.Pubrel{ID: 1})
	next.ExpectAck(raw.PUBCOMP, 1, 0)
	sub.Deliver()
	sub.Quiet()
}

// flood sends the same bytes again and again, and reads nothing, until the connection ends.
func flood(c *raw.Conn, packets ...raw.Sendable) (ended <-chan struct{}) {
	done := make(chan struct{})
	b := raw.Encode(c.Version, packets...)
	go func() {
		defer close(done)
		for {
			if _, err := c.Net.Write(b); err != nil {
				return
			}
		}
	}()
	return done
}

// burst is n packets of one kind.
func burst(n int, p raw.Sendable) raw.Sendable {
	return raw.Encoded(slices.Repeat([]raw.Sendable{p}, n)...)
}

// selfSigned is a certificate for 127.0.0.1.
func selfSigned(t testing.TB) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// dialTLS connects to a server that start has given a certificate.
func dialTLS(t testing.TB, s *server) *raw.Conn {
	t.Helper()
	nc, err := tls.Dial("tcp", s.Addr, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	return raw.On(t, nc)
}

// everyWay runs a test over each way in which a connection may be read: by a poller where there is one, by a goroutine that
// reads the socket when it is readable, and by one that waits in Read.
func everyWay(t *testing.T, o options, test func(t *testing.T, s *server, connect func(raw.Connect) *raw.Conn)) {
	for _, way := range []struct {
		name string
		tls  bool
		dial func(t *testing.T, s *server) *raw.Conn
	}{
		{"accepted", false, func(t *testing.T, s *server) *raw.Conn { return raw.Dial(t, s.Addr) }},
		{"handed over", false, handedOver},
		{"TLS", true, func(t *testing.T, s *server) *raw.Conn { return dialTLS(t, s) }},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			o := o
			if way.tls {
				o.tls = selfSigned(t)
			}
			s := start(t, o)
			s.LetFlap()
			test(t, s, func(p raw.Connect) *raw.Conn {
				c := way.dial(t, s)
				c.Connected(p)
				return c
			})
		})
	}
}

// handedOver is a connection that somebody else has accepted for the server.
func handedOver(t *testing.T, s *server) *raw.Conn {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c := raw.Dial(t, ln.Addr().String())
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	go s.ServeConn(nc)
	return c
}

func TestAWriteErrorWhileTheReaderIsAtWorkEndsTheConnection(t *testing.T) {
	t.Parallel()
	everyWay(t, options{}, func(t *testing.T, s *server, connect func(raw.Connect) *raw.Conn) {
		access := newHeld()
		s.Hub.SetAccess(access)
		c := connect(raw.Connect{ClientID: "reset", Clean: true, Props: raw.Props{raw.SessionExpiry.Int(100)}})
		c.Send(raw.Publish{Topic: "held", QoS: 1, ID: 1})
		<-access.entered
		c.Reset() // the PUBACK will meet a broken connection, in the goroutine that reads from it
		close(access.release)
		s.alone(0)
		again := connect(raw.Connect{ClientID: "reset"})
		again.Quiet()
	})
}

func TestTwoClientsThatBreakWhileEachWritesToTheOtherDoNotLockUp(t *testing.T) {
	t.Parallel()
	everyWay(t, options{}, func(t *testing.T, s *server, connect func(raw.Connect) *raw.Conn) {
		access := newHeld()
		s.Hub.SetAccess(access)
		a := connect(raw.Connect{ClientID: "a", Clean: true})
		b := connect(raw.Connect{ClientID: "b", Clean: true})
		a.Subscribe(0, "to/a")
		b.Subscribe(0, "to/b")
		a.Send(raw.Publish{Topic: "to/b"}, raw.Publish{Topic: "held", QoS: 1, ID: 1})
		b.Send(raw.Publish{Topic: "to/a"}, raw.Publish{Topic: "held", QoS: 1, ID: 1})
		<-access.entered // where one goroutine reads both, only one of them enters
		a.Reset()
		b.Reset()
		close(access.release)
		s.alone(0)
	})
}

// slowly has the server read so slowly from one client that its socket is never empty.
var slowly = options{hub: bridge.Limits{MessagesPerSecond: 1000}}

func TestAClientThatNeverStopsSendingIsTakenOverAtOnce(t *testing.T) {
	t.Parallel()
	everyWay(t, slowly, func(t *testing.T, s *server, connect func(raw.Connect) *raw.Conn) {
		c := connect(raw.Connect{ClientID: "busy", Clean: true})
		ended := flood(c, burst(1000, raw.Publish{Topic: "x", Payload: "some bytes"}))
		s.busy()
		next := connect(raw.Connect{ClientID: "busy", Clean: true})
		<-ended
		next.Quiet()
	})
}

// busy waits until messages come in.
func (s *server) busy() {
	eventually(s.t, func() error {
		if s.stats().MessagesIn[0] == 0 {
			return fmt.Errorf("nothing came in")
		}
		return nil
	})
}

func TestAClientThatNeverStopsSendingIsSentAwayWhenItsRightsEnd(t *testing.T) {
	t.Parallel()
	everyWay(t, slowly, func(t *testing.T, s *server, connect func(raw.Connect) *raw.Conn) {
		c := connect(raw.Connect{ClientID: "busy", Clean: true})
		ended := flood(c, burst(1000, raw.Publish{Topic: "x", Payload: "some bytes"}))
		s.busy()
		s.Hub.SetAccess(nobody{})
		<-ended
	})
}

// nobody lets nobody in.
type nobody struct{ open }

func (nobody) Authenticate(context.Context, bridge.Credentials) (*bridge.Identity, error) {
	return nil, bridge.Refuse(bridge.Unauthenticated, "nobody is let in")
}
func (nobody) Permissions(*bridge.Identity) (bridge.Permissions, bool) { return nil, false }

func TestShutdownEndsClientsThatNeverStopSending(t *testing.T) {
	t.Parallel()
	everyWay(t, slowly, func(t *testing.T, s *server, connect func(raw.Connect) *raw.Conn) {
		var all []<-chan struct{}
		for i := range 10 {
			c := connect(raw.Connect{ClientID: fmt.Sprint(i), Clean: true})
			all = append(all, flood(c, burst(1000, raw.Publish{Topic: "x", Payload: "some bytes"})))
		}
		s.busy()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		for _, ended := range all {
			<-ended
		}
	})
}

func TestTheOldConnectionIsToldOfTheTakeOverWhateverFlowsToIt(t *testing.T) {
	t.Parallel()
	everyWay(t, options{}, takeOverUnderTraffic)
}

func takeOverUnderTraffic(t *testing.T, _ *server, connect func(raw.Connect) *raw.Conn) {
	pub := connect(raw.Connect{ClientID: "publisher", Clean: true})
	flood(pub, burst(10, raw.Publish{Topic: "x", Payload: "some bytes"}))
	var last *raw.Conn
	for range 30 {
		c := connect(raw.Connect{ClientID: "subscriber", Clean: true})
		if last != nil {
			for {
				p := last.Read()
				if p.Type == raw.DISCONNECT {
					if p.Code != 0x8E {
						t.Fatalf("got %s, want code 0x8E", p)
					}
					break
				}
			}
		}
		c.Send(raw.Subscribe{ID: 1, Filters: []raw.Filter{{Filter: "x"}}})
		c.Await(raw.SUBACK)
		last = c
	}
	pub.Drop()
}

// deliveries are what a subscriber was given, over all its connections.
type deliveries struct {
	mu     sync.Mutex
	copies map[string]*copies
}

// copies are how often one message came.
type copies struct {
	firsts int             // without DUP
	ids    map[uint16]bool // packet identifiers
}

func TestOfManyConnectionsWithOneClientIDOneSurvivesAndNothingIsLost(t *testing.T) {
	t.Parallel()
	for _, qos := range []byte{1, 2} {
		t.Run(fmt.Sprintf("QoS %d", qos), func(t *testing.T) {
			s := start(t, options{limits: broker.Limits{QueueMessages: 100_000, QueueBytes: 1 << 30}})
			s.LetFlap()
			connect := raw.Connect{ClientID: "one", Props: raw.Props{raw.SessionExpiry.Int(100), raw.ReceiveMaximum.Int(10)}}
			first := s.open(connect)
			first.Subscribe(qos, "x")
			first.Drop()

			const messages = 2000
			pub := s.open(raw.Connect{ClientID: "publisher", Clean: true})
			var published sync.WaitGroup
			published.Go(func() {
				for i := range messages {
					pub.Send(raw.Publish{Topic: "x", Payload: fmt.Sprint(i), QoS: 1, ID: uint16(i + 1)})
					if p, err := pub.Next(time.Now().Add(10 * time.Second)); err != nil || p.Type != raw.PUBACK {
						t.Errorf("publish %d: got %s, %v", i, p, err)
						return
					}
				}
			})
			got := deliveries{copies: make(map[string]*copies)}
			var all sync.WaitGroup
			for range 200 {
				all.Go(func() { got.take(t, s.Addr, connect) })
			}
			published.Wait()
			eventually(t, func() error {
				got.mu.Lock()
				defer got.mu.Unlock()
				if len(got.copies) < messages {
					return fmt.Errorf("%d of %d messages came", len(got.copies), messages)
				}
				return nil
			})
			eventually(t, func() error {
				if n := s.stats().Connections; n != 2 {
					return fmt.Errorf("%d connections, want the publisher and one survivor", n)
				}
				return nil
			})
			if n := s.stats().Sessions; n != 2 {
				t.Errorf("%d sessions, want 2", n)
			}
			pub.Drop()
			s.stop()
			all.Wait()
			for payload, c := range got.copies {
				if c.firsts > 1 || len(c.ids) != 1 {
					t.Errorf("message %s came %d times as a new one, with identifiers %v", payload, c.firsts, c.ids)
				}
			}
		})
	}
}

// take connects, acknowledges what it is given, and goes on until somebody takes over.
func (d *deliveries) take(t *testing.T, addr string, connect raw.Connect) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer nc.Close()
	nc.Write(connect.Encode(nil, raw.V5))
	r := bufio.NewReader(nc)
	for {
		p, err := raw.ReadPacket(r, raw.V5)
		if err != nil {
			return
		}
		switch {
		case p.Type == raw.PUBLISH && p.QoS == 2:
			d.add(p)
			nc.Write(raw.Pubrec{ID: p.ID}.Encode(nil, raw.V5))
		case p.Type == raw.PUBLISH:
			d.add(p)
			nc.Write(raw.Puback{ID: p.ID}.Encode(nil, raw.V5))
		case p.Type == raw.PUBREL:
			nc.Write(raw.Pubcomp{ID: p.ID}.Encode(nil, raw.V5))
		}
	}
}

func (d *deliveries) add(p raw.Packet) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.copies[p.Text()]
	if c == nil {
		c = &copies{ids: make(map[uint16]bool)}
		d.copies[p.Text()] = c
	}
	c.ids[p.ID] = true
	if !p.Dup {
		c.firsts++
	}
}

// resumption plays a client that comes back again and again while messages are published to it, at random places of the
// protocol, without saying goodbye. It handles only what the present connection brings, as a real client does, and must be
// given every message, in order, and at QoS 2 once.
type resumption struct {
	t        *testing.T
	s        *server
	connect  raw.Connect
	qos      byte
	rng      *mathrand.Rand
	next     int             // number of the message that is due
	received map[uint16]bool // QoS 2: identifiers received and not released
	messages int             // that will be published
}

// run connects, goes through up to steps packets, and leaves the connection to the next take-over.
func (r *resumption) run(steps int) {
	c, connack := raw.Open(r.t, r.s.Addr, r.connect)
	if !connack.SessionPresent {
		r.t.Fatal("the session is gone")
	}
	due := -1 // number of the last resent message: resends come first and in order
	fresh := false
	maximum, owed := int(r.connect.Props.Int(raw.ReceiveMaximum)), 0
	for range steps {
		if owed == maximum || r.next == r.messages {
			return // nothing more may come
		}
		p, err := c.Next(time.Now().Add(5 * time.Second))
		if err != nil {
			r.t.Fatalf("waiting for message %d: %v", r.next, err)
		}
		if p.Type == raw.PUBREL {
			delete(r.received, p.ID)
			if r.rng.IntN(4) > 0 {
				c.Ack(p)
			} else {
				owed++
			}
			continue
		}
		var n int
		fmt.Sscan(p.Text(), &n)
		switch {
		case p.Type != raw.PUBLISH || p.QoS != r.qos:
			r.t.Fatalf("got %s", p)
		case p.Dup && fresh, p.Dup && n <= due:
			r.t.Fatalf("message %d came again behind a later one", n)
		case p.Dup && r.qos == 2 && r.received[p.ID]:
		case p.Dup && n < r.next && r.qos == 1:
		case n != r.next:
			r.t.Fatalf("message %d came, want %d: %s", n, r.next, p)
		case r.qos == 2 && r.received[p.ID]:
			r.t.Fatalf("identifier %d was given to message %d before it was released", p.ID, n)
		default:
			r.next++
		}
		if p.Dup {
			due = n
		} else {
			fresh = true
		}
		if r.qos == 2 {
			r.received[p.ID] = true
		}
		if r.rng.IntN(4) > 0 {
			c.Ack(p)
		} else {
			owed++
		}
	}
	if r.rng.IntN(2) == 0 {
		c.Reset() // or the connection is still there when the next one comes
	}
}

func TestAClientThatComesBackAgainAndAgainLosesNothingAndKeepsTheOrder(t *testing.T) {
	t.Parallel()
	for _, qos := range []byte{1, 2} {
		for _, maximum := range []uint32{1, 3, 100} {
			for _, aliases := range []uint32{0, 2} {
				t.Run(fmt.Sprintf("QoS %d, Receive Maximum %d, %d aliases", qos, maximum, aliases), func(t *testing.T) {
					t.Parallel()
					s := start(t, options{})
					s.LetFlap()
					const messages = 300
					r := &resumption{
						t: t, s: s, qos: qos, rng: mathrand.New(mathrand.NewPCG(uint64(qos), uint64(maximum))), received: make(map[uint16]bool),
						connect: raw.Connect{ClientID: "subscriber", Props: raw.Props{
							raw.SessionExpiry.Int(100), raw.ReceiveMaximum.Int(maximum), raw.TopicAliasMaximum.Int(aliases),
						}},
						messages: messages,
					}
					first := s.open(r.connect)
					first.Subscribe(qos, "x/#")
					pub := s.open(raw.Connect{ClientID: "publisher", Clean: true})
					var published sync.WaitGroup
					published.Go(func() {
						for i := range messages {
							pub.Send(raw.Publish{Topic: "x/y", Payload: fmt.Sprint(i), QoS: 2, ID: uint16(i + 1)})
							if p, err := pub.Next(time.Now().Add(10 * time.Second)); err != nil || p.Type != raw.PUBREC {
								t.Errorf("publish %d: got %s, %v", i, p, err)
								return
							}
							pub.Send(raw.Pubrel{ID: uint16(i + 1)})
							if p, err := pub.Next(time.Now().Add(10 * time.Second)); err != nil || p.Type != raw.PUBCOMP {
								t.Errorf("publish %d: got %s, %v", i, p, err)
								return
							}
						}
					})
					defer published.Wait()
					for r.next < messages {
						r.run(1 + r.rng.IntN(12))
					}
					last, _ := raw.Open(t, s.Addr, r.connect)
					last.Send(raw.Pingreq{})
					for done := false; !done; { // acknowledges what is left, until nothing comes that was not there
						switch p := last.Read(); {
						case p.Type == raw.PINGRESP:
							done = s.stats().Inflight == 0
							last.Send(raw.Pingreq{})
						case p.Type == raw.PUBREL:
							delete(r.received, p.ID)
							last.Ack(p)
						default:
							last.Ack(p)
						}
					}
					if len(r.received) > 0 {
						t.Errorf("messages with the identifiers %v were never released", r.received)
					}
				})
			}
		}
	}
}

// TestATakeOverWaitsForTheGoroutineThatReadsTheOldConnection is the same where each connection is read by a goroutine of its
// own: a poller that is held up in the first could not read the second.
func TestATakeOverWaitsForTheGoroutineThatReadsTheOldConnection(t *testing.T) {
	t.Parallel()
	access := newHeld()
	s := start(t, options{access: access})
	sub := s.open(raw.Connect{ClientID: "sub", Clean: true})
	sub.Subscribe(2, "held")
	connect := raw.Connect{ClientID: "pub", Props: raw.Props{raw.SessionExpiry.Int(100)}}
	old := handedOver(t, s)
	old.Connected(connect)
	old.Send(raw.Publish{Topic: "held", Payload: "once", QoS: 2, ID: 1})
	<-access.entered
	next := handedOver(t, s)
	next.Send(connect, raw.Publish{Topic: "held", Payload: "once", QoS: 2, ID: 1, Dup: true})
	// It is told that it is taken over, and only when it has left the other one is let in.
	old.ExpectCode(raw.DISCONNECT, 0x8E)
	next.ExpectNothing(50 * time.Millisecond) // enough for that to happen; nothing is late where it does not
	if len(access.entered) > 0 {
		t.Error("it is handled beside the first")
	}
	close(access.release)
	next.ExpectCode(raw.CONNACK, 0)
	next.ExpectAck(raw.PUBREC, 1, 0)
	next.Send(raw.Pubrel{ID: 1})
	next.ExpectAck(raw.PUBCOMP, 1, 0)
	sub.Deliver()
	sub.Quiet()
}

// TestWhoWaitsToTakeOverASessionThatEndsMeanwhileGetsAnother has two come after each other while the first connection is still
// at work: the first of them ends the session for which the second waits.
func TestWhoWaitsToTakeOverASessionThatEndsMeanwhileGetsAnother(t *testing.T) {
	t.Parallel()
	access := newHeld()
	s := start(t, options{access: access})
	old := handedOver(t, s)
	old.Connected(raw.Connect{ClientID: "c", Props: raw.Props{raw.SessionExpiry.Int(100)}})
	old.Send(raw.Publish{Topic: "held"})
	<-access.entered
	first := handedOver(t, s)
	first.Send(raw.Connect{ClientID: "c", Clean: true})
	old.ExpectCode(raw.DISCONNECT, 0x8E)
	second := handedOver(t, s)
	second.Send(raw.Connect{ClientID: "c"})
	second.ExpectNothing(50 * time.Millisecond) // and waits, on any machine that is not very slow
	close(access.release)
	first.ExpectCode(raw.CONNACK, 0)
	first.ExpectDisconnect(0x8E)
	second.ExpectCode(raw.CONNACK, 0)
	second.Subscribe(1, "x")
	second.Send(raw.Publish{Topic: "x", Payload: "1", QoS: 1, ID: 1})
	second.Deliver()
}
