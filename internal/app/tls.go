package app

import (
	"crypto/tls"
	"log/slog"

	"github.com/isthmus-iot/isthmus/internal/certs"
)

// certs is the section as the package has it.
func (t TLS) certs() certs.Config {
	return certs.Config{Cert: string(t.Cert), Key: string(t.Key), ClientCA: string(t.ClientCA), RequireClient: t.RequireClientCert}
}

// loadTLS reads certificates; nil where none are configured. The result follows changes of the files by itself.
func loadTLS(t TLS, log *slog.Logger) (*tls.Config, error) {
	if t.Cert == "" {
		return nil, nil
	}
	r, err := certs.NewReloader(t.certs(), log)
	if err != nil {
		return nil, err
	}
	return r.TLS(), nil
}

// serverTLS is for listeners: every handshake uses the certificates that the configuration names at that moment.
func (a *App) serverTLS() *tls.Config {
	c := a.tls.Load().Clone()
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		return a.tls.Load().GetConfigForClient(hello)
	}
	return c
}
