package interop

import (
	"syscall"
	"testing"
)

func TestSIGTERMSaysGoodbyeToClients(t *testing.T) {
	t.Parallel()
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			g := serve(t, plain)
			m := g.as("", "", version)
			sub := m.sub(t, "-t", "x", "-q", "1")
			log := g.from()
			if code := g.end(t, syscall.SIGTERM); code != 0 {
				t.Errorf("exit code %d", code)
			}
			log.contains(t, `"msg":"stopped"`)
			if m.v5() {
				sub.contains(t, "Received DISCONNECT (139)") // server shutting down
			}
			if _, code := m.try(t, "-t", "x", "-m", "x"); code == 0 {
				t.Error("a gateway that has ended takes messages")
			}
		})
	}
}
