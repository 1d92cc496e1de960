package certs

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxFileBytes is the size of a PEM file that is still read; a bundle of public authorities has a quarter of a megabyte.
const maxFileBytes = 8 << 20

// Config names the files. It is comparable.
type Config struct {
	Cert string `yaml:"cert"` // certificate and intermediates, leaf first
	Key  string `yaml:"key"`
	// ClientCA are the authorities of client certificates. Empty: clients are not asked for one.
	ClientCA string `yaml:"client_ca"`
	// RequireClient refuses clients without a certificate; otherwise a client may come without, and one that comes with a
	// certificate that does not verify is refused.
	RequireClient bool `yaml:"require_client"`
}

// Validate reports what makes no sense. It reads no files.
func (c Config) Validate() error {
	switch {
	case c.Cert == "":
		return errors.New("cert is missing")
	case c.Key == "":
		return errors.New("key is missing")
	case c.RequireClient && c.ClientCA == "":
		return errors.New("require_client needs client_ca")
	}
	return nil
}

// Set is what the files of a Config held at one moment. It is immutable.
type Set struct {
	Certificate *tls.Certificate // Leaf is set
	ClientCAs   *x509.CertPool   // nil: clients are not asked
	required    bool
}

// Load reads the files. A certificate that has expired loads; clients will refuse it.
func Load(c Config) (*Set, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	var errs []error
	read := func(name string) []byte {
		text, err := readFile(name)
		errs = append(errs, err)
		return text
	}
	certPEM, keyPEM := read(c.Cert), read(c.Key)
	var clientPEM []byte
	if c.ClientCA != "" {
		clientPEM = read(c.ClientCA)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("loading certificates: %w", err)
	}
	pair, err := keyPair(Pair{c.Cert, c.Key}, certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("loading certificates: %w", err)
	}
	s := &Set{Certificate: pair, required: c.RequireClient}
	if c.ClientCA != "" {
		if s.ClientCAs, err = pool(clientPEM); err != nil {
			return nil, fmt.Errorf("loading certificates: %s: %w", c.ClientCA, err)
		}
	}
	return s, nil
}

// VerifyClient checks a client's chain, leaf first, against the set's authorities, at this moment and for client
// authentication. A client without a chain passes where none is required. It is for other protocols than crypto/tls speaks.
func (s *Set) VerifyClient(chain []*x509.Certificate) error {
	if len(chain) == 0 {
		if s.required {
			return errors.New("client has no certificate")
		}
		return nil
	}
	if s.ClientCAs == nil {
		return errors.New("client certificates are not asked for")
	}
	o := x509.VerifyOptions{
		Roots: s.ClientCAs, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	for _, c := range chain[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(o)
	return err
}

// tls is the server side of the set.
func (s *Set) tls(protocols []string) *tls.Config {
	c := &tls.Config{
		Certificates: []tls.Certificate{*s.Certificate}, ClientCAs: s.ClientCAs, MinVersion: tls.VersionTLS12, NextProtos: protocols,
	}
	if s.ClientCAs == nil {
		return c
	}
	c.ClientAuth = tls.VerifyClientCertIfGiven
	if s.required {
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	// A session that is resumed brings the certificate of its first handshake; the authorities may have changed since, and
	// the certificate may have expired.
	c.VerifyConnection = func(state tls.ConnectionState) error {
		if !state.DidResume {
			return nil
		}
		return s.VerifyClient(state.PeerCertificates)
	}
	return c
}

// keyPair parses a certificate and its key.
func keyPair(p Pair, certPEM, keyPEM []byte) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("%s with %s: %w", p.Cert, p.Key, err)
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return nil, fmt.Errorf("%s: %w", p.Cert, err)
		}
	}
	return &pair, nil
}

// pool parses authorities. Unlike AppendCertsFromPEM it takes no file of which only a part is right.
func pool(text []byte) (*x509.CertPool, error) {
	p := x509.NewCertPool()
	n, begun := 0, bytes.Count(text, []byte("-----BEGIN "))
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			break
		}
		text = rest
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("block %q is not a certificate", block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", n+1, err)
		}
		p.AddCert(cert)
		n++
	}
	switch {
	case n == 0:
		return nil, errors.New("no certificate in PEM form")
	case n != begun: // pem.Decode skips what it can't read
		return nil, fmt.Errorf("%d of %d certificates are not well-formed PEM", begun-n, begun)
	}
	return p, nil
}

// readFile reads a file of at most maxFileBytes.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err == nil && len(text) > maxFileBytes {
		err = fmt.Errorf("%s: file is larger than %d MiB", name, maxFileBytes>>20)
	}
	return text, err
}
