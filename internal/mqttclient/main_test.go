package mqttclient

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"
)

// TestMain fails when a goroutine is left after the tests.
func TestMain(m *testing.M) {
	code := m.Run()
	for wait := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > 2 && time.Now().Before(wait); {
		time.Sleep(10 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); code == 0 && n > 2 {
		stacks := make([]byte, 1<<20)
		fmt.Printf("%d goroutines are left:\n%s\n", n, stacks[:runtime.Stack(stacks, true)])
		code = 1
	}
	os.Exit(code)
}
