package bridgetest

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-iot/isthmus/bridge"
)

func TestTheReferenceEndpointPasses(t *testing.T) {
	TestEndpoint(t, func(_ testing.TB, hub *bridge.Hub) Endpoint { return newMemory(hub, "").endpoint() })
}

// TestEveryBrokenPromiseIsFound breaks the reference endpoint in one place at a time and expects a certain check to fail, and
// to say why.
func TestEveryBrokenPromiseIsFound(t *testing.T) {
	defer func(was time.Duration) { patience = was }(patience)
	for _, tt := range []struct{ flaw, check, says string }{
		{"echoes", "a subscription can leave out the client's own messages", `received "echo"`},
		{"does not say that bytes are borrowed", "a message outlives the endpoint's buffers", "it is a view into a buffer"},
		{"forgets retained values", "retained values come first, then live ones", "deadline exceeded"},
		{"hole in the table", "the table of reasons is total", `"expired" has the code 0x0`},
		{"swaps messages", "messages of one publisher stay in order", "received message"},
		{"waits for room", "a subscriber that stops reading slows nobody and costs its backlog", "the publisher waits for a subscriber"},
		{"has no limit", "a subscriber that stops reading slows nobody and costs its backlog", "went past a stalled subscriber and the heap grew"},
		{"drops in silence", "a subscriber that stops reading slows nobody and costs its backlog", "drops are counted"},
		{"asks nobody", "what the rules forbid reaches nobody", `the hub was given "x" (1 bytes) on "must not"`},
		{"confirms anything", "malformed topics and filters are refused", "was confirmed"},
		{"takes any size", "what is too large is refused", `on "large/`},
		{"keeps removed users", "a revoked right holds at once", "its user was removed"},
		{"forgets the queue", "a session keeps its subscriptions and its queue", `received "0 live"`},
		{"miscounts connections", "nothing is left of clients that are gone", "gauges are back at zero"},
		{"leaks a goroutine", "messages go both ways at every QoS", "goroutines are left"},
		{"stops late", "shutdown ends within the grace period", "still running"},
	} {
		t.Run(tt.flaw, func(t *testing.T) {
			i := slices.IndexFunc(checks, func(c check) bool { return c.name == tt.check })
			if i < 0 {
				t.Fatalf("there is no check %q", tt.check)
			}
			var r *attempted
			// A check that waits in vain waits for as long as patience lasts, and on a busy machine little patience ends too soon.
			for _, patience = range []time.Duration{time.Second, 20 * time.Second} {
				var e *memory
				r = attempt(func(t testing.TB) {
					checks[i].do(t, func(_ testing.TB, hub *bridge.Hub) Endpoint {
						e = newMemory(hub, tt.flaw)
						return e.endpoint()
					})
				})
				close(e.never)
				if r.Failed() && strings.Contains(r.log, tt.says) {
					return
				}
			}
			t.Errorf("%q says\n%s\nwant %q", tt.check, r.log, tt.says)
		})
	}
}

// attempt runs a test that may fail without failing the one around it.
func attempt(test func(testing.TB)) *attempted {
	r := new(attempted)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			for i := len(r.cleanups) - 1; i >= 0; i-- {
				r.cleanups[i]()
			}
		}()
		test(r)
	}()
	<-done
	return r
}

// attempted is the part of a testing.TB that the suite uses.
type attempted struct {
	testing.TB
	mu       sync.Mutex
	failed   bool
	log      string
	cleanups []func()
}

func (r *attempted) Helper() {}

func (r *attempted) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

func (r *attempted) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.failed
}

func (r *attempted) note(failed bool, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = r.failed || failed
	if len(r.log) < 1000 {
		r.log += strings.SplitN(text, "\n", 2)[0] + "\n"
	}
}

func (r *attempted) Log(args ...any)                 { r.note(false, fmt.Sprint(args...)) }
func (r *attempted) Logf(format string, args ...any) { r.note(false, fmt.Sprintf(format, args...)) }
func (r *attempted) Error(args ...any)               { r.note(true, fmt.Sprint(args...)) }
func (r *attempted) Errorf(format string, args ...any) {
	r.note(true, fmt.Sprintf(format, args...))
}

func (r *attempted) Fatal(args ...any) {
	r.note(true, fmt.Sprint(args...))
	runtime.Goexit()
}

func (r *attempted) Fatalf(format string, args ...any) {
	r.note(true, fmt.Sprintf(format, args...))
	runtime.Goexit()
}
