package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Serve accepts connections on ln until ctx ends or ln is closed by somebody else. It returns when no connection of the
// listener waits for its TLS handshake any more; connections that were let in go on until [Server.SendAway] or
// [Server.Shutdown]. Transient errors of accept, such as running out of file descriptors, are counted and waited out.
func (s *Server) Serve(ctx context.Context, ln net.Listener, l Listener) error {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	var handshakes sync.WaitGroup
	defer handshakes.Wait()
	pending := make(chan struct{}, s.limits.Load().Handshakes)
	backoff := time.Duration(0)
	for {
		nc, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("accepting on %s: %w", ln.Addr(), err)
			}
			backoff = min(max(2*backoff, 5*time.Millisecond), time.Second)
			s.counters.AcceptFails.Add(1)
			s.log.Warn("accept failed, trying again", "listener", ln.Addr().String(), "after", backoff, "error", err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(backoff):
			}
			continue
		}
		backoff = 0
		if !s.gate.admit(nc.RemoteAddr(), time.Now()) {
			s.counters.Refused.Add(1)
			nc.Close()
			continue
		}
		if l.TLS == nil {
			if c := s.open(nc, ln, true); c != nil {
				c.start()
			}
			continue
		}
		select {
		case pending <- struct{}{}:
		default: // too many unfinished handshakes
			s.counters.Refused.Add(1)
			nc.Close()
			continue
		}
		// In a goroutine of its own: one peer that never finishes delays nobody.
		handshakes.Go(func() {
			t, err := s.handshake(ctx, tls.Server(nc, l.TLS))
			<-pending
			if err != nil {
				s.counters.Refused.Add(1)
				s.log.Debug("TLS handshake failed", "remote", nc.RemoteAddr().String(), "error", err)
				nc.Close()
				return
			}
			if c := s.open(t, ln, false); c != nil {
				c.start()
			}
		})
	}
}

// SendAway says goodbye to everybody who came in at ln and returns how many they are: an operator has closed it. It is called
// when Serve has returned, with the ln that Serve was given. It waits for nobody; whoever does not take the goodbye is cut off
// after the time for a stalled write. Kept sessions stay, and their clients may come back elsewhere.
func (s *Server) SendAway(ln net.Listener) int {
	var conns []*conn
	s.mu.Lock()
	for c := range s.conns {
		if c.via == ln {
			conns = append(conns, c)
		}
	}
	s.mu.Unlock()
	for _, c := range conns {
		c.farewell(codeAdministrative, "listener closed", "")
	}
	return len(conns)
}

// handshake finishes the TLS handshake within its time.
func (s *Server) handshake(ctx context.Context, t *tls.Conn) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.limits.Load().HandshakeTimeout)
	defer cancel()
	return t, t.HandshakeContext(ctx)
}
