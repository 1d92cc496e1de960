package interop

import (
	"io"
	"net"
	"sync"
	"testing"
)

// relay is a port that passes on what connects to it while it is open. Who connects while it is shut waits for an answer.
type relay struct {
	port string

	mu   sync.Mutex
	gate chan struct{} // closed: open
	shut bool
	to   string // the port
}

func newRelay(t *testing.T) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	r := &relay{port: port, gate: make(chan struct{}), shut: true}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { r.pass(in) })
		}
	})
	// What connects is started after this, so it is gone by then, and what is passed on ends.
	t.Cleanup(func() {
		ln.Close()
		r.open("")
		wg.Wait()
	})
	return r
}

// pass passes on one connection until either side ends it.
func (r *relay) pass(in net.Conn) {
	defer in.Close()
	r.mu.Lock()
	gate := r.gate
	r.mu.Unlock()
	<-gate
	r.mu.Lock()
	to := r.to
	r.mu.Unlock()
	out, err := net.Dial("tcp", "127.0.0.1:"+to)
	if err != nil {
		return
	}
	defer out.Close()
	var wg sync.WaitGroup
	wg.Go(func() {
		io.Copy(out, in)
		out.Close()
	})
	io.Copy(in, out)
	in.Close()
	wg.Wait()
}

// close lets nobody pass any more who has not.
func (r *relay) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.shut {
		r.gate, r.shut = make(chan struct{}), true
	}
}

// open lets everybody pass to a port of this machine, also who waits.
func (r *relay) open(to string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.to = to; r.shut {
		close(r.gate)
		r.shut = false
	}
}
