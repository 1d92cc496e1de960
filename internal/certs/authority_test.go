package certs

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// authority makes a new one.
func authority(t testing.TB) *Authority {
	t.Helper()
	a, err := Open(filepath.Join(t.TempDir(), "certs"))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// must takes a pair that can be made.
func must(t testing.TB) func(Pair, error) Pair {
	return func(p Pair, err error) Pair {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
}

func leaf(t testing.TB, p Pair) *x509.Certificate {
	t.Helper()
	cert, _, err := loadPair(p)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestServerCertificatesAreForThisMachine(t *testing.T) {
	a := authority(t)
	cert := leaf(t, must(t)(a.Server("Gate.example", "192.0.2.7", "2001:db8::1")))
	names := []string{"localhost", "127.0.0.1", "::1", "gate.example", "192.0.2.7", "2001:db8::1"}
	if host, err := os.Hostname(); err == nil && isHost(host) {
		names = append(names, host)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	for _, name := range names {
		if _, err := cert.Verify(x509.VerifyOptions{DNSName: name, Roots: pool}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
		t.Error("the server certificate serves as a client's")
	}
	if cert.PublicKey.(*ecdsa.PublicKey).Curve != elliptic.P256() {
		t.Error("key is not P-256")
	}
	if _, err := a.Server("not a host"); err == nil {
		t.Error("a host name with blanks is accepted")
	}
}

func TestFilesAreForThoseWhoNeedThem(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("needs file modes")
	}
	a := authority(t)
	must(t)(a.Server())
	must(t)(a.Client("pump-1"))
	want := map[string]os.FileMode{
		".": 0o700, "ca.crt": 0o644, "ca.key": 0o600, "server.crt": 0o644, "server.key": 0o600, "client-pump-1.crt": 0o644, "client-pump-1.key": 0o600,
	}
	for name, mode := range want {
		info, err := os.Stat(filepath.Join(a.folder, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != mode {
			t.Errorf("%s: mode %o, want %o", name, got, mode)
		}
	}
	entries, err := os.ReadDir(a.folder)
	if err != nil || len(entries) != len(want)-1 {
		t.Errorf("got %v, %v", entries, err)
	}
}

func TestAGoodServerCertificateIsKept(t *testing.T) {
	a := authority(t)
	first := leaf(t, must(t)(a.Server("one.example")))
	again, err := Open(a.folder)
	if err != nil {
		t.Fatal(err)
	}
	if !again.cert.Equal(a.cert) {
		t.Error("the authority was made anew")
	}
	if got := leaf(t, must(t)(again.Server("one.example"))); !got.Equal(first) {
		t.Error("it was made anew")
	}
	if got := leaf(t, must(t)(again.Server("two.example"))); got.Equal(first) || got.VerifyHostname("two.example") != nil {
		t.Error("it was not made anew for another host")
	}
	other := authority(t)
	p := must(t)(a.Server("one.example"))
	for from, to := range map[string]string{p.Cert: other.pair("server").Cert, p.Key: other.pair("server").Key} {
		text, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := leaf(t, must(t)(other.Server("one.example"))); got.CheckSignatureFrom(other.cert) != nil {
		t.Error("one of another authority was kept")
	}
}

func TestAServerCertificateThatExpiresSoonIsMadeAnew(t *testing.T) {
	a := authority(t)
	for left, keep := range map[time.Duration]bool{20 * 24 * time.Hour: false, -time.Hour: false, 40 * 24 * time.Hour: true} {
		pair := a.pair("server")
		if err := signed(a, pair, left); err != nil {
			t.Fatal(err)
		}
		before := leaf(t, pair)
		if got := a.good(before, []string{"localhost"}); got != keep {
			t.Errorf("%s left: good is %v", left, got)
		}
	}
}

// signed makes a certificate for localhost that expires after left.
func signed(a *Authority, pair Pair, left time.Duration) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "short"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(left),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	if err := writeFile(pair.Key, "PRIVATE KEY", private, 0o600); err != nil {
		return err
	}
	return writeFile(pair.Cert, "CERTIFICATE", cert, 0o644)
}

func TestHalfAnAuthorityIsNotReplaced(t *testing.T) {
	for _, missing := range []string{"ca.key", "ca.crt"} {
		a := authority(t)
		if err := os.Remove(filepath.Join(a.folder, missing)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(a.folder); err == nil || !strings.Contains(err.Error(), "without its other half") {
			t.Errorf("without %s: got %v", missing, err)
		}
	}
	a, b := authority(t), authority(t)
	if err := os.Rename(b.pair("ca").Key, a.pair("ca").Key); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(a.folder); err == nil {
		t.Error("the key of another is accepted")
	}
}

func TestClientNamesThatAreNoFileNamesAreRefused(t *testing.T) {
	a := authority(t)
	for _, name := range []string{"", "../x", "a/b", ".x", "a b", "ü", strings.Repeat("x", 65), "a\x00"} {
		if _, err := a.Client(name); err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
	if cert := leaf(t, must(t)(a.Client("pump_1@lab"))); cert.Subject.CommonName != "pump_1@lab" {
		t.Errorf("common name is %q", cert.Subject.CommonName)
	}
}
