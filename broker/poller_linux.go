package broker

import (
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
)

// poller reads many sockets in one goroutine. The idea, and what it was measured to save:
//
// A goroutine per connection costs a wake-up, a switch and a read that finds nothing for every read that finds something,
// and 3.5 KiB while it waits. A poller asks the kernel once for all sockets that have something, reads each once, and
// flushes what all of them together have appended: 100 publishers to one subscriber cost that subscriber's socket one write
// per round instead of 100. The kernel says with the event whether the peer has hung up, so a read that did not fill the
// buffer needs no second one to find out.
//
// What may take long or wait for another connection happens elsewhere: until CONNECT is accepted each read is handled in a
// goroutine of its own (passwords are hashed, sessions taken over), to which the connection is lent meanwhile. A connection
// stays with its poller.
type poller struct {
	srv   *Server
	epoll int
	bell  int // an eventfd: something is in the inbox
	ended chan struct{}

	mu    sync.Mutex
	inbox []letter
	rung  bool
	stop  bool

	// for the poller's goroutine
	conns []*conn // by place; nil: free
	free  []int
	more  []*conn // have more to read than their share of a round
	busy  int     // sockets read or written in the last round
	swept time.Time
	pace  moderation
}

// letter asks the poller to do something with a connection.
type letter struct {
	conn *conn
	what errand
	err  error
	more bool // resume: there is more to read
}

type errand uint8

const (
	watch   errand = iota // a new connection
	resume                // take back a connection that was lent or paused; err ends it
	look                  // its deadline was moved to now
	discard               // its goodbye is said: give the descriptor back as soon as the peer has hung up
)

type socketState uint8

const (
	reading  socketState = iota
	lent                 // a goroutine has it, or it is paused
	parting              // ended; what comes is thrown away
	finished             // ended and nobody needs the descriptor any more
	released             // and it is given back: a letter about it comes too late
)

// What one connection may read in a round, and how many connections a round may have.
const (
	readsPerRound  = 4
	readsOnLoan    = 64
	eventsPerRound = 256
	sweepInterval  = time.Second
)

