// Package interop runs the real binary against the clients and brokers that people have: mosquitto_pub and mosquitto_sub,
// paho-mqtt for Python, MQTT.js, a Mosquitto as a bridge, and the commands pub and sub. No test sleeps: each waits
// for what a program prints, and a last message shows that nothing else is under way.
package interop

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// binary is the program under test.
var binary string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "isthmus")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "isthmus")
	args := []string{"build", "-o", binary}
	if raceEnabled { // what the detector finds makes the exit code of the gateway another one
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "../..")...)
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "building the program under test:", err)
		return 1
	}
	// The tests compute little and wait for processes and timers much: more of them at a time than there are processors.
	flag.Parse()
	flag.Set("test.parallel", "8")
	code := m.Run()
	for wait := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > 2 && time.Now().Before(wait); {
		time.Sleep(10 * time.Millisecond)
	}
	if n := runtime.NumGoroutine(); code == 0 && n > 2 {
		stacks := make([]byte, 1<<20)
		fmt.Printf("%d goroutines are left:\n%s\n", n, stacks[:runtime.Stack(stacks, true)])
		code = 1
	}
	return code
}
