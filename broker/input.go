package broker

import (
	"net"
	"slices"
)

// handler takes the bytes of one read, which are valid until it returns, and returns those that are an incomplete packet.
type handler func(w *workspace, p []byte) (rest []byte, err error)

// input is where a connection's bytes come from. run hands them on until the handler or the connection ends, or the read
// deadline passes.
type input interface {
	run(handle handler) error
}

// carry is the beginning of a packet whose rest has not come yet. It grows with what arrives, never with what was announced.
type carry []byte

// space is where the next read goes and what it is appended to: the workspace, or the carry itself where the packet is too
// large for that.
func (k *carry) space(w *workspace) (head, free []byte) {
	if len(*k) < readSize/2 {
		n := copy(w.buf[:], *k)
		return w.buf[:n], w.buf[n:]
	}
	*k = slices.Grow(*k, len(*k))
	return *k, (*k)[len(*k):cap(*k)]
}

// keep holds on to rest, which is the end of read, in as many bytes as it has.
func (k *carry) keep(read, rest []byte) {
	switch {
	case len(rest) == 0:
		*k = nil
	case len(*k) >= readSize/2 && len(rest) == len(read):
		*k = rest // it was read into the carry
	default:
		*k = append(make(carry, 0, len(rest)), rest...)
	}
}

// streamInput reads any net.Conn, such as TLS. While the connection is idle a small buffer waits in Read; after a read that
// filled it the workspace is held for the next one, because more is likely to be there.
type streamInput struct {
	nc    net.Conn
	carry carry
	small [smallRead]byte
}

const smallRead = 512

func (in *streamInput) run(handle handler) error {
	for busy := false; ; {
		var w *workspace
		var p []byte
		var n, size int
		var err error
		if busy {
			w = takeWorkspace()
			head, free := in.carry.space(w)
			size = len(free)
			n, err = in.nc.Read(free)
			p = append(head, free[:n]...)
		} else {
			size = smallRead
			n, err = in.nc.Read(in.small[:])
			w = takeWorkspace()
			head, _ := in.carry.space(w)
			p = append(head, in.small[:n]...)
		}
		busy = n >= smallRead || n == size
		if n > 0 {
			rest, herr := handle(w, p)
			if herr != nil {
				err = herr
			} else {
				in.carry.keep(p, rest)
			}
		}
		giveWorkspace(w)
		if err != nil {
			return err
		}
	}
}

func takeWorkspace() *workspace  { return workspaces.Get().(*workspace) }
func giveWorkspace(w *workspace) { workspaces.Put(w) }
