package ops

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// SocketName is the name of the admin socket in the data directory.
const SocketName = "isthmus.sock"

// maxSocketName is how long the name of a socket can be on every system.
const maxSocketName = 103

// ListenAdmin listens on the admin socket of a data directory, which it makes where it is missing. Only the user who runs
// the gateway can connect. It fails if another gateway listens there, so it also keeps two from sharing a directory.
func ListenAdmin(data string) (net.Listener, error) {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, fmt.Errorf("making the data directory %s: %w", data, cause(err))
	}
	name := filepath.Join(data, SocketName)
	if len(name) > maxSocketName {
		return nil, fmt.Errorf("the name of the admin socket %s is longer than the %d bytes that systems allow", name, maxSocketName)
	}
	if conn, err := net.DialTimeout("unix", name, time.Second); err == nil {
		conn.Close()
		return nil, fmt.Errorf("another gateway runs with the data directory %s", data)
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("removing the admin socket %s of a gateway that has ended: %w", name, cause(err))
	}
	ln, err := listenPrivate(name)
	if err != nil {
		return nil, fmt.Errorf("making the admin socket %s: %w", name, cause(err))
	}
	return ln, nil
}

// cause is what the operating system said, without the names that the message around it has already.
func cause(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}
