package app

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"
)

// listener is one configured address: its sockets (localhost has one per IP version) and who serves them.
type listener struct {
	Address
	sockets []net.Listener

	stop func() // lets nobody in any more; set by serve
	wg   sync.WaitGroup
}

// listen opens the sockets of an address.
func listen(ctx context.Context, a Address) (*listener, error) {
	l := &listener{Address: a}
	hosts := []string{a.Host}
	if a.Host == "localhost" {
		hosts = []string{"127.0.0.1", "::1"}
	}
	port := a.Port
	for i, host := range hosts {
		socket, err := new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, port))
		if err != nil && i > 0 && !errors.Is(err, syscall.EADDRINUSE) {
			continue // a machine without IPv6
		}
		if err != nil {
			l.close()
			return nil, fmt.Errorf("listening on %s: %w", a, listenCause(err))
		}
		l.sockets = append(l.sockets, socket)
		// With port 0 both IP versions have the port that the first was given.
		_, port, _ = net.SplitHostPort(socket.Addr().String())
	}
	return l, nil
}

// listenCause is err without what the address says already, or what to do about it.
func listenCause(err error) error {
	var op *net.OpError
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return errors.New("another program listens there")
	case errors.Is(err, syscall.EACCES):
		return errors.New("not permitted: ports below 1024 need CAP_NET_BIND_SERVICE")
	case errors.As(err, &op):
		return op.Err
	}
	return err
}

// serve gives every socket to serve, which runs until its context ends; fail is told if it ends by itself.
func (l *listener) serve(ctx context.Context, serve func(context.Context, net.Listener) error, fail func(error)) {
	ctx, l.stop = context.WithCancel(ctx)
	for _, socket := range l.sockets {
		l.wg.Go(func() {
			if err := serve(ctx, socket); err != nil && ctx.Err() == nil {
				fail(fmt.Errorf("serving %s: %w", l.Address, err))
			}
		})
	}
}

// close closes the sockets, so that nobody can connect any more.
func (l *listener) close() {
	for _, socket := range l.sockets {
		socket.Close()
	}
}

// end stops serving and waits until it has; who is connected already is the endpoint's business.
func (l *listener) end() {
	l.stop()
	l.wg.Wait()
	l.close()
}

// bound is the address with the port that it was given.
func (l *listener) bound() Address {
	a := l.Address
	if len(l.sockets) > 0 {
		_, a.Port, _ = net.SplitHostPort(l.sockets[0].Addr().String())
	}
	return a
}
