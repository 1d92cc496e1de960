package raw

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Mosquitto starts a mosquitto as a peer on a free loopback port and returns its address; it ends with the test. Lines are
// added to its configuration, behind "listener", so that they may be options of the listener; anonymous clients are let in
// unless a line begins with allow_anonymous. The test is skipped where mosquitto is not installed.
func Mosquitto(t testing.TB, lines ...string) (addr string) {
	t.Helper()
	program, err := exec.LookPath("mosquitto")
	if err != nil {
		t.Skip("needs mosquitto")
	}
	dir := t.TempDir()
	// Mosquitto cannot pick a port and another process may take ours between asking and using, so a few are tried.
	for range 5 {
		addr = freeAddr(t)
		_, port, _ := net.SplitHostPort(addr)
		config := []string{"listener " + port + " 127.0.0.1"}
		config = append(config, lines...)
		if !strings.Contains("\n"+strings.Join(lines, "\n"), "\nallow_anonymous") {
			config = append(config, "allow_anonymous true")
		}
		if os.Geteuid() == 0 {
			config = append(config, "user root") // it would become another user, who may not read the test's files
		}
		file := filepath.Join(dir, "mosquitto.conf")
		if err := os.WriteFile(file, []byte(strings.Join(config, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		var output strings.Builder
		cmd := exec.Command(program, "-c", file)
		cmd.Stdout, cmd.Stderr = &output, &output
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() { cmd.Wait(); close(ended) }()
		if answers(addr, ended) {
			t.Cleanup(func() { cmd.Process.Kill(); <-ended })
			return addr
		}
		cmd.Process.Kill()
		<-ended
		t.Logf("raw: mosquitto did not start on %s: %s", addr, output.String())
	}
	t.Fatal("raw: mosquitto does not start")
	return ""
}

func freeAddr(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// answers polls until addr accepts connections; it gives up when the process has ended.
func answers(addr string, ended <-chan struct{}) bool {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		nc, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			nc.Close()
			return true
		}
		select {
		case <-ended:
			return false
		case <-time.After(5 * time.Millisecond):
		}
	}
	return false
}
