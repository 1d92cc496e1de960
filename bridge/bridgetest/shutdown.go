package bridgetest

import (
	"context"
	"fmt"
	"time"
)

var shutdownChecks = []check{
	{"shutdown ends within the grace period", nil, checkShutdown},
}

// checkShutdown stops the endpoint while clients are idle, busy and stalled. That no goroutine is left is checked by NoLeak
// around every check.
func checkShutdown(b *bench) {
	idle, busy, stalled := b.dial("idle"), b.dial("busy"), b.dial("stalled")
	b.subscribe(idle, "t/#", b.topQoS())
	b.subscribe(stalled, "t/#", b.topQoS())
	stalled.Stall()
	for i := range 50 {
		b.publish(fmt.Sprint("t/", i), string(make([]byte, 16<<10)), b.topQoS(), false)
	}
	sending := make(chan struct{})
	go func() {
		defer close(sending)
		for b.send(busy, "t/busy", "x", b.topQoS(), false) == nil {
			if b.ctx.Err() != nil {
				return
			}
		}
	}()
	const grace = 2 * time.Second
	stopped := make(chan error, 1)
	go func() { stopped <- b.ep.Stop(grace) }()
	select {
	case err := <-stopped:
		if err != nil {
			b.Errorf("stopping: %v", err)
		}
	case <-time.After(grace + patience/2):
		b.Fatalf("still running %v after the end of the grace period", patience/2)
	}
	b.expectEnd(idle, "the endpoint stopped")
	stalled.Resume()
	b.expectEnd(stalled, "the endpoint stopped")
	select {
	case <-sending:
	case <-time.After(patience):
		b.Error("a publisher is still waiting after the endpoint stopped")
	}
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if p, err := b.ep.Dial(ctx, DialOptions{ID: "late", User: user, Password: password}); err == nil {
		_ = p.Abort()
		b.Error("a client got in after the endpoint stopped")
	}
	if n := b.stats().Connections; n != 0 {
		b.Errorf("%d connections are counted after the endpoint stopped", n)
	}
	// The hub goes on without it.
	r := b.record("t/#")
	b.publish("t/after", "x", 1, false)
	b.expectRecorded(r, "t/after", "x")
	for _, p := range []interface{ Close() error }{idle, busy, stalled} {
		_ = p.Close()
	}
}
