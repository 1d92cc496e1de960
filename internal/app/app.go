package app

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/broker"
	"github.com/isthmus-iot/isthmus/internal/access"
	"github.com/isthmus-iot/isthmus/internal/ops"
	"github.com/isthmus-iot/isthmus/internal/store"
)

// App is a gateway: the hub, its endpoints, and who operates it.
type App struct {
	log     *Logger
	notify  notifier
	started time.Time
	ready   chan struct{} // closed when everything is served

	hub    *bridge.Hub
	mqtt   *broker.Server
	ops    *ops.Server
	access atomic.Pointer[access.Access]
	tls    atomic.Pointer[tls.Config] // nil: no certificate is configured

	changing sync.Mutex // held while listeners are opened and closed: at start, reload and end

	mu         sync.Mutex // for what follows
	config     *Config
	state      state
	store      *store.Store // from Run on
	listeners  []*listener
	reloaded   bool // the last reload was successful
	reloadedAt time.Time
	serving    context.Context // what listeners run under
	fail       func(error)     // ends Run
}

type state uint8

const (
	starting state = iota
	running
	stopping
)

// New builds a gateway from a configuration. It reads the files that the configuration names and opens no socket, so it is
// also the last check of a configuration. An error of type [Problems] says where a file is wrong.
func New(c *Config, log *Logger) (*App, error) {
	a := &App{log: log, notify: newNotifier(), started: time.Now(), ready: make(chan struct{}), config: c, reloaded: true, reloadedAt: time.Now()}
	parts, err := a.prepare(c)
	if err != nil {
		return nil, err
	}
	a.access.Store(parts.access)
	a.tls.Store(parts.tls)
	a.hub, err = bridge.New(bridge.Config{Limits: c.Limits, Access: door{parts.access}, Shared: c.MQTT.SharedStrategy.shared(), Log: log.Logger, Node: c.Gateway.ID})
	if err != nil {
		return nil, err
	}
	a.hub.SetDurability(c.Store.rules(), c.Store.Durability.durability())
	a.mqtt, err = broker.New(broker.Config{
		Hub: a.hub, Log: log.Logger, Limits: c.MQTT.Limits, SysInterval: c.MQTT.SysInterval, Version: Version(),
		Exchanges: map[string]func() broker.Exchange{
			"SCRAM-SHA-256": func() broker.Exchange { return a.access.Load().SCRAM() },
		},
	})
	if err != nil {
		return nil, err
	}
	a.ops, err = ops.New(ops.Config{Gateway: a, Version: Version(), Log: log.Logger})
	return a, err
}

// parts are what a configuration is made into before any of it is put in force.
type parts struct {
	access *access.Access
	tls    *tls.Config
}

// prepare makes the parts of a configuration that can fail.
func (a *App) prepare(c *Config) (p parts, err error) {
	p.access, err = access.New(c.Users, a.access.Load())
	certificates, tlsErr := loadTLS(c.TLS, a.log.Logger)
	p.tls = certificates
	return p, c.located(errors.Join(err, tlsErr))
}

// Ready is closed when every listener is served.
func (a *App) Ready() <-chan struct{} { return a.ready }

// Run serves until ctx ends, says goodbye to everybody within one grace period, and returns when all that it started has
// ended.
func (a *App) Run(ctx context.Context) error {
	c := a.config
	admin, err := ops.ListenAdmin(string(c.Gateway.Data))
	if err != nil {
		return c.unusable(err)
	}
	defer admin.Close()
	kept, err := a.restore(c)
	if err != nil {
		return err
	}
	opened, err := a.open(ctx, c.listeners())
	if err != nil {
		return errors.Join(err, kept.Close())
	}

	failed := make(chan error, 1)
	fail := func(err error) {
		select {
		case failed <- err:
		default: // another one was first
		}
	}
	// What runs ends after the goodbye, not when ctx does.
	work, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var wg sync.WaitGroup
	background := func(run func(context.Context) error) {
		wg.Go(func() {
			if err := run(work); err != nil && work.Err() == nil {
				fail(err)
			}
		})
	}
	background(a.hub.Run)
	background(a.mqtt.Run)
	background(func(ctx context.Context) error { return a.ops.ServeAdmin(ctx, admin) })

	a.changing.Lock()
	a.mu.Lock()
	a.serving, a.fail, a.listeners, a.state, a.store = work, fail, opened, running, kept
	a.mu.Unlock()
	for _, l := range opened {
		a.serve(l)
	}
	a.changing.Unlock()
	close(a.ready)
	a.told(a.notify.ready(a.summary()))

	select {
	case <-ctx.Done():
	case err = <-failed:
		a.log.Error("stopping because a part of the gateway failed", "error", err)
	}
	return errors.Join(err, a.goodbye(ctx, stop, &wg), kept.Close())
}

// goodbye stops accepting, says goodbye in each protocol's words, and ends everything within the grace period.
func (a *App) goodbye(ctx context.Context, stop func(), wg *sync.WaitGroup) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	a.mu.Lock()
	a.state = stopping
	listeners, grace := a.listeners, a.config.Gateway.Grace
	a.mu.Unlock()
	a.told(a.notify.stopping())
	a.log.Info("stopping", "grace", formatDuration(grace))

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	for _, l := range listeners {
		if l.Scheme != "http" { // health checks are answered to the end
			l.stop()
		}
	}
	err := a.mqtt.Shutdown(ctx)
	stop()
	ended := make(chan struct{})
	go func() {
		for _, l := range listeners {
			l.end()
		}
		wg.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(max(grace, time.Second)):
		err = errors.Join(err, fmt.Errorf("not everything ended within %s", formatDuration(grace)))
	}
	if err == nil {
		a.log.Info("stopped")
	}
	return err
}

// open opens the sockets of all addresses, or none.
func (a *App) open(ctx context.Context, addresses []listenerAt) (opened []*listener, err error) {
	var errs []error
	for _, at := range addresses {
		l, err := listen(ctx, at.Address)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		opened = append(opened, l)
	}
	if len(errs) > 0 {
		for _, l := range opened {
			l.close()
		}
		return nil, errors.Join(errs...)
	}
	return opened, nil
}

// serve hands the sockets of a listener to whom they belong.
func (a *App) serve(l *listener) {
	how := broker.Listener{}
	endpoint, serve := "mqtt", func(ctx context.Context, ln net.Listener) error { return a.mqtt.Serve(ctx, ln, how) }
	switch l.Scheme {
	case "http":
		endpoint, serve = "ops", a.ops.ServePublic
	case "mqtts":
		how.TLS = a.serverTLS()
	}
	l.serve(a.serving, serve, a.fail)
	a.log.Info("listening", "endpoint", endpoint, "address", l.bound().String(), "open_to", a.who(l.Address))
	if l.Scheme == "mqtt" && !l.Loopback() {
		a.log.Warn("what is sent here, passwords included, crosses the network in the clear", "endpoint", endpoint, "address", l.bound().String())
	}
}

// told logs that the service manager could not be told something.
func (a *App) told(err error) {
	if err != nil {
		a.log.Warn("telling the service manager failed", "error", err)
	}
}
