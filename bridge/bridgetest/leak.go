package bridgetest

import (
	"runtime"
	"strings"
	"testing"
	"time"
)

// NoLeak fails the test if, after all clean-ups that are registered later, a goroutine is left that is not there now, and
// prints its stack. It is to be called first and not in parallel tests.
func NoLeak(t testing.TB) {
	t.Helper()
	before := goroutines()
	t.Cleanup(func() {
		for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			left := goroutines()
			for id := range before {
				delete(left, id)
			}
			if len(left) == 0 {
				return
			}
			if time.Now().After(deadline) {
				t.Errorf("%d goroutines are left:", len(left))
				for _, stack := range left {
					t.Errorf("%s", stack)
				}
				return
			}
		}
	})
}

// goroutines are the stacks of all goroutines by their header up to the state, "goroutine 7". Numbers are not used again, so
// one that ends meanwhile does not make up for one that stays.
func goroutines() map[string]string {
	buf := make([]byte, 1<<16)
	n := runtime.Stack(buf, true)
	for n == len(buf) {
		buf = make([]byte, 2*len(buf))
		n = runtime.Stack(buf, true)
	}
	all := make(map[string]string)
	for stack := range strings.SplitSeq(string(buf[:n]), "\n\n") {
		id, _, _ := strings.Cut(stack, " [")
		all[id] = stack
	}
	return all
}
