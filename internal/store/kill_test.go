package store

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/isthmus-iot/isthmus/bridge"
)

// killEnv has the test binary be the process that is killed: a directory and a durability.
const killEnv = "ISTHMUS_STORE_KILL"

// told prints the positions that are synced.
type told uint64

func (p told) Stored(*bridge.Batch) { fmt.Println("kept", uint64(p)) }

// TestKilledProcess is that process. It appends until it is killed.
func TestKilledProcess(t *testing.T) {
	dir, level, ok := strings.Cut(os.Getenv(killEnv), "\n")
	if !ok {
		t.Skip("part of TestKill")
	}
	d := bridge.Fsync
	if level == bridge.OS.String() {
		d = bridge.OS
	}
	s := opened(t, Config{Dir: dir, Durability: d, memoryTable: smallTable})
	s.SaveSession(1, nil)
	m := message("t", strings.Repeat("x", 200))
	for i := uint64(0); ; i++ {
		k := bridge.Kept{Position: i, Message: m}
		s.Await(s.Push(1, &k, &bridge.Body{Sole: true}, d), told(i))
		if err := s.WaitRoom(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestKill(t *testing.T) {
	for _, d := range []bridge.Durability{bridge.Fsync, bridge.OS} {
		t.Run(d.String(), func(t *testing.T) {
			dir := t.TempDir()
			cmd := exec.Command(os.Args[0], "-test.run=^TestKilledProcess$")
			cmd.Env = append(os.Environ(), killEnv+"="+dir+"\n"+d.String())
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			last := uint64(0)
			lines := bufio.NewScanner(out)
			for n := 0; lines.Scan(); {
				text, ok := strings.CutPrefix(lines.Text(), "kept ")
				position, err := strconv.ParseUint(text, 10, 64)
				if !ok || err != nil {
					continue
				}
				last = position
				if n++; n == 100 {
					if s, err := Open(Config{Dir: dir}); err == nil {
						s.Close()
						t.Error("opened while another process uses it")
					} else if !strings.Contains(err.Error(), "in use by another process") {
						t.Errorf("error %v", err)
					}
				}
				if n == 5000 {
					cmd.Process.Kill()
				}
			}
			cmd.Wait()
			if last == 0 {
				t.Fatal("the process has kept nothing")
			}
			_, list := loaded(t, Config{Dir: dir})
			if len(list) != 1 || list[0].Next <= last || uint64(list[0].Messages) != list[0].Next {
				t.Fatalf("%d was kept, there is %+v", last, list)
			}
			t.Logf("%d was kept, there is up to %d", last, list[0].Next-1)
		})
	}
}
