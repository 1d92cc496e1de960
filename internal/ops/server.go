package ops

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
)

// Gateway is what is operated.
type Gateway interface {
	// Reading reads all counters.
	Reading() Reading
	// Parts are who must be ready for the gateway to be.
	Parts() []Readiness
	// Status describes the gateway; the caller fills in readiness and counters.
	Status() Status
	// Explain tells what would happen to a message; nothing is delivered.
	Explain(m *bridge.Message, client, user string) []bridge.Step
	// Reload puts the configuration file in force, or nothing.
	Reload(ctx context.Context) error
}

// Config is what a [Server] is made of.
type Config struct {
	Gateway Gateway      // required
	Version string       // for isthmus_build_info
	Log     *slog.Logger // default: discard
}

// Server serves metrics, health and the admin API.
type Server struct {
	log           *slog.Logger
	public, admin http.Handler
}

// New makes a server.
func New(cfg Config) (*Server, error) {
	if cfg.Gateway == nil {
		return nil, errors.New("making the operations server: no Gateway given")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{cfg.Log, publicHandler(cfg), adminHandler(cfg)}, nil
}

// publicHandler is what Prometheus and health checks ask. It changes nothing and tells nothing of single clients.
func publicHandler(cfg Config) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", metricsHandler(newRegistry(cfg.Version, cfg.Gateway.Reading)))
	mux.HandleFunc("GET /livez", livez)
	mux.HandleFunc("GET /readyz", readyz(cfg.Gateway.Parts))
	mux.HandleFunc("GET /healthz", readyz(cfg.Gateway.Parts))
	return mux
}

// ServePublic serves metrics and health on ln until ctx ends.
func (s *Server) ServePublic(ctx context.Context, ln net.Listener) error {
	return s.serve(ctx, ln, s.public, "ops")
}

// ServeAdmin serves the admin API on ln until ctx ends. Whoever can connect to ln may do everything.
func (s *Server) ServeAdmin(ctx context.Context, ln net.Listener) error {
	return s.serve(ctx, ln, s.admin, "admin")
}

func (s *Server) serve(ctx context.Context, ln net.Listener, handler http.Handler, name string) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.log.With("endpoint", name).Handler(), slog.LevelDebug),
	}
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		// What is being answered may take a moment; whoever waits longer is cut off.
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if server.Shutdown(grace) != nil {
			server.Close()
		}
	})
	err := server.Serve(ln)
	if stop() {
		server.Close() // ln failed by itself
	} else {
		<-done
	}
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("serving %s: %w", name, err)
}
