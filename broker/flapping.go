package broker

import "time"

// flaps counts take-overs of a session that follow each other fast: two devices with one client id that send each other
// away for ever would otherwise do so as fast as they can reconnect.
type flaps struct {
	since time.Time
	count int
}

// After so many take-overs within the window each further one waits.
const (
	flapLimit  = 3
	flapWindow = 10 * time.Second
	flapDelay  = time.Second
)

// another records a take-over and reports whether it comes too fast after the others.
func (f *flaps) another(now time.Time) bool {
	if now.Sub(f.since) > flapWindow {
		f.since, f.count = now, 0
	}
	f.count++
	return f.count > flapLimit
}

// calm delays a connection that is about to take over a live one, if that has happened too often. It holds no lock meanwhile:
// others with the same client id wait beside it.
func (s *session) calm(c *conn) {
	old := s.live.Load()
	if old == nil || s.srv.letFlap {
		return
	}
	s.mu.Lock()
	flapping := s.flaps.another(time.Now())
	s.mu.Unlock()
	if flapping {
		s.srv.log.Warn("client id is used by several connections that take it from each other", "client", s.id,
			"remote", remoteOf(c.nc), "former", remoteOf(old.nc), "delay", flapDelay)
		time.Sleep(flapDelay)
	}
}
