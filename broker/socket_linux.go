package broker

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"time"
)

// socket is a TCP socket that a poller reads. It is taken out of Go's own poller, so that an event costs one wake-up and
// not two. As a net.Conn it is only written to: the poller has its own way to read.
type socket struct {
	fd            int
	users         atomic.Int64 // system calls under way, and closedBit
	local, remote net.Addr
	deadline      atomic.Int64 // for reading, Unix nanoseconds; 0: none. The poller looks at it once a second
	writeDeadline atomic.Int64
	listen        func(extra uint32) error // asks the poller for more events
	hurry         func()                   // asks the poller to look at a deadline that has passed
	writable      chan struct{}            // the poller's word that a full socket has room again; buffered

	// for the poller's goroutine, or whom it has lent the connection to
	place  int // in the poller's table
	carry  carry
	state  socketState
	hup    bool      // the peer will send no more than what is here
	linger time.Time // how long a peer may take to hang up
	again  bool      // something came while the connection was lent, or it is in the poller's list for the next round
}

// closedBit is far above any count of system calls under way.
const closedBit = 1 << 62

// takeSocket takes over the file descriptor of a TCP connection; nc is closed.
func takeSocket(nc *net.TCPConn) (*socket, error) {
	rc, err := nc.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	cerr := rc.Control(func(old uintptr) {
		var errno syscall.Errno
		r, _, errno := syscall.Syscall(syscall.SYS_FCNTL, old, syscall.F_DUPFD_CLOEXEC, 0)
		if errno != 0 {
			err = errno
			return
		}
		fd = int(r)
	})
	if err == nil {
		err = cerr
	}
	if err != nil {
		return nil, os.NewSyscallError("dup", err)
	}
	s := &socket{fd: fd, local: nc.LocalAddr(), remote: nc.RemoteAddr(), writable: make(chan struct{}, 1)}
	return s, nc.Close()
}

// enter begins a system call on the descriptor; false once it is closed.
func (s *socket) enter() bool {
	for {
		n := s.users.Load()
		if n >= closedBit {
			return false
		}
		if s.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (s *socket) leave() {
	if s.users.Add(-1) == closedBit {
		syscall.Close(s.fd)
	}
}

// release closes the descriptor when no system call uses it. Called once, by the poller.
func (s *socket) release() {
	if s.users.Add(closedBit) == closedBit {
		syscall.Close(s.fd)
	}
}

// try writes what the socket takes at once.
func (s *socket) try(p []byte) (int, error) {
	if !s.enter() {
		return 0, net.ErrClosed
	}
	defer s.leave()
	for {
		n, err := syscall.Write(s.fd, p)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return 0, nil
		case err != nil:
			return 0, os.NewSyscallError("write", err)
		}
		return n, nil
	}
}

// Write blocks until everything is written or the write deadline passes.
func (s *socket) Write(p []byte) (n int, err error) {
	defer s.listen(0)
	for {
		k, err := s.try(p[n:])
		n += k
		if err != nil || n == len(p) {
			return n, err
		}
		if k > 0 {
			continue
		}
		if err := s.listen(syscall.EPOLLOUT); err != nil {
			return n, err
		}
		wait := time.NewTimer(time.Until(time.Unix(0, s.writeDeadline.Load())))
		select {
		case <-s.writable:
			wait.Stop()
		case <-wait.C:
			return n, os.ErrDeadlineExceeded
		}
	}
}

// roomAgain wakes a Write that waits.
func (s *socket) roomAgain() {
	select {
	case s.writable <- struct{}{}:
	default:
	}
}

// read takes what is there into p. err is EAGAIN where there is nothing.
func (s *socket) read(p []byte) (n int, err error) {
	if !s.enter() {
		return 0, net.ErrClosed
	}
	defer s.leave()
	for {
		n, err := syscall.Read(s.fd, p)
		if err != syscall.EINTR {
			return n, err
		}
	}
}

var errPolled = errors.New("the poller reads this socket")

func (s *socket) Read([]byte) (int, error) { return 0, errPolled }
func (s *socket) LocalAddr() net.Addr      { return s.local }
func (s *socket) RemoteAddr() net.Addr     { return s.remote }
func (s *socket) SetDeadline(t time.Time) error {
	s.SetReadDeadline(t)
	return s.SetWriteDeadline(t)
}

// SetReadDeadline says when the poller looks at the connection though nothing came: within a second after t, or at once
// where t has passed.
func (s *socket) SetReadDeadline(t time.Time) error {
	s.deadline.Store(unixNano(t))
	if !t.IsZero() && !t.After(time.Now()) {
		s.hurry()
	}
	return nil
}

func (s *socket) SetWriteDeadline(t time.Time) error {
	s.writeDeadline.Store(unixNano(t))
	return nil
}

func unixNano(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// Close ends the connection both ways; the poller sees that and gives the descriptor back. What was written still goes out.
func (s *socket) Close() error {
	err := s.shutdown(syscall.SHUT_RDWR)
	s.roomAgain() // only now: a Write that is woken before would find no room and wait again
	return err
}

// CloseWrite ends our side.
func (s *socket) CloseWrite() error { return s.shutdown(syscall.SHUT_WR) }

func (s *socket) shutdown(how int) error {
	if !s.enter() {
		return net.ErrClosed
	}
	defer s.leave()
	return syscall.Shutdown(s.fd, how)
}
