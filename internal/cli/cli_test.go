package cli

import (
	"errors"
	"flag"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

var update = flag.Bool("update", false, "write what commands print into the scripts of testdata")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"isthmus": func() { os.Exit(Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// TestScripts runs testdata/*.txtar: sessions on the command line and what they print.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "port": port, "ready": ready},
		Setup: func(e *testscript.Env) error {
			// Names of sockets have to be short; the working directory of a script is not.
			data, err := os.MkdirTemp("", "isthmus")
			if err != nil {
				return err
			}
			e.Defer(func() { os.RemoveAll(data) })
			e.Setenv("DATA", data)
			e.Setenv(configVariable, "")
			return nil
		},
	})
}

// exits runs a program that must end with an exit code: exits CODE PROGRAM ARGS...
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if want := args[0]; strconv.Itoa(code) != want {
		ts.Fatalf("exit code %d, want %s", code, want)
	}
}

// port finds a port that nobody listens on: port VARIABLE.
func port(ts *testscript.TestScript, _ bool, args []string) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	ts.Check(err)
	ts.Setenv(args[0], port)
}

// ready waits until a gateway answers healthcheck: ready ARGS...
func ready(ts *testscript.TestScript, _ bool, args []string) {
	deadline := time.Now().Add(20 * time.Second)
	for ts.Exec("isthmus", append([]string{"healthcheck"}, args...)...) != nil {
		if time.Now().After(deadline) {
			ts.Fatalf("no gateway is ready")
		}
		time.Sleep(20 * time.Millisecond)
	}
}
