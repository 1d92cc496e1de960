package broker

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// gate decides whether a connection is let in before a byte of it is parsed: by the rate of connections in all and by
// address. Loopback addresses have no limit of their own: a proxy or a test may be behind them.
type gate struct {
	limits *atomic.Pointer[Limits]

	mu      sync.Mutex
	tokens  float64
	last    time.Time
	window  time.Time
	address map[netip.Addr]int // connections since window
}

// addressWindow is the time over which the connections of one address are counted.
const addressWindow = 10 * time.Second

// maxAddresses bounds the memory of the gate; above it addresses are not told apart until the window ends.
const maxAddresses = 100_000

func newGate(limits *atomic.Pointer[Limits]) *gate {
	return &gate{limits: limits, tokens: float64(limits.Load().ConnectBurst), address: make(map[netip.Addr]int)}
}

// admit reports whether a connection from remote may come in at now.
func (g *gate) admit(remote net.Addr, now time.Time) bool {
	l := g.limits.Load()
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.last.IsZero() {
		g.tokens = min(float64(l.ConnectBurst), g.tokens+now.Sub(g.last).Seconds()*float64(l.ConnectRate))
	}
	g.last = now
	if now.Sub(g.window) > addressWindow {
		g.window = now
		clear(g.address)
	}
	t, ok := remote.(*net.TCPAddr)
	local := ok && t.IP.IsLoopback()
	if ok && !local {
		a := prefix(t.AddrPort().Addr())
		if _, known := g.address[a]; known || len(g.address) < maxAddresses {
			g.address[a]++
		}
		if g.address[a] > l.ConnectsPerAddress {
			return false
		}
	}
	if local {
		return true
	}
	if g.tokens < 1 {
		return false
	}
	g.tokens--
	return true
}

// prefix is what counts as one address: of IPv6 the network that a subscriber is commonly given.
func prefix(a netip.Addr) netip.Addr {
	a = a.Unmap()
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}
