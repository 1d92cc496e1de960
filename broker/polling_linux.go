package broker

import (
	"net"
	"syscall"
)

// polling are the server's pollers: made with the first connection, ended by Shutdown. The server's lock guards it.
type polling struct {
	pollers []*poller
	next    int
}

// pollers is how many there are: one for two cores. The other cores have the rest to do (TLS, stores, collecting garbage), and
// fewer pollers that each bring more in a round are cheaper by far: on two cores, 100 pairs at QoS 0 need a third less CPU
// with one poller than with two and get more messages through.
func pollers() int { return max(1, cores()/2) }

// adopt makes c a connection that a poller reads, if it can be one; s.mu is held.
func (s *Server) adopt(c *conn) bool {
	t, ok := c.nc.(*net.TCPConn)
	if !ok {
		return false
	}
	for len(s.polling.pollers) < pollers() {
		p, err := newPoller(s)
		if err != nil {
			s.log.Warn("no poller, reading with a goroutine per connection", "error", err)
			return false
		}
		s.polling.pollers = append(s.polling.pollers, p)
		go p.run()
	}
	sock, err := takeSocket(t)
	if err != nil {
		s.log.Warn("taking over a socket", "error", err)
		return false
	}
	c.socket, c.nc = sock, sock
	sock.listen = func(extra uint32) error {
		if !sock.enter() { // the number of the descriptor may be another socket's by now
			return net.ErrClosed
		}
		defer sock.leave()
		return c.poller.ask(sock, syscall.EPOLL_CTL_MOD, extra)
	}
	sock.hurry = func() { c.poller.post(letter{conn: c, what: look}) }
	c.poller = s.polling.pollers[s.polling.next%len(s.polling.pollers)]
	s.polling.next++
	return true
}

// watched begins to serve a connection that adopt took.
func (c *conn) watched() { c.poller.post(letter{conn: c, what: watch}) }

// endPolling ends the pollers, which have no connection any more.
func (s *Server) endPolling() {
	s.mu.Lock()
	pollers := s.polling.pollers
	s.polling.pollers = nil
	s.mu.Unlock()
	for _, p := range pollers {
		p.end()
	}
}
