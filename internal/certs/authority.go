package certs

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 397 * 24 * time.Hour // as long as clients accept
	renewBefore   = 30 * 24 * time.Hour
	clockSkew     = time.Hour // of clients whose clock is behind
)

// Authority is a development certificate authority in a folder. It is not safe for concurrent use of one folder.
type Authority struct {
	folder string
	cert   *x509.Certificate
	key    crypto.Signer
}

// Pair is a certificate and its key in files.
type Pair struct{ Cert, Key string }

// Open loads the authority of a folder (ca.crt, ca.key) or makes it, and the folder, where there is none. An authority that
// has expired, or of which one file is missing, is an error: to make another would lock out every client that trusts it.
func Open(folder string) (*Authority, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	a := &Authority{folder: folder}
	pair := a.pair("ca")
	cert, key, err := loadPair(pair)
	if errors.Is(err, fs.ErrNotExist) {
		for _, name := range []string{pair.Cert, pair.Key} {
			if _, err := os.Lstat(name); err == nil {
				return nil, fmt.Errorf("opening the authority: %s is there without its other half: restore it, or remove it to make a new authority", name)
			}
		}
		return a, a.make(pair)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the authority: %w", err)
	}
	switch {
	case !cert.IsCA:
		return nil, fmt.Errorf("opening the authority: %s is not a certificate authority", pair.Cert)
	case time.Now().After(cert.NotAfter):
		return nil, fmt.Errorf("opening the authority: %s has expired on %s: remove it and its key to make a new one", pair.Cert, cert.NotAfter.Format(time.DateOnly))
	}
	a.cert, a.key = cert, key
	return a, nil
}

// Cert is the file that clients need to trust the authority.
func (a *Authority) Cert() string { return a.pair("ca").Cert }

// Server gives the server certificate (server.crt, server.key) for localhost, 127.0.0.1, ::1, the name of this machine and the
// given host names and addresses. What is there is kept while it is good for all of them for another 30 days and of this
// authority; otherwise it is made anew.
func (a *Authority) Server(hosts ...string) (Pair, error) {
	hosts = append([]string{"localhost", "127.0.0.1", "::1"}, hosts...)
	if name, err := os.Hostname(); err == nil && isHost(name) {
		hosts = append(hosts, name)
	}
	t := &x509.Certificate{
		Subject:     pkix.Name{CommonName: hosts[len(hosts)-1], Organization: []string{"Isthmus development"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, h := range hosts {
		if ip, err := netip.ParseAddr(h); err == nil {
			if !slices.ContainsFunc(t.IPAddresses, net.IP(ip.AsSlice()).Equal) {
				t.IPAddresses = append(t.IPAddresses, ip.AsSlice())
			}
		} else if !isHost(h) {
			return Pair{}, fmt.Errorf("making a server certificate: %q is neither a host name nor an address", h)
		} else if h = strings.ToLower(h); !slices.Contains(t.DNSNames, h) {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	if len(t.Subject.CommonName) > 64 {
		t.Subject.CommonName = "localhost" // X.520's limit
	}
	pair := a.pair("server")
	if cert, _, err := loadPair(pair); err == nil && a.good(cert, hosts) {
		return pair, nil
	}
	if err := a.issue(t, pair); err != nil {
		return Pair{}, fmt.Errorf("making a server certificate: %w", err)
	}
	return pair, nil
}

// Client makes a client certificate whose common name is name (1 to 64 bytes of letters, digits, '.', '-', '_' and '@'), in
// client-<name>.crt and .key. One that is there is replaced; it stays valid until it expires.
func (a *Authority) Client(name string) (Pair, error) {
	ok := name != "" && len(name) <= 64 && name[0] != '.'
	for _, c := range name {
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune(".-_@", c))
	}
	if !ok {
		return Pair{}, fmt.Errorf("making a client certificate: name %q is not 1 to 64 letters, digits, '.', '-', '_' or '@'", name)
	}
	pair := a.pair("client-" + name)
	t := &x509.Certificate{Subject: pkix.Name{CommonName: name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if err := a.issue(t, pair); err != nil {
		return Pair{}, fmt.Errorf("making a client certificate: %w", err)
	}
	return pair, nil
}

func (a *Authority) pair(name string) Pair {
	return Pair{Cert: filepath.Join(a.folder, name+".crt"), Key: filepath.Join(a.folder, name+".key")}
}

// make makes the authority itself.
func (a *Authority) make(pair Pair) error {
	host, _ := os.Hostname()
	name := "Isthmus development CA " + host
	t := &x509.Certificate{
		Subject: pkix.Name{CommonName: name[:min(len(name), 64)], Organization: []string{"Isthmus development"}},
		IsCA:    true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if err := a.issue(t, pair); err != nil {
		return fmt.Errorf("making the authority: %w", err)
	}
	var err error
	a.cert, a.key, err = loadPair(pair)
	return err
}

// issue signs t with the authority's key, or with its own where there is none yet, and writes both files.
func (a *Authority) issue(t *x509.Certificate, pair Pair) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	t.NotBefore, t.NotAfter = now.Add(-clockSkew), now.Add(leafLife)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = t, key
		t.NotAfter = now.Add(authorityLife)
	} else {
		t.KeyUsage, t.BasicConstraintsValid = x509.KeyUsageDigitalSignature, true
		if parent.NotAfter.Before(t.NotAfter) {
			t.NotAfter = parent.NotAfter
		}
	}
	cert, err := x509.CreateCertificate(rand.Reader, t, parent, &key.PublicKey, signer)
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

// good reports whether a server certificate need not be made anew.
func (a *Authority) good(cert *x509.Certificate, hosts []string) bool {
	for _, h := range hosts {
		if cert.VerifyHostname(h) != nil {
			return false
		}
	}
	left := time.Until(cert.NotAfter)
	return cert.CheckSignatureFrom(a.cert) == nil && (left > renewBefore || left > 0 && cert.NotAfter.Equal(a.cert.NotAfter))
}

// loadPair reads a certificate and its key.
func loadPair(p Pair) (*x509.Certificate, crypto.Signer, error) {
	certPEM, err := readFile(p.Cert)
	if err != nil {
		return nil, nil, err
	}
	keyPEM, err := readFile(p.Key)
	if err != nil {
		return nil, nil, err
	}
	pair, err := keyPair(p, certPEM, keyPEM)
	if err != nil {
		return nil, nil, err
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, nil, fmt.Errorf("%s: key can't sign", p.Key)
	}
	return pair.Leaf, key, nil
}

// writeFile replaces a PEM file atomically.
func writeFile(name, kind string, der []byte, mode fs.FileMode) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	var text bytes.Buffer
	if err := pem.Encode(&text, &pem.Block{Type: kind, Bytes: der}); err != nil {
		return err
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if _, err := f.Write(text.Bytes()); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// isHost reports whether s may stand in a certificate as a host name.
func isHost(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return false
		}
		for _, c := range label {
			if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-') {
				return false
			}
		}
	}
	return len(s) <= 253
}
