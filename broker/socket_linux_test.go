package broker

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
)

// TestASocketThatWasGivenBackTouchesNobodyElses uses a socket after its end: the number of its descriptor is another one's by
// then, which must not be closed, written to or shut down.
func TestASocketThatWasGivenBackTouchesNobodyElses(t *testing.T) {
	pair := func() [2]int {
		fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fds
	}
	mine := pair()
	defer syscall.Close(mine[1])
	s := &socket{fd: mine[0], writable: make(chan struct{}, 1)}
	if !s.enter() {
		t.Fatal("the socket is closed already")
	}
	s.release()
	if _, err := syscall.Write(mine[0], []byte("x")); err != nil {
		t.Fatalf("closed while a system call is under way: %v", err)
	}
	s.leave()
	if _, err := syscall.Write(mine[0], []byte("x")); err != syscall.EBADF {
		t.Fatalf("got %v, want the descriptor to be closed", err)
	}

	other := pair() // takes the number that is free now
	defer syscall.Close(other[1])
	if other[0] != mine[0] {
		syscall.Close(other[0])
		t.Skip("the number was taken by somebody else")
	}
	defer syscall.Close(other[0])
	if _, err := s.try([]byte("stray")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write: %v", err)
	}
	if _, err := s.read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read: %v", err)
	}
	if err := s.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("close: %v", err)
	}
	if _, err := syscall.Write(other[0], []byte("mine")); err != nil {
		t.Errorf("the other socket is broken: %v", os.NewSyscallError("write", err))
	}
	got := make([]byte, 64)
	if n, err := syscall.Read(other[1], got); err != nil || string(got[:n]) != "mine" {
		t.Errorf("got %q, %v", got[:max(n, 0)], err)
	}
}
