//go:build !linux

package app

// monotonicMicroseconds has no meaning where there is no systemd.
func monotonicMicroseconds() int64 { return 0 }
