package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// house is a server's files and the authorities behind them.
type house struct {
	t       testing.TB
	gateway *Authority // of the server certificate
	devices *Authority // of client certificates
	config  Config
	roots   *x509.CertPool
}

func newHouse(t testing.TB, required bool) *house {
	t.Helper()
	h := &house{t: t, gateway: authority(t), devices: authority(t), roots: x509.NewCertPool()}
	h.roots.AddCert(h.gateway.cert)
	p := must(t)(h.gateway.Server())
	clientCA := filepath.Join(t.TempDir(), "devices.crt")
	h.config = Config{Cert: p.Cert, Key: p.Key, ClientCA: clientCA, RequireClient: required}
	h.copy(h.devices.Cert(), clientCA)
	return h
}

// copy writes a file anew with a later time, as the clock of the file system may be coarse.
func (h *house) copy(from, to string) {
	h.t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		h.t.Fatal(err)
	}
	h.write(to, text)
}

func (h *house) write(to string, text []byte) {
	h.t.Helper()
	var before time.Time
	if info, err := os.Stat(to); err == nil {
		before = info.ModTime()
	}
	if err := os.WriteFile(to, text, 0o600); err != nil {
		h.t.Fatal(err)
	}
	if !before.IsZero() {
		if err := os.Chtimes(to, time.Time{}, before.Add(time.Second)); err != nil {
			h.t.Fatal(err)
		}
	}
}

// replaceServer puts a new server certificate in place.
func (h *house) replaceServer() *x509.Certificate {
	h.t.Helper()
	p := must(h.t)(h.gateway.Server("new.example"))
	h.copy(p.Cert, p.Cert) // for its time
	return leaf(h.t, p)
}

