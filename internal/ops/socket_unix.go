//go:build unix

package ops

import (
	"net"
	"syscall"
)

// listenPrivate listens on a socket that only its owner can open from the first moment on. The mask holds for the whole
// process, which at this moment makes no other files.
func listenPrivate(name string) (net.Listener, error) {
	defer syscall.Umask(syscall.Umask(0o177))
	return net.Listen("unix", name)
}
