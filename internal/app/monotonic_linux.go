package app

import "golang.org/x/sys/unix"

// monotonicMicroseconds reads CLOCK_MONOTONIC, which Go's time package keeps to itself.
func monotonicMicroseconds() int64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) != nil {
		return 0
	}
	return t.Nano() / 1000
}
