//go:build unix

package broker

import (
	"io"
	"net"
	"syscall"
)

// newInput chooses how to read a connection.
func newInput(nc net.Conn) input {
	if t, ok := nc.(*net.TCPConn); ok {
		if rc, err := t.SyscallConn(); err == nil {
			return &socketInput{rc: rc}
		}
	}
	return &streamInput{nc: nc}
}

// socketInput reads a TCP socket when it is readable, into a workspace that is taken just for that: between reads the
// connection is a parked goroutine and holds no buffer.
type socketInput struct {
	rc     syscall.RawConn
	carry  carry
	handle handler
	err    error
}

func (in *socketInput) run(handle handler) error {
	in.handle, in.err = handle, nil
	if err := in.rc.Read(in.readable); err != nil {
		return err
	}
	return in.err
}

// readable reads until the socket is empty. It reports true when the connection is done with.
func (in *socketInput) readable(fd uintptr) (done bool) {
	w := takeWorkspace()
	defer giveWorkspace(w)
	for {
		head, free := in.carry.space(w)
		n, err := syscall.Read(int(fd), free)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			return false
		case err != nil:
			in.err = err
			return true
		case n == 0:
			in.err = io.EOF
			return true
		}
		p := append(head, free[:n]...)
		rest, err := in.handle(w, p)
		if err != nil {
			in.err = err
			return true
		}
		in.carry.keep(p, rest)
	}
}

// tryWriter makes the write that does not block; nil where the connection has none.
func tryWriter(nc net.Conn) func(p []byte) (int, error) {
	t, ok := nc.(*net.TCPConn)
	if !ok {
		return nil
	}
	rc, err := t.SyscallConn()
	if err != nil {
		return nil
	}
	w := &socketWriter{rc: rc}
	w.writable = w.write // made once: a closure for each write would be garbage
	return w.try
}

// socketWriter writes to a TCP socket what it takes at once. It is used by one goroutine at a time.
type socketWriter struct {
	rc       syscall.RawConn
	writable func(fd uintptr) bool
	p        []byte
	n        int
	err      error
}

func (w *socketWriter) try(p []byte) (int, error) {
	w.p, w.n, w.err = p, 0, nil
	err := w.rc.Write(w.writable)
	w.p = nil
	if err != nil {
		return 0, err
	}
	return w.n, w.err
}

func (w *socketWriter) write(fd uintptr) bool {
	for {
		n, err := syscall.Write(int(fd), w.p)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
		case err != nil:
			w.err = err
		default:
			w.n = n
		}
		return true
	}
}