// client is what a client with a certificate of an authority dials with; without one for nil.
func (h *house) client(a *Authority, name string) *tls.Config {
	h.t.Helper()
	c := &tls.Config{RootCAs: h.roots, ServerName: "localhost", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
	if a != nil {
		p := must(h.t)(a.Client(name))
		pair, err := tls.LoadX509KeyPair(p.Cert, p.Key)
		if err != nil {
			h.t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c
}

// handshake makes one connection and sends a byte each way. The client's view is returned, and the server's error.
func handshake(t testing.TB, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0") // not net.Pipe: TLS needs some buffer between the two
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	b, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	var state tls.ConnectionState
	var serverErr error
	var wg sync.WaitGroup
	wg.Go(func() {
		s := tls.Server(a, server)
		defer a.Close()
		if serverErr = s.Handshake(); serverErr != nil {
			return
		}
		if _, serverErr = io.ReadFull(s, make([]byte, 1)); serverErr == nil {
			_, serverErr = s.Write([]byte("x"))
		}
	})
	wg.Go(func() {
		c := tls.Client(b, client)
		defer b.Close()
		if c.Handshake() != nil {
			return
		}
		state = c.ConnectionState()
		c.Write([]byte("x"))
		io.ReadFull(c, make([]byte, 1)) // brings the session ticket, or the server's refusal
	})
	wg.Wait()
	return state, serverErr
}

func TestClientsAreAskedForCertificates(t *testing.T) {
	stranger := authority(t)
	for _, tt := range []struct {
		name               string
		clientCA, required bool
		from               func(h *house) *Authority
		want               bool
	}{
		{"not asked, none", false, false, nil, true},
		{"optional, none", true, false, nil, true},
		{"optional, right", true, false, func(h *house) *Authority { return h.devices }, true},
		{"required, none", true, true, nil, false},
		{"required, right", true, true, func(h *house) *Authority { return h.devices }, true},
		{"required, of another authority", true, true, func(*house) *Authority { return stranger }, false},
		{"required, of the server's authority", true, true, func(h *house) *Authority { return h.gateway }, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHouse(t, tt.required)
			if !tt.clientCA {
				h.config.ClientCA = ""
			}
			r, err := NewReloader(h.config, nil)
			if err != nil {
				t.Fatal(err)
			}
			var from *Authority
			if tt.from != nil {
				from = tt.from(h)
			}
			state, err := handshake(t, r.TLS("mqtt"), func() *tls.Config {
				c := h.client(from, "pump")
				c.NextProtos = []string{"mqtt", "http/1.1"}
				if from != nil { // show it also to a server that asks for others
					c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c.Certificates[0], nil }
				}
				return c
			}())
			if (err == nil) != tt.want {
				t.Fatalf("got %v", err)
			}
			if tt.want && state.NegotiatedProtocol != "mqtt" {
				t.Errorf("protocol is %q", state.NegotiatedProtocol)
			}
		})
	}
}

func TestTLSBelow12IsRefused(t *testing.T) {
	h := newHouse(t, false)
	r, err := NewReloader(h.config, nil)
	if err != nil {
		t.Fatal(err)
	}
	for version, want := range map[uint16]bool{tls.VersionTLS11: false, tls.VersionTLS12: true, tls.VersionTLS13: true} {
		c := h.client(nil, "")
		c.MinVersion, c.MaxVersion = version, version
		if _, err := handshake(t, r.TLS(), c); (err == nil) != want {
			t.Errorf("%s: got %v", tls.VersionName(version), err)
		}
	}
}

func TestChangedFilesAreTakenByHandshakes(t *testing.T) {
	h := newHouse(t, false)
	synctest.Test(t, func(t *testing.T) {
		// The fake clock begins before the certificates do.
		time.Sleep(time.Until(h.gateway.cert.NotBefore.Add(2 * clockSkew)))
		r, err := NewReloader(h.config, nil)
		if err != nil {
			t.Fatal(err)
		}
		server := r.TLS()
		seen := func() *x509.Certificate {
			client := h.client(nil, "")
			client.Time = time.Now
			state, err := handshake(t, server, client)
			if err != nil {
				t.Fatal(err)
			}
			return state.PeerCertificates[0]
		}
		first := seen()
		changed := h.replaceServer()
		if !seen().Equal(first) {
			t.Error("files were looked at within a second")
		}
		time.Sleep(2 * checkEvery)
		if !seen().Equal(changed) {
			t.Error("the new certificate is not in use")
		}
	})
}

func TestReloadTakesFilesAtOnce(t *testing.T) {
	h := newHouse(t, true)
	r, err := NewReloader(h.config, nil)
	if err != nil {
		t.Fatal(err)
	}
	changed := h.replaceServer()
	next := authority(t)
	h.copy(next.Cert(), h.config.ClientCA)
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := handshake(t, r.TLS(), h.client(h.devices, "pump")); err == nil {
		t.Error("a certificate of the old authority is accepted")
	}
	state, err := handshake(t, r.TLS(), h.client(next, "pump"))
	if err != nil {
		t.Fatal(err)
	}
	if !state.PeerCertificates[0].Equal(changed) {
		t.Error("the new certificate is not in use")
	}
}

func TestFilesThatDoNotLoadLeaveTheOldInUse(t *testing.T) {
	h := newHouse(t, false)
	good := func(name string) []byte {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	ca := good(h.config.ClientCA)
	var log bytes.Buffer
	r, err := NewReloader(h.config, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	before := r.Current()
	for name, bad := range map[string][]byte{
		h.config.Cert:     []byte("nonsense"),
		h.config.Key:      good(must(t)(h.devices.Server()).Key),
		h.config.ClientCA: append(bytes.Replace(ca, []byte("MII"), []byte("!!!"), 1), ca...),
	} {
		text := good(name)
		h.write(name, bad)
		if err := r.Reload(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: got %v", filepath.Base(name), err)
		}
		r.next.Store(0)
		if r.Current() != before {
			t.Errorf("%s: the old is not in use", filepath.Base(name))
		}
		h.write(name, text)
	}
	if log.Len() != 0 {
		t.Errorf("what Reload has returned was logged too: %s", &log)
	}
	h.write(h.config.Cert, nil)
	for range 3 { // one report for one change
		r.next.Store(0)
		if r.Current() != before {
			t.Error("the old is not in use")
		}
	}
	if n := strings.Count(log.String(), "don't load"); n != 1 {
		t.Errorf("%d reports:\n%s", n, &log)
	}
	h.replaceServer()
	r.next.Store(0)
	if r.Current() == before || !strings.Contains(log.String(), "certificates reloaded") {
		t.Errorf("the repaired files are not in use:\n%s", &log)
	}
}

func TestSessionsDoNotOutliveTheClientAuthority(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, required := range []bool{true, false} {
			t.Run(tls.VersionName(version), func(t *testing.T) {
				h := newHouse(t, required)
				r, err := NewReloader(h.config, nil)
				if err != nil {
					t.Fatal(err)
				}
				server, client := r.TLS(), h.client(h.devices, "pump")
				client.MinVersion, client.MaxVersion = version, version
				if _, err := handshake(t, server, client); err != nil {
					t.Fatal(err)
				}
				h.replaceServer() // a new leaf does not cost the session
				if err := r.Reload(); err != nil {
					t.Fatal(err)
				}
				state, err := handshake(t, server, client)
				if err != nil || !state.DidResume {
					t.Fatalf("not resumed with the same authority: %v", err)
				}
				next := authority(t)
				h.copy(next.Cert(), h.config.ClientCA)
				if err := r.Reload(); err != nil {
					t.Fatal(err)
				}
				state, err = handshake(t, server, client)
				if state.DidResume && err == nil {
					t.Error("a session with a certificate of the old authority was resumed")
				}
				if required && err == nil {
					t.Error("a client with a certificate of the old authority came in")
				}
			})
		}
	}
}

// The standard library may refuse such a session by itself; this is the check that does not rely on it.
func TestChainsAreVerifiedAgainstTheSetsAuthorities(t *testing.T) {
	h := newHouse(t, true)
	s, err := Load(h.config)
	if err != nil {
		t.Fatal(err)
	}
	expired := h.devices.pair("expired")
	if err := signed(h.devices, expired, -time.Hour); err != nil {
		t.Fatal(err)
	}
	verify := s.tls(nil).VerifyConnection
	for _, tt := range []struct {
		name  string
		chain []*x509.Certificate
		want  bool
	}{
		{"right", []*x509.Certificate{leaf(t, must(t)(h.devices.Client("pump")))}, true},
		{"expired", []*x509.Certificate{leaf(t, expired)}, false},
		{"of another authority", []*x509.Certificate{leaf(t, must(t)(h.gateway.Client("pump")))}, false},
		{"a server's", []*x509.Certificate{leaf(t, must(t)(h.devices.Server()))}, false},
		{"none", nil, false},
	} {
		if err := verify(tls.ConnectionState{DidResume: true, PeerCertificates: tt.chain}); (err == nil) != tt.want {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
	h.config.RequireClient = false
	if s, err = Load(h.config); err != nil || s.VerifyClient(nil) != nil {
		t.Errorf("none where none is required: %v", err)
	}
	h.config.ClientCA = ""
	if s, err = Load(h.config); err != nil || s.VerifyClient([]*x509.Certificate{h.devices.cert}) == nil || s.VerifyClient(nil) != nil {
		t.Errorf("where none is asked for: %v", err)
	}
}

func TestConfigurationsThatMakeNoSenseAreRefused(t *testing.T) {
	h := newHouse(t, false)
	for name, c := range map[string]Config{
		"no certificate":              {Key: h.config.Key},
		"no key":                      {Cert: h.config.Cert},
		"required without authority":  {Cert: h.config.Cert, Key: h.config.Key, RequireClient: true},
		"a file that is not there":    {Cert: h.config.Cert + "x", Key: h.config.Key},
		"an authority that is a key":  {Cert: h.config.Cert, Key: h.config.Key, ClientCA: h.config.Key},
		"an authority that is no PEM": {Cert: h.config.Cert, Key: h.config.Key, ClientCA: os.DevNull},
	} {
		if _, err := Load(c); err == nil {
			t.Errorf("%s: loaded", name)
		}
		if _, err := NewReloader(c, nil); err == nil {
			t.Errorf("%s: a reloader was made", name)
		}
	}
	_, err := Load(Config{Cert: "none.crt", Key: "none.key"})
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "none.crt") || !strings.Contains(err.Error(), "none.key") {
		t.Errorf("got %v", err)
	}
}

func TestHandshakesAndReloadsRunAtTheSameTime(t *testing.T) {
	h := newHouse(t, true)
	r, err := NewReloader(h.config, nil)
	if err != nil {
		t.Fatal(err)
	}
	server := r.TLS()
	var wg sync.WaitGroup
	for range 4 {
		client := h.client(h.devices, "pump")
		wg.Go(func() {
			for range 5 {
				r.next.Store(0)
				if _, err := handshake(t, server, client); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 10 {
		if err := r.Reload(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}
