//go:build !unix

package ops

import "net"

// listenPrivate listens on a socket; who can open it follows from its directory.
func listenPrivate(name string) (net.Listener, error) { return net.Listen("unix", name) }
