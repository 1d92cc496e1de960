package certs

import (
	"crypto/tls"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// checkEvery is how often handshakes look whether a file has changed.
const checkEvery = time.Second

// Reloader follows the files of a Config. It owns no goroutine: handshakes look after the files, at most once a second. It is
// safe for concurrent use.
type Reloader struct {
	config Config
	log    *slog.Logger

	current atomic.Pointer[Set]
	next    atomic.Int64 // when to look again, in Unix nanoseconds

	mu    sync.Mutex // held while files are looked at
	tried [3]stamp   // of the files that were tried last, whatever came of it
}

// stamp tells one content of a file from another.
type stamp struct {
	modified time.Time
	size     int64
}

// NewReloader loads the files. Changes found by handshakes are logged, also those that don't load; log may be nil.
func NewReloader(c Config, log *slog.Logger) (*Reloader, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &Reloader{config: c, log: log}
	if err := r.Reload(); err != nil {
		return nil, err
	}
	return r, nil
}

// Reload reads the files again. When they don't load, what is there stays in use.
func (r *Reloader) Reload() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.load(r.stamps())
}

// Current is what is in use. It looks after the files as a handshake does.
func (r *Reloader) Current() *Set {
	r.look()
	return r.current.Load()
}

// TLS is the configuration for a server whose clients may negotiate the given protocols (ALPN). Every handshake uses the
// certificate and client authorities of that moment; TLS 1.2 is the least. Connections that stand are not touched by a
// change. Session tickets stay usable over a change, but a session is resumed only when the client's certificate verifies
// against the client authorities of that moment.
func (r *Reloader) TLS(protocols ...string) *tls.Config {
	c := r.current.Load().tls(protocols) // for those who look at it; handshakes use what comes next
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return r.Current().tls(protocols), nil
	}
	return c
}

// look reloads when a file has changed. One handshake looks, the others go on with what is there.
func (r *Reloader) look() {
	now := time.Now().UnixNano()
	next := r.next.Load()
	if now < next && next-now <= int64(checkEvery) || !r.mu.TryLock() { // the second part: a clock that was set back
		return
	}
	defer r.mu.Unlock()
	r.next.Store(now + int64(checkEvery))
	stamps := r.stamps()
	if stamps == r.tried {
		return
	}
	if err := r.load(stamps); err != nil {
		r.log.Error("certificates have changed and don't load, the old ones stay in use", "error", err)
		return
	}
	leaf := r.current.Load().Certificate.Leaf
	r.log.Info("certificates reloaded", "subject", leaf.Subject.String(), "expires", leaf.NotAfter)
}

// load is called with mu held. The stamps are from before reading, so that a file written meanwhile is read again.
func (r *Reloader) load(stamps [3]stamp) error {
	r.tried = stamps
	r.next.Store(time.Now().UnixNano() + int64(checkEvery))
	s, err := Load(r.config)
	if err != nil {
		return err
	}
	r.current.Store(s)
	return nil
}

func (r *Reloader) stamps() (s [3]stamp) {
	for i, name := range []string{r.config.Cert, r.config.Key, r.config.ClientCA} {
		if info, err := os.Stat(name); err == nil && name != "" {
			s[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return s
}
