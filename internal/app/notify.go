package app

import (
	"net"
	"os"
	"strconv"
	"strings"
)

// notifier tells the service manager how the gateway does, in systemd's sd_notify protocol. Without NOTIFY_SOCKET in the
// environment it does nothing.
type notifier struct{ socket string }

func newNotifier() notifier {
	socket := os.Getenv("NOTIFY_SOCKET")
	if strings.HasPrefix(socket, "@") {
		socket = "\x00" + socket[1:] // Linux's abstract sockets
	}
	return notifier{socket}
}

// ready says that start or reload is over.
func (n notifier) ready(status string) error { return n.send("READY=1", "STATUS="+status) }

// reloading says that a reload begins. Type=notify-reload units wait for a time stamp of the monotonic clock in it.
func (n notifier) reloading() error {
	return n.send("RELOADING=1", "MONOTONIC_USEC="+strconv.FormatInt(monotonicMicroseconds(), 10))
}

// stopping says that the gateway says goodbye.
func (n notifier) stopping() error { return n.send("STOPPING=1", "STATUS=stopping") }

// send sends one datagram; newlines separate the assignments.
func (n notifier) send(assignments ...string) error {
	if n.socket == "" {
		return nil
	}
	for i, a := range assignments {
		assignments[i] = strings.ReplaceAll(a, "\n", " ")
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.socket, Net: "unixgram"})
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte(strings.Join(assignments, "\n")))
	return err
}
