package crash

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

var (
	killsFlag  = flag.Int("crash.kills", -1, "how often the broker is killed; default 10, with -short 3")
	seedFlag   = flag.Uint64("crash.seed", 0, "seed of the plan; default: another one each time")
	keepFlag   = flag.Bool("crash.keep", false, "keep the data directory and the log of a run that failed")
	binaryFlag = flag.String("crash.binary", "", "program under test; default: it is built from this tree")
	eventsFlag = flag.String("crash.events", "", "file for all events of a run that failed")
)

// patience is how long something that must happen may take on a busy machine.
const patience = 60 * time.Second

// binary is the program under test.
var binary string

func TestMain(m *testing.M) {
	if plan := os.Getenv(envFaults); plan != "" {
		os.Exit(beFaultyBroker(plan))
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	flag.Parse()
	dir, err := os.MkdirTemp("", "isthmus")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if binary = *binaryFlag; binary == "" {
		binary = filepath.Join(dir, "isthmus")
		args := []string{"build", "-o", binary}
		if raceEnabled {
			args = append(args, "-race")
		}
		build := exec.Command("go", append(args, "../..")...)
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "building the program under test:", err)
			return 1
		}
	}
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
