package bridgetest

import (
	"runtime"
	"testing"
	"time"
)

// NoLeak fails the test if, after all clean-ups that are registered later, more goroutines are left than there are now. It is
// to be called first and not in parallel tests.
func NoLeak(t testing.TB) {
	t.Helper()
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			n := runtime.NumGoroutine()
			if n <= before {
				return
			}
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<20)
				t.Errorf("%d goroutines are left, %d were there at the start:\n%s", n, before, stacks[:runtime.Stack(stacks, true)])
				return
			}
		}
	})
}