func newPoller(s *Server) (*poller, error) {
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	bell, _, errno := syscall.Syscall(syscall.SYS_EVENTFD2, 0, syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if errno != 0 {
		return nil, os.NewSyscallError("eventfd2", errno)
	}
	p := &poller{srv: s, epoll: epoll, bell: int(bell), ended: make(chan struct{})}
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: -1}
	if err := syscall.EpollCtl(epoll, syscall.EPOLL_CTL_ADD, p.bell, &event); err != nil {
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	return p, nil
}

// post puts a letter into the inbox. It may be called from any goroutine.
func (p *poller) post(l letter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stop {
		return // no connection is left that it could be about
	}
	p.inbox = append(p.inbox, l)
	p.ring()
}

// ring wakes the poller; p.mu is held, so that the descriptor is not closed meanwhile.
func (p *poller) ring() {
	if !p.rung {
		p.rung = true
		syscall.Write(p.bell, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// end stops the poller, which has no connection any more, and waits for its goroutine.
func (p *poller) end() {
	p.mu.Lock()
	p.stop = true
	p.ring()
	p.mu.Unlock()
	<-p.ended
}

func (p *poller) run() {
	defer close(p.ended)
	defer syscall.Close(p.bell)
	defer syscall.Close(p.epoll)
	events := make([]syscall.EpollEvent, eventsPerRound)
	p.swept = time.Now()
	for {
		if len(p.more) == 0 {
			p.pace.pause(p.busy)
		}
		n := p.wait(events)
		if p.round(events[:n]) {
			return
		}
	}
}

// wait returns when there are events, when it is time to sweep, or at once where a connection has more to read. It blocks a
// thread. Parking the goroutine in Go's own poller instead wakes a thread for each event that comes while this one is busy or
// pauses: a quarter of the CPU with 100 publishers to one subscriber.
func (p *poller) wait(events []syscall.EpollEvent) int {
	timeout := 0
	if len(p.more) == 0 {
		timeout = int(max(0, sweepInterval-time.Since(p.swept))/time.Millisecond) + 1
	}
	n, _ := syscall.EpollWait(p.epoll, events, timeout)
	return max(n, 0)
}

// round handles what came and flushes what it has appended, once. It reports true when the poller is to end.
func (p *poller) round(events []syscall.EpollEvent) (stop bool) {
	b := p.srv.hub.Begin()
	defer b.End()
	w := takeWorkspace()
	defer giveWorkspace(w)
	more := p.more
	p.more = nil
	for _, e := range events {
		if e.Fd < 0 {
			stop = p.open(b, w)
			continue
		}
		// A place that was freed in this round has been asked about before: its event is stale.
		if c := p.conns[e.Fd]; c != nil && c.socket.fd == int(e.Pad) {
			p.event(b, w, c, e.Events)
		}
	}
	for _, c := range more {
		if c.socket.again && p.conns[c.socket.place] == c {
			c.socket.again = false
			p.readable(b, w, c)
		}
	}
	// The clock that nobody sets: b.Now may jump, and this would spin until it is where it was.
	if now := time.Now(); now.Sub(p.swept) >= sweepInterval {
		p.swept = now
		p.sweep(b, now)
	}
	p.busy = max(len(events), b.Touched())
	return stop
}

// open reads the inbox.
func (p *poller) open(b *bridge.Batch, w *workspace) (stop bool) {
	var count [8]byte
	syscall.Read(p.bell, count[:])
	p.mu.Lock()
	inbox := p.inbox
	p.inbox, p.rung, stop = nil, false, p.stop
	p.mu.Unlock()
	for _, l := range inbox {
		s := l.conn.socket
		switch l.what {
		case watch:
			p.watch(l.conn)
		case resume:
			if l.err != nil {
				p.part(l.conn, l.err)
				continue
			}
			s.state = reading
			if s.again || l.more { // something came meanwhile
				s.again = false
				p.readable(b, w, l.conn)
			}
			p.overdue(b, l.conn, time.Now())
		case look:
			p.overdue(b, l.conn, time.Now())
		case discard:
			s.state = finished
			if s.hup {
				p.release(l.conn)
			}
		}
	}
	return stop
}

// watch begins to read a connection.
func (p *poller) watch(c *conn) {
	s := c.socket
	if n := len(p.free); n > 0 {
		s.place, p.free = p.free[n-1], p.free[:n-1]
		p.conns[s.place] = c
	} else {
		s.place = len(p.conns)
		p.conns = append(p.conns, c)
	}
	if err := p.ask(s, syscall.EPOLL_CTL_ADD, 0); err != nil {
		p.part(c, err)
	}
}

// ask says what of a socket is to be heard: that it can be read, and extra. That it can be written is asked for only while
// somebody waits for it: it would come along with every other event.
func (p *poller) ask(s *socket, op int, extra uint32) error {
	event := syscall.EpollEvent{
		Events: syscall.EPOLLIN | syscall.EPOLLRDHUP | edgeTriggered | extra,
		Fd:     int32(s.place), Pad: int32(s.fd),
	}
	return os.NewSyscallError("epoll_ctl", syscall.EpollCtl(p.epoll, op, s.fd, &event))
}

// edgeTriggered is syscall.EPOLLET, which has the wrong sign there.
const edgeTriggered = 1 << 31

func (p *poller) event(b *bridge.Batch, w *workspace, c *conn, events uint32) {
	s := c.socket
	if events&syscall.EPOLLOUT != 0 {
		s.roomAgain()
	}
	if events&(syscall.EPOLLRDHUP|syscall.EPOLLHUP|syscall.EPOLLERR) != 0 {
		s.hup = true
	} else if events&syscall.EPOLLIN == 0 {
		return
	}
	p.readable(b, w, c)
}

// readable reads a connection that has something, if it is the poller's to read.
func (p *poller) readable(b *bridge.Batch, w *workspace, c *conn) {
	s := c.socket
	switch {
	case s.state == lent:
		s.again = true
	case s.state == finished && s.hup:
		p.release(c)
	case s.state == parting, s.state == finished:
		p.throwAway(w, c)
	case c.phase != connected:
		s.state = lent
		go p.lend(c)
	default:
		if err := p.read(b, w, c, readsPerRound); err != nil {
			p.part(c, err)
		}
	}
}

// lend reads a connection in a goroutine of its own until there is nothing more, and gives it back.
func (p *poller) lend(c *conn) {
	b := p.srv.hub.Begin()
	w := takeWorkspace()
	err := p.read(b, w, c, readsOnLoan)
	giveWorkspace(w)
	b.End()
	p.post(letter{conn: c, what: resume, err: err, more: c.phase == connected})
}

// read reads up to times from the socket and handles what came; where the connection is lent it goes on until there is
// nothing. It is the edge at which a panic ends.
func (p *poller) read(b *bridge.Batch, w *workspace, c *conn, times int) (err error) {
	if !p.srv.contain("serving a connection", func() { err = p.readUncontained(b, w, c, times) }) {
		return bridge.Refuse(bridge.Internal, "internal error")
	}
	return err
}

func (p *poller) readUncontained(b *bridge.Batch, w *workspace, c *conn, times int) error {
	s := c.socket
	for range times {
		head, free := s.carry.space(w)
		n, err := s.read(free)
		switch {
		case err == syscall.EAGAIN:
			return nil
		case err != nil:
			return os.NewSyscallError("read", err)
		case n == 0:
			return io.EOF
		}
		read := append(head, free[:n]...)
		used, wait, err := c.handle(b, w, read)
		if err != nil {
			return err
		}
		s.carry.keep(read, read[used:])
		switch {
		case wait != nil && s.state == lent:
			if err := wait(); err != nil {
				return err
			}
		case wait != nil:
			p.pause(c, wait)
			return nil
		case s.state == lent && c.phase == connected:
			return nil // the poller goes on
		case s.state == reading && n < len(free) && !s.hup:
			return nil // the socket is empty, and the kernel will say when it is not
		}
	}
	if s.state == lent {
		return bridge.Refuse(bridge.RateLimited, "too much before CONNECT was answered")
	}
	p.later(c)
	return nil
}

// later puts a connection that has more to read into the next round.
func (p *poller) later(c *conn) {
	if !c.socket.again {
		c.socket.again = true
		p.more = append(p.more, c)
	}
}

// pause stops reading from a connection until wait returns.
func (p *poller) pause(c *conn, wait func() error) {
	c.socket.state, c.socket.again = lent, true
	go func() { p.post(letter{conn: c, what: resume, err: wait()}) }()
}

// part ends a connection: what is to be said and left happens in a goroutine of its own, because it may wait for others.
func (p *poller) part(c *conn, err error) {
	s := c.socket
	s.state, s.carry = parting, nil
	s.hup = s.hup || errors.Is(err, io.EOF) || errors.As(err, new(syscall.Errno))
	s.linger = time.Now().Add(lingerTime)
	go func() {
		c.end(err)
		p.post(letter{conn: c, what: discard})
	}()
}

// throwAway reads what a client still sends that was told goodbye, so that the goodbye reaches it.
func (p *poller) throwAway(w *workspace, c *conn) {
	s := c.socket
	for range readsPerRound {
		n, err := s.read(w.buf[:])
		if err == syscall.EAGAIN {
			return
		}
		if err != nil || n == 0 {
			s.hup = true
			if s.state == finished {
				p.release(c)
			}
			return
		}
	}
	p.later(c)
}

// release forgets a connection.
func (p *poller) release(c *conn) {
	s := c.socket
	s.state = released
	c.out.close()
	syscall.EpollCtl(p.epoll, syscall.EPOLL_CTL_DEL, s.fd, &syscall.EpollEvent{})
	p.conns[s.place] = nil
	p.free = append(p.free, s.place)
	s.release()
	p.srv.ended(c)
}

// sweep looks at the deadlines of all connections. It costs a few nanoseconds for each, once a second.
func (p *poller) sweep(b *bridge.Batch, now time.Time) {
	for _, c := range p.conns {
		if c != nil {
			p.overdue(b, c, now)
		}
	}
}

// overdue acts on a deadline that has passed, or on a peer that does not hang up.
func (p *poller) overdue(b *bridge.Batch, c *conn, now time.Time) {
	s := c.socket
	at := s.deadline.Load()
	switch {
	case s.state == finished && now.After(s.linger):
		p.release(c)
	case s.state == reading && at != 0 && now.UnixNano() >= at:
		if err := c.deadlinePassed(); err != nil {
			c.fail(b, err)
			p.part(c, err)
		}
	}
}
